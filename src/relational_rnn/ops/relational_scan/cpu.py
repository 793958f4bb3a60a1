"""The whole recurrence as one differentiable operation for the CPU, with a backward pass written by hand.

Nothing is compiled: the steps are PyTorch operations into memory taken beforehand. What depends on the input alone is
computed for all steps at once, nothing is computed for rows whose result is dropped, and each weight's gradient is one
product over all steps of a chunk. README.md derives the backward pass and counts the cost.
"""

# Shape legend (for this file and its private siblings _cpu_*.py)
#   B  batch             N  memory slots                H  heads
#   T  time steps        R  rows attended, N + n        K  key size, V value size per head
#   I  input features    M  memory width, H * V         F  H * (2K + V), queries, keys and values of all heads
#   n  input rows        G  gate width, M or 1          S  attention blocks, L layers of the MLP
#   Q  rows whose result is used: R, but N in the last block
# Inside, time comes first, then rows, then the batch: [T, R, B, M]. So the first N rows of a step are one matrix, and
# sequence and head are one axis.

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.ops.relational_scan._cpu_backward import backward_chunk
from relational_rnn.ops.relational_scan._cpu_forward import Masks, Prepared, forward_chunk, prepare, time_major
from relational_rnn.ops.relational_scan._cpu_memory import Sizes, activations, sizes_of
from relational_rnn.ops.relational_scan.reference import Block, Linear, Norm, ScanParameters, Settings
from relational_rnn.ops.relational_scan.scan import relational_scan as plain_scan

ActivationMode = Literal["store", "recompute"]
_TILE_ROWS = 512  # memory rows worked on together: a step's activations stay in the second-level cache
_CHUNK_ROWS = 4096  # rows of a weight gradient's product, from where on more do not make it faster


def unsupported(x: Tensor, memory: Tensor, params: ScanParameters) -> str | None:
    """Why `relational_scan_cpu` cannot take these, or None if it can."""
    tensors = [x, memory, *flatten(params)]
    if any(t.device.type != "cpu" for t in tensors):
        return f"it runs on the CPU, not on {next(t.device for t in tensors if t.device.type != 'cpu')}"
    dtypes = {t.dtype for t in tensors}
    if len(dtypes) > 1:
        return "it needs one dtype throughout, not " + ", ".join(sorted(str(d)[6:] for d in dtypes))
    if not dtypes <= {torch.float32, torch.float64}:
        return f"it computes in float32 or float64, not in {str(dtypes.pop())[6:]}"
    if torch.is_autocast_enabled("cpu"):
        return "it does not follow autocast"
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return "it cannot be traced, compiled or exported"
    if torch._C._are_functorch_transforms_active():
        return "it does not work under the transforms of torch.func"
    if torch.autograd.forward_ad._current_level >= 0:
        return "it has no forward-mode derivative"
    if any(type(t) not in (Tensor, torch.nn.Parameter) for t in tensors):
        return "it takes plain tensors only"
    return None


def relational_scan_cpu(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: Tensor | None = None,
    activations: ActivationMode = "store",
) -> tuple[Tensor, Tensor]:
    """The relational memory over a whole sequence as one operation; equals `relational_scan_reference` up to rounding.

    Args:
        x: [B, T, n, I].
        memory: the memory before the first step, [B, N, M].
        params: the weights and choices.
        lengths: [B] whole numbers in 0..T; later steps do not happen, whatever their input holds.
        reset: [B, T] booleans; before a step marked true the row's memory becomes `initial`.
        initial: [N, M] or [B, N, M], needed with `reset`.
        activations: "store" keeps what the backward pass needs; "recompute" keeps the memory at about sqrt(T) of the
            T steps and computes the rest again, so that peak memory grows with the square root of T.

    Returns:
        (the memory after every step [B, T, N, M], 0 past a length; the memory after each row's last step [B, N, M]).

    float32 or float64, on the CPU. Gradients flow into every tensor, the memory and `initial` included; a gradient of
    a gradient is computed through the plain scan. Without gradients nothing is kept.

    Raises:
        InputError: the tensors are not of a kind that this implementation takes; see `unsupported`.
    """
    check_choice("relational_scan_cpu", "activations", activations, ("store", "recompute"))
    reason = unsupported(x, memory, params)
    if reason is not None:
        hint = "backend='reference' computes the same, and so does 'auto'."
        raise InputError(describe("relational_scan_cpu", f"cannot be used here: {reason}", hint=hint))
    assert reset is None or initial is not None
    if x.shape[1] == 0:
        return memory.new_zeros(x.shape[0], 0, *memory.shape[1:]), memory
    call = Call(params.settings, _shape_of(params), activations)
    return _Scan.apply(call, x, memory, lengths, reset, initial if reset is not None else None, *flatten(params))


class Shape(NamedTuple):
    """Which parameters there are."""

    blocks: int
    layers: int
    gated: bool


class Call(NamedTuple):
    """What a call is, besides its tensors."""

    settings: Settings
    shape: Shape
    activations: ActivationMode


def _shape_of(p: ScanParameters) -> Shape:
    return Shape(len(p.blocks), len(p.mlp), p.gate_memory is not None)


def flatten(p: ScanParameters) -> list[Tensor]:
    """All tensors of the parameters in a fixed order."""
    linears: list[Linear | Norm] = [p.input]
    for block in p.blocks:
        linears.extend(part for part in block if part is not None)
    linears.extend(p.mlp)
    linears.extend(part for part in (p.gate_input, p.gate_memory) if part is not None)
    return [tensor for part in linears for tensor in part]


def unflatten(call: Call, tensors: list[Tensor]) -> ScanParameters:
    """The parameters again from what `flatten` made of them."""
    pairs = iter(zip(tensors[::2], tensors[1::2], strict=True))

    def linear() -> Linear:
        return Linear(*next(pairs))

    def norm() -> Norm:
        return Norm(*next(pairs))

    def block() -> Block:  # in the order of Block's fields
        if call.settings.formulation == "sonnet":
            return Block(qkv=linear(), mlp_norm=norm(), qkv_norm=norm(), attention_norm=norm())
        return Block(qkv=linear(), mlp_norm=norm(), out=linear())

    gated = call.shape.gated
    return ScanParameters(
        settings=call.settings,
        input=linear(),
        blocks=tuple(block() for _ in range(call.shape.blocks)),
        mlp=tuple(linear() for _ in range(call.shape.layers)),
        gate_input=linear() if gated else None,
        gate_memory=linear() if gated else None,
    )


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of work: some sequences, some steps."""

    sequences: slice
    steps: slice
    sizes: Sizes


def plan(s: Sizes, mode: ActivationMode | None) -> list[list[Chunk]]:
    """The chunks of a call of sizes `s`, tile of sequences by tile, in the order of time; no mode means no gradients."""
    tiles = max(1, math.ceil(s.batch * s.slots / _TILE_ROWS))
    batch = max(1, math.ceil(s.batch / tiles))
    if mode == "recompute":
        steps = math.ceil(math.sqrt(s.steps))
    else:
        rows = _CHUNK_ROWS if mode == "store" else _TILE_ROWS
        steps = max(1, rows // (batch * s.rows))
    steps = math.ceil(s.steps / math.ceil(s.steps / steps))  # chunks of about equal length

    def chunk(b: int, t: int) -> Chunk:
        sequences, times = slice(b, min(b + batch, s.batch)), slice(t, min(t + steps, s.steps))
        own = (times.stop - t, sequences.stop - b)
        return Chunk(sequences, times, replace(s, steps=own[0], batch=own[1]))

    return [[chunk(b, t) for t in range(0, s.steps, steps)] for b in range(0, s.batch, batch)]


class Sequence(NamedTuple):
    """The tensors of a call that run over time."""

    x: Tensor
    happens: Tensor | None  # [B, T]
    reset: Tensor | None  # [B, T]
    initial: Tensor | None  # [N, M] or [B, N, M]

    def input(self, c: Chunk) -> Tensor:
        """[T, n, B, I], zero where a step does not happen."""
        x = self.x[c.sequences, c.steps]
        if self.happens is not None:
            x = x.where(self.happens[c.sequences, c.steps, None, None], 0)
        return time_major(x)

    def masks(self, c: Chunk) -> Masks:
        def steps_first(mask: Tensor | None) -> Tensor | None:
            return None if mask is None else mask[c.sequences, c.steps].t()[:, None, :, None]

        reset = steps_first(self.reset)
        if reset is None or self.initial is None:
            return Masks(steps_first(self.happens), None, None, (False,) * c.sizes.steps)
        initial = self.initial
        initial = initial[:, None] if initial.dim() == 2 else initial[c.sequences].transpose(0, 1)
        return Masks(steps_first(self.happens), reset, initial, tuple(reset.flatten(1).any(1).tolist()))


def _sequence(x: Tensor, lengths: Tensor | None, reset: Tensor | None, initial: Tensor | None) -> Sequence:
    happens = None
    if lengths is not None:
        happens = torch.arange(x.shape[1]) < lengths[:, None]
        reset = None if reset is None else reset & happens
    return Sequence(x, happens, reset, initial)


def _slots_major(x: Tensor, c: Chunk) -> Tensor:
    """[B, T, N, M] to a chunk's [T, N, B, M], a view."""
    return x[c.sequences, c.steps].permute(1, 2, 0, 3)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        call: Call,
        x: Tensor,
        memory: Tensor,
        lengths: Tensor | None,
        reset: Tensor | None,
        initial: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        p = unflatten(call, list(tensors))
        batch, steps, inputs = x.shape[:3]
        s = sizes_of(p, steps=steps, batch=batch, slots=memory.shape[1], inputs=inputs)
        kept: list[Tensor] = []
        needed = any(ctx.needs_input_grad)
        tiles = plan(s, call.activations if needed else None)
        store = needed and call.activations == "store"
        sequence, w = _sequence(x, lengths, reset, initial), prepare(p, s)
        outputs = x.new_empty(batch, steps, s.slots, s.width)
        final = x.new_empty(batch, s.slots, s.width)
        for tile in tiles:
            now = memory[tile[0].sequences].transpose(0, 1)
            workspace = None
            for c in tile:
                if needed and not store:
                    kept.append(now.contiguous())
                reuse = None if store or workspace is None or workspace[0] != c.sizes else workspace[1].memory
                act = activations(c.sizes, x.dtype, reuse)
                workspace = (c.sizes, act)
                now = forward_chunk(
                    sequence.input(c), now, act, w, c.sizes, sequence.masks(c), _slots_major(outputs, c)
                )
                if store:
                    kept.append(act.memory)
            final[tile[0].sequences] = now.transpose(0, 1)
        ctx.call, ctx.tiles = call, tiles
        ctx.set_materialize_grads(False)
        if needed:
            ctx.save_for_backward(x, memory, lengths, reset, initial, *tensors, *kept)
        return outputs, final

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        d_outputs, d_final = cotangents
        call: Call = ctx.call
        x, memory, lengths, reset, initial, *rest = ctx.saved_tensors
        needed = ctx.needs_input_grad
        tensors, kept = rest[: len(needed) - 6], rest[len(needed) - 6 :]
        inputs = (x, memory, lengths, reset, initial, *tensors)
        if torch.is_grad_enabled():
            return None, *_differentiable_backward(call, inputs, needed[1:], d_outputs, d_final)
        gradients = _backward(call, ctx.tiles, inputs, kept, d_outputs, d_final)
        return None, *(g if need else None for g, need in zip(gradients, needed[1:], strict=True))


def _backward(
    call: Call,
    tiles: list[list[Chunk]],
    inputs: tuple[Tensor, ...],
    kept: list[Tensor],
    d_outputs: Tensor | None,
    d_final: Tensor | None,
) -> list[Tensor | None]:
    x, memory, lengths, reset, initial, *tensors = inputs
    p = unflatten(call, tensors)
    d_tensors = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in tensors]
    into = unflatten(call, d_tensors)
    slots = memory.shape[1]
    w = prepare(p, sizes_of(p, steps=x.shape[1], batch=x.shape[0], slots=slots, inputs=x.shape[2]))
    sequence = _sequence(x, lengths, reset, initial)
    d_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    d_memory = torch.empty_like(memory, memory_format=torch.contiguous_format)
    d_initial = None if initial is None else x.new_zeros(x.shape[0], *memory.shape[1:])
    remaining = list(kept)
    for tile in reversed(tiles):
        sequences = tile[0].sequences
        now = x.new_zeros(slots, tile[0].sizes.batch, memory.shape[2])
        if d_final is not None:
            now.copy_(d_final[sequences].transpose(0, 1))
        d_start = None if d_initial is None else x.new_zeros(now.shape)
        for c in reversed(tile):
            saved, x_c, masks = remaining.pop(), sequence.input(c), sequence.masks(c)
            if call.activations == "store":
                act = activations(c.sizes, x.dtype, saved)
            else:
                act = activations(c.sizes, x.dtype)
                forward_chunk(x_c, saved, act, w, c.sizes, masks, None)
            d_out = None if d_outputs is None else _slots_major(d_outputs, c)
            d_x_c, now = backward_chunk(x_c, act, w, c.sizes, masks, d_out, now, into, d_start)
            d_x[c.sequences, c.steps] = d_x_c.permute(2, 0, 1, 3)
        d_memory[sequences] = now.transpose(0, 1)
        if d_start is not None:
            assert d_initial is not None
            d_initial[sequences] = d_start.transpose(0, 1)
    _unscale(into, w)
    if d_initial is not None and initial is not None and initial.dim() == 2:
        d_initial = d_initial.sum(0)
    return [d_x, d_memory, None, None, d_initial, *d_tensors]


def _unscale(into: ScanParameters, w: Prepared) -> None:
    """From the gradients of the queries' scaled parameters to those of the parameters themselves."""
    for block in into.blocks:
        if block.qkv_norm is None:
            block.qkv.weight.mul_(w.query_scale[:, None])
            block.qkv.bias.mul_(w.query_scale)
        else:
            block.qkv_norm.weight.mul_(w.query_scale)
            block.qkv_norm.bias.mul_(w.query_scale)


def _differentiable_backward(
    call: Call,
    inputs: tuple[Tensor, ...],
    needed: tuple[bool, ...],
    d_outputs: Tensor | None,
    d_final: Tensor | None,
) -> list[Tensor | None]:
    """The gradients as a function that can be differentiated again, through the plain scan."""
    x, memory, lengths, reset, initial, *tensors = inputs
    outputs, final = plain_scan(x, memory, unflatten(call, tensors), lengths=lengths, reset=reset, initial=initial)
    pairs = [(y, d) for y, d in ((outputs, d_outputs), (final, d_final)) if d is not None]
    wanted = [i for i, need in enumerate(needed) if need]
    found = torch.autograd.grad(
        [y for y, _ in pairs],
        [inputs[i] for i in wanted],
        [d for _, d in pairs],
        create_graph=True,
        allow_unused=True,
    )
    gradients: list[Tensor | None] = [None] * len(inputs)
    for i, gradient in zip(wanted, found, strict=True):
        gradients[i] = gradient
    return gradients
