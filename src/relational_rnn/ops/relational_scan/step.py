"""One step for layers: by one call of the compiled kernels where no gradient is wanted, else as the definition does."""

# Shape legend: as in cpu.py

from __future__ import annotations

import ctypes
import functools
from typing import NamedTuple

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._cpu_memory import fresh
from relational_rnn.ops.relational_scan._native import Kernels, NativeCall, Numbers, Phase
from relational_rnn.ops.relational_scan._native_scan import describe_sizes
from relational_rnn.ops.relational_scan.compiled import flatten, spec_of
from relational_rnn.ops.relational_scan.cpu import kernels_for, mode_against
from relational_rnn.ops.relational_scan.dispatch import Backend
from relational_rnn.ops.relational_scan.reference import ScanParameters, relational_step

_FEW_ROWS = 16  # memory rows up to which arranging the weights would take longer than it saves


class After(NamedTuple):
    """What a step leaves."""

    memory: Tensor  # [B, N, M]
    input_rows: Tensor | None  # [B, n, M], the attended rows of the input


def relational_step_after(
    x: Tensor, memory: Tensor, params: ScanParameters, *, input_rows: bool = False, backend: Backend = "auto"
) -> After:
    """One step: input `x` [B, n, I] and the memory before it [B, N, M]; equals `relational_step` up to rounding.

    Where no gradient is wanted and `backend` is "auto" or "cpu", the compiled kernels compute it in one call if they
    can: calls of PyTorch would take several times as long as the arithmetic of a few rows. `input_rows` says whether
    the attended rows of the input are wanted; the definition gives them anyway.
    """
    if backend in ("auto", "cpu") and mode_against() is None and x.shape[0] > 0:
        tensors = flatten(params)
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (x, memory, *tensors))
        kernels = None if wanted or not _plain((x, memory, *tensors)) else kernels_for(params)
        if kernels is not None:
            return _by_kernels(kernels, x, memory, params, tensors, input_rows)
    taken = relational_step(x, memory, params)
    return After(taken.memory, taken.input_rows)


def _plain(tensors: tuple[Tensor, ...]) -> bool:
    """Whether the kernels take these as they are; `unsupported` would say why not, but takes longer than the step."""
    dtype = tensors[0].dtype
    if dtype not in (torch.float32, torch.float64):
        return False
    return all(
        type(t) in (Tensor, torch.nn.Parameter) and t.dtype == dtype and t.is_cpu and t.is_contiguous() for t in tensors
    )


def _by_kernels(
    kernels: Kernels, x: Tensor, memory: Tensor, params: ScanParameters, tensors: list[Tensor], input_rows: bool
) -> After:
    batch, inputs, features = x.shape
    slots, width = memory.shape[1:]
    double = x.dtype == torch.float64
    spec = spec_of(params, input_rows=input_rows)
    gates = 0 if params.gate_memory is None else params.gate_memory.weight.shape[0]
    call = describe_sizes(spec, batch, 1, inputs, features, slots, width, gates)
    call.tile_batch, call.tile_to, call.step_to = batch, 1, 1
    call.packed_weights = batch * slots > _FEW_ROWS
    room = _room(kernels, bytes(call), double)
    work = fresh(sum(room), x.dtype)
    size, address = work.element_size(), work.data_ptr()
    call.kept, call.scratch = address, address + room[0] * size
    call.packed = call.scratch + room[1] * size
    parameters = (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])
    call.parameters = ctypes.addressof(parameters)
    after = torch.empty_like(memory)
    attended = x.new_empty(batch, inputs, width) if input_rows else None
    call.x, call.memory, call.final = x.data_ptr(), memory.data_ptr(), after.data_ptr()
    call.x_batch = inputs * features
    call.attended = None if attended is None else attended.data_ptr()
    phases = (Phase.PACK_FORWARD, Phase.FORWARD) if call.packed_weights else (Phase.FORWARD,)
    kernels.run(call, phases, 1, double=double)
    return After(after, attended)


@functools.lru_cache(maxsize=64)
def _room(kernels: Kernels, call: bytes, double: bool) -> tuple[int, int, int]:
    """Numbers to work in, for a call of these sizes: kept, scratch, packed."""
    sizes = NativeCall.from_buffer_copy(call)
    kept, scratch, packed = (
        kernels.numbers(sizes, what, double=double) for what in (Numbers.KEPT, Numbers.SCRATCH, Numbers.PACKED)
    )
    return kept, scratch, packed if sizes.packed_weights else 0
