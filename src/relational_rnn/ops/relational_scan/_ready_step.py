"""Single steps without gradients by the compiled kernels, prepared once for all steps of a size.

A step of a few rows takes the kernels 10 microseconds, and the 15 parameters it reads are scattered over a dozen
modules: gathering and checking them anew takes several times as long.
"""

# Shape legend: as in cpu.py

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._native import Kernels, NativeCall, Numbers, Phase, find, fresh
from relational_rnn.ops.relational_scan._native_scan import TILE_ROWS, describe_sizes
from relational_rnn.ops.relational_scan.cpu import kernels_for
from relational_rnn.ops.relational_scan.readable import mode_against, pending, wrapped
from relational_rnn.ops.relational_scan.reference import ScanParameters
from relational_rnn.ops.relational_scan.spec import flatten, misfit, spec_of

_FEW_ROWS = 16  # memory rows up to which arranging the weights would take longer than it saves
_MOST_SIZES = 8  # that a cache holds; more would be a program whose batch changes all the time


class After(NamedTuple):
    """What a step leaves."""

    memory: Tensor  # [B, N, M]
    input_rows: Tensor | None  # [B, n, M], the attended rows of the input


def plain(tensors: tuple[Tensor, ...]) -> bool:
    """Whether the kernels take these as they are; `unsupported` would say why not, but takes longer than the step."""
    dtype = tensors[0].dtype
    if dtype not in (torch.float32, torch.float64):
        return False
    return all(
        type(t) in (Tensor, torch.nn.Parameter)
        and t.dtype == dtype
        and t.is_cpu
        and not pending(t)
        and not wrapped(t)
        and t.is_contiguous()
        for t in tensors
    )


class ReadyStep:
    """Steps of one size with parameters where they lie now: all that is missing are the addresses of a step's tensors.

    Args:
        kernels: what computes.
        params: the parameters, `plain` together with the tensors of a step.
        x: [B, n, I], any input of the size.
        memory: [B, N, M].
        input_rows: whether the attended rows of the input are wanted too.
    """

    def __init__(self, kernels: Kernels, params: ScanParameters, x: Tensor, memory: Tensor, input_rows: bool) -> None:
        batch, inputs, features = x.shape
        slots, width = memory.shape[1:]
        gates = 0 if params.gate_memory is None else params.gate_memory.weight.shape[0]
        spec = spec_of(params, input_rows=input_rows)
        tensors = flatten(params)
        sizes = describe_sizes(spec, batch, 1, inputs, features, slots, width, gates)
        sizes.tile_batch, sizes.tile_to, sizes.step_to = batch, 1, 1
        sizes.packed_weights = batch * slots > _FEW_ROWS
        sizes.x_batch = inputs * features
        self._parameters = (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])
        sizes.parameters = ctypes.addressof(self._parameters)
        double = x.dtype == torch.float64
        counted = (Numbers.KEPT, Numbers.SCRATCH, *((Numbers.PACKED,) if sizes.packed_weights else ()))
        self._room = [kernels.numbers(sizes, what, double=double) for what in counted]
        phases = (Phase.PACK_FORWARD, Phase.FORWARD) if sizes.packed_weights else (Phase.FORWARD,)
        self._sizes = sizes
        self._rows = (batch, inputs, width) if input_rows else None
        self._dtype = x.dtype
        self._run = kernels.library.scan_run
        self._how = kernels.instance, double, (ctypes.c_int * len(phases))(*phases), len(phases), 1, None
        self._spare: list[tuple[NativeCall, int, Tensor]] = []

    def __call__(self, x: Tensor, memory: Tensor) -> After:
        """One step; `x` and `memory` are plain and of the size and dtype that this was made for."""
        # A call and its room belong to one step at a time: other threads of Python take, or make, their own.
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


class Place(NamedTuple):
    """Where a module or a parameter lies, and that it lay there."""

    table: Mapping[str, object]
    name: str
    held: object


_FACTS = operator.attrgetter("dtype", "shape")  # beside the address, which no two devices share
_HOOKS = operator.attrgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class StepCache:
    """Ready steps of one cell, for as long as nothing about its parameters changes.

    Parameters are read where they lie, so writing into them (an optimizer, `load_state_dict`) changes nothing here.
    Everything else is noticed at the next step: other modules or parameters in their places, hooks, parametrizations,
    data moved, converted or laid otherwise, other kernels asked for. A copy of a cache, and one from a file, is empty.
    """

    def __init__(self) -> None:
        self._tables: list[Mapping[str, object]] = []
        self._counts: list[int] = []
        self._modules: list[torch.nn.Module] = []
        self._kinds: list[type] = []
        self._hooks: list[Mapping[int, object]] = []
        self._places: list[Place] = []
        self._tensors: list[Tensor] = []
        self._addresses: list[int] = []
        self._facts: list[tuple[Any, ...]] = []
        self._kernels: Kernels | None = None
        self._dtype: torch.dtype | None = None
        self._ready: dict[tuple[torch.Size, torch.Size, bool], ReadyStep] = {}

    def __deepcopy__(self, memo: object) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    def step(self, x: Tensor, memory: Tensor, *, input_rows: bool) -> After | None:
        """One step, input `x` [B, n, I] and the memory before it [B, N, M]; None unless it is ready.

        What the tensors' shapes have to be is not checked: a size is ready only after `prepare`.
        """
        if torch.is_grad_enabled() or mode_against() is not None or type(x) is not Tensor or type(memory) is not Tensor:
            return None
        ready = self._ready.get((x.shape, memory.shape, input_rows))
        if ready is None or not (x.dtype is self._dtype is memory.dtype and x.is_cpu and memory.is_cpu):
            return None
        if not memory.is_contiguous() or pending(x) or pending(memory) or not self._holds():
            return None
        return ready(x.contiguous(), memory)

    def prepare(
        self,
        x: Tensor,
        memory: Tensor,
        parameters: Callable[[], ScanParameters],
        places: Callable[[], list[Place]],
        modules: list[torch.nn.Module],
        *,
        input_rows: bool,
    ) -> bool:
        """Make steps like this one ready; returns whether the kernels take them.

        Args:
            x: [B, n, I], checked.
            memory: [B, N, M], checked.
            parameters: gives the parameters as they are now.
            places: gives where they lie, and every module on the way to them, in tables as modules have them.
            modules: those whose parameters they are, plain now: without hooks, of PyTorch's own classes.
            input_rows: whether the attended rows of the input are wanted too.
        """
        if torch.is_grad_enabled() or mode_against() is not None:
            return False
        if not 0 < x.shape[0] * memory.shape[1] <= TILE_ROWS:
            return False
        params = parameters()
        kernels, tensors = kernels_for(params), flatten(params)
        if isinstance(kernels, str) or not plain((x.contiguous(), memory, *tensors)) or misfit(params, x, memory):
            return False
        found = places()
        held = {id(place.held) for place in found}
        if any(id(t) not in held for t in tensors):  # something else makes one of them, a parametrization for one
            return False
        if len(self._ready) >= _MOST_SIZES or not self._holds():
            self._ready.clear()
        self._places, self._tensors, self._kernels, self._dtype = found, tensors, kernels, x.dtype
        # A forward set on a module itself makes the table of its attributes longer.
        self._tables = [*{id(p.table): p.table for p in found}.values(), *map(vars, modules)]
        self._counts = list(map(len, self._tables))
        self._modules, self._kinds = modules, list(map(type, modules))
        self._hooks = [hooks for module in modules for hooks in _HOOKS(module)]
        self._addresses = list(map(Tensor.data_ptr, tensors))
        self._facts = list(map(_FACTS, tensors))
        self._ready[x.shape, memory.shape, input_rows] = ReadyStep(kernels, params, x, memory, input_rows)
        return True

    def _holds(self) -> bool:
        """Whether the parameters are what they were."""
        for table, name, held in self._places:
            if table.get(name) is not held:
                return False
        return (
            list(map(len, self._tables)) == self._counts
            and not any(self._hooks)
            and list(map(type, self._modules)) == self._kinds
            and list(map(Tensor.data_ptr, self._tensors)) == self._addresses
            and list(map(_FACTS, self._tensors)) == self._facts
            and all(map(Tensor.is_contiguous, self._tensors))
            and find() is self._kernels
        )
