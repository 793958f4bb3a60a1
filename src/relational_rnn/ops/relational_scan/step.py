"""One step for layers: by the compiled kernels where no gradient is wanted, else as the definition does.

A step of a few rows takes the kernels 10 microseconds, and gathering and checking its 15 parameters takes several times
as long. So a cell keeps its steps ready.
"""

# Shape legend: as in reference.py

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from relational_rnn.ops.relational_scan._native import Kernels, NativeCall, Phase, addresses, fresh
from relational_rnn.ops.relational_scan.cpu import (
    TILE_ROWS,
    describe_sizes,
    kernels_for,
    relational_scan_cpu,
    unsupported,
)
from relational_rnn.ops.relational_scan.pieces import Marks
from relational_rnn.ops.relational_scan.readable import gradients_wanted, mode_against
from relational_rnn.ops.relational_scan.ready import StepCache
from relational_rnn.ops.relational_scan.reference import CalledParameters, ScanParameters, relational_step
from relational_rnn.ops.relational_scan.scan import Backend
from relational_rnn.ops.relational_scan.spec import flatten, misfit, spec_of

_FEW_ROWS = 16  # memory rows up to which arranging the weights would take longer than it saves


class After(NamedTuple):
    """What a step leaves."""

    memory: Tensor  # [B, N, M]
    input_rows: Tensor | None  # [B, n, M], the attended rows of the input


def relational_step_after(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters | CalledParameters,
    *,
    input_rows: bool = False,
    backend: Backend = "auto",
) -> After:
    """One step: input `x` [B, n, I] and the memory before it [B, N, M]; equals `relational_step` up to rounding.

    With backend "auto" or "cpu" and without gradients the compiled kernels compute it if they can. `input_rows` asks
    for the attended rows of the input, which the definition gives anyway.

    Raises:
        InputError: the kernels run, and a parameter does not fit.
    """
    if backend in ("auto", "cpu") and not isinstance(params, CalledParameters) and mode_against() is None:
        quiet = x.shape[0] > 0 and not gradients_wanted((x, memory, *flatten(params)))
        if quiet and unsupported(x, memory, params) is None:
            scan = relational_scan_cpu(x.unsqueeze(1), memory, params, Marks(), input_rows=input_rows)
            return After(scan.final, None if scan.input_rows is None else scan.input_rows.squeeze(1))
    taken = relational_step(x, memory, params)
    return After(taken.memory, taken.input_rows)


Joined = Sequence[tuple[Tensor, Tensor]]
"""Pieces of the tensors that were put together from several parameters, each with the parameter that lies there."""


class ReadyStep:
    """Steps of one size, that of `x` [B, n, I] and `memory` [B, N, M], with parameters where they lie now."""

    def __init__(
        self, kernels: Kernels, params: ScanParameters, x: Tensor, memory: Tensor, input_rows: bool, joined: Joined
    ) -> None:
        batch, inputs, features = x.shape
        gates = 0 if params.gate_memory is None else params.gate_memory.weight.shape[0]
        spec = spec_of(params, input_rows=input_rows)
        sizes = describe_sizes(spec, (batch, 1, inputs, features), memory, gates)
        sizes.tile_batch, sizes.tile_to, sizes.step_to = batch, 1, 1
        sizes.packed_weights = batch * memory.shape[1] > _FEW_ROWS
        sizes.x_batch = inputs * features
        self._parameters = addresses(flatten(params))
        sizes.parameters = ctypes.addressof(self._parameters)
        counted = ("kept", "scratch", "packed")[: 2 + sizes.packed_weights]
        self._room = [kernels.numbers(sizes, what, x.dtype) for what in counted]
        phases = (Phase.PACK_FORWARD, Phase.FORWARD) if sizes.packed_weights else (Phase.FORWARD,)
        self._sizes = sizes
        self._rows = (batch, inputs, memory.shape[2]) if input_rows else None
        self._dtype = x.dtype
        self._run = kernels.library.scan_run
        double = x.dtype == torch.float64
        self._how = kernels.instance, double, (ctypes.c_int * len(phases))(*phases), len(phases), 1, None
        self._spare: list[tuple[NativeCall, int, Tensor]] = []
        self._joined = joined

    def __call__(self, x: Tensor, memory: Tensor) -> After:
        """One step of the size and dtype that this was made for."""
        for piece, parameter in self._joined:
            piece.copy_(parameter)
        # a call and its room belong to one step at a time: other threads of Python take or make their own
        call, address, _ = taken = self._spare.pop() if self._spare else self._make()
        after = torch.empty_like(memory)
        attended = None if self._rows is None else x.new_empty(self._rows)
        call.x, call.memory, call.final = x.data_ptr(), memory.data_ptr(), after.data_ptr()
        if attended is not None:
            call.attended = attended.data_ptr()
        self._run(address, *self._how)
        self._spare.append(taken)
        return After(after, attended)

    def _make(self) -> tuple[NativeCall, int, Tensor]:
        call, room = NativeCall.from_buffer_copy(self._sizes), fresh(sum(self._room), self._dtype)
        at, size = room.data_ptr(), room.element_size()
        call.kept, call.scratch, call.packed = at, at + self._room[0] * size, at + sum(self._room[:2]) * size
        return call, ctypes.addressof(call), room


def prepare(
    steps: StepCache,
    x: Tensor,
    memory: Tensor,
    params: ScanParameters,
    cell: nn.Module,
    plain: Sequence[nn.Module],
    *,
    input_rows: bool,
    joined: Joined = (),
) -> bool:
    """Make steps of the size of `x` [B, n, I] and `memory` [B, N, M], both checked, ready in a cell's cache.

    Returns whether the kernels take them. `plain` are the modules within `cell` whose parameters a step reads;
    `joined` says which of `params` are put together from several, which every step then does anew.
    """
    few = 0 < x.shape[0] * memory.shape[1] <= TILE_ROWS
    if not few or unsupported(x, memory, params) is not None or misfit(params, x, memory) is not None:
        return False
    kernels = kernels_for(params)
    assert not isinstance(kernels, str)
    made = {id(piece._base) for piece, _ in joined}
    parameters = [t for t in flatten(params) if id(t) not in made] + [t for _, t in joined]
    return steps.prepare(
        (x, memory),
        parameters,
        cell,
        plain,
        lambda: ReadyStep(kernels, params, x, memory, input_rows, joined),
        choices=("settings",),
        kind=input_rows,
    )
