"""What surrounds the two kernels: their arguments and tiles, and the gradients of the weights, by PyTorch.

Everything that `relational_scan_triton` does between the products over the input and its results.
"""

# Shape legend: that of triton_scan.py

# pyright: reportMissingImports=false

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn.ops.relational_scan.cpu import ActivationMode
from relational_rnn.ops.relational_scan.readable import backward_against
from relational_rnn.ops.relational_scan.reference import LAYER_NORM_EPS, ScanParameters

MOST_ROWS = 64  # of memory in a tile, and so slots
_PROCESSORS = 132  # of the GPU that the tiles are made for


class Tiling(NamedTuple):
    """Sizes of tiles; each a power of two and at least 16."""

    columns: int = 64  # of a product's tile
    inner: int = 32  # numbers that a product's tile adds up at a time
    elementwise: int = 64  # columns of an elementwise tile
    stages: int = 3  # inner tiles in flight


TILING = Tiling()
"""What kernels are launched with."""
_BACKWARD_WEIGHTS = {
    "qkv_weight",
    "qkv_norm_weight",
    "qkv_norm_bias",
    "out_weight",
    "attention_norm_weight",
    "mlp_weight",
    "mlp_norm_weight",
    "mlp_norm_bias",
    "gate_weight",
}


def precision(dtype: torch.dtype) -> str:
    """How products of float32 matrices are computed: as PyTorch is told to compute its own on this GPU."""
    relaxed = dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if relaxed else "ieee"


class TritonSizes(NamedTuple):
    """What a call is, besides its tensors."""

    batch: int
    steps: int
    slots: int
    inputs: int
    width: int
    qkv: int
    heads: int
    key: int
    layers: int
    gates: int | None  # 2G
    sonnet: bool


class Weights(NamedTuple):
    """What the kernels read in every step; None where the formulation has none."""

    qkv_weight: Tensor
    qkv_bias: Tensor
    qkv_norm_weight: Tensor | None
    qkv_norm_bias: Tensor | None
    out_weight: Tensor | None
    out_bias: Tensor | None
    attention_norm_weight: Tensor | None
    attention_norm_bias: Tensor | None
    mlp_weight: Tensor  # [L, M, M]
    mlp_bias: Tensor  # [L, M]
    mlp_norm_weight: Tensor
    mlp_norm_bias: Tensor
    gate_weight: Tensor | None


def weights_of(params: ScanParameters) -> Weights:
    block = params.blocks[0]
    none = None, None
    return Weights(
        *block.qkv,
        *(block.qkv_norm or none),
        *(block.out or none),
        *(block.attention_norm or none),
        torch.stack([layer.weight for layer in params.mlp]),
        torch.stack([layer.bias for layer in params.mlp]),
        *block.mlp_norm,
        None if params.gate_memory is None else params.gate_memory.weight,
    )


class Activations(NamedTuple):
    """What a step leaves for the backward pass: [B, C, N, *], C steps of a chunk, or one that each step overwrites."""

    before: Tensor  # M, the memory before the step
    z: Tensor  # F
    mixed: Tensor  # M, what attention left, with its residual in the formulation "sonnet"
    middle: Tensor  # M, what enters the MLP
    hidden: Tensor  # [L - 1, B, C, N, M]
    total: Tensor  # M
    gates: Tensor | None  # 2G


def _activations(s: TritonSizes, like: Tensor, kept: int, cleared: bool) -> Activations:
    make = like.new_zeros if cleared else like.new_empty  # a tile stops at its longest sequence

    def per_step(width: int) -> Tensor:
        return make(s.batch, kept, s.slots, width)

    wide = (per_step(s.width) for _ in range(4))
    hidden = make(s.layers - 1, s.batch, kept, s.slots, s.width)
    before, mixed, middle, total = wide
    return Activations(
        before, per_step(s.qkv), mixed, middle, hidden, total, None if s.gates is None else per_step(s.gates)
    )


def _constants(s: TritonSizes, like: Tensor) -> dict[str, Any]:
    """What both kernels are specialised for."""
    import triton.language as tl

    rows = tile_rows(s, like.dtype)
    sequences = rows // s.slots
    value = s.width // s.heads
    return {
        "scale": s.key**-0.5,
        "EPS": LAYER_NORM_EPS,
        "N": s.slots,
        "n": s.inputs,
        "M": s.width,
        "F": s.qkv,
        "H": s.heads,
        "K": s.key,
        "V": value,
        "L": s.layers,
        "GATED": s.gates is not None,
        "UNIT": s.gates == 2 * s.width,
        "SONNET": s.sonnet,
        "BS": sequences,
        "BM": rows,
        "BI": _power_of_two(sequences * s.inputs),
        "KP": _power_of_two(s.key),
        "VP": _power_of_two(value),
        "BN": TILING.columns,
        "BK": TILING.inner,
        "BC": TILING.elementwise,
        "STAGES": TILING.stages,
        "PRECISION": precision(like.dtype),
        "ACC": tl.float64 if like.dtype == torch.float64 else tl.float32,
    }


def _power_of_two(size: int) -> int:
    """The smallest power of two, at least 16, that holds `size`: what a product's tile may measure."""
    return max(16, 1 << (size - 1).bit_length())


def tile_rows(s: TritonSizes, dtype: torch.dtype) -> int:
    """Memory rows per program: as many as leave a tile for every processor, and whole sequences."""
    # Without tensor cores a product's operands are in registers, which larger tiles spill.
    exact = dtype == torch.float64 or (dtype == torch.float32 and precision(dtype) == "ieee")
    most, rows = 32 if exact else MOST_ROWS, 16
    while rows < most and s.batch * s.slots >= 2 * rows * _PROCESSORS:
        rows *= 2
    return max(rows, _power_of_two(s.slots))


def _programs(s: TritonSizes, dtype: torch.dtype) -> int:
    return math.ceil(s.batch / (tile_rows(s, dtype) // s.slots))


def _launch(kernel: Any, s: TritonSizes, like: Tensor, arguments: dict[str, Any]) -> None:
    warps = 4 if tile_rows(s, like.dtype) == 16 else 8
    with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
        # One stage: only the products, which say so themselves, read ahead; other loops read what they have written.
        kernel[(_programs(s, like.dtype),)](**arguments, num_warps=warps, num_stages=1)


class Sequence(NamedTuple):
    """The tensors of a call that run over time."""

    input_qkv: Tensor  # [B, T, n, F]
    gate_terms: Tensor | None  # [B, T, 2G]
    lengths: Tensor | None  # [B]
    reset: Tensor | None  # [B, T]
    initial: Tensor | None  # [N, M] or [B, N, M]


def _forward(
    s: TritonSizes, q: Sequence, w: Weights, act: Activations, state: Tensor, memories: Tensor | None, chunk: range
) -> None:
    """The steps of a chunk, from `state` [B, N, M], which ends as the memory after them."""
    from relational_rnn.ops.relational_scan._triton_forward import forward_kernel

    kept = act.before.shape[1]
    arguments = {
        **w._asdict(),
        **q._asdict(),
        "memories": memories,
        "state": state,
        **act._asdict(),
        "squashed": None if q.gate_terms is None else torch.empty_like(state),
        "batch": s.batch,
        "steps": s.steps,
        "start": chunk.start,
        "stop": chunk.stop,
        "kept": kept,
        "initial_stride": 0 if q.initial is None or q.initial.dim() == 2 else s.slots * s.width,
        "KEEP": kept == len(chunk),
        **_constants(s, state),
    }
    _launch(forward_kernel, s, state, arguments)


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if t is None else t.contiguous() for t in tensors]


class Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        s: TritonSizes,
        activations: ActivationMode,
        input_qkv: Tensor,
        gate_terms: Tensor | None,
        memory: Tensor,
        lengths: Tensor | None,
        reset: Tensor | None,
        initial: Tensor | None,
        *weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        sequence = Sequence(*_contiguous(input_qkv, gate_terms, lengths, reset, initial))
        w = Weights(*_contiguous(*weights))
        needed = any(ctx.needs_input_grad)
        store = needed and activations == "store"
        act = _activations(s, memory, s.steps if store else 1, cleared=store and lengths is not None)
        make = memory.new_empty if lengths is None else memory.new_zeros
        memories = make(s.batch, s.steps, s.slots, s.width)
        state = memory.clone(memory_format=torch.contiguous_format)
        _forward(s, sequence, w, act, state, memories, range(s.steps))
        ctx.sizes, ctx.store = s, store
        ctx.set_materialize_grads(False)
        if needed:
            kept = act if store else (memory, memories)
            ctx.save_for_backward(*sequence, *w, *kept)
        return memories, state

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        if torch.is_grad_enabled():  # a gradient of this gradient will be wanted
            hint = "backend='reference' has gradients of gradients."
            raise InputError(describe("relational_scan", "backend 'triton' has no gradients of gradients", hint=hint))
        if backward_against(cotangents):
            hint = "backend='reference' has them, as torch.func.vmap and is_grads_batched=True ask for them."
            raise InputError(describe("relational_scan", "backend 'triton' has no batched gradients", hint=hint))
        s: TritonSizes = ctx.sizes
        d_memories, d_final = cotangents
        saved = iter(ctx.saved_tensors)
        sequence = Sequence(*(next(saved) for _ in Sequence._fields))
        w = Weights(*(next(saved) for _ in Weights._fields))
        like = sequence.input_qkv
        sums = torch.promote_types(like.dtype, torch.float32)
        if d_memories is None:
            d_memories = like.new_zeros(s.batch, s.steps, s.slots, s.width)
        found = Gradients.zeros(s, sequence, w, sums)
        if d_final is not None:
            found.carry.copy_(d_final)
        if ctx.store:
            _backward(s, sequence, w, Activations(*saved), d_memories.contiguous(), found, range(s.steps))
        else:
            memory, memories = saved
            size = math.ceil(math.sqrt(s.steps))
            for start in reversed(range(0, s.steps, size)):
                chunk = range(start, min(start + size, s.steps))
                act = _activations(s, like, len(chunk), cleared=sequence.lengths is not None)
                state = (memories[:, start - 1] if start else memory).clone(memory_format=torch.contiguous_format)
                _forward(s, sequence, w, act, state, None, chunk)
                _backward(s, sequence, w, act, d_memories.contiguous(), found, chunk)
        d_weights = found.weights(w)
        d_initial = found.initial
        if d_initial is not None and sequence.initial is not None:
            d_initial = (d_initial.sum(0) if sequence.initial.dim() == 2 else d_initial).to(like.dtype)
        d_terms = None if found.gate_terms is None else found.gate_terms.to(like.dtype)
        return None, None, found.input_qkv, d_terms, found.carry.to(like.dtype), None, None, d_initial, *d_weights


@dataclass
class Gradients:
    """The gradients of a call, added up chunk by chunk, in the accumulators' dtype where something is added."""

    carry: Tensor  # [B, N, M], of the memory
    initial: Tensor | None  # [B, N, M]
    input_qkv: Tensor  # [B, T, n, F]
    gate_terms: Tensor | None  # [B, T, 2G]
    weight: dict[str, Tensor]  # those that are products, by their name in `Weights`, and their biases
    norm: dict[str, Tensor]  # [programs, 2, *], sums of the norms' weights and biases

    @classmethod
    def zeros(cls, s: TritonSizes, q: Sequence, w: Weights, dtype: torch.dtype) -> Gradients:
        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=dtype, device=q.input_qkv.device)

        products = {name: zeros(*t.shape) for name, t in w._asdict().items() if t is not None and "norm" not in name}
        names = {"qkv_norm": s.qkv, "attention_norm": s.width, "mlp_norm": s.width}
        return cls(
            carry=zeros(s.batch, s.slots, s.width),
            initial=None if q.reset is None else zeros(s.batch, s.slots, s.width),
            input_qkv=torch.zeros_like(q.input_qkv),
            gate_terms=None if q.gate_terms is None else torch.zeros_like(q.gate_terms),
            weight=products,
            norm={name: zeros(_programs(s, q.input_qkv.dtype), 2, width) for name, width in names.items()},
        )

    def weights(self, w: Weights) -> list[Tensor | None]:
        """In the order of `Weights`, in its dtypes."""
        sums = {name: total.sum(0) for name, total in self.norm.items()}
        for name, (weight, bias) in sums.items():
            self.weight |= {f"{name}_weight": weight, f"{name}_bias": bias}
        return [None if t is None else self.weight[name].to(t.dtype) for name, t in w._asdict().items()]


def _backward(
    s: TritonSizes, q: Sequence, w: Weights, act: Activations, d_memories: Tensor, found: Gradients, chunk: range
) -> None:
    """The steps of a chunk, from the last to the first, and then the products over all of them."""
    from relational_rnn.ops.relational_scan._triton_backward import backward_kernel

    steps = len(chunk)
    d = _activations(s, q.input_qkv, steps, cleared=q.lengths is not None)
    work, d_mixed = torch.empty_like(found.carry), torch.empty_like(found.carry)
    arguments = {
        **{name: t for name, t in w._asdict().items() if name in _BACKWARD_WEIGHTS},
        "input_qkv": q.input_qkv,
        "lengths": q.lengths,
        "reset": q.reset,
        **act._asdict(),
        "d_memories": d_memories,
        "carry": found.carry,
        "d_initial": found.initial,
        "d_input_qkv": found.input_qkv,
        "d_z": d.z,
        "d_middle": d.middle,
        "d_hidden": d.hidden,
        "d_total": d.total,
        "d_gates": d.gates,
        **{f"{name}_sums": t for name, t in found.norm.items()},
        "work": work,
        "d_mixed": d_mixed,
        "d_qkv": found.carry.new_empty(s.batch, s.slots, s.qkv) if s.sonnet else None,
        "batch": s.batch,
        "steps": s.steps,
        "start": chunk.start,
        "stop": chunk.stop,
        "kept": steps,
        **_constants(s, act.before),
    }
    _launch(backward_kernel, s, q.input_qkv, arguments)

    def add(name: str, above: Tensor, below: Tensor, layer: int | None = None) -> None:
        weight, above = found.weight[f"{name}_weight"], above.flatten(0, -2)
        bias = found.weight.get(f"{name}_bias")
        (weight if layer is None else weight[layer]).add_(above.t() @ below.flatten(0, -2))
        if bias is not None:
            (bias if layer is None else bias[layer]).add_(above.sum(0, dtype=bias.dtype))

    add("qkv", d.z, act.before)
    if not s.sonnet:
        add("out", d.middle, act.mixed)
    for layer in range(s.layers):
        above = d.total if layer == s.layers - 1 else d.hidden[layer]
        add("mlp", above, act.middle if layer == 0 else act.hidden[layer - 1], layer)
    if found.gate_terms is not None and d.gates is not None:
        add("gate", d.gates, act.before.tanh())
        found.gate_terms[:, chunk.start : chunk.stop] = d.gates.sum(2)
