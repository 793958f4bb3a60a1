"""A long sequence, a few steps at a time, for every loop over time.

Without gradients nothing of a step is needed once the next one has begun. Taken in pieces, a sequence needs little more
memory than its results.
"""

# Shape legend: B batch, T time steps

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.readable import may_be_written

StateT = TypeVar("StateT")


class Marks(NamedTuple):
    """Which steps of a sequence happen, and where it begins anew; see `relational_scan`."""

    lengths: Tensor | None = None  # [B]
    reset: Tensor | None = None  # [B, T]
    initial: Tensor | None = None  # [N, M] or [B, N, M], needed with `reset`


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """[B, T] booleans: true at the first `lengths[b]` of T steps."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)


def pieces(
    together: int, x: Tensor, lengths: Tensor | None, reset: Tensor | None
) -> Iterator[tuple[slice, Tensor, Tensor | None, Tensor | None]]:
    """A sequence in pieces of `together` steps, the last may be shorter: which steps, their input, lengths, resets."""
    for start in range(0, x.shape[1], together):
        steps = slice(start, min(start + together, x.shape[1]))
        left = None if lengths is None else (lengths.to(torch.int64) - start).clamp(0, steps.stop - start)
        yield steps, x[:, steps], left, None if reset is None else reset[:, steps]


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
    """What `take` makes of a sequence `x` [B, T, ...]; a long one is taken in pieces if nothing wants a gradient.

    Args:
        take: from the input, the state before it, lengths and resets to results [B, T, ...] and the state after it.
        together: how many steps may be taken at once without gradients.
        x: the sequence.
        state: before its first step.
        lengths: [B], or None.
        reset: [B, T], or None.
        given: every tensor that takes part.
    """
    if x.shape[1] <= together or not may_be_written(given):
        return take(x, state, lengths, reset)
    whole: list[Tensor] = []
    for steps, part, left, resets in pieces(together, x, lengths, reset):
        results, state = take(part, state, left, resets)
        whole = whole or [t.new_empty(t.shape[0], x.shape[1], *t.shape[2:]) for t in results]
        for kept, t in zip(whole, results, strict=True):
            kept[:, steps] = t
    return whole, state
