"""Multi-query associative recall: pairs of keys and values, then keys again, in between noise (Arora et al. 2023, arXiv
2312.04927).

Shape legend: B sequences, T steps, P pairs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_positive, describe, is_number
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.contract import NO_ANSWER, Split, Task, TaskBatch, TaskShape
from relational_rnn.tasks.curriculum import Curriculum, check_lessons
from relational_rnn.tasks.generated import TaskRun, TaskWorkload, muon
from relational_rnn.tasks.model import TaskModelConfig
from relational_rnn.training import LoopConfig

RecallCurriculum = Literal["none", "lessons"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AssociativeRecall(Task):
    """Every key that comes back asks for the value that followed it the first time.

    Two pairs in 10 steps, keys 1 to 4, values 5 to 8:

        inputs   2  7  4  5  |  2  8  4  6  6  1
        answers                 7     5

    The first 2 P steps hold P pairs of different keys and values. Each key is asked once in the steps after them, an
    even number of steps after the last pair that is most often small: with probability proportional to g^(power - 1)
    for the g-th place, each place taken once. All other steps hold any token at random. Keys are the tokens 1 to
    `vocabulary` / 2, values those above; classes are the values from 0.

    With the curriculum "lessons", training begins with one pair; their number doubles up to P each time the loss has
    fallen to `mastered` (see `Curriculum`), and the steps grow with it, with room for every query.

    Runs are judged at `pairs` and `length`, and apart at twice as many pairs in twice as many steps, and at four times
    as many where there are keys for them (`vocabulary` of 8 P or more).

    Plateau: a model that only knows which values occurred is right with probability 1 / P; chance is 2 / vocabulary.
    Record: Transformers solve it at every size that Arora et al. tried; a recurrent model needs a state that grows with
    the number of pairs.

    Example:
        >>> from relational_rnn.tasks.contract import draw_batch
        >>> batch = draw_batch(AssociativeRecall(pairs=2, length=10, vocabulary=8), "train", 0, seed=0, size=1)
        >>> batch.inputs.tolist(), batch.targets.tolist()
        ([[4, 8, 1, 7, 1, 6, 4, 8, 4, 7]], [[-1, -1, -1, -1, 2, -1, 3, -1, -1, -1]])
    """

    pairs: int = 8
    """Keys with their values, P."""
    length: int = 64
    """Steps of a training sequence."""
    vocabulary: int = 64
    """Tokens; half of them are keys, half are values."""
    power: float = 0.01
    """How soon keys come back: 1 for any time, near 0 for soon."""
    curriculum: RecallCurriculum = "none"
    """All pairs from the first batch on, or in lessons."""
    window: int = 100
    """lessons: updates whose mean loss is looked at."""
    mastered: float = 0.1
    """lessons: the loss, in nats, at which the next one begins."""

    name: ClassVar[str] = "associative-recall"

    def __post_init__(self) -> None:
        where = "AssociativeRecall"
        check_positive(where, pairs=self.pairs, length=self.length, vocabulary=self.vocabulary)
        if self.vocabulary % 2 or self.vocabulary < 4 * self.pairs:
            expected = f"an even number, {4 * self.pairs} or more (keys for twice the pairs)"
            raise InputError(
                describe(where, "the vocabulary does not hold the keys", got=self.vocabulary, expected=expected)
            )
        if self.length < 4 * self.pairs or self.length % 2:
            expected = f"an even number, {4 * self.pairs} or more for {self.pairs} pairs"
            raise InputError(
                describe(where, "the sequence does not hold pairs and queries", got=self.length, expected=expected)
            )
        if not is_number(self.power) or not 0 < self.power <= 1:
            raise InputError(describe(where, "power must be above 0 and at most 1", got=repr(self.power)))
        check_lessons(self)

    @property
    def lessons(self) -> list[tuple[int, int]]:
        """(pairs, steps) of each lesson; the last one is the whole task."""
        pairs = [1]
        while pairs[-1] < self.pairs:
            pairs.append(min(2 * pairs[-1], self.pairs))
        return [(n, max(4 * n, self.length * n // self.pairs // 2 * 2)) for n in pairs]

    @property
    def test_factors(self) -> tuple[int, ...]:
        """How many times the pairs and steps of training a test sequence may have; equally many sequences of each."""
        return tuple(n for n in (1, 2, 4) if n * self.pairs <= self.vocabulary // 2)

    def make_curriculum(self) -> Curriculum | None:
        if self.curriculum == "none":
            return None
        return Curriculum(len(self.lessons), window=self.window, mastered=self.mastered)

    @property
    def shape(self) -> TaskShape:
        groups = tuple(f"{n * self.pairs} pairs in {n * self.length}" for n in self.test_factors)
        return TaskShape(
            inputs=self.vocabulary + 1,
            tokens=True,
            classes=self.vocabulary // 2,
            answer="every",
            steps=self.length,
            groups=groups,
            beyond=groups[1:],
        )

    def draw(self, count: int, generator: torch.Generator, *, split: Split, level: int | None = None) -> TaskBatch:
        if split != "test":
            taught = self.curriculum != "none" and split == "train"
            pairs, length = self.lessons[-1 if level is None or not taught else level]
            inputs, targets = self._sequences(count, pairs, length, generator)
            return TaskBatch(inputs, None, targets, torch.zeros(count, dtype=torch.int64, device=generator.device))
        factors = self.test_factors
        # what is left over has the shortest sequences
        counts = [count - count // len(factors) * (len(factors) - 1)] + [count // len(factors)] * (len(factors) - 1)
        steps = self.length * factors[-1]
        inputs, targets = [], []
        for n, factor in zip(counts, factors, strict=True):
            more = (0, steps - self.length * factor)
            drawn = self._sequences(n, factor * self.pairs, factor * self.length, generator)
            inputs.append(torch.nn.functional.pad(drawn[0], more))
            targets.append(torch.nn.functional.pad(drawn[1], more, value=NO_ANSWER))
        groups = torch.arange(len(factors), device=generator.device)
        groups = groups.repeat_interleave(torch.tensor(counts, device=generator.device))
        lengths = self.length * torch.tensor(factors, device=generator.device)[groups]
        return TaskBatch(torch.cat(inputs), lengths, torch.cat(targets), groups)

    def _sequences(self, count: int, pairs: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and targets, both [B, length]."""
        device, half = generator.device, self.vocabulary // 2
        keys, values = (
            torch.rand(count, half, device=device, generator=generator).argsort(1)[:, :pairs] for _ in range(2)
        )
        inputs = torch.randint(1, self.vocabulary + 1, (count, length), device=device, generator=generator)
        inputs[:, : 2 * pairs] = torch.stack([1 + keys, 1 + half + values], 2).flatten(1)
        # Gumbel noise on the logarithms of the weights draws places without putting any back.
        places = (length - 2 * pairs) // 2
        weights = (self.power - 1) * torch.arange(1, places + 1, device=device).log()
        noise = torch.rand(count, places, device=device, generator=generator).clamp_(min=1e-30).log().neg().log().neg()
        at = 2 * pairs + 2 * (weights + noise).topk(pairs, 1).indices
        inputs.scatter_(1, at, 1 + keys)
        targets = torch.full_like(inputs, NO_ANSWER).scatter_(1, at, values)
        return inputs, targets


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AssociativeRecallRun(TaskRun):
    """Everything that decides a run on multi-query associative recall."""

    data: AssociativeRecall = dataclasses.field(default_factory=AssociativeRecall)
    """The task."""

    task_name: ClassVar[str] = AssociativeRecall.name


def associative_recall() -> AssociativeRecallRun:
    """Four pairs of 8 keys and 8 values in 32 steps, in lessons of one, two and four pairs.

    The learning rate falls in the last third: along a cosine from the start it was too low when the lesson of four
    pairs began, and 83.9 % were reached.

    Expected score: 100.0 % on four pairs, 51.3 % on eight in twice as many steps (three seeds). Time: 171 processor
    seconds. Machine: 2-core CPU, one thread.
    Command: `relational-rnn train associative-recall`.
    """
    return AssociativeRecallRun(
        data=AssociativeRecall(pairs=4, length=32, vocabulary=16, curriculum="lessons", mastered=0.2),
        memory=MemorySizes(mem_slots=8, head_size=16, num_heads=4),
        model=TaskModelConfig(embedding_size=64, head_size=128, head_layers=1),
        optimizer=muon(learning_rate=4e-3, decay_fraction=0.3),
        loop=LoopConfig(steps=3000, validate_every=250, checkpoint_every=250, log_every=50, threads=1),
        batch_size=64,
        valid_samples=1024,
        test_samples=2048,
    )


WORKLOAD = TaskWorkload(AssociativeRecallRun, {"associative-recall": associative_recall})
