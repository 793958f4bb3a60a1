"""The sizes of a piece of work of the CPU scan, and the memory that its activations live in."""

# Shape legend: as in cpu.py

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.reference import ScanParameters

_ALIGNMENT = 64  # bytes, a cache line
_HUGE = 1 << 22  # bytes from which numpy asks the kernel for huge pages
_NUMPY_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one chunk: some sequences of the batch, some of their steps."""

    steps: int
    """T."""
    batch: int
    """B."""
    slots: int
    """N."""
    inputs: int
    """n, input rows per step."""
    width: int
    """M."""
    heads: int
    """H."""
    key: int
    """K."""
    gates: int
    """Numbers per slot that the gates take, 2G; 0 without gates."""
    blocks: int
    """S."""
    layers: int
    """L."""
    sonnet: bool
    """The formulation: sonnet or chapter."""
    input_rows: bool
    """Whether the attended rows of the input are wanted."""

    @property
    def rows(self) -> int:
        return self.slots + self.inputs

    @property
    def value(self) -> int:
        return self.width // self.heads

    @property
    def qkv(self) -> int:
        return self.heads * (2 * self.key + self.value)

    def queries(self, block: int) -> int:
        """Rows whose result is used: in the last block the input's are not, unless they are asked for."""
        return self.rows if self.input_rows or block < self.blocks - 1 else self.slots

    def products(self, block: int) -> bool:
        """Whether the attention of a block is large enough for batched matrix products, see `_cpu_attention`."""
        return self.queries(block) * self.rows * min(self.key, self.value) >= 400


def sizes_of(params: ScanParameters, x: Tensor, memory: Tensor, input_rows: bool) -> Sizes:
    batch, steps, inputs = x.shape[:3]
    return Sizes(
        steps=steps,
        batch=batch,
        slots=memory.shape[1],
        inputs=inputs,
        width=params.input.weight.shape[0],
        heads=params.settings.num_heads,
        key=params.settings.key_size,
        gates=0 if params.gate_memory is None else params.gate_memory.weight.shape[0],
        blocks=len(params.blocks),
        layers=len(params.mlp),
        sonnet=params.settings.formulation == "sonnet",
        input_rows=input_rows,
    )


@dataclass(frozen=True, slots=True)
class BlockActivations:
    """What the backward pass needs of one attention block; Q rows of R are used further on."""

    z: Tensor  # [T, R, B, F] queries, keys and values, before their normalisation if they have one
    weights: Tensor  # [T, R, B * H, Q], or [T, Q, R, B * H] where products are not used
    mixed: Tensor  # [T, Q, B, M]; sonnet: h + attended, chapter: attended
    middle: Tensor | None  # [T, Q, B, M]; chapter: attended W^O
    hidden: tuple[Tensor, ...]  # L - 1 of [T, Q, B, M] after their ReLU
    total: Tensor  # [T, Q, B, M], before the last normalisation


@dataclass(frozen=True, slots=True)
class GateActivations:
    """What the backward pass needs of the gates."""

    squashed: Tensor  # [T, N, B, M] tanh of the memory before the step
    gates: Tensor  # [T, N, B, 2G], the input gates first


@dataclass(frozen=True, slots=True)
class Activations:
    """Everything kept of one chunk, cut from one piece of memory."""

    memory: Tensor  # flat
    table: Tensor  # [T, R, B, M] the memory before every step, and the input's rows
    blocks: tuple[BlockActivations, ...]
    gating: GateActivations | None


def fresh(count: int, dtype: torch.dtype) -> Tensor:
    """`count` numbers, not initialised; large ones on huge pages, which take a quarter of the time to touch first."""
    if count * dtype.itemsize >= _HUGE:
        return torch.from_numpy(np.empty(count, _NUMPY_DTYPES[dtype]))
    return torch.empty(count, dtype=dtype, device="cpu")  # whatever device PyTorch has as its default


def activations(s: Sizes, dtype: torch.dtype, memory: Tensor | None = None) -> Activations:
    """The activations of a chunk, in `memory` if it is given (as left by an earlier call for the same sizes)."""
    steps, rows, per_row = s.steps, s.rows, (s.batch, s.width)
    shapes: list[tuple[int, ...]] = [(steps, rows, *per_row)]
    for block in range(s.blocks):
        q, matrices = s.queries(block), s.batch * s.heads
        shapes.append((steps, rows, s.batch, s.qkv))
        shapes.append((steps, rows, matrices, q) if s.products(block) else (steps, q, rows, matrices))
        shapes.extend([(steps, q, *per_row)] * (2 + (not s.sonnet) + s.layers - 1))
    if s.gates:
        shapes.extend([(steps, s.slots, *per_row), (steps, s.slots, s.batch, s.gates)])
    unit = _ALIGNMENT // dtype.itemsize
    counts = [math.prod(shape) for shape in shapes]
    padded = [-(-count // unit) * unit for count in counts]
    if memory is None:
        memory = fresh(sum(padded), dtype)
    pieces = iter(
        [piece[:count].view(shape) for piece, count, shape in zip(memory.split(padded), counts, shapes, strict=True)]
    )
    return Activations(
        memory=memory,
        table=next(pieces),
        blocks=tuple(_block(s, pieces) for _ in range(s.blocks)),
        gating=GateActivations(next(pieces), next(pieces)) if s.gates else None,
    )


def _block(s: Sizes, pieces: Iterator[Tensor]) -> BlockActivations:
    return BlockActivations(
        z=next(pieces),
        weights=next(pieces),
        mixed=next(pieces),
        middle=None if s.sonnet else next(pieces),
        hidden=tuple(next(pieces) for _ in range(s.layers - 1)),
        total=next(pieces),
    )
