"""Asking a trained story model one question at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from relational_rnn._check import check_positive
from relational_rnn.tasks.babi.batching import Batch
from relational_rnn.tasks.babi.encoding import Vocabulary
from relational_rnn.tasks.babi.model import StoryModel


class StoryReader:
    """A trained model as a callable from statements and a question to the probability of every answer.

    Args:
        model: the model; it is put into evaluation mode.
        vocabulary: the one that the model was trained with.
        max_sentences: None reads the whole story; a number only the last so many statements, as a run does that was
            trained so.

    Example:
        >>> from relational_rnn.nn.cores import MemorySizes
        >>> from relational_rnn.tasks.babi.encoding import BABI
        >>> read = StoryReader(StoryModel.build(BABI, "lstm", MemorySizes()), BABI)
        >>> answers = read(["Mary went to the garden."], "Where is Mary?")
        >>> len(answers), round(sum(answers.values()), 4)
        (60, 1.0)
    """

    def __init__(self, model: StoryModel, vocabulary: Vocabulary, *, max_sentences: int | None = None) -> None:
        if max_sentences is not None:
            check_positive("StoryReader", max_sentences=max_sentences)
        self.model = model.eval()
        self.vocabulary = vocabulary
        self.max_sentences = max_sentences
        self._device = next(model.parameters()).device

    def __call__(self, statements: Sequence[str], question: str) -> Mapping[str, float]:
        """Probability of every answer the model knows; an empty story is answered from the memory's start.

        Raises:
            InputError: a word is unknown (the message names it and words like it), or a sentence is too long.
        """
        if self.max_sentences is not None:
            statements = statements[-self.max_sentences :]
        rows = [self.vocabulary.encode(text, where="the story") for text in statements]
        asked = self.vocabulary.encode(question, where="the question")
        # An empty story is one step of padding that the question does not see.
        words = torch.zeros(1, max(1, len(rows)), max(map(len, rows), default=1), dtype=torch.int64)
        for step, row in enumerate(rows):
            words[0, step, : len(row)] = torch.tensor(row)
        nothing = torch.zeros(1, dtype=torch.int64)
        length = torch.tensor([len(rows)])
        batch = Batch(
            statements=words,
            lengths=length,
            questions=torch.tensor([asked]),
            story=nothing,
            at=length,
            answers=nothing,
            tasks=nothing,
        )
        with torch.inference_mode():
            probabilities = self.model(batch.to(self._device)).softmax(-1)[0].double().tolist()
        return dict(zip(self.vocabulary.answers, probabilities, strict=True))
