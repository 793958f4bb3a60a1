"""The questions and sequences of a test set that a model does worst on."""

# Shape legend: B sequences of a batch, C answer classes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from relational_rnn._check import check_positive
from relational_rnn.inspection.answering import StoryReader
from relational_rnn.tasks.babi.batching import EncodedStories
from relational_rnn.tasks.babi.story import Question, Story
from relational_rnn.tasks.contract import TaskBatch
from relational_rnn.tasks.model import TaskModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A question of a set, and what a model made of it."""

    number: int
    """Its place among all questions of the set, from 1; `relational-rnn inspect --example` takes it."""
    statements: tuple[str, ...]
    """The story up to the question."""
    question: Question
    answer: str
    """What the model answers."""
    right_probability: float
    """Of the right answer; 0 where the model does not know that answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredSequence:
    """A sequence of a test set whose answer comes at the end, and what a model made of it."""

    batch: int
    """The number of its batch, from 0."""
    row: int
    """Its place in that batch, from 0."""
    group: int
    """The number of its group."""
    answer: int
    """The class that the model answers with."""
    right: int
    right_probability: float
    """Of the right class."""


def worst_questions(reader: StoryReader, stories: Sequence[Story], count: int) -> list[Answered]:
    """The `count` questions whose right answer is the least probable, the worst first.

    Raises:
        InputError: a count below 1, an unknown word, no stories.
    """
    check_positive("worst_questions", count=count)
    encoded = EncodedStories(stories, reader.vocabulary, name="the stories", max_sentences=reader.max_sentences)
    device = next(reader.model.parameters()).device
    answered: list[tuple[float, str]] = []
    for first in range(0, len(encoded), 64):
        batch = encoded.batch(range(first, min(first + 64, len(encoded)))).to(device)
        with torch.inference_mode():
            chances = reader.model(batch).softmax(-1)
        known = torch.nn.functional.pad(chances, (0, 1))  # the class after the last stands for unknown answers
        right = known.gather(1, batch.answers[:, None]).squeeze(1).tolist()
        given = [reader.vocabulary.answers[i] for i in chances.argmax(-1).tolist()]
        answered += zip(right, given, strict=True)
    asked = [(story, question) for story in stories for question in story.questions]
    order = sorted(range(len(asked)), key=lambda i: answered[i][0])[:count]
    return [
        Answered(
            number=i + 1,
            statements=asked[i][0].statements[: asked[i][1].at],
            question=asked[i][1],
            answer=answered[i][1],
            right_probability=answered[i][0],
        )
        for i in order
    ]


def worst_sequences(model: TaskModel, batches: Sequence[TaskBatch], count: int) -> list[AnsweredSequence]:
    """The `count` sequences of every group whose right answer is the least probable; groups in order, the worst first.

    Args:
        model: answers after the last step; it is put into evaluation mode.
        batches: the set.
        count: of each group.

    Raises:
        InputError: a count below 1.
    """
    check_positive("worst_sequences", count=count)
    model.eval()
    found: dict[int, list[AnsweredSequence]] = {}
    for number, batch in enumerate(batches):
        with torch.inference_mode():
            chances = model(batch).softmax(-1)  # [B, C], as every sequence is asked once
        right = chances.gather(1, batch.targets).squeeze(1).tolist()
        rows = zip(batch.groups.tolist(), chances.argmax(-1).tolist(), batch.targets[:, 0].tolist(), right, strict=True)
        for row, (group, answer, wanted, chance) in enumerate(rows):
            answered = AnsweredSequence(
                batch=number, row=row, group=group, answer=answer, right=wanted, right_probability=chance
            )
            found.setdefault(group, []).append(answered)
    return [
        answered
        for group in sorted(found)
        for answered in sorted(found[group], key=lambda answered: answered.right_probability)[:count]
    ]
