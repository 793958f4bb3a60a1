"""The model of a bAbI story: one sentence encoder and one answer head around any recurrent core.

Shape legend: B stories, T statements, W words of a sentence, M questions, E embedding size, H head size, R rows of a
state, D features of a row, A answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.nn.core import Core, State
from relational_rnn.nn.cores import CORE_NAMES, FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.nn.matching import build_matched
from relational_rnn.tasks.babi.batching import Batch
from relational_rnn.tasks.babi.encoding import Vocabulary
from relational_rnn.tasks.babi.sentences import LinkedWords, RecalledWords, SentenceEncoder, WordMatches


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Sizes of everything around the core, the same for every core."""

    embedding_size: int = 128
    """Features of a word and of a sentence, E."""
    question_first: bool = False
    """Read the story again for each question, its sentences scaled by what is asked; otherwise once for all questions,
    none of them known."""
    reads: int = 1
    """With question_first: times that the core reads the story before it answers; each reading goes on from the state
    that the one before left, and knows which it is."""
    match_words: bool = False
    """With question_first: tell the core which words of a sentence are words of the question."""
    linked_words: int = 0
    """With question_first: tell the core how far the words of a sentence are from the question's, up to so many steps
    from sentence to sentence."""
    recalled_words: int = 0
    """With reads: looks that each reading but the first takes for words that the ones before it brought up."""
    question_steps: int = 0
    """Further steps of the core at a question, with the question as input, on a copy of the state."""
    read_hops: int = 3
    """Times that the question looks at the rows of the state; 0 answers from the core's output alone."""
    read_heads: int = 4
    """Heads of each look; they divide head_size."""
    head_size: int = 128
    """Features of the answer head, H."""
    head_layers: int = 1
    """Hidden layers between the head's features and the answers."""
    dropout: float = 0.0
    """Share of sentence and head features that training leaves out."""

    def __post_init__(self) -> None:
        check_positive(
            "ModelConfig", embedding_size=self.embedding_size, read_heads=self.read_heads, head_size=self.head_size
        )
        for name in ("question_first", "match_words"):
            if not isinstance(getattr(self, name), bool):
                problem = f"{name} must be True or False"
                raise InputError(describe("ModelConfig", problem, got=repr(getattr(self, name))))
        check_positive("ModelConfig", reads=self.reads)
        if self.reads > 1 and not self.question_first:
            problem = "only with question_first can a story be read more than once"
            hint = "set question_first, or leave reads at 1"
            raise InputError(describe("ModelConfig", problem, got=f"reads = {self.reads}", hint=hint))
        if self.match_words and not self.question_first:
            problem = "match_words compares sentences with a question that is known while they are read"
            hint = "set question_first, or leave match_words off"
            raise InputError(describe("ModelConfig", problem, got="question_first = False", hint=hint))
        for name in ("linked_words", "recalled_words", "question_steps", "read_hops", "head_layers"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(
                    describe("ModelConfig", f"{name} must be a whole number of at least 0", got=repr(value))
                )
        if self.linked_words and not self.question_first:
            problem = "linked_words are counted from a question that is known while the sentences are read"
            hint = "set question_first, or leave linked_words at 0"
            raise InputError(describe("ModelConfig", problem, got="question_first = False", hint=hint))
        if self.question_steps == self.read_hops == 0:
            raise InputError(
                describe("ModelConfig", "question_steps and read_hops are both 0: nothing reads the core's state")
            )
        if self.recalled_words and (self.reads < 2 or not self.read_hops):
            problem = "recalled_words are found by looking at the state (read_hops) between two readings (reads)"
            got = f"reads = {self.reads}, read_hops = {self.read_hops}"
            raise InputError(describe("ModelConfig", problem, got=got, expected="at least 2 reads and 1 hop"))
        if self.head_size % self.read_heads:
            raise InputError(
                describe("ModelConfig", "read_heads must divide head_size", got=f"{self.read_heads}, {self.head_size}")
            )
        if not 0 <= self.dropout < 1:
            raise InputError(describe("ModelConfig", "dropout must be in [0, 1)", got=self.dropout))


class AnswerHead(nn.Module):
    """From a question, the core's output and the rows of its state to one logit per answer.

    u = question W_q + output W_y; then per hop u <- LN(u + attention of u over the rows); then an MLP.

    Args:
        config: sizes.
        output_size: features of the core's output, O; used where `question_steps` is not 0.
        row_size: features of a row of the state, D; used where `read_hops` is not 0.
        answers: how many answers there are, A.
    """

    def __init__(self, config: ModelConfig, output_size: int, row_size: int, answers: int) -> None:
        super().__init__()
        size = config.head_size
        self.heads = config.read_heads
        self.question = nn.Linear(config.embedding_size, size)
        self.output = nn.Linear(output_size, size) if config.question_steps else None
        self.norm = nn.LayerNorm(size)
        hops = range(config.read_hops)
        self.keys_values = nn.Linear(row_size, 2 * size) if config.read_hops else None
        self.queries = nn.ModuleList(nn.Linear(size, size) for _ in hops)
        self.reads = nn.ModuleList(nn.Linear(size, size) for _ in hops)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in hops)
        hidden: list[nn.Module] = []
        for _ in range(config.head_layers):
            hidden += [nn.Linear(size, size), nn.ReLU(), nn.Dropout(config.dropout)]
        self.answers = nn.Sequential(*hidden, nn.Linear(size, answers))

    def forward(self, question: Tensor, output: Tensor | None, rows: Tensor | None, mask: Tensor | None) -> Tensor:
        """question [M, E], output [M, O], rows [M, R, D], mask [M, R] (None: every row exists) to logits [M, A]."""
        return self.answers(self.look(question, output, rows, mask))

    def look(self, question: Tensor, output: Tensor | None, rows: Tensor | None, mask: Tensor | None) -> Tensor:
        """What the question finds [M, H]; without an output, in the rows alone. Shapes as for a call."""
        u = self.question(question)
        if self.output is not None and output is not None:
            u = u + self.output(output)
        u = self.norm(u)
        if self.keys_values is not None:
            assert rows is not None
            keys, values = self.keys_values(rows).unflatten(-1, (2, self.heads, -1)).unbind(-3)
            for query, read, norm in zip(self.queries, self.reads, self.norms, strict=True):
                q = query(u).unflatten(-1, (self.heads, -1))
                scores = torch.einsum("mhk,mrhk->mhr", q, keys) / math.sqrt(q.shape[-1])
                if mask is not None:
                    scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
                weights = scores.softmax(-1)
                if mask is not None:  # a state without any row is read as 0
                    weights = weights * mask[:, None]
                u = norm(u + read(torch.einsum("mhr,mrhk->mhk", weights, values).flatten(-2)))
        return u


class StoryModel(nn.Module):
    """Answers all questions of a batch of stories in one pass over each.

    The core steps over the sentences. A question is answered from a copy of the state at its point in the story, so it
    is never part of what later sentences and questions see. With `question_first` the core reads the sentences before
    each question anew, every sentence x scaled to x (1 + W q): it can keep what the question needs, and the cost grows
    with the number of questions. With `reads` it reads them several times: what it learned at the end of the
    story helps it to see what mattered at the beginning. `match_words`, `linked_words` and `recalled_words` tell it
    where the words of the question, words that sentences link to it, and words that earlier readings brought up stand.

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
        self.head = AnswerHead(config, core.output_size, row_size(core), answers)
        self.scale = nn.Linear(config.embedding_size, config.embedding_size) if config.question_first else None
        # which reading it is, added to its sentences
        self.reading = nn.Embedding(config.reads, config.embedding_size) if config.reads > 1 else None
        if self.reading is not None:
            nn.init.normal_(self.reading.weight, std=1 / 8)
        self.matches = WordMatches(max_words, config.embedding_size) if config.match_words else None
        linked, size = config.linked_words, config.embedding_size
        self.linked = LinkedWords(words, linked, max_words, size) if linked else None
        self.recalls = nn.ModuleList(
            RecalledWords(config.head_size, config.recalled_words, max_words, config.embedding_size)
            for _ in range(config.reads - 1 if config.recalled_words else 0)
        )
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
        return self._answer(batch, *self._vectors(batch))[0]

    def with_support_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The logits [M, A], and how far readings are from looking for the words of the supporting facts [M].

        The second reading should look for the words of the first supporting fact, the third for those of the second,
        and so on (`RecalledWords.target_losses`, summed over readings). 0 where the model recalls no words.
        """
        logits, found = self._answer(batch, *self._vectors(batch))
        losses = logits.new_zeros(len(batch.at))
        for recall, u, support in zip(self.recalls, found, batch.supports.T, strict=False):
            assert isinstance(recall, RecalledWords)
            words = batch.statements[batch.story, support.clamp(min=0)] * (support >= 0)[:, None]
            losses = losses + recall.target_losses(u, self.encoder.embedding, words)
        return logits, losses

    def answer(self, batch: Batch, sentences: Tensor, questions: Tensor) -> Tensor:
        """The logits [M, A] of the questions of a batch, given the vectors of its sentences [B, T, E] and questions
        [M, E]."""
        return self._answer(batch, sentences, questions)[0]

    def _vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The vectors of the sentences [B, T, E] and questions [M, E] of a batch."""
        sentences, questions = self.encoder.statements(batch.statements), self.encoder.questions(batch.questions)
        return self.dropout(sentences), self.dropout(questions)

    def _answer(self, batch: Batch, sentences: Tensor, questions: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits [M, A], and what each question found before every reading but the first [M, H], where words are
        recalled."""
        seen: list[Tensor] = []
        if self.scale is None:
            state = self.core.snapshots(sentences, batch.story, batch.at)
        else:
            readings = list(self._readings(batch, sentences, questions))
            seen = [found for _, found, _ in readings if found is not None]
            state = readings[-1][2]
        output = None
        for _ in range(self.config.question_steps):
            output, state = self.core.step(questions, state)
        rows, mask = self.core.rows(state) if self.config.read_hops else (None, None)
        return self.head(questions, output, rows, mask), seen

    def asked(self, batch: Batch, sentences: Tensor, questions: Tensor) -> Tensor:
        """What the core reads before each question of a batch.

        The sentences before it as the question changes them, all readings one after the other [M, reads * T, E], in
        each row up to step `reads * at`; or just the sentences [B, T, E], where the core does not know the question.
        """
        if self.scale is None:
            return sentences
        read = torch.cat([x for x, _, _ in self._readings(batch, sentences, questions)], 1)
        steps, length = torch.arange(read.shape[1], device=read.device), batch.at.clamp(min=1)[:, None]
        reads = self.config.reads
        places = (steps // length).clamp(max=reads - 1) * (read.shape[1] // reads) + steps % length
        return read.gather(1, places.unsqueeze(2).expand(-1, -1, read.shape[2]))

    def recalled(self, batch: Batch, sentences: Tensor, questions: Tensor) -> list[Tensor]:
        """How strongly each reading but the first looks for every word of the sentences before the questions.

        One tensor [M, T, W] for each of those readings (`RecalledWords.strengths`); none where the model recalls no
        words.
        """
        words = batch.statements[batch.story, : int(batch.at.max())]
        found = [found for _, found, _ in self._readings(batch, sentences, questions) if found is not None]
        strengths = []
        for recall, u in zip(self.recalls, found, strict=True):
            assert isinstance(recall, RecalledWords)
            strengths.append(recall.strengths(u, self.encoder.embedding, words))
        return strengths

    def _readings(
        self, batch: Batch, sentences: Tensor, questions: Tensor
    ) -> Iterator[tuple[Tensor, Tensor | None, State]]:
        """Of every reading of the stories before the questions: what the core reads [M, T, E], what the question found
        in the state before it [M, H] (None where words are not recalled), and the state at the end."""
        assert self.scale is not None
        steps = int(batch.at.max())
        before = torch.arange(steps, device=batch.at.device) < batch.at[:, None]
        words = batch.statements[batch.story, :steps] * before[:, :, None]
        told = sentences[batch.story, :steps] * (1 + self.scale(questions))[:, None]
        if self.matches is not None:
            told = told + self.matches(words, batch.questions)
        if self.linked is not None:
            told = told + self.linked(words, batch.questions)
        state = None
        for reading in range(self.config.reads):
            x = told if self.reading is None else told + self.reading.weight[reading]
            found = None
            if state is not None and self.config.recalled_words:
                found = self.head.look(questions, None, *self.core.rows(state))
                x = x + self.recalls[reading - 1](found, self.encoder.embedding, words)
            _, state = self.core(x, state, lengths=batch.at)
            yield x, found, state


def row_size(core: Core) -> int:
    """Features of one row of the core's state, D."""
    with torch.no_grad():
        return core.rows(core.initial_state(1))[0].shape[-1]


def answer_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """Mean cross entropy over the questions [M] whose answer is one of the classes; 0 where there is none."""
    known = answers < logits.shape[-1]
    losses = F.cross_entropy(logits, answers.where(known, 0), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def count_correct(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """(right answers, questions) of each task, two int64 tensors [21] with the task's number as index.

    An answer outside the classes is never right.
    """
    right = (logits.argmax(-1) == batch.answers).long()
    return torch.bincount(batch.tasks, right, minlength=21).long(), torch.bincount(batch.tasks, minlength=21)
