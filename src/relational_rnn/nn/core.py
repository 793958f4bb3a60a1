"""The contract that every recurrent core keeps: the relational memory and each of its rivals.

A core is a state, a step and a sequence call:

    state = core.initial_state(batch_size)
    y_t, state = core.step(x_t, state)          one step
    y, state = core(x, state)                   the same step for every time step of x
    core.reset_parameters()                     new weights

Axes used in this package: B batch, T time, I input features, O output features, M questions (rows picked from a batch).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from relational_rnn.nn._inputs import Device
from relational_rnn.nn._pretrained import Pretrained
from relational_rnn.nn.readers import RowReader, StateReader

Tensors = dict[str, Tensor]

State = Tensor | Tensors
"""What a core carries from step to step: one tensor, or a dict of tensors. The first axis of each is the batch."""

StateT = TypeVar("StateT", bound=State)

Numbers = Tensor | Sequence[int] | np.ndarray
"""Whole numbers, such as lengths and the places of questions."""


def map_state(function: Callable[..., Tensor], state: StateT, *others: State) -> StateT:
    """Apply `function` to every tensor of a state, together with the same tensors of the other states."""
    if isinstance(state, Tensor):
        return cast(StateT, function(state, *others))
    more = cast("tuple[Tensors, ...]", others)  # a text, which torch.compile can read
    return cast(StateT, {name: function(one, *(other[name] for other in more)) for name, one in state.items()})


def select_state(keep: Tensor, old: StateT, new: State) -> StateT:
    """For each row: `old` where `keep` [B] is true, `new` elsewhere. Both states have the same shapes."""
    return map_state(lambda a, b: torch.where(keep.view(-1, *[1] * (a.dim() - 1)), a, b), old, new)


def tensors_of(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state, in its order."""
    return (state,) if isinstance(state, Tensor) else tuple(state.values())


def state_like(state: StateT, tensors: Iterable[Tensor]) -> StateT:
    """The state of these tensors, laid out like `state`: the inverse of `tensors_of`."""
    if isinstance(state, Tensor):
        return cast(StateT, *tensors)
    return cast(StateT, dict(zip(state, tensors, strict=True)))


def state_bytes(state: State) -> int:
    """The size of a state in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(state))


class Core(Pretrained, ABC):
    """A recurrent core: what the models and tasks of this package expect of the relational memory and its rivals.

    Nothing is detached: gradients flow into the state that is passed in, and back through every step. The docstring of
    a core says only what is particular to it.

    Raises:
        InputError: by the constructor, for a size or an argument that cannot be used; by every call, for a tensor of
            the wrong shape, dtype or device, and for lengths, resets or questions that do not fit the sequence.
    """

    input_size: int
    """Features of one input step, I."""
    output_size: int
    """Features of one output step, O."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw all weights anew, as the constructor does."""

    @abstractmethod
    def initial_state(self, batch_size: int, *, device: Device = None, dtype: torch.dtype | None = None) -> State:
        """The state before the first step, for `batch_size` sequences; device and dtype default to the parameters'."""

    @abstractmethod
    def step(self, x_t: Tensor, state: State, *, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """One step: from `x_t` [B, I] and the state before it to the output [B, O] and the state after it.

        `reset` [B] booleans: true where a row returns to its initial state *before* the step.
        """

    @abstractmethod
    def forward(
        self, x: Tensor, state: State | None = None, *, lengths: Numbers | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """The whole sequence.

        Args:
            x: [B, T, I].
            state: the state before the first step, or None for `initial_state(B)`.
            lengths: [B] whole numbers in 0..T, as a tensor, list or array. Outputs past a length are 0.
            reset: [B, T] booleans; true at [b, t] means that row b returns to its initial state *before* step t.

        Returns:
            (y [B, T, O], the state after each row's last valid step, in tensors of its own even where T is 0).
        """

    @abstractmethod
    def snapshots(self, x: Tensor, rows: Numbers, at: Numbers, state: State | None = None) -> State:
        """States in the middle of sequences: for every m the state of row `rows[m]` after its first `at[m]` steps.

        Args:
            rows: [M] indices into the batch.
            at: [M] whole numbers in 0..T; 0 means the state before the first step.

        Returns:
            a state with a batch of M, ready for `step`. Steps from it change neither the sequence nor other snapshots.
        """

    @abstractmethod
    def rows(self, state: State) -> tuple[Tensor, Tensor | None]:
        """What attention can look at: (rows [B, R, D], mask [B, R], true where a row exists, or None)."""

    def extra_repr(self) -> str:
        """The constructor's required arguments, and those that are not the default."""
        given = getattr(self, "_arguments", {})
        chosen = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if name in given and parameter.default is parameter.empty:
                chosen.append(repr(given[name]))
            elif name in given and given[name] != parameter.default:
                chosen.append(f"{name}={given[name]!r}")
        return ", ".join(chosen)

    def reader(self, size: int, looks: int, heads: int) -> StateReader:
        """How a question looks at a state of this core, with fresh weights: by attention to its `rows`.

        Args:
            size: features of a question, and of what a look finds.
            looks: how many looks a question takes, each with weights of its own.
            heads: attention heads of each look; cores whose state is matrices have a query for each matrix instead.
        """
        with torch.no_grad():
            row_size = self.rows(self.initial_state(1))[0].shape[-1]
        return RowReader(self.rows, row_size, size, looks, heads)
