"""One step for layers: by the compiled kernels where no gradient is wanted, else as the definition does.

A step of a few rows takes the kernels 10 microseconds, and gathering and checking its 15 parameters takes several times
as long. So a cell keeps its steps ready.
"""

# Shape legend: as in reference.py

from __future__ import annotations

import ctypes
import operator
from itertools import chain
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from relational_rnn.ops.relational_scan._native import Kernels, NativeCall, Phase, addresses, find, fresh
from relational_rnn.ops.relational_scan.cpu import (
    TILE_ROWS,
    describe_sizes,
    kernels_for,
    relational_scan_cpu,
    unsupported,
)
from relational_rnn.ops.relational_scan.pieces import Marks
from relational_rnn.ops.relational_scan.readable import gradients_wanted, mode_against, pending
from relational_rnn.ops.relational_scan.reference import CalledParameters, ScanParameters, relational_step
from relational_rnn.ops.relational_scan.scan import Backend
from relational_rnn.ops.relational_scan.spec import flatten, misfit, spec_of

_FEW_ROWS = 16  # memory rows up to which arranging the weights would take longer than it saves
_MOST_SIZES = 8  # that a cache holds; more would be a program whose batch changes all the time


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


class ReadyStep:
    """Steps of one size, that of `x` [B, n, I] and `memory` [B, N, M], with parameters where they lie now."""

    def __init__(self, kernels: Kernels, params: ScanParameters, x: Tensor, memory: Tensor, input_rows: bool) -> None:
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

    def __call__(self, x: Tensor, memory: Tensor) -> After:
        """One step of the size and dtype that this was made for."""
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


_FACTS = operator.attrgetter("dtype", "shape")  # beside the address, which no two devices share
_HOOKS = operator.attrgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class StepCache:
    """Ready steps of one cell, for as long as nothing about its parameters changes.

    Parameters are read where they lie, so an optimizer or `load_state_dict` may write into them. Any other change is
    noticed at the next step: other modules, parameters or kernels, hooks, parametrizations, data elsewhere or laid out
    otherwise. A copy of a cache is empty.
    """

    def __init__(self) -> None:
        self._ready: dict[tuple[torch.Size, torch.Size, bool], ReadyStep] = {}
        self._dtype: torch.dtype | None = None
        self._modules: list[nn.Module] = []
        self._tensors: list[Tensor] = []
        self._then: tuple[Any, ...] | None = None

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    def step(self, x: Tensor, memory: Tensor, *, input_rows: bool) -> After | None:
        """One step, input `x` [B, n, I] and the memory before it [B, N, M]; None unless `prepare` made it ready."""
        if torch.is_grad_enabled() or mode_against() is not None or type(x) is not Tensor or type(memory) is not Tensor:
            return None
        ready = self._ready.get((x.shape, memory.shape, input_rows))
        if ready is None or not (x.dtype is self._dtype is memory.dtype and x.is_cpu and memory.is_cpu):
            return None
        if not memory.is_contiguous() or pending(x) or pending(memory) or self._now() != self._then:
            return None
        return ready(x.contiguous(), memory)

    def prepare(
        self, x: Tensor, memory: Tensor, params: ScanParameters, cell: nn.Module, plain: list[nn.Module], rows: bool
    ) -> bool:
        """Make steps of the size of `x` and `memory`, both checked, ready; returns whether the kernels take them.

        `plain` are the modules within `cell` whose parameters a step reads; `rows` asks for the input's rows.
        """
        few = 0 < x.shape[0] * memory.shape[1] <= TILE_ROWS
        if not few or unsupported(x, memory, params) is not None or misfit(params, x, memory) is not None:
            return False
        tensors, kernels, own = flatten(params), kernels_for(params), set(map(id, cell.parameters()))
        # something else may make one of them, a parametrization for one
        as_they_lie = all(id(t) in own for t in tensors)
        if not as_they_lie or any(pending(t) or not t.is_contiguous() for t in (memory, *tensors)):
            return False
        assert not isinstance(kernels, str)
        if len(self._ready) >= _MOST_SIZES or self._now() != self._then:
            self._ready.clear()
        self._cell, self._modules, self._tensors, self._dtype = vars(cell), list(cell.modules()), tensors, x.dtype
        tables = (table for module in self._modules for table in (module._modules, module._parameters))
        self._tables = list(filter(None, tables))  # nothing that comes into an empty one is a weight of a step
        self._hooks = [hooks for module in (cell, *plain) for hooks in _HOOKS(module)]
        self._attributes = list(map(vars, self._modules))
        self._then = self._now()
        self._held = self._cell["settings"], *chain.from_iterable(map(dict.values, self._tables))  # so that ids stay
        self._ready[x.shape, memory.shape, rows] = ReadyStep(kernels, params, x, memory, rows)
        return True

    def _now(self) -> tuple[Any, ...] | None:
        """Everything that changes when the parameters become others."""
        if not self._modules or any(self._hooks):
            return None
        return (
            id(self._cell["settings"]),
            list(chain.from_iterable(self._tables)),
            list(map(id, chain.from_iterable(map(dict.values, self._tables)))),
            list(map(len, self._attributes)),  # longer once a module has a forward of its own
            list(map(type, self._modules)),
            list(map(Tensor.data_ptr, self._tensors)),
            list(map(_FACTS, self._tensors)),
            list(map(Tensor.is_contiguous, self._tensors)),
            find(),
        )
