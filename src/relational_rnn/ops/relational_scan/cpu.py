"""The whole recurrence as one differentiable operation for the CPU: plans a call of the compiled kernels and makes it.

What depends on the input alone is computed for all steps at once, and each weight's gradient is one product over all
steps of a chunk. README.md derives the backward pass and counts the cost.
"""

# Shape legend: as in reference.py; L layers of the MLP, Q rows whose result is used: R, but N in the last block

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._native import Kernels, NativeCall, Phase, find
from relational_rnn.ops.relational_scan.loop import ActivationMode, loop
from relational_rnn.ops.relational_scan.pieces import Marks
from relational_rnn.ops.relational_scan.readable import (
    backward_against,
    gradients_wanted,
    mode_against,
    packed,
    plain_backward,
    settled,
    tensors_against,
)
from relational_rnn.ops.relational_scan.reference import Scan, ScanParameters
from relational_rnn.ops.relational_scan.spec import Spec, check_fit, flatten, spec_of, unflatten

TILE_ROWS = 128  # memory rows that one thread takes through time together, at most
CHUNK_ROWS = 4096  # rows whose gradients wait for the weights' products: enough for full rate, few enough to stay near
MOST_BLOCKS = 64  # the library's tables have this many places


def unsupported(x: Tensor, memory: Tensor, params: ScanParameters) -> str | None:
    """Why `relational_scan_cpu` cannot take these, or None if it can."""
    mode = mode_against()
    if mode is not None:
        return mode
    kernels = kernels_for(params)
    return kernels if isinstance(kernels, str) else tensors_against([x, memory, *flatten(params)])


def kernels_for(params: ScanParameters) -> Kernels | str:
    """The compiled kernels that run a scan or a step with these parameters, or why none do."""
    kernels = find()
    if isinstance(kernels, str):
        return f"it needs the compiled kernels, and {kernels}"
    return kernels if len(params.blocks) <= MOST_BLOCKS else f"it takes at most {MOST_BLOCKS} attention blocks"


def kernels_report() -> str:
    """The compiled kernels that run, or why none do."""
    kernels = find()
    return f"none: {kernels}" if isinstance(kernels, str) else f"compiled, {kernels.name}"


def relational_scan_cpu(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters,
    marks: Marks,
    *,
    input_rows: bool = False,
    activations: ActivationMode = "store",
) -> Scan:
    """`relational_scan` by the compiled kernels, where `unsupported` has nothing against it.

    "recompute" keeps the memory at about sqrt(T) of the T steps. A gradient of a gradient is computed through the loop.

    Raises:
        InputError: a parameter, the memory, lengths or resets do not fit.
    """
    check_fit(x, memory, params, marks)
    if 0 in x.shape[:2]:
        return loop(x, memory, params, Marks(), input_rows=input_rows)
    kernels = kernels_for(params)
    assert not isinstance(kernels, str)
    tensors = x, memory, *marks, *flatten(params)
    mode = activations if gradients_wanted(tensors) else None
    return Scan(*NativeScan.apply(kernels, spec_of(params, input_rows=input_rows), mode, *tensors))


class Plan(NamedTuple):
    """How a call is cut; results do not depend on it, except for the order of the sums over rows."""

    threads: int
    tile_batch: int  # sequences per tile
    tiles: int
    group: int  # tiles whose weight gradients are computed together
    chunk: int  # and steps


def plan(batch: int, steps: int, slots: int, rows: int, *, recompute: bool) -> Plan:
    threads = min(torch.get_num_threads(), batch)
    tiles = math.ceil(batch / max(1, TILE_ROWS // slots))
    tiles = min(batch, math.ceil(tiles / threads) * threads)
    tile_batch = math.ceil(batch / tiles)
    tiles = math.ceil(batch / tile_batch)
    per_step = tile_batch * rows
    most = math.ceil(math.sqrt(steps)) if recompute else max(1, CHUNK_ROWS // (threads * per_step))
    chunk = min(steps, most)
    chunk = math.ceil(steps / math.ceil(steps / chunk))  # chunks of about equal length
    waiting = CHUNK_ROWS // 2 if recompute else CHUNK_ROWS  # their activations lie there as well
    group = max(1, waiting // (chunk * per_step) // threads) * threads
    return Plan(threads, tile_batch, tiles, min(group, tiles), chunk)


def _inner(t: Tensor) -> Tensor:
    """A tensor [B, T, rows, width] whose last two axes lie together."""
    t = settled(t)
    return t if t.stride(3) == 1 and t.stride(2) == t.shape[3] else t.contiguous()


def describe_sizes(spec: Spec, shape: tuple[int, ...], memory: Tensor, gates: int) -> NativeCall:
    """A call's sizes and choices alone: for an input of this shape, and `gates` rows of the gates' weights."""
    (batch, steps, inputs, features), (slots, width) = shape, memory.shape[1:]
    settings = spec.settings
    competitive = settings.competitive and spec.gates
    sizes = batch, steps, slots, inputs, features, width, settings.num_heads, settings.key_size
    layers = gates // 2 if competitive else gates, spec.blocks, spec.mlp_layers
    choices = settings.formulation == "sonnet", competitive, spec.input_rows
    return NativeCall(*sizes, *layers, *choices, settings.input_bias, settings.forget_bias)


def _describe_call(spec: Spec, p: Plan, tensors: Sequence[Any]) -> tuple[NativeCall, Tensor, list[Tensor]]:
    """What forward and backward calls have in common, and the memory and the parameters as the kernels read them."""
    x, memory, lengths, reset, initial, *parameters = tensors
    gates = parameters[2 * (1 + spec.mlp_layers)].shape[0] if spec.gates else 0
    call = describe_sizes(spec, x.shape, memory, gates)
    call.tile_batch, call.tile_to, call.step_to = p.tile_batch, p.tiles, x.shape[1]
    call.packed_weights = 1
    memory, parameters = settled(memory).contiguous(), [settled(t).contiguous() for t in parameters]
    whole = None if lengths is None else lengths.to(torch.int64)
    call.point(x=_inner(x), lengths=packed(whole), reset=packed(reset), initial=packed(initial), parameters=parameters)
    if initial is not None:
        call.initial_batch = 0 if initial.dim() == 2 else memory[0].numel()
    return call, memory, parameters


class NativeScan(torch.autograd.Function):
    """See `relational_scan_cpu`; `mode` is None where no gradients are wanted."""

    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, spec: Spec, mode: ActivationMode | None, *tensors: Any
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        recompute, store = mode == "recompute", mode == "store"
        x, dtype = tensors[0], tensors[0].dtype
        batch, steps, inputs, _ = x.shape
        slots, width = tensors[1].shape[1:]
        p = plan(batch, steps, slots, slots + inputs, recompute=recompute)
        call, memory, _ = _describe_call(spec, p, tensors)
        outputs = x.new_empty(batch, steps, slots, width)
        final = x.new_empty(batch, slots, width)
        attended = x.new_empty(batch, steps, inputs, width) if spec.input_rows else None
        call.kept_steps = steps if store else 0
        room = kernels.give_room(call, dtype, packed=1, scratch=p.threads, kept=p.tiles if store else p.threads)
        call.point(outputs=outputs, attended=attended, final=final, memory=memory)
        if not recompute:
            kept = room["kept"]
            kernels.run(call, (Phase.PACK_FORWARD, Phase.FORWARD), p.threads, dtype)
        else:
            kept = x.new_empty(math.ceil(steps / p.chunk), batch, slots, width)  # the memory before every chunk
            kept[0] = memory
            kernels.run(call, (Phase.PACK_FORWARD,), p.threads, dtype)
            for i, start in enumerate(range(0, steps, p.chunk)):
                call.step_from, call.step_to = start, min(steps, start + p.chunk)
                call.point(memory=kept[i], final=kept[i + 1] if i + 1 < len(kept) else final)
                kernels.run(call, (Phase.FORWARD,), p.threads, dtype)
        ctx.set_materialize_grads(False)
        ctx.native = kernels, spec, recompute, p
        if mode is not None:
            ctx.save_for_backward(*tensors, kept)
        return outputs, final, attended

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        kernels, spec, recompute, p = ctx.native
        *tensors, kept = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        if backward_against(cotangents):

            def scan(x: Tensor, memory: Tensor, lengths: Any, reset: Any, initial: Any, *parameters: Tensor) -> Scan:
                marks = Marks(lengths, reset, initial)
                return loop(x, memory, unflatten(parameters, spec), marks, input_rows=spec.input_rows)

            return None, None, None, *plain_backward(scan, tensors, needed, cotangents)
        gradients = _backward(kernels, spec, recompute, p, tensors, kept, cotangents)
        return None, None, None, *(d if need else None for d, need in zip(gradients, needed, strict=True))


def _backward(
    kernels: Kernels,
    spec: Spec,
    recompute: bool,
    p: Plan,
    tensors: Sequence[Any],
    kept: Tensor,
    cotangents: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    call, memory, parameters = _describe_call(spec, p, tensors)
    x, initial, dtype, steps = tensors[0], tensors[4], memory.dtype, call.steps
    d_outputs, d_attended = (None if d is None else _inner(d) for d in (cotangents[0], cotangents[2]))
    d_memory = torch.zeros_like(memory)
    if cotangents[1] is not None:
        d_memory.copy_(cotangents[1])
    d_initial = None if initial is None else torch.zeros_like(memory)
    d_x = memory.new_empty(x.shape)
    d_parameters = [torch.zeros_like(t) for t in parameters]
    call.point(d_outputs=d_outputs, d_attended=d_attended, d_memory=d_memory, d_initial=d_initial, d_x=d_x)
    call.point(gradients=d_parameters, kept=kept)

    call.step_to = p.chunk  # the longest chunk, for the sizes of the memory
    call.kept_steps = p.chunk if recompute else steps
    sizes = {"packed": 1, "scratch": p.threads, "differences": p.group, "sums": p.tiles}
    packed_backward = kernels.give_room(call, dtype, **sizes)["packed"]
    packed_forward = packed_backward
    if recompute:
        packed_forward = torch.empty_like(packed_backward)
        kernels.give_room(call, dtype, kept=p.group)
        call.point(final=torch.empty_like(memory), packed=packed_forward)
        kernels.run(call, (Phase.PACK_FORWARD,), p.threads, dtype)
        call.point(packed=packed_backward)
    kernels.run(call, (Phase.PACK_BACKWARD,), p.threads, dtype)
    for start in reversed(range(0, steps, p.chunk)):
        call.step_from, call.step_to = start, min(steps, start + p.chunk)
        for tile in range(0, p.tiles, p.group):
            call.tile_from, call.tile_to = tile, min(p.tiles, tile + p.group)
            if recompute:
                call.kept_tile_from, call.kept_from, call.kept_steps = tile, start, call.step_to - start
                call.point(memory=kept[start // p.chunk], packed=packed_forward)
                kernels.run(call, (Phase.FORWARD,), p.threads, dtype)
                call.point(packed=packed_backward)
            kernels.run(call, (Phase.BACKWARD, Phase.WEIGHTS), p.threads, dtype)
    kernels.run(call, (Phase.FINISH,), 1, dtype)
    if initial is not None and d_initial is not None and initial.dim() == 2:
        d_initial = d_initial.sum(0)
    return [d_x, d_memory, None, None, d_initial, *d_parameters]
