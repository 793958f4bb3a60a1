"""The CPU scan by compiled kernels, as one differentiable operation: planning, memory, and the calls."""

# Shape legend: as in cpu.py

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._native import Kernels, NativeCall, Numbers, Phase, address, addresses, fresh
from relational_rnn.ops.relational_scan._plain_backward import plain_backward
from relational_rnn.ops.relational_scan.readable import backward_against, settled
from relational_rnn.ops.relational_scan.spec import Spec

TILE_ROWS = 128  # memory rows that one thread takes through time together, at most
CHUNK_ROWS = 4096  # rows whose gradients wait for the weights' products: enough for full rate, few enough to stay near
MOST_BLOCKS = 64  # the library's tables have this many places


class Plan(NamedTuple):
    """How a call is cut; results do not depend on it, but for the order of the sums over rows."""

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


class Given(NamedTuple):
    """The tensors of a call; kept here because the kernels get addresses only."""

    x: Tensor
    memory: Tensor
    lengths: Tensor | None
    reset: Tensor | None
    initial: Tensor | None
    parameters: tuple[Tensor, ...]


def _inner(t: Tensor) -> Tensor:
    """A tensor [B, T, rows, width] whose last two axes lie together."""
    t = settled(t)
    return t if t.stride(3) == 1 and t.stride(2) == t.shape[3] else t.contiguous()


def prepare(tensors: Sequence[Any]) -> Given:
    """The tensors of a call, the parameters flat, with everything laid as the kernels want it."""
    x, memory, lengths, reset, initial, *parameters = tensors
    return Given(
        x=_inner(x),
        memory=settled(memory).contiguous(),
        lengths=None if lengths is None else lengths.to(torch.int64).contiguous(),
        reset=None if reset is None else reset.contiguous(),
        initial=None if initial is None else settled(initial).contiguous(),
        parameters=tuple(settled(p).contiguous() for p in parameters),
    )


def describe_sizes(
    spec: Spec, batch: int, steps: int, inputs: int, features: int, slots: int, width: int, gates: int
) -> NativeCall:
    """A call's sizes and choices, and nothing else; `gates` is the number of rows of the gates' weights."""
    settings = spec.settings
    competitive = settings.competitive and spec.gates
    shape = batch, steps, slots, inputs, features, width, settings.num_heads, settings.key_size
    layers = gates // 2 if competitive else gates, spec.blocks, spec.mlp_layers
    choices = settings.formulation == "sonnet", competitive, spec.input_rows
    return NativeCall(*shape, *layers, *choices, settings.input_bias, settings.forget_bias)


def describe_call(spec: Spec, g: Given, p: Plan) -> NativeCall:
    """What forward and backward calls have in common."""
    batch, steps, inputs, features = g.x.shape
    gates = g.parameters[2 * (1 + spec.mlp_layers)].shape[0] if spec.gates else 0
    slots, width = g.memory.shape[1:]
    call = describe_sizes(spec, batch, steps, inputs, features, slots, width, gates)
    call.tile_batch, call.tile_to, call.step_to = p.tile_batch, p.tiles, steps
    call.packed_weights = 1
    call.put(x=g.x)
    call.lengths, call.reset, call.initial = address(g.lengths), address(g.reset), address(g.initial)
    if g.initial is not None:
        call.initial_batch = 0 if g.initial.dim() == 2 else g.initial.stride(0)
    return call


class NativeScan(torch.autograd.Function):
    """See `relational_scan_cpu`."""

    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, spec: Spec, mode: str | None, *tensors: Any
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        recompute, store = mode == "recompute", mode == "store"
        g = prepare(tensors)
        x, memory = tensors[:2]
        batch, steps, inputs, _ = x.shape
        slots, width = memory.shape[1:]
        p = plan(batch, steps, slots, slots + inputs, recompute=recompute)
        call, double = describe_call(spec, g, p), x.dtype == torch.float64
        outputs = x.new_empty(batch, steps, slots, width)
        final = x.new_empty(batch, slots, width)
        attended = x.new_empty(batch, steps, inputs, width) if spec.input_rows else None
        parameters = addresses(g.parameters)
        call.parameters = ctypes.addressof(parameters)
        call.kept_steps = steps if store else 0
        room = {what: kernels.numbers(call, what, double=double) for what in Numbers}
        packed, scratch = fresh(room[Numbers.PACKED], x.dtype), fresh(p.threads * room[Numbers.SCRATCH], x.dtype)
        kept = fresh((p.tiles if store else p.threads) * room[Numbers.KEPT], x.dtype)
        call.outputs, call.attended, call.final = outputs.data_ptr(), address(attended), final.data_ptr()
        call.packed, call.scratch, call.kept = packed.data_ptr(), scratch.data_ptr(), kept.data_ptr()
        call.memory = g.memory.data_ptr()
        if not recompute:
            kernels.run(call, (Phase.PACK_FORWARD, Phase.FORWARD), p.threads, double=double)
        else:
            starts = x.new_empty(math.ceil(steps / p.chunk), batch, slots, width)
            starts[0] = g.memory
            phases = (Phase.PACK_FORWARD, Phase.FORWARD)
            for i, start in enumerate(range(0, steps, p.chunk)):
                call.step_from, call.step_to = start, min(steps, start + p.chunk)
                call.memory = starts[i].data_ptr()
                call.final = (starts[i + 1] if i + 1 < len(starts) else final).data_ptr()
                kernels.run(call, phases, p.threads, double=double)
                phases = (Phase.FORWARD,)
            kept = starts
        ctx.set_materialize_grads(False)
        ctx.native = kernels, spec, recompute, p
        if mode is not None:
            ctx.save_for_backward(*tensors, kept)
        return outputs, final, attended

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        kernels, spec, recompute, p = ctx.native
        *inputs, kept = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        if backward_against(cotangents):
            return None, None, None, *plain_backward(spec, tuple(inputs), needed, cotangents)
        gradients = _backward(kernels, spec, recompute, p, prepare(inputs), kept, cotangents)
        return None, None, None, *(d if need else None for d, need in zip(gradients, needed, strict=True))


def _backward(
    kernels: Kernels,
    spec: Spec,
    recompute: bool,
    p: Plan,
    g: Given,
    kept: Tensor,
    cotangents: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    dtype = g.x.dtype
    double = dtype == torch.float64
    steps = g.x.shape[1]
    d_outputs, d_attended = (None if d is None else _inner(d) for d in (cotangents[0], cotangents[2]))
    d_memory = (
        torch.zeros_like(g.memory)
        if cotangents[1] is None
        else settled(cotangents[1]).clone(memory_format=torch.contiguous_format)
    )
    d_initial = None if g.initial is None else torch.zeros_like(g.memory)
    d_x = torch.empty_like(g.x, memory_format=torch.contiguous_format)
    d_parameters = [torch.zeros_like(t) for t in g.parameters]

    call = describe_call(spec, g, p)
    parameters, gradients = addresses(g.parameters), addresses(d_parameters)
    call.parameters, call.gradients = ctypes.addressof(parameters), ctypes.addressof(gradients)
    call.put(d_outputs=d_outputs, d_attended=d_attended)
    call.d_memory, call.d_initial, call.d_x = d_memory.data_ptr(), address(d_initial), d_x.data_ptr()
    call.step_to = p.chunk  # the longest chunk, for the sizes below
    call.kept_steps = p.chunk if recompute else steps
    room = {what: kernels.numbers(call, what, double=double) for what in Numbers}
    scratch = fresh(p.threads * room[Numbers.SCRATCH], dtype)
    differences = fresh(p.group * room[Numbers.DIFFERENCES], dtype)
    sums = torch.zeros(p.tiles * room[Numbers.SUMS], dtype=dtype, device="cpu")
    packed = fresh(room[Numbers.PACKED], dtype)
    call.packed, call.scratch, call.sums = packed.data_ptr(), scratch.data_ptr(), sums.data_ptr()
    call.differences = differences.data_ptr()
    call.kept = kept.data_ptr()
    packed_forward, unused = packed, None
    if recompute:
        work, unused = fresh(p.group * room[Numbers.KEPT], dtype), torch.empty_like(g.memory)
        packed_forward = torch.empty_like(packed)
        call.kept, call.final, call.packed = work.data_ptr(), unused.data_ptr(), packed_forward.data_ptr()
        kernels.run(call, (Phase.PACK_FORWARD,), p.threads, double=double)
        call.packed = packed.data_ptr()
    kernels.run(call, (Phase.PACK_BACKWARD,), p.threads, double=double)
    for start in reversed(range(0, steps, p.chunk)):
        call.step_from, call.step_to = start, min(steps, start + p.chunk)
        for tile in range(0, p.tiles, p.group):
            call.tile_from, call.tile_to = tile, min(p.tiles, tile + p.group)
            if recompute:
                call.kept_tile_from, call.kept_from, call.kept_steps = tile, start, call.step_to - start
                call.memory, call.packed = kept[start // p.chunk].data_ptr(), packed_forward.data_ptr()
                kernels.run(call, (Phase.FORWARD,), p.threads, double=double)
                call.packed = packed.data_ptr()
            kernels.run(call, (Phase.BACKWARD, Phase.WEIGHTS), p.threads, double=double)
    kernels.run(call, (Phase.FINISH,), 1, double=double)
    if d_initial is not None and g.initial is not None and g.initial.dim() == 2:
        d_initial = d_initial.sum(0)
    return [d_x, d_memory, None, None, d_initial, *d_parameters]
