"""Passes over stories: which stories are in the training batch of a step, as a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

BUCKETS = (5, 10, 15, 20, 30, 40, 60, 80, 120, 160)
"""Stories of lengths between two neighbours share a batch."""


class Sizes(Protocol):
    """What passes need to know of stories, each an array [stories]."""

    @property
    def lengths(self) -> np.ndarray:
        """Statements."""
        ...

    @property
    def question_counts(self) -> np.ndarray:
        """Questions."""
        ...

    @property
    def tasks(self) -> np.ndarray:
        """Number of the task."""
        ...


class Passes:
    """Passes over all stories: every task has the same number of questions, but for rare ones, which have fewer.

    The largest task is seen once in a pass.

    Each task is a stream: its stories in a seeded order, then all again in another order, and so on. A pass takes the
    next stretch of every stream. Stories of similar length share a batch.

    Args:
        stories: their sizes.
        seed: decides every batch.
        batch_questions: about how many questions a batch has.
        rare_tasks: tasks that have fewer questions than others.
        rare_share: how many they have, as a share of the others'.
        only: the tasks whose stories count; all if none is named.
    """

    def __init__(
        self,
        stories: Sizes,
        seed: int,
        batch_questions: int,
        *,
        rare_tasks: Collection[int] = (),
        rare_share: float = 1.0,
        only: Collection[int] = (),
    ) -> None:
        self._stories = stories
        self._seed = seed
        there = [task for task in np.unique(stories.tasks).tolist() if not only or task in only]
        self._stories_of = [np.flatnonzero(stories.tasks == task) for task in there]
        sizes = [int(stories.question_counts[of_task].sum()) for of_task in self._stories_of]
        shares = [rare_share if task in rare_tasks else 1.0 for task in there]
        self._questions = [max(1, round(share * max(sizes))) for share in shares]
        self.steps = max(1, round(sum(self._questions) / batch_questions))
        """Batches of a pass."""
        self._planned: tuple[int, list[np.ndarray]] | None = None

    def stories(self, step: int) -> np.ndarray:
        """The stories of the batch of this step (from 0)."""
        number, within = divmod(step, self.steps)
        if self._planned is None or self._planned[0] != number:
            self._planned = (number, self._plan(number))
        batches = self._planned[1]
        return batches[within % len(batches)]

    def _plan(self, number: int) -> list[np.ndarray]:
        """The stories of every batch of one pass."""
        streams = zip(self._stories_of, self._questions, strict=True)
        chosen = np.concatenate([self._stretch(of_task, questions, number) for of_task, questions in streams])
        rng = np.random.default_rng([self._seed, 1, number])
        chosen = chosen[rng.permutation(len(chosen))]
        chosen = chosen[np.argsort(np.searchsorted(BUCKETS, self._stories.lengths[chosen]), kind="stable")]
        batches = pack(chosen, self._stories.question_counts[chosen], self.steps)
        return [batches[i] for i in rng.permutation(len(batches))]

    def _stretch(self, of_task: np.ndarray, questions: int, number: int) -> np.ndarray:
        """One task's part of a pass: the stories of its stream that begin within the pass's window of questions."""
        counts = self._stories.question_counts[of_task]
        start, stop = number * questions, (number + 1) * questions
        size, task = int(counts.sum()), int(self._stories.tasks[of_task[0]])
        taken = []
        for repeat in range(start // size, (stop - 1) // size + 1):
            order = np.random.default_rng([self._seed, 2, task, repeat]).permutation(len(of_task))
            begins = repeat * size + np.cumsum(counts[order]) - counts[order]
            taken.append(of_task[order[(begins >= start) & (begins < stop)]])
        return np.concatenate(taken)


def pack(order: np.ndarray, counts: np.ndarray, runs: int) -> list[np.ndarray]:
    """Cuts `order` into runs of nearly equal numbers of questions; none is empty, so there may be fewer than asked."""
    middle = np.cumsum(counts) - counts / 2
    run = (middle * (runs / counts.sum())).astype(np.int64)
    return np.split(order, np.flatnonzero(np.diff(run)) + 1)
