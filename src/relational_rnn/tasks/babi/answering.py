"""Asking a trained story model, and which sentences an answer rests on, by leaving each of them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from relational_rnn._check import InputError, check_positive, describe
from relational_rnn.runs import LoadedRun
from relational_rnn.tasks.babi.batching import Batch
from relational_rnn.tasks.babi.encoding import Vocabulary
from relational_rnn.tasks.babi.model import StoryModel
from relational_rnn.tasks.babi.recipes import BabiRun

AnswerTogether = Callable[[Sequence[Sequence[str]], str], Sequence[Mapping[str, float]]]
"""From several stories and one question to the probability of every answer, for each story."""
READ_TOGETHER = 64
"""Stories in one batch."""


class StoryReader:
    """A trained model as a callable from statements and a question to the probability of every answer.

    Args:
        model: it is put into evaluation mode.
        vocabulary: the model's.
        max_sentences: read only the last so many statements; None for all.

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
            InputError: a word is unknown, or a sentence is too long.
        """
        return self.together([statements], question)[0]

    def together(self, stories: Sequence[Sequence[str]], question: str) -> list[Mapping[str, float]]:
        """The same for several stories and one question, read side by side."""
        answers = self.vocabulary.answers
        found: list[Mapping[str, float]] = []
        for first in range(0, len(stories), READ_TOGETHER):
            with torch.inference_mode():
                logits = self.model(self.batch(stories[first : first + READ_TOGETHER], question))
                rows = logits.softmax(-1).double().tolist()
            found += [dict(zip(answers, row, strict=True)) for row in rows]
        return found

    def batch(self, stories: Sequence[Sequence[str]], question: str | Sequence[str]) -> Batch:
        """The stories, each with the question (or its own of several) after its last sentence."""
        if self.max_sentences is not None:
            stories = [statements[-self.max_sentences :] for statements in stories]
        texts = list(dict.fromkeys(text for statements in stories for text in statements))
        rows = [torch.tensor(self.vocabulary.encode(text, where="the story")) for text in texts]
        asked = [question] * len(stories) if isinstance(question, str) else question
        codes = [torch.tensor(self.vocabulary.encode(text, where="the question")) for text in asked]
        table = pad_sequence([torch.zeros(1, dtype=torch.int64), *rows], batch_first=True)  # row 0 is padding
        place = {text: i for i, text in enumerate(texts, start=1)}
        # an empty story is one step of padding that the question does not see
        told = [torch.tensor([place[text] for text in statements] or [0]) for statements in stories]
        lengths = torch.tensor([len(statements) for statements in stories])
        batch = Batch(
            statements=table[pad_sequence(told, batch_first=True)],
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What changes when one sentence is left out."""

    index: int
    """Its place in the story, from 0."""
    sentence: str
    drop: float
    """The probability of the full story's answer minus that without the sentence."""
    answer_without: str
    """The most probable answer without it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Influence:
    """An answer, its runner-up, and the effect of every sentence, in story order."""

    answer: str
    probability: float
    runner_up: str | None
    """The second most probable answer; None if there is only one."""
    runner_up_probability: float
    effects: tuple[Effect, ...]

    def strongest(self, least: float = 0.0) -> list[Effect]:
        """Sentences whose absence moves the answer's probability by at least `least`, the largest drop first; drops
        that are equal to a tenth of a point stand in the order of the story."""
        kept = [effect for effect in self.effects if abs(effect.drop) >= least]
        return sorted(kept, key=lambda effect: (-round(effect.drop, 3), effect.index))


def rank(probabilities: Mapping[str, float]) -> list[tuple[str, float]]:
    """Answers with their probabilities, the most probable first; ties in alphabetical order.

    >>> rank({"hallway": 0.25, "kitchen": 0.5, "garden": 0.25})
    [('kitchen', 0.5), ('garden', 0.25), ('hallway', 0.25)]
    """
    return sorted(probabilities.items(), key=lambda pair: (-pair[1], pair[0]))


def influence(answer: AnswerTogether, statements: Sequence[str], question: str) -> Influence:
    """Answer a question, and answer it again with each sentence left out.

    The drop of a sentence is p(a | all sentences) - p(a | all others), with a the most probable answer to the story.

    Args:
        answer: called once, with the story and all these shorter ones (`StoryReader.together`).
        statements: the story, at least one sentence.
        question: the question.

    Raises:
        InputError: the story is empty, or there is no answer at all.

    Example:
        >>> def where(stories, question):
        ...     return [{"kitchen": 0.9} if "Mary is in the kitchen." in told else {"garden": 1.0} for told in stories]
        >>> found = influence(where, ["Mary is in the kitchen.", "John is in the garden."], "Where is Mary?")
        >>> found.answer, [effect.drop for effect in found.effects]
        ('kitchen', [0.9, 0.0])
    """
    if not statements:
        problem, hint = "a question needs a story before it", "give at least one statement first"
        raise InputError(describe("influence", problem, got=repr(question), hint=hint))
    shorter = [[*statements[:index], *statements[index + 1 :]] for index in range(len(statements))]
    whole, *without = answer([statements, *shorter], question)
    if not all([whole, *without]):
        raise InputError(describe("influence", "no answer has a probability", got="an empty mapping"))
    (best, probability), (runner_up, next_probability) = [*rank(whole), (None, 0.0)][:2]
    effects = [
        Effect(index=i, sentence=sentence, drop=probability - left.get(best, 0.0), answer_without=rank(left)[0][0])
        for i, (sentence, left) in enumerate(zip(statements, without, strict=True))
    ]
    return Influence(
        answer=best,
        probability=probability,
        runner_up=runner_up,
        runner_up_probability=next_probability,
        effects=tuple(effects),
    )
