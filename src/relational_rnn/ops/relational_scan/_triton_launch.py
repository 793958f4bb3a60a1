"""What surrounds the two Triton kernels: their arguments and tiles, and the gradients of the weights, by PyTorch."""

# Shape legend: that of triton_scan.py

# pyright: reportMissingImports=false

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn.ops.relational_scan.loop import ActivationMode
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


TILING = Tiling()  # what kernels are launched with


def precision(dtype: torch.dtype) -> str:
    """How exact products of matrices are: as exact as PyTorch's own on this GPU."""
    relaxed = dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if relaxed else "ieee"


class TritonSizes(NamedTuple):
    """What a call is, besides its tensors; capitals as the kernels' constants."""

    batch: int
    steps: int
    N: int
    n: int
    M: int
    F: int
    H: int
    K: int
    L: int
    gates: int  # 2G, or 0
    SONNET: bool


class Given(NamedTuple):
    """What the kernels read in every step, by the names of their arguments; None where a call has none."""

    input_qkv: Tensor  # [B, T, n, F]
    gate_terms: Tensor | None  # [B, T, 2G]
    lengths: Tensor | None  # [B]
    reset: Tensor | None  # [B, T]
    initial: Tensor | None  # [N, M] or [B, N, M]
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


def weights_of(params: ScanParameters) -> list[Tensor | None]:
    """The weights in the order of `Given`."""
    block = params.blocks[0]
    none = None, None
    return [
        *block.qkv,
        *(block.qkv_norm or none),
        *(block.out or none),
        *(block.attention_norm or none),
        torch.stack([layer.weight for layer in params.mlp]),
        torch.stack([layer.bias for layer in params.mlp]),
        *block.mlp_norm,
        None if params.gate_memory is None else params.gate_memory.weight,
    ]


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
    before, mixed, middle, total = (make(s.batch, kept, s.N, s.M) for _ in range(4))
    z = make(s.batch, kept, s.N, s.F)
    hidden = make(s.L - 1, s.batch, kept, s.N, s.M)
    gates = None if s.gates == 0 else make(s.batch, kept, s.N, s.gates)
    return Activations(before, z, mixed, middle, hidden, total, gates)


def _power_of_two(size: int) -> int:
    """The smallest power of two, at least 16, that holds `size`: what a product's tile may measure."""
    return max(16, 1 << (size - 1).bit_length())


def tile_rows(s: TritonSizes, dtype: torch.dtype) -> int:
    """Memory rows per program: as many as leave a tile for every processor, and whole sequences."""
    # Without tensor cores a product's operands are in registers, which larger tiles spill.
    exact = dtype == torch.float64 or (dtype == torch.float32 and precision(dtype) == "ieee")
    most, rows = 32 if exact else MOST_ROWS, 16
    while rows < most and s.batch * s.N >= 2 * rows * _PROCESSORS:
        rows *= 2
    return max(rows, _power_of_two(s.N))


def _programs(s: TritonSizes, dtype: torch.dtype) -> int:
    return math.ceil(s.batch / (tile_rows(s, dtype) // s.N))


def _launch(kernel: Any, s: TritonSizes, act: Activations, chunk: range, arguments: dict[str, Any]) -> None:
    """Run a kernel over the steps of a chunk; of the `arguments` it gets those that it has."""
    import triton.language as tl

    like, kept = act.before, act.before.shape[1]
    rows, value = tile_rows(s, like.dtype), s.M // s.H
    sequences = rows // s.N
    arguments = {
        **arguments,
        **act._asdict(),
        **s._asdict(),
        "gates": act.gates,
        "start": chunk.start,
        "stop": chunk.stop,
        "kept": kept,
        "scale": s.K**-0.5,
        "EPS": LAYER_NORM_EPS,
        "V": value,
        "GATED": s.gates > 0,
        "UNIT": s.gates == 2 * s.M,
        "KEEP": kept == len(chunk),
        "BS": sequences,
        "BM": rows,
        "BI": _power_of_two(sequences * s.n),
        "KP": _power_of_two(s.K),
        "VP": _power_of_two(value),
        "BN": TILING.columns,
        "BK": TILING.inner,
        "BC": TILING.elementwise,
        "STAGES": TILING.stages,
        "PRECISION": precision(like.dtype),
        "ACC": tl.float64 if like.dtype == torch.float64 else tl.float32,
    }
    taken = {name: arguments[name] for name in kernel.arg_names}
    with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
        # One stage: only the products, which say so themselves, read ahead; other loops read what they have written.
        kernel[(_programs(s, like.dtype),)](**taken, num_warps=4 if rows == 16 else 8, num_stages=1)


def _forward(s: TritonSizes, g: Given, act: Activations, state: Tensor, memories: Tensor | None, chunk: range) -> None:
    """The steps of a chunk, from `state` [B, N, M], which ends as the memory after them."""
    from relational_rnn.ops.relational_scan._triton_forward import forward_kernel

    shared = g.initial is None or g.initial.dim() == 2
    arguments = {
        **g._asdict(),
        "memories": memories,
        "state": state,
        "squashed": None if g.gate_terms is None else torch.empty_like(state),
        "initial_stride": 0 if shared else s.N * s.M,
    }
    _launch(forward_kernel, s, act, chunk, arguments)


class Recurrence(torch.autograd.Function):
    """The steps of a sequence: from the memory before them and the fields of `Given` to all memories and the last."""

    @staticmethod
    def forward(
        ctx: Any, s: TritonSizes, activations: ActivationMode, memory: Tensor, *tensors: Any
    ) -> tuple[Tensor, Tensor]:
        laid: list[Any] = [None if t is None else t.contiguous() for t in tensors]
        g = Given(*laid)
        needed = any(ctx.needs_input_grad)
        store = needed and activations == "store"
        act = _activations(s, memory, s.steps if store else 1, cleared=store and g.lengths is not None)
        make = memory.new_empty if g.lengths is None else memory.new_zeros
        memories = make(s.batch, s.steps, s.N, s.M)
        state = memory.clone(memory_format=torch.contiguous_format)
        _forward(s, g, act, state, memories, range(s.steps))
        ctx.sizes, ctx.store = s, store
        ctx.set_materialize_grads(False)
        if needed:
            ctx.save_for_backward(*g, *(act if store else (memory, memories)))
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
        count = len(Given._fields)
        g, kept = Given(*ctx.saved_tensors[:count]), ctx.saved_tensors[count:]
        like = g.input_qkv
        if d_memories is None:
            d_memories = like.new_zeros(s.batch, s.steps, s.N, s.M)
        d_memories = d_memories.contiguous()
        found = _zeros(s, g)
        if d_final is not None:
            found["memory"].copy_(d_final)
        if ctx.store:
            _backward(s, g, Activations(*kept), d_memories, found, range(s.steps))
        else:
            memory, memories = kept
            size = math.ceil(math.sqrt(s.steps))
            for start in reversed(range(0, s.steps, size)):
                chunk = range(start, min(start + size, s.steps))
                act = _activations(s, like, len(chunk), cleared=g.lengths is not None)
                state = (memories[:, start - 1] if start else memory).clone(memory_format=torch.contiguous_format)
                _forward(s, g, act, state, None, chunk)
                _backward(s, g, act, d_memories, found, chunk)
        for name in _norms(s):
            found[f"{name}_weight"], found[f"{name}_bias"] = found[name].sum(0)
        if g.initial is not None and g.initial.dim() == 2:
            found["initial"] = found["initial"].sum(0)
        gradients = [
            None if t is None or name in ("lengths", "reset") else found[name].to(like.dtype)
            for name, t in g._asdict().items()
        ]
        return None, None, found["memory"].to(like.dtype), *gradients


def _norms(s: TritonSizes) -> dict[str, int]:
    """The widths of the norms whose gradients the kernel adds up."""
    return {"qkv_norm": s.F, "attention_norm": s.M, "mlp_norm": s.M}


def _zeros(s: TritonSizes, g: Given) -> dict[str, Tensor]:
    """The gradients by name, to be added to; sums are in the accumulators' dtype."""
    dtype = torch.promote_types(g.input_qkv.dtype, torch.float32)

    def zeros(*size: int) -> Tensor:
        return torch.zeros(size, dtype=dtype, device=g.input_qkv.device)

    weights = list(g._asdict().items())[5:]
    found = {name: zeros(*t.shape) for name, t in weights if t is not None and "norm" not in name}
    found |= {name: zeros(_programs(s, g.input_qkv.dtype), 2, width) for name, width in _norms(s).items()}
    found |= {"input_qkv": torch.zeros_like(g.input_qkv), "memory": zeros(s.batch, s.N, s.M)}
    if g.gate_terms is not None:
        found["gate_terms"] = torch.zeros_like(g.gate_terms)
    if g.reset is not None:
        found["initial"] = zeros(s.batch, s.N, s.M)
    return found


def _backward(
    s: TritonSizes, g: Given, act: Activations, d_memories: Tensor, found: dict[str, Tensor], chunk: range
) -> None:
    """The steps of a chunk, from the last to the first, and then the products over all of them."""
    from relational_rnn.ops.relational_scan._triton_backward import backward_kernel

    d = _activations(s, g.input_qkv, len(chunk), cleared=g.lengths is not None)
    carry = found["memory"]
    arguments = {
        **g._asdict(),
        **{f"d_{name}": t for name, t in d._asdict().items()},
        **{f"{name}_sums": found[name] for name in _norms(s)},
        "d_memories": d_memories,
        "carry": carry,
        "d_initial": found.get("initial"),
        "d_input_qkv": found["input_qkv"],
        "work": torch.empty_like(carry),
        "d_mixed": torch.empty_like(carry),
        "d_qkv": carry.new_empty(s.batch, s.N, s.F) if s.SONNET else None,
    }
    _launch(backward_kernel, s, act, chunk, arguments)

    def add(name: str, above: Tensor, below: Tensor, layer: int | None = None) -> None:
        above = above.flatten(0, -2)
        weight, bias = found[f"{name}_weight"], found.get(f"{name}_bias")
        (weight if layer is None else weight[layer]).add_(above.t() @ below.flatten(0, -2))
        if bias is not None:
            (bias if layer is None else bias[layer]).add_(above.sum(0, dtype=bias.dtype))

    add("qkv", d.z, act.before)
    if not s.SONNET:
        add("out", d.middle, act.mixed)
    for layer in range(s.L):
        above = d.total if layer == s.L - 1 else d.hidden[layer]
        add("mlp", above, act.middle if layer == 0 else act.hidden[layer - 1], layer)
    if d.gates is not None:
        add("gate", d.gates, act.before.tanh())
        found["gate_terms"][:, chunk.start : chunk.stop] = d.gates.sum(2)
