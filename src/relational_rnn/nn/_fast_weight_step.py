"""What a step of the fast-weight memory computes, and its write."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Shape legend: B batch, W width, H heads, K key size, V value size,
#               G = B * H matrices: inside a step, batch and heads are one axis, as batched products want it


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """All that one step computed."""

    read_keys: list[Tensor]
    """Of each read before the write, [G, 1, K]."""
    reads: list[Tensor]
    """What each found, [G, 1, V]."""
    keys: Tensor
    """[G, 2, K]: k of the write, q of the read after it."""
    value: Tensor
    """[G, 1, V]."""
    strength: Tensor
    """beta [G, 1, 1]."""
    keep: Tensor
    """alpha [G, 1, 1]."""
    found: Tensor
    """What the read after the write found, [G, 1, V]."""
    memory: Tensor
    """After the step, [G, K, V]."""
    output: Tensor
    """y [B, W]."""


def write_and_read(
    memory: Tensor, keys: Tensor, value: Tensor, strength: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """The gated delta rule, and a read of what it leaves.

    Args:
        memory: [G, K, V].
        keys: [G, 2, K], of the write and of the read.
        value: [G, 1, V].
        strength: beta [G, 1, 1].
        keep: alpha [G, 1, 1].

    Returns:
        (the memory after the write [G, K, V], what the second key reads there [G, 1, V]).
    """
    key, query = keys.chunk(2, 1)
    held, seen = torch.bmm(keep * keys, memory).chunk(2, 1)  # of what is kept, which may be in range where all is not
    correction = strength * (value - held)
    # What the query reads after the write is what it saw before and its share of the correction: the memory, by far
    # the largest tensor of a step, is not gone over again.
    found = seen + (query * key).sum(-1, keepdim=True) * correction
    return keep * memory + torch.bmm(key.mT, correction), found
