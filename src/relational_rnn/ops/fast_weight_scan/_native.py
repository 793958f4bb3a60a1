"""What a call of the fast-weight scan tells the compiled kernels, and the tables that it works in."""

# Shape legend: as in reference.py; N numbers of a memory, H * K * V

from __future__ import annotations

import ctypes
from collections import namedtuple
from enum import IntEnum
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._native import LibraryCall, fresh, over_time

_LONG, _POINTER, _DOUBLE = ctypes.c_long, ctypes.c_void_p, ctypes.c_double
_ALIGNED = 16  # numbers


class Phase(IntEnum):
    """What the threads work on together."""

    PACK_FORWARD = 0
    FORWARD = 1
    PACK_BACKWARD = 2
    BACKWARD = 3


class Numbers(IntEnum):
    """Pieces of memory that a call needs, whose sizes the library tells."""

    PACKED = 0  # once
    SUMS = 1  # per tile
    SCRATCH = 2  # per thread


class FastCall(LibraryCall):
    """`FastCall` of native/fast_call.h, where the fields are explained."""

    family: ClassVar[str] = "fast"
    _fields_ = (
        *((name, _LONG) for name in ("batch", "steps", "width", "heads", "key", "value", "reads")),
        *((name, _LONG) for name in ("carry", "outputs_needed")),
        ("max_strength", _DOUBLE),
        *((name, _LONG) for name in ("tile_batch", "kept", "next")),
        ("parameters", _POINTER),
        *over_time("p"),
        *((name, _POINTER) for name in ("memory", "carried", "initial", "initial_carried")),
        *((name, _LONG) for name in ("initial_batch", "initial_carried_batch")),
        *((name, _POINTER) for name in ("lengths", "reset", "outputs", "memories", "final", "final_carried")),
        *over_time("d_outputs"),
        *over_time("d_memories"),
        *((name, _POINTER) for name in ("d_memory", "d_carried", "d_initial", "d_initial_carried")),
        *((name, _POINTER) for name in ("activations", "activation_widths", "differences", "difference_widths")),
        *((name, _POINTER) for name in ("packed", "sums", "scratch")),
    )


class FastSizes(NamedTuple):
    """The sizes of a call."""

    batch: int
    steps: int
    width: int
    heads: int
    key: int
    value: int
    reads: int
    carry: bool
    outputs_needed: bool

    @property
    def keys(self) -> int:
        return self.heads * self.key

    @property
    def values(self) -> int:
        return self.heads * self.value

    @property
    def memory(self) -> int:
        return self.keys * self.value

    @property
    def written(self) -> int:
        return self.keys + self.values + 2 * self.heads


# The tables of native/fast_call.h, tensors all; first those of every step, then those of every read.
Activations = namedtuple(
    "Activations",
    "carried mlp_input hidden mlp_total mlp_stats writer keys written scales old found out_total out_stats",
)
ReadActivations = namedtuple("ReadActivations", "input key scales found total stats")
Differences = namedtuple("Differences", "input keys hidden mlp written out")
ReadDifferences = namedtuple("ReadDifferences", "key value")


def activation_widths(s: FastSizes) -> list[int]:
    """Numbers in a row of each table; 0 for what a call has no use for."""
    w, out = s.width, s.outputs_needed
    first = [w * s.carry, w, w, w, 2, w, s.keys, s.written, 2 * s.heads, s.values, s.values * out, w * out, 2 * out]
    return first + [w, s.keys, s.heads, s.values, w, 2] * s.reads


def difference_widths(s: FastSizes) -> list[int]:
    w = s.width
    return [w, s.keys, w, w, s.written, w * s.outputs_needed] + [s.keys, w] * s.reads


class Tables:
    """Tables [steps, B, width], side by side in one piece of memory."""

    def __init__(self, widths: list[int], steps: int, batch: int, dtype: torch.dtype, memory: Tensor | None) -> None:
        sizes = [steps * batch * width for width in widths]
        padded = [-(-size // _ALIGNED) * _ALIGNED for size in sizes]
        self.memory = fresh(sum(padded), dtype) if memory is None else memory
        self.tensors = [
            piece[:size].view(steps, batch, width)
            for piece, size, width in zip(self.memory.split(padded), sizes, widths, strict=True)
        ]
        self.addresses = (_POINTER * len(widths))(*(t.data_ptr() if t.numel() else None for t in self.tensors))
        self.widths = (_LONG * len(widths))(*widths)
