"""N-th farthest: which of N vectors is the n-th farthest from vector m (Santoro et al. 2018, section 4.1, A.1).

Shape legend: B sequences, N objects (and steps), D dimensions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.runs import Asked, Example, LoadedRun, Published
from relational_rnn.tasks.contract import Split, Task, TaskBatch, TaskShape
from relational_rnn.tasks.curriculum import Curriculum, check_lessons
from relational_rnn.tasks.generated import TaskRun, TaskWorkload
from relational_rnn.tasks.model import TaskModelConfig
from relational_rnn.training import LoopConfig, OptimizerConfig

Convention = Literal["paper", "sonnet", "l0sg"]
CONVENTIONS: tuple[Convention, ...] = ("paper", "sonnet", "l0sg")
FarthestCurriculum = Literal["none", "lessons"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NthFarthest(Task):
    """Vectors with labels pass by in a random order, each with the question beside it; the answer is a label.

    Four objects in two dimensions, "which is the 1st farthest from the one labelled 2?" (m = 2, n = 1):

        step  vector         label  n  m
        0     ( 0.9, -0.2)   3      1  2
        1     (-0.7,  0.4)   2      1  2      the reference, m
        2     (-0.6,  0.8)   1      1  2
        3     ( 0.1,  0.1)   4      1  2      answer: 3, at distance 1.71 the farthest

    Vectors are uniform in [-1, 1), distances Euclidean; labels, n and m are one-hot, so a step has D + 3 N features.
    The labels are a random permutation. What n means differs between the published generators:

        convention  n          order                             features of a step
        paper       1 to N     1 the farthest, N the reference   vector, label, n, m
        l0sg        0 to N-1   0 the farthest, N-1 the reference vector, label, n, m
        sonnet      0 to N-1   0 the reference, N-1 the farthest vector, label, m, n

    With the curriculum "lessons", training begins with 3 objects in one dimension, the other numbers being 0; then the
    dimensions double up to D, then one object more at a time comes in, up to N. A lesson ends when its loss has fallen
    to a share, `mastered`, of its plateau, the loss of an answer that knows the reference alone and guesses among the
    others (see `Curriculum`). Half of its sequences have its number of objects, the others any number from 2 up
    to it: fewer objects mean fewer steps and fewer labels, and n counts from the reference as it does for N of them, so
    that the nearest other object is always N - 1 in the paper's convention. Runs are judged on N objects in D
    dimensions alone. Two objects have one lesson, the task itself.

    Plateau: an answer that knows the rank of the reference itself (distance 0) and else guesses among the others is
    right with probability 2 / N: 25 % for 8 objects, 50 % for 4. Chance is 1 / N. Record (8 x 16): 98 % (STM, Le et al.
    2020); the relational memory of the paper has 91 %, its LSTM and DNC stay below 30 %.

    Example:
        >>> from relational_rnn.tasks.contract import draw_batch
        >>> batch = draw_batch(NthFarthest(objects=4, dimensions=2), "train", 0, seed=0, size=5)
        >>> batch.inputs.shape, batch.targets.shape
        (torch.Size([5, 4, 14]), torch.Size([5, 1]))
    """

    objects: int = 8
    """How many vectors, N."""
    dimensions: int = 16
    """Numbers of a vector, D."""
    convention: Convention = "paper"
    """Whose meaning of n, and whose order of features."""
    n: int | None = None
    """Ask for this n only; by default every n is as likely."""
    curriculum: FarthestCurriculum = "none"
    """All objects and dimensions from the first batch on, or in lessons."""
    window: int = 100
    """lessons: updates whose mean loss is looked at."""
    mastered: float = 0.5
    """lessons: the share of the plateau's loss at which the next one begins."""

    name: ClassVar[str] = "nth-farthest"

    def __post_init__(self) -> None:
        where = "NthFarthest"
        check_positive(where, objects=self.objects, dimensions=self.dimensions)
        if self.objects < 2:
            raise InputError(describe(where, "there must be two objects to compare", got=self.objects, expected=">= 2"))
        check_choice(where, "convention", self.convention, CONVENTIONS)
        if self.n is not None and (type(self.n) is not int or self.n not in self._numbers):
            expected = f"{self._numbers[0]} to {self._numbers[-1]} with the convention {self.convention!r}"
            problem = f"{self.objects} objects have no {self.n}-th farthest"
            raise InputError(describe(where, problem, got=f"n = {self.n!r}", expected=expected))
        check_lessons(self)
        if self.n is not None and self.curriculum != "none":
            problem = "lessons need every n: fewer objects have not all of them"
            raise InputError(describe(where, problem, got=f"n = {self.n!r}", expected="n None"))
        if self.curriculum != "none" and not self.mastered < 1:
            problem = "lessons would end unlearned: mastered is a share of the loss of who knows the reference alone"
            raise InputError(describe(where, problem, got=f"mastered = {self.mastered!r}", expected="mastered < 1"))

    def make_curriculum(self) -> Curriculum | None:
        if self.curriculum == "none" or len(self.lessons) == 1:
            return None
        ends = [self.mastered * plateau_loss(objects) for objects, _ in self.lessons]
        return Curriculum(len(self.lessons), window=self.window, mastered=ends)

    @property
    def lessons(self) -> list[tuple[int, int]]:
        """(most objects, dimensions) of each lesson; the last one is the whole task."""
        if self.objects == 2:  # who knows which is the reference knows the other: nothing to begin with
            return [(2, self.dimensions)]
        first, dimensions = 3, [1]
        while dimensions[-1] < self.dimensions:
            dimensions.append(min(2 * dimensions[-1], self.dimensions))
        more = [(objects, self.dimensions) for objects in range(first + 1, self.objects + 1)]
        return [*((first, size) for size in dimensions), *more]

    @property
    def _numbers(self) -> range:
        """What n may be."""
        first = 1 if self.convention == "paper" else 0
        return range(first, first + self.objects)

    @property
    def shape(self) -> TaskShape:
        return TaskShape(
            inputs=self.dimensions + 3 * self.objects,
            tokens=False,
            classes=self.objects,
            answer="end",
            steps=self.objects,
            groups=tuple(f"n = {n}" for n in (self._numbers if self.n is None else (self.n,))),
        )

    def draw(self, count: int, generator: torch.Generator, *, split: Split, level: int | None = None) -> TaskBatch:
        objects, dimensions, device = self.objects, self.dimensions, generator.device
        vectors = torch.empty(count, objects, dimensions, device=device).uniform_(-1, 1, generator=generator)
        taught = self.curriculum != "none" and split == "train"
        most, used = self.lessons[-1 if level is None else level] if taught else (objects, dimensions)
        keys = torch.rand(count, objects, device=device, generator=generator)
        keys[:, most:] += 1  # labels that the lesson has no object for come last, at steps that are not there
        labels = keys.argsort(1)
        vectors[..., used:] = 0
        sizes = torch.full((count, 1), most, device=device)
        if taught:
            fewer = torch.randint(2, most + 1, (count, 1), device=device, generator=generator)
            half = torch.rand(count, 1, device=device, generator=generator) < 0.5
            sizes = torch.where(half, sizes, fewer)
        present = torch.arange(objects, device=device) < sizes  # the steps that there are come first

        def below() -> Tensor:
            """Whole numbers [B, 1] below those of `sizes`."""
            if bool(present.all()):
                return torch.randint(objects, (count, 1), device=device, generator=generator)
            return (torch.rand(count, 1, device=device, generator=generator, dtype=torch.float64) * sizes).long()

        reference = below()  # the step of m
        rank = below() if self.n is None else torch.full_like(sizes, self._numbers.index(self.n))
        origin = vectors.gather(1, reference.unsqueeze(2).expand(-1, -1, dimensions))
        farthest_first = self.convention != "sonnet"
        # what is not there comes last
        distances = (vectors - origin).square_().sum(2).masked_fill(~present, -1 if farthest_first else torch.inf)
        order = distances.argsort(1, descending=farthest_first)
        targets = labels.gather(1, order.gather(1, rank))
        if farthest_first:
            rank = rank + objects - sizes

        n, m = rank.expand(-1, objects), labels.gather(1, reference).expand(-1, objects)
        ones = (labels, m, n) if self.convention == "sonnet" else (labels, n, m)
        columns = torch.stack([dimensions + objects * i + one for i, one in enumerate(ones)], 2)
        inputs = vectors.new_zeros(count, objects, dimensions + 3 * objects)
        inputs[..., :dimensions] = vectors
        inputs.scatter_(2, columns, 1.0)
        groups = rank.squeeze(1) if self.n is None else torch.zeros_like(rank.squeeze(1))
        if bool(present.all()):
            return TaskBatch(inputs, None, targets, groups)
        longest = int(sizes.max())
        return TaskBatch((inputs * present.unsqueeze(2))[:, :longest], sizes.squeeze(1), targets, groups)


def plateau_loss(objects: int) -> float:
    """Loss, in nats, in a lesson of so many objects, of an answer that knows the reference alone.

    Half of the lesson's sequences have all its objects, the others any number from 2 up; an object that is not the
    reference is asked for in (s - 1) / s of those with s, and guessed among s - 1.

    >>> round(plateau_loss(3), 3), round(plateau_loss(8), 3)
    (0.347, 1.35)
    """
    sizes = range(2, objects + 1)
    shares = [0.5 / len(sizes) + (0.5 if size == objects else 0.0) for size in sizes]
    return sum(share * (size - 1) / size * math.log(size - 1) for share, size in zip(shares, sizes, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NthFarthestRun(TaskRun):
    """Everything that decides a run on N-th farthest."""

    data: NthFarthest = dataclasses.field(default_factory=NthFarthest)
    """The task."""

    task_name: ClassVar[str] = NthFarthest.name


def nth_farthest_small() -> NthFarthestRun:
    """N-th farthest with 4 objects of 4 dimensions, the released example's reduced task, in lessons.

    Expected score: 97.3 ± 0.2 % (three seeds; an LSTM at 2e-3 92.4 ± 0.7 %). Time: 13.5 minutes of one core. Machine:
    2-core CPU, one thread.
    Command: `relational-rnn train nth-farthest --recipe nth-farthest-small`.
    """
    return _farthest_in_lessons(
        NthFarthest(objects=4, dimensions=4, curriculum="lessons", mastered=0.58),
        MemorySizes(mem_slots=4, head_size=16, num_heads=4, gate_style="memory"),
        steps=40_000,
    )


def nth_farthest_lessons() -> NthFarthestRun:
    """N-th farthest of the paper's size, 8 objects of 16 dimensions, in lessons, for an hour and a quarter of one core.

    Expected score: 94.3 % (one seed; an LSTM at 2e-3 33.0 %). Time: 69 minutes of one core. Machine: 2-core CPU,
    one thread. The head is as wide as the slot: four heads of 16 numbers ended at 80.7 % after more steps.
    Command: `relational-rnn train nth-farthest --recipe nth-farthest-lessons`.
    """
    return _farthest_in_lessons(
        NthFarthest(curriculum="lessons", mastered=0.65),
        MemorySizes(mem_slots=8, head_size=64, num_heads=1, gate_style="memory"),
        steps=110_000,
    )


def _farthest_in_lessons(task: NthFarthest, memory: MemorySizes, *, steps: int) -> NthFarthestRun:
    """What the recipes in lessons share: slots of 64 numbers, Muon, batches of 128, one thread."""
    return NthFarthestRun(
        data=task,
        memory=memory,
        model=TaskModelConfig(head_size=128, head_layers=4),
        optimizer=OptimizerConfig(method="muon", warmup_steps=200, final_fraction=0.01, weight_decay=0.0, beta2=0.95),
        loop=LoopConfig(steps=steps, validate_every=1000, checkpoint_every=1000, log_every=100, threads=1),
    )


def nth_farthest_paper() -> NthFarthestRun:
    """N-th farthest as in the paper (A.1): 8 objects of 16 dimensions, 8 slots of 256 numbers, batches of 1,600.

    Expected score: not measured yet (published: 91 %). Time: not measured yet. Machine: one GPU.
    Command: `relational-rnn train nth-farthest --recipe nth-farthest-paper --loop.accelerator cuda --drawn-on cuda`.
    """
    return NthFarthestRun(
        memory=MemorySizes(mem_slots=8, head_size=32, num_heads=8),
        model=TaskModelConfig(head_size=256, head_layers=4),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=1000, decay="none", weight_decay=0.0),
        loop=LoopConfig(steps=500_000, validate_every=5000, checkpoint_every=1000, log_every=100),
        batch_size=1600,
    )


_SANTORO = "Santoro et al. 2018, arXiv 1806.01822, section 5.1"
_LE = "Le et al. 2020, arXiv 2002.03519"
# (model, accuracy, only an upper bound, what a reader must know of it, source)
_FIGURES = (
    ("RMC", 0.91, False, "end of training, most configurations with 8 or 16 slots", _SANTORO),
    ("LSTM", 0.30, True, "best batch accuracy", _SANTORO),
    ("DNC", 0.30, True, "best batch accuracy", _SANTORO),
    ("STM", 0.98, False, "1,000,000 updates", _LE),
    ("TPR-RNN", 0.13, False, "as measured there", _LE),
)
PUBLISHED = tuple(
    Published(
        data={"objects": 8, "dimensions": 16}, model=model, value=value, below=below, setting=setting, source=source
    )
    for model, value, below, setting, source in _FIGURES
)


class FarthestWorkload(TaskWorkload):
    """N-th farthest as something to train on; its sequences have pages."""

    def inspect(self, run: LoadedRun[NthFarthestRun], asked: Asked) -> Any:
        from relational_rnn.tasks.nth_farthest_page import inspect_sequence

        return inspect_sequence(run, asked)

    def worst_examples(self, run: LoadedRun[NthFarthestRun], count: int) -> Sequence[Example]:
        from relational_rnn.tasks.nth_farthest_page import worst_examples

        return worst_examples(run, count)


WORKLOAD = FarthestWorkload(
    NthFarthestRun,
    {
        "nth-farthest-small": nth_farthest_small,
        "nth-farthest-lessons": nth_farthest_lessons,
        "nth-farthest-paper": nth_farthest_paper,
    },
    PUBLISHED,
)
