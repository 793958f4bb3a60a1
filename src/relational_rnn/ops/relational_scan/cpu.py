"""The whole recurrence as one differentiable operation for the CPU, with a backward pass written by hand.

What depends on the input alone is computed for all steps at once, nothing is computed for rows whose result is dropped,
and each weight's gradient is one product over all steps of a chunk. README.md derives the backward pass and counts the
cost. There are two implementations: compiled kernels (`_native_scan.py`), and, where these were not built, PyTorch
operations into memory taken beforehand (this file and `_cpu_*.py`).
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

from relational_rnn._check import InputError, check_choice, check_shape, describe
from relational_rnn.ops.relational_scan._cpu_backward import Cotangents, backward_chunk
from relational_rnn.ops.relational_scan._cpu_forward import (
    Masks,
    Outputs,
    Prepared,
    forward_chunk,
    prepare,
)
from relational_rnn.ops.relational_scan._cpu_memory import Sizes, activations, sizes_of
from relational_rnn.ops.relational_scan._native import Kernels, find
from relational_rnn.ops.relational_scan._native_scan import MOST_BLOCKS, NativeScan
from relational_rnn.ops.relational_scan._plain_backward import plain_backward
from relational_rnn.ops.relational_scan.loop import happening, loop
from relational_rnn.ops.relational_scan.readable import (
    backward_against,
    gradients_wanted,
    mode_against,
    settled,
    tensors_against,
)
from relational_rnn.ops.relational_scan.reference import Scan, ScanParameters
from relational_rnn.ops.relational_scan.spec import Spec, flatten, misfit, spec_of, unflatten

ActivationMode = Literal["store", "recompute"]
_TILE_ROWS = 512  # memory rows worked on together: a step's activations stay in the second-level cache
_CHUNK_ROWS = 4096  # rows of a weight gradient's product, from where on more do not make it faster


def unsupported(x: Tensor, memory: Tensor, params: ScanParameters) -> str | None:
    """Why `relational_scan_cpu` cannot take these, or None if it can."""
    if torch.compiler.is_compiling():
        return "it cannot be traced, compiled or exported"
    if params.settings.competitive and kernels_for(params) is None:
        competition = "slots that compete for the input (gate_style='competitive')"
        return f"only its compiled kernels compute {competition}, and they do not run here: {idle(params)}"
    return mode_against() or tensors_against([x, memory, *flatten(params)])


def relational_scan_cpu(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: Tensor | None = None,
    input_rows: bool = False,
    activations: ActivationMode = "store",
) -> Scan:
    """The relational memory over a whole sequence as one operation; equals `relational_scan_reference` up to rounding.

    Args:
        x: [B, T, n, I].
        memory: the memory before the first step, [B, N, M].
        params: the weights and choices.
        lengths: [B] whole numbers in 0..T; later steps do not happen, whatever their input holds.
        reset: [B, T] booleans; before a step marked true the row's memory becomes `initial`.
        initial: [N, M] or [B, N, M], needed with `reset`.
        input_rows: whether the attended rows of the input are wanted too.
        activations: "store" keeps what the backward pass needs; "recompute" keeps the memory at about sqrt(T) of the
            T steps and computes the rest again, so that peak memory grows with the square root of T.

    Returns:
        a `Scan`: the memory after every step [B, T, N, M] (0 past a length), the memory after each row's last step
        [B, N, M], and the attended input rows [B, T, n, M] or None.

    float32 or float64, on the CPU. Gradients flow into every tensor, the memory and `initial` included; a gradient of
    a gradient is computed through the plain loop. Without gradients nothing is kept.

    Raises:
        InputError: the tensors are not of a kind that this implementation takes (see `unsupported`), or the parameters'
            sizes do not go together.
    """
    check_choice("relational_scan_cpu", "activations", activations, ("store", "recompute"))
    reason = unsupported(x, memory, params)
    if reason is not None:
        hint = "backend='reference' computes the same, and so does 'auto'."
        raise InputError(describe("relational_scan_cpu", f"cannot be used here: {reason}", hint=hint))
    wrong = misfit(params, x, memory)
    if wrong is not None:
        raise InputError(describe("relational_scan_cpu", wrong))
    assert reset is None or initial is not None
    initial = None if reset is None else initial
    _check_sequence(x, memory, lengths, reset, initial)
    if 0 in x.shape[:2]:
        return loop(x, memory, params, input_rows=input_rows)
    spec = spec_of(params, input_rows=input_rows)
    tensors = x, memory, lengths, reset, initial, *flatten(params)
    kernels, mode = kernels_for(params), activations if gradients_wanted(tensors) else None
    if kernels is None:
        return Scan(*_Scan.apply(Call(spec, mode), *tensors))
    return Scan(*NativeScan.apply(kernels, spec, mode, *tensors))


def _check_sequence(
    x: Tensor, memory: Tensor, lengths: Tensor | None, reset: Tensor | None, initial: Tensor | None
) -> None:
    """Refuse what does not fit the sequence: kernels get addresses, and would read beyond an end."""
    where, (batch, steps) = "relational_scan_cpu", x.shape[:2]
    check_shape(where, "memory", memory, {"B": batch, "N": None, "M": None})
    if lengths is not None:
        check_shape(where, "lengths", lengths, {"B": batch})
        if lengths.dtype not in (torch.int64, torch.int32):
            raise InputError(describe(where, "lengths must be whole numbers", got=lengths.dtype))
    if reset is not None:
        check_shape(where, "reset", reset, {"B": batch, "T": steps})
        if reset.dtype != torch.bool:
            raise InputError(describe(where, "reset must be booleans", got=reset.dtype))
    if initial is not None:
        slots, width = memory.shape[1:]
        own = {"B": batch} if initial.dim() == 3 else {}
        check_shape(where, "initial", initial, {**own, "N": slots, "M": width})
        wrong = tensors_against([x, initial])
        if wrong is not None:
            raise InputError(describe(where, f"initial cannot be used here: {wrong}"))


def kernels_for(params: ScanParameters) -> Kernels | None:
    """The compiled kernels that run a scan, or None where PyTorch operations do."""
    kernels = find()
    return None if isinstance(kernels, str) or idle(params) is not None else kernels


def idle(params: ScanParameters) -> str | None:
    """Why no compiled kernels run a scan, or None where they do."""
    kernels = find()
    if isinstance(kernels, str):
        return kernels
    return None if len(params.blocks) <= MOST_BLOCKS else f"they take at most {MOST_BLOCKS} attention blocks"


def kernels_report() -> str:
    """Whether the compiled kernels run, and if not, why."""
    kernels = find()
    return f"PyTorch operations: {kernels}" if isinstance(kernels, str) else f"compiled, {kernels.name}"


class Call(NamedTuple):
    """What a call is, besides its tensors."""

    spec: Spec
    activations: ActivationMode | None
    """What a backward pass works from; None where there will be none."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of work: some sequences, some steps."""

    sequences: slice
    steps: slice
    sizes: Sizes


def plan(s: Sizes, mode: ActivationMode | None) -> list[list[Chunk]]:
    """The chunks of a call of sizes `s`, tile of sequences by tile, in the order of time; no mode: no gradients."""
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
        return Chunk(sequences, times, replace(s, steps=times.stop - t, batch=sequences.stop - b))

    return [[chunk(b, t) for t in range(0, s.steps, steps)] for b in range(0, s.batch, batch)]


def slots_major(x: Tensor, c: Chunk) -> Tensor:
    """[B, T, rows, width] to a chunk's [T, rows, B, width], a view."""
    return x[c.sequences, c.steps].permute(1, 2, 0, 3)


class Sequence(NamedTuple):
    """The tensors of a call that run over time."""

    x: Tensor
    happens: Tensor | None  # [B, T]
    reset: Tensor | None  # [B, T]
    initial: Tensor | None  # [N, M] or [B, N, M]

    def input(self, c: Chunk) -> Tensor:
        """[T, n, B, I], zero where a step does not happen: padding may hold anything, even NaN."""
        x = slots_major(self.x, c)
        if self.happens is not None:
            x = x.where(_time_first(self.happens, c), 0)
        return x.contiguous()

    def cotangent(self, d: Tensor | None, c: Chunk) -> Tensor | None:
        """[T, rows, B, M], zero where a step does not happen, whatever was given."""
        if d is None or self.happens is None:
            return None if d is None else slots_major(d, c)
        return slots_major(d, c).where(_time_first(self.happens, c), 0)

    def masks(self, c: Chunk) -> Masks:
        happens = reset = initial = None
        missed_at = reset_at = (False,) * c.sizes.steps
        if self.happens is not None:
            happens = _time_first(self.happens, c)
            missed_at = tuple((~happens).flatten(1).any(1).tolist())
        if self.reset is not None and self.initial is not None:
            reset = _time_first(self.reset, c)
            reset_at = tuple(reset.flatten(1).any(1).tolist())
            shared = self.initial.dim() == 2
            initial = self.initial[:, None] if shared else self.initial[c.sequences].transpose(0, 1)
        return Masks(happens, missed_at, reset, reset_at, initial)


def _time_first(mask: Tensor, c: Chunk) -> Tensor:
    """[B, T] to a chunk's [T, 1, B, 1], a view."""
    return mask[c.sequences, c.steps].t()[:, None, :, None]


def _sequence(x: Tensor, lengths: Tensor | None, reset: Tensor | None, initial: Tensor | None) -> Sequence:
    happens = happening(lengths, x.shape[1], x.device)
    if reset is not None and happens is not None:
        reset = reset & happens  # a step that does not happen does not reset either
    return Sequence(x, happens, reset, initial)


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
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        p = unflatten(tensors, call.spec)
        s = sizes_of(p, x, memory, call.spec.input_rows)
        tiles, store = plan(s, call.activations), call.activations == "store"
        sequence, w = _sequence(x, lengths, reset, initial), prepare(p, s)
        memories = x.new_empty(s.batch, s.steps, s.slots, s.width)
        input_rows = x.new_empty(s.batch, s.steps, s.inputs, s.width) if s.input_rows else None
        final = x.new_empty(s.batch, s.slots, s.width)
        kept: list[Tensor] = []
        workspace: tuple[Sizes, Tensor] | None = None
        for tile in tiles:
            now = memory[tile[0].sequences].transpose(0, 1)
            for c in tile:
                if call.activations == "recompute":
                    kept.append(now.contiguous())
                used = workspace[1] if workspace is not None and workspace[0] == c.sizes else None
                act = activations(c.sizes, x.dtype, used)
                outputs = Outputs(slots_major(memories, c), None if input_rows is None else slots_major(input_rows, c))
                now = forward_chunk(sequence.input(c), now, act, w, c.sizes, sequence.masks(c), outputs)
                if store:
                    kept.append(act.memory)
                else:
                    workspace = c.sizes, act.memory
            final[tile[0].sequences] = now.transpose(0, 1)
        ctx.call, ctx.tiles = call, tiles
        ctx.set_materialize_grads(False)
        if call.activations is not None:
            ctx.save_for_backward(x, memory, lengths, reset, initial, *tensors, *kept)
        return memories, final, input_rows

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        call: Call = ctx.call
        needed = ctx.needs_input_grad[1:]
        inputs, kept = ctx.saved_tensors[: len(needed)], ctx.saved_tensors[len(needed) :]
        if backward_against(cotangents):
            return None, *plain_backward(call.spec, inputs, needed, cotangents)
        cotangents = tuple(None if d is None else settled(d) for d in cotangents)
        gradients = _backward(call, ctx.tiles, inputs, list(kept), cotangents)
        return None, *(g if need else None for g, need in zip(gradients, needed, strict=True))


def _backward(
    call: Call,
    tiles: list[list[Chunk]],
    inputs: tuple[Tensor, ...],
    kept: list[Tensor],
    cotangents: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    x, memory, lengths, reset, initial, *tensors = inputs
    d_memories, d_final, d_input_rows = cotangents
    p = unflatten(tensors, call.spec)
    d_tensors = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in tensors]
    into = unflatten(d_tensors, call.spec)
    s = sizes_of(p, x, memory, call.spec.input_rows)
    sequence, w = _sequence(x, lengths, reset, initial), prepare(p, s)
    d_x, d_memory = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, memory))
    d_initial = None if initial is None else x.new_zeros(memory.shape)
    workspace: tuple[Sizes, Tensor] | None = None
    for tile in reversed(tiles):
        sequences = tile[0].sequences
        now = x.new_zeros(s.slots, tile[0].sizes.batch, s.width)
        if d_final is not None:
            now.copy_(d_final[sequences].transpose(0, 1))
        d_start = None if d_initial is None else x.new_zeros(now.shape)
        for c in reversed(tile):
            saved, x_c, masks = kept.pop(), sequence.input(c), sequence.masks(c)
            if call.activations == "store":
                act = activations(c.sizes, x.dtype, saved)
            else:
                used = workspace[1] if workspace is not None and workspace[0] == c.sizes else None
                act = activations(c.sizes, x.dtype, used)
                workspace = c.sizes, act.memory
                forward_chunk(x_c, saved, act, w, c.sizes, masks, None)
            d_out = Cotangents(sequence.cotangent(d_memories, c), sequence.cotangent(d_input_rows, c))
            d_x_c, now = backward_chunk(x_c, act, w, c.sizes, masks, d_out, now, into, d_start)
            slots_major(d_x, c).copy_(d_x_c)
        d_memory[sequences] = now.transpose(0, 1)
        if d_initial is not None and d_start is not None:
            d_initial[sequences] = d_start.transpose(0, 1)
    _unscale(into, w)
    if d_initial is not None and initial.dim() == 2:
        d_initial = d_initial.sum(0)
    return [d_x, d_memory, None, None, d_initial, *d_tensors]


def _unscale(into: ScanParameters, w: Prepared) -> None:
    """From the gradients of the queries' scaled parameters to those of the parameters themselves."""
    for block in into.blocks:
        scaled = block.qkv if block.qkv_norm is None else block.qkv_norm
        scaled.weight.mul_(w.query_scale.view(-1, *[1] * (scaled.weight.dim() - 1)))
        scaled.bias.mul_(w.query_scale)
