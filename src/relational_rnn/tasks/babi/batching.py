"""Stories as padded batches: encoded once, bucketed by length, the same batch for the same step.

Shape legend: B stories of a batch, T statements of the longest, W words of the longest statement,
M questions, V words of the longest question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from relational_rnn._check import InputError, check_positive, describe
from relational_rnn.tasks.babi.encoding import Vocabulary
from relational_rnn.tasks.babi.passes import Passes, pack
from relational_rnn.tasks.babi.story import Question, Story


@dataclass(frozen=True, slots=True)
class Batch:
    """Stories and all their questions, as numbers; every field is a tensor of int64."""

    statements: Tensor
    """[B, T, W] word numbers, 0 = padding."""
    lengths: Tensor
    """[B] statements of each story."""
    questions: Tensor
    """[M, V] word numbers, 0 = padding."""
    story: Tensor
    """[M] the row of the batch that a question belongs to."""
    at: Tensor
    """[M] how many statements precede the question."""
    answers: Tensor
    """[M] the class of the answer; the number of classes stands for an answer that is none of them."""
    tasks: Tensor
    """[M] 1 to 20."""

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))

    def rows(self, rows: slice) -> Batch:
        """Some of the stories, and their questions."""
        kept = (self.story >= rows.start) & (self.story < rows.stop)
        questions, story, at, answers, tasks = (
            values[kept] for values in (self.questions, self.story, self.at, self.answers, self.tasks)
        )
        return Batch(self.statements[rows], self.lengths[rows], questions, story - rows.start, at, answers, tasks)


def cut_story(story: Story, max_sentences: int) -> list[Story]:
    """The story as pieces of at most `max_sentences` statements; each question still sees the last ones before it.

    Questions that lose nothing stay together in one piece; each of the others gets a piece of its own. Supporting facts
    that are cut off are dropped from the question.
    """
    if len(story.statements) <= max_sentences:
        return [story]
    pieces = []
    whole = tuple(question for question in story.questions if question.at <= max_sentences)
    if whole:
        pieces.append(replace(story, statements=story.statements[: whole[-1].at], questions=whole))
    for question in story.questions[len(whole) :]:
        first = question.at - max_sentences
        supports = tuple(support - first for support in question.supports if support >= first)
        moved = Question(question.text, question.answer, supports, max_sentences)
        pieces.append(replace(story, statements=story.statements[first : question.at], questions=(moved,)))
    return pieces


class EncodedStories:
    """Stories as arrays of numbers, from which any choice of them is quickly made into a batch.

    Args:
        stories: at least one, each with at least one statement and one question.
        vocabulary: knows every word; an answer may be outside its classes and is then listed in `report`.
        name: what the stories are called in messages, e.g. "test".
        max_sentences: None reads every statement; a number keeps the last so many before each question (`cut_story`),
            and `report` says how many questions lost something.

    Raises:
        InputError: no stories, an unknown word, a question asked before any statement.

    >>> story = Story(1, ("Mary went home.",), (Question("Where is Mary?", "home", (0,), 1),))
    >>> batch = EncodedStories([story], Vocabulary.build([story])).batch([0])
    >>> batch.statements.tolist(), batch.answers.tolist()
    ([[[3, 4, 1]]], [0])
    """

    def __init__(
        self,
        stories: Sequence[Story],
        vocabulary: Vocabulary,
        *,
        name: str = "stories",
        max_sentences: int | None = None,
    ) -> None:
        self.report: list[str] = []
        """One line for each thing a user should know: questions that lost sentences, answers that are no class."""
        if max_sentences is not None:
            check_positive("EncodedStories", max_sentences=max_sentences)
            stories = self._cut(stories, max_sentences, name)
        if not stories:
            raise InputError(describe(name, "there is no story"))
        sentences: dict[str, int] = {}

        def number(text: str, task: int) -> int:
            """The row of a text in the table of distinct sentences."""
            if text not in sentences:
                rows.append(vocabulary.encode(text, where=f"{name}, task {task}"))
            return sentences.setdefault(text, len(sentences))

        rows: list[list[int]] = []
        statements, questions, at, answers = [], [], [], []
        unseen: dict[tuple[int, str], int] = {}
        for story in stories:
            if not story.questions or story.questions[0].at < 1:
                problem = "a question before any statement" if story.questions else "a story without a question"
                got = story.questions[0].text if story.questions else " ".join(story.statements[:2])
                raise InputError(describe(f"{name}, task {story.task}", problem, got=repr(got)))
            statements.extend(number(text, story.task) for text in story.statements)
            for question in story.questions:
                questions.append(number(question.text, story.task))
                at.append(question.at)
                answer = vocabulary.answer_number(question.answer)
                if answer is None:
                    unseen[story.task, question.answer] = unseen.get((story.task, question.answer), 0) + 1
                    answer = len(vocabulary.answers)
                answers.append(answer)
        self.unseen_answers = unseen
        """(task, answer) -> how many questions have an answer outside the classes."""
        for (task, answer), count in unseen.items():
            noun = "question" if count == 1 else "questions"
            self.report.append(
                f"{name}, task {task}: {count} {noun} with the answer {answer!r}, which is not among the "
                f"{len(vocabulary.answers)} classes: counted as wrong"
            )
        # A bAbI set has a few thousand distinct sentences, so stories keep rows of one table.
        self._words = np.array([len(row) for row in rows], dtype=np.int64)
        self._table = np.zeros((len(rows), self._words.max()), dtype=np.int64)
        for row, values in zip(self._table, rows, strict=True):
            row[: len(values)] = values
        self.lengths = np.array([len(story.statements) for story in stories], dtype=np.int64)
        """[stories] statements of each story."""
        self.question_counts = np.array([len(story.questions) for story in stories], dtype=np.int64)
        """[stories] questions of each story."""
        self.tasks = np.array([story.task for story in stories], dtype=np.int64)
        """[stories] the task of each story."""
        self._statements = np.array(statements, dtype=np.int64)
        self._questions, self._at, self._answers = (np.array(v, dtype=np.int64) for v in (questions, at, answers))
        self._first_statement = np.cumsum(self.lengths) - self.lengths
        self._first_question = np.cumsum(self.question_counts) - self.question_counts

    def _cut(self, stories: Sequence[Story], max_sentences: int, name: str) -> list[Story]:
        """All pieces of all stories; reports what the questions of each task lose."""
        losses: dict[int, np.ndarray] = {}
        for story in stories:
            for question in story.questions:
                first = question.at - max_sentences
                lost = np.array([1, first > 0, any(support < first for support in question.supports)], dtype=np.int64)
                losses[story.task] = losses.get(story.task, 0) + lost
        for task, (total, sentences, facts) in sorted(losses.items()):
            if sentences:
                self.report.append(
                    f"{name}, task {task}: with at most {max_sentences} sentences, {sentences} of {total:,} questions "
                    f"lose early sentences, {facts} of them a supporting fact"
                )
        return [piece for story in stories for piece in cut_story(story, max_sentences)]

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, chosen: Sequence[int] | np.ndarray) -> Batch:
        """The stories with these numbers, and all their questions, padded to the longest."""
        chosen = np.asarray(chosen, dtype=np.int64)
        lengths = self.lengths[chosen]
        steps = np.arange(lengths.max(initial=0))
        inside = steps < lengths[:, None]
        sentence = self._statements[np.where(inside, self._first_statement[chosen, None] + steps, 0)]
        width = self._words[sentence].max(initial=1, where=inside)
        statements = self._table[sentence, :width]
        statements[~inside] = 0

        counts = self.question_counts[chosen]
        story = np.repeat(np.arange(len(chosen)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        question = self._first_question[chosen][story] + within
        text = self._questions[question]
        arrays = (
            statements,
            lengths,
            self._table[text, : self._words[text].max()],
            story,
            self._at[question],
            self._answers[question],
            self.tasks[chosen][story],
        )
        return Batch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))

    def batches(self, batch_questions: int = 128) -> Iterator[Batch]:
        """Every story once, sorted by length, in batches of about `batch_questions` questions."""
        check_positive("EncodedStories.batches", batch_questions=batch_questions)
        order = np.argsort(self.lengths, kind="stable")
        runs = max(1, round(int(self.question_counts.sum()) / batch_questions))
        for chosen in pack(order, self.question_counts[order], runs):
            yield self.batch(chosen)


def split_stories(stories: Sequence[Story], seed: int) -> tuple[list[Story], list[Story]]:
    """(training, validation) stories of one task: a tenth for validation, at least one, drawn with `seed`.

    Equal stories stay on one side, so that validation measures stories that were not trained on.

    Raises:
        InputError: there are not two different stories.
    """
    groups: dict[Story, list[int]] = {}
    for i, story in enumerate(stories):
        groups.setdefault(story, []).append(i)
    if len(groups) < 2:
        task = f"task {stories[0].task}" if stories else "a task"
        problem = "too few training stories to keep some for validation"
        raise InputError(describe(task, problem, got=f"{len(groups)} different", expected=">= 2"))
    members = list(groups.values())
    wanted = max(1, len(stories) // 10)
    held: set[int] = set()
    for group in np.random.default_rng([seed, stories[0].task]).permutation(len(members))[:-1]:
        if len(held) >= wanted:
            break
        held.update(members[group])
    train = [story for i, story in enumerate(stories) if i not in held]
    return train, [stories[i] for i in sorted(held)]


class BabiData:
    """Training, validation and test batches of one model for all given tasks.

    Training batches come from passes over all stories (`Passes`). A task with fewer questions than the largest is
    repeated, so that every task gets the same number of questions over time, but for rare ones.

    Args:
        train: stories of each task; may be empty for evaluation alone.
        test: stories of each task, or None.
        vocabulary: knows every word, and every answer of `train` and `valid`.
        valid: stories of each task; None keeps a tenth of the training stories (`split_stories`).
        batch_questions: about how many questions a batch has.
        seed: decides the validation stories and every batch.
        max_sentences: see `EncodedStories`.
        rare_tasks: tasks that have fewer questions in a pass than others.
        rare_share: how many they have, as a share of the others'.
        first_tasks: tasks that are learned before all others.
        first_steps: for how many steps.

    Raises:
        InputError: an unknown word, a training answer that is no class, a task without stories.
    """

    def __init__(
        self,
        train: Mapping[int, Sequence[Story]],
        test: Mapping[int, Sequence[Story]] | None,
        vocabulary: Vocabulary,
        *,
        valid: Mapping[int, Sequence[Story]] | None = None,
        batch_questions: int = 128,
        seed: int = 0,
        max_sentences: int | None = None,
        rare_tasks: Sequence[int] = (),
        rare_share: float = 1.0,
        first_tasks: Sequence[int] = (),
        first_steps: int = 0,
    ) -> None:
        check_positive("BabiData", batch_questions=batch_questions)
        self.vocabulary = vocabulary
        """Words and answer classes."""
        self.batch_questions = batch_questions
        """About how many questions a batch has."""
        self.seed = seed
        """Decides the validation stories and every batch."""
        if valid is None:
            parts = {task: split_stories(train[task], seed) for task in sorted(train)}
            train, valid = ({task: part[i] for task, part in parts.items()} for i in (0, 1))

        def encoded(name: str, stories: Mapping[int, Sequence[Story]] | None) -> EncodedStories | None:
            flat = [story for task in sorted(stories or ()) for story in (stories or {})[task]]
            return EncodedStories(flat, vocabulary, name=name, max_sentences=max_sentences) if flat else None

        self.train, self.valid, self.test = encoded("train", train), encoded("valid", valid), encoded("test", test)
        for part in (self.train, self.valid):
            if part and part.unseen_answers:
                problem = "an answer to train on is not among the classes of the vocabulary"
                raise InputError(describe("BabiData", problem, got="; ".join(part.report)))
        self.report = [line for part in (self.train, self.valid, self.test) if part for line in part.report]
        """What a user should know: questions that lost sentences, test answers that are no class."""
        self.steps_per_pass = 0
        """Training batches in which the largest task is seen once."""
        if self.train:
            self._passes = Passes(self.train, seed, batch_questions, rare_tasks=rare_tasks, rare_share=rare_share)
            self.steps_per_pass = self._passes.steps
        self._first_steps = first_steps
        if self.train and first_steps:
            self._first = Passes(self.train, seed, batch_questions, only=first_tasks)

    def question_counts(self) -> dict[str, dict[int, int]]:
        """Questions of each task in "train", "valid" and "test", those that are there."""
        counts = {}
        for name, part in (("train", self.train), ("valid", self.valid), ("test", self.test)):
            if part is not None:
                totals = np.bincount(part.tasks, weights=part.question_counts).astype(int)
                counts[name] = {task: int(totals[task]) for task in np.flatnonzero(totals).tolist()}
        return counts

    def train_batch(self, step: int) -> Batch:
        """The training batch of this step (from 0): a function of the seed and the step alone."""
        train = self._need("train", self.train)
        if step < 0:
            raise InputError(describe("BabiData.train_batch", "there is no such step", got=step, expected=">= 0"))
        if step < self._first_steps:
            return train.batch(self._first.stories(step))
        return train.batch(self._passes.stories(step - self._first_steps))

    def valid_batches(self) -> Iterator[Batch]:
        """Every validation story once."""
        return self._need("valid", self.valid).batches(self.batch_questions)

    def test_batches(self) -> Iterator[Batch]:
        """Every test story once."""
        return self._need("test", self.test).batches(self.batch_questions)

    def _need(self, name: str, part: EncodedStories | None) -> EncodedStories:
        if part is None:
            raise InputError(describe("BabiData", f"there are no {name} stories"))
        return part
