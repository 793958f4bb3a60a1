"""What the training loop asks of the thing it trains, and how it counts. M: the items of a batch that have an
answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, describe

BatchT = TypeVar("BatchT")


class DivergedError(InputError):
    """The loss is no longer finite."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How the model did on one batch, item by item."""

    losses: Tensor
    """[M] floating point, with gradient; training minimises their mean."""
    correct: Tensor
    """[M] booleans."""
    groups: Tensor
    """[M] whole numbers of at least 0: the group of each item, such as the number of a task."""


class Problem(Protocol[BatchT]):
    """A model with its data; it may be a `Carrier`, `Taught` and `Divisible` too.

    A batch is a tensor, a container of tensors, or anything with `.to(device)`.
    """

    @property
    def model(self) -> nn.Module:
        """What is trained; its state dict is what is saved."""
        ...

    def train_batch(self, step: int) -> BatchT:
        """Training batch number `step` (from 0), always the same one. An update takes the next `accumulate` batches."""
        ...

    def valid_batches(self) -> Sequence[BatchT]:
        """The validation set, always the same."""
        ...

    def measure(self, batch: BatchT) -> Measure:
        """Run the model on a batch."""
        ...


@runtime_checkable
class Carrier(Protocol):
    """A problem that carries something from one training batch to the next."""

    def state_dict(self) -> dict[str, Any]:
        """What is carried now: tensors, numbers, text, and lists and dicts of these."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, with its tensors on the CPU."""
        ...


@runtime_checkable
class Taught(Protocol):
    """A problem that may be taught in lessons."""

    @property
    def lesson(self) -> tuple[int, int] | None:
        """The current lesson, from 1, and how many there are; None where there are none."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """A problem that several processes can train together: its items have losses of their own."""

    def part(self, batch: Any, index: int, of: int) -> Any:
        """Part number `index` (from 0) of the `of` parts of a batch; together they have all its items, in order."""
        ...


def rows_of_part(count: int, index: int, of: int) -> slice:
    """Which of `count` rows are part number `index` of `of`; the first parts are the larger ones.

    Raises:
        InputError: there are fewer rows than parts.

    >>> [rows_of_part(8, i, 3) for i in range(3)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
    """
    if count < of:
        raise InputError(describe("LoopConfig", "processes: a batch has fewer rows", got=count, expected=f">= {of}"))
    size, more = divmod(count, of)
    start = index * size + min(index, more)
    return slice(start, start + size + (index < more))


class Totals:
    """Sums of measures. Tensors are read only when a figure is asked for, so that an accelerator need not wait."""

    def __init__(self) -> None:
        self._loss = 0.0
        self._correct: Counter[int] = Counter()
        self._count: Counter[int] = Counter()
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, measure: Measure) -> None:
        """Count one batch."""
        groups = measure.groups
        loss = measure.losses.detach().float().sum()
        self._pending.append((loss, torch.bincount(groups[measure.correct]), torch.bincount(groups)))

    def _read(self) -> None:
        for loss, correct, count in self._pending:
            self._loss += loss.item()
            for table, counts in ((self._correct, correct), (self._count, count)):
                table.update({group: n for group, n in enumerate(counts.tolist()) if n})
        self._pending.clear()

    @property
    def count(self) -> int:
        """Items seen."""
        self._read()
        return sum(self._count.values())

    @property
    def loss(self) -> float:
        """Mean loss over items."""
        count = self.count
        return self._loss / count

    @property
    def group_accuracy(self) -> dict[int, float]:
        """Accuracy of every group that was seen."""
        self._read()
        return {group: self._correct[group] / n for group, n in sorted(self._count.items())}

    @property
    def accuracy(self) -> float:
        """Mean of the groups' accuracies: every group weighs the same, however many items it has."""
        accuracies = self.group_accuracy.values()
        return sum(accuracies) / len(accuracies)

    def state_dict(self) -> dict:
        """All sums, as plain numbers."""
        self._read()
        return {"loss": self._loss, "correct": dict(self._correct), "count": dict(self._count)}

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave."""
        self._loss, self._correct, self._count = state["loss"], Counter(state["correct"]), Counter(state["count"])
        self._pending.clear()


def evaluate(
    problem: Problem[BatchT],
    batches: Iterable[BatchT],
    *,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Totals:
    """Run the model of `problem` on `batches`, in evaluation mode and without gradients; its mode is put back.

    Args:
        problem: gives the model, and measures.
        batches: may be made one after the other.
        around: a context for each run of the model, such as a precision.
    """
    totals = Totals()
    training = {module: module.training for module in problem.model.modules()}
    problem.model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                with around():
                    totals.add(problem.measure(batch))
    finally:
        for module, mode in training.items():
            module.training = mode
    return totals


def in_numbers_of(dtype: torch.dtype | None, batch: Any) -> Any:
    """A batch with its floating-point tensors as `dtype`, in whatever containers and data classes; None leaves it."""
    if dtype is None:
        return batch
    if isinstance(batch, Tensor):
        return batch.to(dtype) if batch.is_floating_point() else batch
    if isinstance(batch, Mapping):
        return {name: in_numbers_of(dtype, value) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        values = [in_numbers_of(dtype, value) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: in_numbers_of(dtype, getattr(batch, f.name)) for f in fields(batch)})
    return batch
