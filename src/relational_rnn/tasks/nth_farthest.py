"""N-th farthest: which of N vectors is the n-th farthest from vector m (Santoro et al. 2018, section 4.1, A.1).

Shape legend: B sequences, N objects (and steps), D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.tasks.contract import Split, Task, TaskBatch, TaskShape

Convention = Literal["paper", "sonnet", "l0sg"]
CONVENTIONS: tuple[Convention, ...] = ("paper", "sonnet", "l0sg")


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

    name: ClassVar[str] = "nth-farthest"

    def __post_init__(self) -> None:
        where = "NthFarthest"
        check_positive(where, objects=self.objects, dimensions=self.dimensions)
        if self.objects < 2:
            raise InputError(describe(where, "there must be two objects to compare", got=self.objects, expected=">= 2"))
        check_choice(where, "convention", self.convention, CONVENTIONS)
        if self.n is not None and self.n not in self._numbers:
            expected = f"{self._numbers[0]} to {self._numbers[-1]} with the convention {self.convention!r}"
            problem = f"{self.objects} objects have no {self.n}-th farthest"
            raise InputError(describe(where, problem, got=f"n = {self.n!r}", expected=expected))

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
        labels = torch.rand(count, objects, device=device, generator=generator).argsort(1)
        reference = torch.randint(objects, (count, 1), device=device, generator=generator)  # the step of m
        if self.n is None:
            rank = torch.randint(objects, (count, 1), device=device, generator=generator)
        else:
            rank = torch.full((count, 1), self._numbers.index(self.n), device=device)
        origin = vectors.gather(1, reference.unsqueeze(2).expand(-1, -1, dimensions))
        distances = (vectors - origin).square_().sum(2)
        order = distances.argsort(1, descending=self.convention != "sonnet")
        targets = labels.gather(1, order.gather(1, rank))

        n, m = rank.expand(-1, objects), labels.gather(1, reference).expand(-1, objects)
        ones = (labels, m, n) if self.convention == "sonnet" else (labels, n, m)
        columns = torch.stack([dimensions + objects * i + one for i, one in enumerate(ones)], 2)
        inputs = vectors.new_zeros(count, objects, dimensions + 3 * objects)
        inputs[..., :dimensions] = vectors
        inputs.scatter_(2, columns, 1.0)
        groups = rank.squeeze(1) if self.n is None else torch.zeros_like(rank.squeeze(1))
        return TaskBatch(inputs, None, targets, groups)
