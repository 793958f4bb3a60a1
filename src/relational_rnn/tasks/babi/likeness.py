"""How alike two sets of stories of one task are: the words, the answers, and how often each thing happens.

Sets must be equal. A share (so many per cent of the questions are answered "yes") may differ by the larger of 2
percentage points and 3 standard errors of the published share; the standard error is bootstrapped over stories,
because the questions of a story hang together (Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 6).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from relational_rnn._check import InputError, check_positive, describe
from relational_rnn.tasks.babi.encoding import tokenize
from relational_rnn.tasks.babi.story import Story

POINTS = 0.02
"""A share may always differ by this much."""
ERRORS = 3.0
"""A share may differ by so many of its standard errors."""
RESAMPLES = 1000
"""Bootstrap samples of the published stories; a standard error is known to about 2 % of itself by then."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far apart two sets of stories are in one quantity, where they are farthest apart."""

    quantity: str
    """A key of `SETS` or `SHARES`."""
    where: str
    """The value of the quantity whose share is worst for its bound; for a set, what only one side has."""
    published: float
    """The share there; for a set, its size."""
    generated: float
    """The same of the other stories."""
    deviation: float
    """Between the two shares; for a set, how many members only one side has."""
    bound: float
    """What the deviation may be; 0 for a set."""

    @property
    def holds(self) -> bool:
        """Whether the deviation is within its bound."""
        return self.deviation <= self.bound


def _words(stories: Sequence[Story]) -> set[str]:
    texts = {text for story in stories for text in story.statements}
    texts |= {question.text for story in stories for question in story.questions}
    return {word for text in texts for word in tokenize(text)}


def _answers(stories: Sequence[Story]) -> set[str]:
    return {question.answer for story in stories for question in story.questions}


SETS: dict[str, Callable[[Sequence[Story]], set[str]]] = {"words": _words, "answers": _answers}
"""What must be equal: the words of statements and questions, and the answers."""

SHARES: dict[str, Callable[[Story], list[Any]]] = {
    "answer shares": lambda story: [question.answer for question in story.questions],
    "sentences before": lambda story: [question.at for question in story.questions],
    "supports": lambda story: [len(question.supports) for question in story.questions],
    "support positions": lambda story: [
        question.at - index for question in story.questions for index in question.supports
    ],
}
"""What is counted of a story: for each question its answer, the sentences before it and its supporting facts, and for
each supporting fact its position, counted back from the question (1: the sentence right before it). The values of a
quantity are all texts or all whole numbers; numbers have an order."""


def count_by_story(values: Sequence[Sequence[Any]], among: Sequence[Any]) -> np.ndarray:
    """How often each story has each value.

    Returns:
        counts [stories, len(among)], int64.

    >>> count_by_story([["yes", "no", "yes"], ["no"]], among=["no", "yes"])
    array([[1, 2],
           [1, 0]])
    """
    column = {value: number for number, value in enumerate(among)}
    counts = np.zeros((len(values), len(among)), dtype=np.int64)
    rows = np.repeat(np.arange(len(values)), [len(of_story) for of_story in values])
    columns = np.array([column[value] for of_story in values for value in of_story], dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    return counts


def bootstrap_errors(
    counts: np.ndarray, *, ordered: bool = False, seed: int = 0, resamples: int = RESAMPLES
) -> np.ndarray:
    """Standard errors of the shares `counts.sum(0) / counts.sum()`, from drawing whole stories with replacement.

    Args:
        counts: [stories, values], what each story counts.
        ordered: append the errors of the shares "at most this value".
        seed: of the draws; the same seed gives the same errors.
        resamples: how many samples of as many stories are drawn.

    Returns:
        [values], or [2 * values] with `ordered`; float64.

    Raises:
        InputError: `resamples` is below 1, or a story counts nothing.

    One story in two says yes: of two drawn ones, none, one or both do, with standard deviation sqrt(1/8).

    >>> bootstrap_errors(np.array([[1, 0], [0, 1]]), resamples=100_000).round(2)
    array([0.35, 0.35])
    """
    check_positive("bootstrap_errors", resamples=resamples)
    if not counts.size or not counts.sum(1).all():
        raise InputError(describe("bootstrap_errors", "every story must count something", got=counts.shape))
    # Stories that count alike are drawn as one kind: the same distribution from far fewer draws.
    kinds, sizes = np.unique(counts, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(counts), sizes / len(counts), size=resamples)
    totals = drawn @ kinds
    shares = totals / totals.sum(1, keepdims=True)
    return _with_sums(shares, ordered).std(0)


def _with_sums(shares: np.ndarray, ordered: bool) -> np.ndarray:
    """The shares, followed by their running sums where the values have an order; along the last axis."""
    return np.concatenate([shares, shares.cumsum(-1)], -1) if ordered else shares


def compare_sets(quantity: str, published: Sequence[Story], generated: Sequence[Story]) -> Verdict:
    """The verdict on a quantity of `SETS`.

    >>> from relational_rnn.tasks.babi.generation import generate
    >>> compare_sets("answers", generate(9, seed=0, stories=9), generate(10, seed=0, stories=9)).where
    'only generated: maybe'
    """
    ours, theirs = (SETS[quantity](stories) for stories in (generated, published))
    sides = (("published", theirs - ours), ("generated", ours - theirs))
    where = "; ".join(f"only {side}: {' '.join(sorted(extra))}" for side, extra in sides if extra)
    return Verdict(quantity, where, len(theirs), len(ours), len(ours ^ theirs), 0)


def compare_shares(
    quantity: str, published: Sequence[Story], generated: Sequence[Story], *, seed: int = 0, resamples: int = RESAMPLES
) -> Verdict:
    """The verdict on a quantity of `SHARES`, from every value that either side has.

    Numbers are also compared by the share of "at most so many", so that many small differences to the same side do
    not go unseen.
    """
    count = SHARES[quantity]
    theirs, ours = ([count(story) for story in stories] for stories in (published, generated))
    total = Counter(value for of_story in ours for value in of_story)
    values = sorted(total.keys() | {value for of_story in theirs for value in of_story})
    ordered = not isinstance(values[0], str)
    counts = count_by_story(theirs, values)
    expected = _with_sums(counts.sum(0) / counts.sum(), ordered)
    found = _with_sums(np.array([total[value] for value in values]) / total.total(), ordered)
    bounds = np.maximum(POINTS, ERRORS * bootstrap_errors(counts, ordered=ordered, seed=seed, resamples=resamples))
    worst = int(np.argmax(np.abs(found - expected) / bounds))
    labels = [str(value) for value in values] + [f"at most {value}" for value in values]
    there, here = float(expected[worst]), float(found[worst])
    return Verdict(quantity, labels[worst], there, here, abs(here - there), float(bounds[worst]))


def compare_stories(
    published: Sequence[Story], generated: Sequence[Story], *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Verdict, ...]:
    """Hold generated stories of a task against published ones.

    Args:
        published: stories of one task; the bounds come from them alone.
        generated: stories of the same task, many more if their own chance is to play no part.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        one verdict for each of `SETS` and of `SHARES`.

    Raises:
        InputError: either side has no story, or the stories are not all of one task.

    >>> from relational_rnn.tasks.babi.generation import generate
    >>> verdicts = compare_stories(generate(1, seed=0, questions=1000), generate(1, seed=1, questions=1000))
    >>> {verdict.quantity for verdict in verdicts if not verdict.holds}
    set()
    """
    tasks = {story.task for story in (*published, *generated)}
    if not published or not generated or len(tasks) > 1:
        got = f"{len(published)} and {len(generated)} stories of tasks {sorted(tasks)}"
        raise InputError(describe("compare_stories", "both sides must be stories of the same task", got=got))
    sets = [compare_sets(quantity, published, generated) for quantity in SETS]
    shares = [compare_shares(q, published, generated, seed=seed, resamples=resamples) for q in SHARES]
    return (*sets, *shares)
