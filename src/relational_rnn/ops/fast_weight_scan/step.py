"""One step of the fast-weight memory without gradients, by the compiled kernels, kept ready for one size."""

# Shape legend: as in reference.py

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from relational_rnn.ops.fast_weight_scan.cpu import (
    FastCall,
    Tables,
    activation_widths,
    sizes_of,
    unsupported,
)
from relational_rnn.ops.fast_weight_scan.reference import FastWeightParameters, FastWeightState, Linear
from relational_rnn.ops.relational_scan._native import Kernels, Phase, addresses, find, fresh
from relational_rnn.ops.relational_scan.ready import StepCache
from relational_rnn.ops.relational_scan.spec import flatten

FEW_ROWS = 4  # sequences up to which arranging the weights would take longer than it saves
MOST_ROWS = 128  # sequences of a step that one thread takes


class ReadyStep:
    """Steps of one size, that of `x` [B, I] and `state`, with parameters where they lie now.

    `inputs` are the linear maps of x to h and to the keys of all heads.
    """

    def __init__(
        self,
        kernels: Kernels,
        x: Tensor,
        state: FastWeightState,
        params: FastWeightParameters,
        inputs: tuple[Linear, Linear],
    ) -> None:
        self._inputs = [(bias, weight.t()) for weight, bias in inputs]
        self._sizes = s = sizes_of(_projected(x, inputs), state, params, True)
        few = s.batch <= FEW_ROWS
        call = FastCall(*s, params.max_strength, s.batch, False, not few)
        weights = [t.detach() for t in flatten(params)]
        recurrent = [weights[0], None, weights[0][s.width :], None] if s.carry else [None] * 4
        self._parameters = addresses([*recurrent, *weights[s.carry :]])
        call.parameters = ctypes.addressof(self._parameters)
        call.p_step = s.width + s.keys
        call.p_batch = s.width + s.keys
        self._room = [kernels.numbers(call, what, x.dtype) for what in ("scratch", "packed")[: 2 - few]]
        self._widths = activation_widths(s)
        self._struct = call
        phases = (Phase.FORWARD,) if few else (Phase.PACK_FORWARD, Phase.FORWARD)
        self._run, double = kernels.library.fast_run, x.dtype == torch.float64
        self._how = kernels.instance, double, (ctypes.c_int * len(phases))(*phases), len(phases), 1, None
        self._spare: list[_Room] = []

    def __call__(self, x: Tensor, fast: Tensor, carried: Tensor | None = None) -> tuple[Tensor, FastWeightState]:
        """The output [B, W] and the state after one step of the size and dtype that this was made for."""
        # a call and its room belong to one step at a time: other threads of Python take or make their own
        room = self._spare.pop() if self._spare else self._make(x)
        call = room.call
        for (bias, weight), part in zip(self._inputs, room.parts, strict=True):
            torch.addmm(bias, x, weight, out=part)
        y, after = x.new_empty(self._sizes.batch, self._sizes.width), torch.empty_like(fast)
        call.memory, call.outputs, call.final = fast.data_ptr(), y.data_ptr(), after.data_ptr()
        carried_after = None
        if carried is not None:
            carried_after = torch.empty_like(carried)
            call.carried, call.final_carried = carried.data_ptr(), carried_after.data_ptr()
        self._run(room.address, *self._how)
        self._spare.append(room)
        return y, FastWeightState(after, carried_after)

    @torch.inference_mode(False)  # what was made in that mode could not be written into outside of it
    def _make(self, like: Tensor) -> _Room:
        s, call = self._sizes, FastCall.from_buffer_copy(self._struct)
        memory = fresh(sum(self._room), like.dtype)
        p = like.new_empty(s.batch, s.width + s.keys)
        tables = Tables(self._widths, 1, s.batch, like.dtype)
        call.point(activations=tables.addresses, activation_widths=tables.widths, p=p.unsqueeze(1))
        call.scratch = memory.data_ptr()
        call.packed = call.scratch + self._room[0] * memory.element_size()
        return _Room(call, ctypes.addressof(call), (memory, tables.memory), p.split([s.width, s.keys], 1))


class _Room(NamedTuple):
    call: FastCall
    address: int
    memory: tuple[Tensor, Tensor]
    parts: tuple[Tensor, ...]
    """Of the projected input: h, and the keys."""


def _projected(x: Tensor, inputs: tuple[Linear, Linear]) -> Tensor:
    """Something of the projected input's size."""
    return x.new_empty(x.shape[0], 1, sum(weight.shape[0] for weight, _ in inputs))


def prepare(
    steps: StepCache,
    x: Tensor,
    state: FastWeightState,
    params: FastWeightParameters,
    inputs: tuple[Linear, Linear],
    module: nn.Module,
    plain: list[nn.Module],
    choices: tuple[str, ...],
) -> bool:
    """Make steps of the size of `x` [B, I] and `state`, both checked, ready; returns whether the kernels take them.

    `plain` are the modules within `module` whose parameters a step reads, `choices` its attributes that a step
    depends on.
    """
    few = 0 < x.shape[0] <= MOST_ROWS
    keys = state.fast.shape[1] * state.fast.shape[2]
    fits = all(weight.shape[1:] == x.shape[1:] and weight.shape[:1] == bias.shape for weight, bias in inputs)
    if (
        not few
        or not fits
        or inputs[1].bias.shape != (keys,)
        or unsupported(_projected(x, inputs), state, params) is not None
    ):
        return False
    kernels = find()
    assert not isinstance(kernels, str)
    given: Any = (x, *(t for t in state if t is not None))
    return steps.prepare(
        given,
        flatten((params, inputs)),
        module,
        plain,
        lambda: ReadyStep(kernels, x, state, params, inputs),
        choices=choices,
    )
