"""A long sequence, a few steps at a time; for every loop over time, the cores' too.

Without gradients nothing of a step is needed once the next one has begun. Taken in pieces, what depends on the input
alone and what every step computes on its way are there for a few steps only, and results go where they stay: a sequence
takes the memory of its results and little more.
"""

# Shape legend: B batch, T time steps

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.readable import may_be_written

StateT = TypeVar("StateT")


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """[B, T] booleans: true at the first `lengths[b]` of T steps."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)


class Piece(NamedTuple):
    """Some steps of a sequence."""

    steps: slice
    x: Tensor  # [B, steps, ...]
    lengths: Tensor | None  # [B], how many of these steps happen
    reset: Tensor | None  # [B, steps]


def pieces(together: int, x: Tensor, lengths: Tensor | None, reset: Tensor | None) -> Iterator[Piece]:
    """A sequence in pieces of `together` steps; the last one may be shorter."""
    resets = None if reset is None else iter(reset.split(together, 1))
    for i, part in enumerate(x.split(together, 1)):
        start = i * together
        left = None if lengths is None else (lengths - start).clamp(0, part.shape[1])
        yield Piece(slice(start, start + part.shape[1]), part, left, None if resets is None else next(resets))


def in_pieces(
    take: Callable[[Tensor, StateT, Tensor | None, Tensor | None], tuple[list[Tensor], StateT]],
    together: int,
    x: Tensor,
    state: StateT,
    lengths: Tensor | None,
    reset: Tensor | None,
    *,
    given: Iterable[Tensor | None],
) -> tuple[list[Tensor], StateT]:
    """What `take` makes of a sequence; a long one is taken in pieces, if no tensor that is `given` wants a gradient.

    Args:
        take: from the input, the state before it, lengths and resets to results [B, T, ...] and the state after it.
        together: how many steps may be taken at once without gradients.
        x: [B, T, ...].
        state: before the first step.
        lengths: [B] whole numbers in 0..T, or None.
        reset: [B, T] booleans, or None.
        given: every tensor that takes part.
    """
    if x.shape[1] <= together or not may_be_written(given):
        return take(x, state, lengths, reset)
    whole: list[Tensor] = []
    for piece in pieces(together, x, lengths, reset):
        results, state = take(piece.x, state, piece.lengths, piece.reset)
        whole = whole or [t.new_empty(t.shape[0], x.shape[1], *t.shape[2:]) for t in results]
        for kept, t in zip(whole, results, strict=True):
            kept[:, piece.steps] = t
    return whole, state
