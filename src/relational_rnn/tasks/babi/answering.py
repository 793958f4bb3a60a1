"""Asking a trained story model one question at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from relational_rnn._check import check_positive
from relational_rnn.runs import LoadedRun
from relational_rnn.tasks.babi.batching import Batch
from relational_rnn.tasks.babi.encoding import Vocabulary
from relational_rnn.tasks.babi.model import StoryModel
from relational_rnn.tasks.babi.recipes import BabiRun

READ_TOGETHER = 64
"""Stories in one batch: enough that a step costs little more than it does for one, and few enough for any memory."""


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
        return self.together([statements], question)[0]

    def together(self, stories: Sequence[Sequence[str]], question: str) -> list[Mapping[str, float]]:
        """The same for several stories and one question, read side by side, `READ_TOGETHER` at a time.

        Raises:
            InputError: as a call does.
        """
        answers = self.vocabulary.answers
        found: list[Mapping[str, float]] = []
        for first in range(0, len(stories), READ_TOGETHER):
            with torch.inference_mode():
                logits = self.model(self.batch(stories[first : first + READ_TOGETHER], question))
                rows = logits.softmax(-1).double().tolist()
            found += [dict(zip(answers, row, strict=True)) for row in rows]
        return found

    def batch(self, stories: Sequence[Sequence[str]], question: str | Sequence[str]) -> Batch:
        """The stories, each with the question (or its own of several) after its last sentence, on the model's device.

        Raises:
            InputError: as a call does.
        """
        if self.max_sentences is not None:
            stories = [statements[-self.max_sentences :] for statements in stories]
        texts = list(dict.fromkeys(text for statements in stories for text in statements))
        rows = [self.vocabulary.encode(text, where="the story") for text in texts]
        asked = [question] * len(stories) if isinstance(question, str) else question
        codes = [torch.tensor(self.vocabulary.encode(text, where="the question")) for text in asked]
        table = torch.zeros(1 + len(rows), max(map(len, rows), default=1), dtype=torch.int64)  # row 0 is padding
        for i, row in enumerate(rows, start=1):
            table[i, : len(row)] = torch.tensor(row)
        place = {text: i for i, text in enumerate(texts, start=1)}
        steps = max(1, *map(len, stories))  # an empty story is one step of padding that the question does not see
        told = [[place[text] for text in statements] + [0] * (steps - len(statements)) for statements in stories]
        lengths = torch.tensor([len(statements) for statements in stories])
        batch = Batch(
            statements=table[torch.tensor(told)],
            lengths=lengths,
            questions=pad_sequence(codes, batch_first=True),
            story=torch.arange(len(stories)),
            at=lengths,
            answers=torch.zeros_like(lengths),
            tasks=torch.zeros_like(lengths),
        )
        return batch.to(self._device)


def reader_of(run: LoadedRun[BabiRun]) -> StoryReader:
    """The model of a run, reading as many sentences as it was trained with."""
    return StoryReader(run.model, run.vocabulary, max_sentences=run.config.data.max_sentences)
