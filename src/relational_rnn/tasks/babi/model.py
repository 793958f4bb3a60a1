"""The model of a bAbI story: one sentence encoder and one answer head around any recurrent core.

Shape legend: B stories, T statements, W words of a sentence, M questions, E embedding size, H head size, A answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_choice, check_positive, describe, is_number
from relational_rnn.nn.core import Core, State
from relational_rnn.nn.cores import CORE_NAMES, FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.nn.initial_weights import draw_truncated_normal
from relational_rnn.nn.matching import build_matched
from relational_rnn.nn.readers import StateReader
from relational_rnn.tasks.babi.batching import Batch
from relational_rnn.tasks.babi.encoding import Vocabulary
from relational_rnn.tasks.babi.sentences import SentenceEncoder


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Sizes of everything around the core, the same for every core."""

    embedding_size: int = 128
    """Features of a word and of a sentence, E."""
    read_hops: int = 3
    """Times that the question looks at the state."""
    read_heads: int = 4
    """Heads of each look at rows of a state; they divide head_size. Matrices are looked at with heads of their own."""
    head_size: int = 128
    """Features of the answer head, H."""
    head_layers: int = 1
    """Hidden layers between the head's features and the answers."""
    dropout: float = 0.0
    """Share of sentence and head features that training leaves out."""

    def __post_init__(self) -> None:
        check_positive(
            "ModelConfig",
            embedding_size=self.embedding_size,
            read_hops=self.read_hops,
            read_heads=self.read_heads,
            head_size=self.head_size,
        )
        layers = self.head_layers
        if isinstance(layers, bool) or not isinstance(layers, int) or layers < 0:
            problem = "head_layers must be a whole number of at least 0"
            raise InputError(describe("ModelConfig", problem, got=repr(layers)))
        if self.head_size % self.read_heads:
            raise InputError(
                describe("ModelConfig", "read_heads must divide head_size", got=f"{self.read_heads}, {self.head_size}")
            )
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise InputError(describe("ModelConfig", "dropout must be in [0, 1)", got=repr(self.dropout)))


class AnswerHead(nn.Module):
    """From a question and the state of a core to one logit per answer.

    u = LN(W q); then for every look u <- LN(u + what u finds in the state) and u <- LN(u + MLP(u)). What a look reads
    is added to the query of the next. The logits are an MLP of u, plus a linear map of the sum of what the looks have
    read, each under a layer norm: an answer that stands in the state need not be worked out (TPR-RNN: Schlag and
    Schmidhuber, 2018, arXiv 1811.12143).

    Args:
        config: sizes.
        reader: how a question looks at the state, `config.read_hops` times.
        answers: how many answers there are, A.
    """

    def __init__(self, config: ModelConfig, reader: StateReader, answers: int) -> None:
        super().__init__()
        size, looks = config.head_size, range(config.read_hops)
        self.question = nn.Linear(config.embedding_size, size)
        self.norm = nn.LayerNorm(size)
        self.reader = reader
        self.look_norms = nn.ModuleList(nn.LayerNorm(size) for _ in looks)
        self.mlps = nn.ModuleList(nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size)) for _ in looks)
        self.mlp_norms = nn.ModuleList(nn.LayerNorm(size) for _ in looks)
        hidden: list[nn.Module] = []
        for _ in range(config.head_layers):
            hidden += [nn.Linear(size, size), nn.ReLU(), nn.Dropout(config.dropout)]
        self.answers = nn.Sequential(*hidden, nn.Linear(size, answers))
        self.read_norms = nn.ModuleList(nn.LayerNorm(reader.values_size) for _ in looks)
        self.read_answers = nn.Linear(reader.values_size, answers, bias=False)
        # with PyTorch's smaller weights slots begin to compete some hundred updates later
        draw_truncated_normal(self)

    def forward(self, question: Tensor, state: State) -> Tensor:
        """question [M, E] and a state of M rows to logits [M, A]."""
        return self.looks(question, state)[0]

    def looks(self, question: Tensor, state: State) -> tuple[Tensor, list[Tensor]]:
        """The logits [M, A], and where each look went (`Look.where`)."""
        opened, seen, read, values = self.reader.open(state), [], [], None
        u = self.norm(self.question(question))
        parts = zip(self.look_norms, self.mlps, self.mlp_norms, self.read_norms, strict=True)
        for i, (norm, mlp, mlp_norm, read_norm) in enumerate(parts):
            found, values, where = self.reader.look(i, u, opened, values)
            u = norm(u + found)
            u = mlp_norm(u + mlp(u))
            read.append(read_norm(values))
            seen.append(where)
        return self.answers(u) + self.read_answers(torch.stack(read).sum(0)), seen


class StoryModel(nn.Module):
    """Answers all questions of a batch of stories in one pass over each.

    The core steps over the sentences once, and no question is known while it reads. A question is answered from a copy
    of the state at its point in the story, so it is never part of what later sentences and questions see.

    Args:
        words: how many words there are, padding not counted.
        answers: how many answer classes there are, A.
        core: any core whose input size is the configuration's `embedding_size`.
        config: sizes of everything around the core.
        max_words: the longest sentence, in words.

    Example:
        >>> from relational_rnn.tasks.babi.batching import EncodedStories
        >>> from relational_rnn.tasks.babi.encoding import BABI
        >>> from relational_rnn.tasks.babi.story import Question, Story
        >>> model = StoryModel.build(BABI, "lstm", MemorySizes())
        >>> story = Story(1, ("Mary went to the garden.",), (Question("Where is Mary?", "garden", (0,), 1),))
        >>> model(EncodedStories([story], BABI).batch([0])).shape
        torch.Size([1, 60])
    """

    def __init__(self, words: int, answers: int, core: Core, config: ModelConfig, *, max_words: int) -> None:
        check_positive("StoryModel", words=words, answers=answers, max_words=max_words)
        if core.input_size != config.embedding_size:
            problem = "the core's input size is not the embedding size"
            raise InputError(describe("StoryModel", problem, got=core.input_size, expected=config.embedding_size))
        super().__init__()
        self.config = config
        self.encoder = SentenceEncoder(words, max_words, config.embedding_size)
        self.core = core
        self.head = AnswerHead(config, core.reader(config.head_size, config.read_hops, config.read_heads), answers)
        self.dropout = nn.Dropout(config.dropout)

    @classmethod
    def build(
        cls,
        vocabulary: Vocabulary,
        core_name: str,
        sizes: MemorySizes,
        config: ModelConfig | None = None,
        *,
        rivals: RivalSizes | None = None,
        fast: FastWeightSizes | None = None,
    ) -> StoryModel:
        """The model for one vocabulary with the core of that name.

        The relational memory has the given sizes. A rival gets the size with which the whole model has nearly as many
        parameters as the relational memory's whole model.

        Raises:
            InputError: an unknown core, or no size of it comes within 10 %.
        """
        config = config or ModelConfig()

        def wrap(core: Core) -> StoryModel:
            words, answers = len(vocabulary.words), len(vocabulary.answers)
            return cls(words, answers, core, config, max_words=vocabulary.max_words)

        check_choice("StoryModel.build", "core_name", core_name, CORE_NAMES)
        return wrap(build_matched(core_name, sizes, config.embedding_size, wrap, rivals=rivals, fast=fast))

    def forward(self, batch: Batch) -> Tensor:
        """The logits [M, A] of every question of the batch."""
        sentences, questions = self.encoder.statements(batch.statements), self.encoder.questions(batch.questions)
        return self.answer(batch, self.dropout(sentences), self.dropout(questions))

    def answer(self, batch: Batch, sentences: Tensor, questions: Tensor) -> Tensor:
        """The logits [M, A] of the questions of a batch, given the vectors of its sentences [B, T, E] and questions
        [M, E]."""
        return self.head(questions, self.core.snapshots(sentences, batch.story, batch.at))
