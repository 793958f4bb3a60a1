"""Cores that say what tensors their state holds: where a sequence starts, and which states are refused, follow."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Generic, cast

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_shape, describe
from relational_rnn.nn._inputs import START_HINT, STEPS_HINT, check_booleans, check_kind, place_of, start_at
from relational_rnn.nn.core import Core, State, StateT

Axes = Mapping[str, int | None]


class StatefulCore(Core, Generic[StateT]):
    """A core whose state is described by `state_axes`, and starts at zeros."""

    masks: tuple[str, ...] = ()
    """The tensors of a state that are booleans; all others are of the parameters' dtype."""

    @abstractmethod
    def state_axes(self, batch_size: int) -> Mapping[str, Axes]:
        """The axes of every tensor of a state, by name; a state that is one tensor has the name "".

        The size of S, the stored steps, is None: 0 at the start, and the same in all tensors.
        """

    def initial_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> StateT:
        sizes = {name: [size or 0 for size in axes.values()][1:] for name, axes in self.state_axes(1).items()}
        numbers = max(1, sum(map(math.prod, sizes.values())))
        device, dtype = start_at(self, batch_size, device, dtype, numbers)
        kinds = {name: torch.bool if name in self.masks else dtype for name in sizes}
        state = {name: torch.zeros(batch_size, *sizes[name], device=device, dtype=kinds[name]) for name in sizes}
        return cast(StateT, state.get("", state))

    def check_state(self, state: State, batch_size: int) -> StateT:
        """Refuse a state that is not one of this core's for `batch_size` sequences."""
        where, tensors = type(self).__name__, self.state_axes(batch_size)
        if "" in tensors:
            if not isinstance(state, Tensor):
                got = type(state).__name__
                raise InputError(describe(where, "state must be a tensor", got=got, hint=START_HINT))
        elif not isinstance(state, dict) or set(state) != set(tensors):
            got = sorted(state) if isinstance(state, dict) else type(state).__name__
            pair = isinstance(state, tuple | list) and {"h", "c"} <= set(tensors)
            hint = 'of a pair (h, c): {"h": h, "c": c}, without an axis of layers.' if pair else START_HINT
            problem = "state must be a dict of the tensors of this core"
            raise InputError(describe(where, problem, got=got, expected=sorted(tensors), hint=hint))
        stored = None
        for key, axes in sorted(tensors.items(), key=lambda one: ("S" in one[1], one[0] not in self.masks)):
            tensor, name = (state, "state") if isinstance(state, Tensor) else (state[key], f'state["{key}"]')
            axes = {**axes, "S": stored} if "S" in axes else axes
            check_shape(where, name, tensor, axes, hint=_hint(tensor, axes))
            stored = tensor.shape[1] if "S" in axes else stored
            if key in self.masks:
                check_booleans(where, name, tensor, place_of(self)[0], hint=START_HINT)
            else:
                check_kind(self, name, tensor)
        return cast(StateT, state)

    def started(self, state: State | None, batch_size: int) -> StateT:
        """The state that was given, checked, or the initial one."""
        return self.initial_state(batch_size) if state is None else self.check_state(state, batch_size)


def _hint(tensor: object, axes: Axes) -> str:
    """What to do instead, for a tensor of a state that may be one per time step."""
    sizes = list(axes.values())
    if isinstance(tensor, Tensor) and tensor.dim() == len(sizes) + 1:
        of_steps = all(size in (None, found) for size, found in zip(sizes[1:], tensor.shape[2:], strict=True))
        return STEPS_HINT if of_steps else START_HINT
    return START_HINT
