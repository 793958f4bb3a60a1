"""What a generated task is: batches as a pure function of configuration, seed, split and number.

Shape legend: B sequences of a batch, T steps of the longest, F features of a step, K answers of a sequence.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.tasks.curriculum import Curriculum

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
Answer = Literal["end", "every", "decoded"]
"""Where a task wants its answers: after the last step, at steps of its choice, or one after the other when the input is
over."""
NO_ANSWER = -1
"""The target of a place that asks for nothing."""


@dataclass(frozen=True, slots=True)
class TaskBatch:
    """Sequences, what is asked about them, and the right answers."""

    inputs: Tensor
    """[B, T, F] float32 features, or [B, T] int64 tokens (0 = padding)."""
    lengths: Tensor | None
    """[B] int64 steps of each sequence; None where all have T."""
    targets: Tensor
    """[B, K] int64 classes, NO_ANSWER where nothing is asked: K is 1 for answers at the end, T for answers at every
    step, the longest answer for decoded ones."""
    groups: Tensor
    """[B] int64 the group that a sequence is counted in."""

    def to(self, device: torch.device | str) -> TaskBatch:
        """The same batch on another device."""
        lengths = None if self.lengths is None else self.lengths.to(device, non_blocking=True)
        inputs, targets, groups = (t.to(device, non_blocking=True) for t in (self.inputs, self.targets, self.groups))
        return TaskBatch(inputs, lengths, targets, groups)

    def rows(self, rows: slice) -> TaskBatch:
        """Some of the sequences."""
        lengths = None if self.lengths is None else self.lengths[rows]
        return TaskBatch(self.inputs[rows], lengths, self.targets[rows], self.groups[rows])

    @property
    def asked(self) -> Tensor:
        """[B, K] booleans: where an answer is asked for."""
        return self.targets != NO_ANSWER


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskShape:
    """What a model must fit."""

    inputs: int
    """Features of a step, F, or how many tokens there are, padding included."""
    tokens: bool
    """The inputs are tokens."""
    classes: int
    """Answer classes."""
    answer: Answer
    """Where the answers are given."""
    steps: int
    """The longest training sequence, in steps of the core: decoding counts too."""
    groups: tuple[str, ...]
    """Names of the groups that sequences are counted in; a batch's `groups` are numbers of them."""
    beyond: tuple[str, ...] = ()
    """Those of the groups that training never shows, e.g. longer sequences; they are measured apart."""


class Task(ABC):
    """A task's configuration, which can draw its batches; subclasses are frozen dataclasses."""

    __slots__ = ()
    name: ClassVar[str]
    """As it is typed, e.g. "nth-farthest"."""

    @property
    @abstractmethod
    def shape(self) -> TaskShape:
        """What a model must fit."""

    def make_curriculum(self) -> Curriculum | None:
        """A curriculum at its first level; None where the difficulty of training does not depend on its progress."""
        return None

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator, *, split: Split, level: int | None = None) -> TaskBatch:
        """`count` sequences, on the device of the generator.

        Args:
            count: how many.
            generator: decides everything random.
            split: "train" and "valid" are what training shows; "test" has all groups of the shape.
            level: of the curriculum, from 0; None is the last. Only training looks at it.
        """


def stream_seed(seed: int, split: Split, number: int) -> int:
    """The seed of the generator of batch `number`: 32 bits, since PyTorch's CPU generator ignores any others.

    The two lowest bits are the split, so that no batch of one split can be one of another, whatever their seeds. Under
    one seed, the first 2^30 batches of a split all differ.

    >>> stream_seed(0, "train", 0) % 4, stream_seed(0, "valid", 0) % 4, stream_seed(7, "test", 3) % 4
    (0, 1, 2)
    """
    start = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=4).digest(), "big")
    return (start + number * 0x9E3779B1) % 2**30 * 4 + SPLITS.index(split)


def draw_batch(
    task: Task,
    split: Split,
    number: int,
    *,
    seed: int,
    size: int,
    device: torch.device | str = "cpu",
    level: int | None = None,
) -> TaskBatch:
    """Batch `number` (from 0) of a split: the same batch for the same arguments, and for no others.

    The devices "cpu" and "cuda" have generators of their own and draw different batches.

    Raises:
        InputError: a split, a number or a size that cannot be.

    Example:
        >>> from relational_rnn.tasks.nth_farthest import NthFarthest
        >>> draw_batch(NthFarthest(), "train", 5, seed=0, size=3).inputs.shape
        torch.Size([3, 8, 40])
    """
    check_choice("draw_batch", "split", split, SPLITS)
    check_positive("draw_batch", size=size)
    if not 0 <= number < 2**30:
        raise InputError(describe("draw_batch", "there is no such batch", got=number, expected="0 to 2**30 - 1"))
    generator = torch.Generator(device).manual_seed(stream_seed(seed, split, number))
    return task.draw(size, generator, split=split, level=level)
