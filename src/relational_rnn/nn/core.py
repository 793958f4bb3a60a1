"""The contract that every recurrent core keeps: the relational memory and each of its rivals.

A core is a state, a step and a sequence call:

    state = core.initial_state(batch_size)
    y_t, state = core.step(x_t, state)          one step
    core.reset_parameters()                     new weights
    y, state = core(x, state)                   the same step, once per time step of x

Axes used in this package: B batch, T time, I input features, O output features, M questions (rows picked from a batch).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from relational_rnn.nn._pretrained import Pretrained
from relational_rnn.nn.readers import RowReader, StateReader

State = Tensor | dict[str, Tensor]
"""What a core carries from step to step: one tensor, or a dict of tensors; the batch is the first axis of each."""

StateT = TypeVar("StateT", bound=State)

Numbers = Tensor | Sequence[int] | np.ndarray
"""Whole numbers, as lengths and places of questions may come."""


def map_state(function: Callable[[Tensor], Tensor], state: StateT) -> StateT:
    """Apply `function` to every tensor of a state."""
    if isinstance(state, Tensor):
        return cast(StateT, function(state))
    return cast(StateT, {name: function(tensor) for name, tensor in state.items()})


def select_state(keep: Tensor, old: StateT, new: State) -> StateT:
    """Row by row, `old` where `keep` [B] is true and `new` elsewhere; both states have the same shapes."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(keep.view(-1, *[1] * (a.dim() - 1)), a, b)

    if isinstance(old, Tensor):
        return cast(StateT, pick(old, cast(Tensor, new)))
    return cast(StateT, {name: pick(tensor, cast(dict, new)[name]) for name, tensor in old.items()})


def state_bytes(state: State) -> int:
    """Bytes of a state, all its tensors together."""
    tensors = [state] if isinstance(state, Tensor) else list(state.values())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Core(Pretrained, ABC):
    """What a recurrent core is, for the models and tasks of this package.

    Subclasses set `input_size` and `output_size` and define `reset_parameters`, `initial_state`, `step`, `forward`,
    `snapshots` and `rows`, and `reader` where a question should not attend to the rows.
    Nothing is detached: gradients flow into the state that is passed in, and back through every step.
    """

    input_size: int
    """Features of one input step, I."""
    output_size: int
    """Features of one output step, O."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw all weights anew, as the constructor does."""

    @abstractmethod
    def initial_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """The state before the first step, for `batch_size` sequences; device and dtype default to the parameters'."""

    @abstractmethod
    def step(self, x_t: Tensor, state: State, *, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """One step: `x_t` [B, I] and the state before it to the output [B, O] and the state after it.

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
            lengths: [B] whole numbers in 0..T, as a tensor, list or array; outputs past a length are 0, the state is
                that of the last valid step.
            reset: [B, T] booleans; true at [b, t] means that row b returns to its initial state *before* step t.

        Returns:
            (y [B, T, O], the state after each row's last valid step, in tensors of its own even where T is 0).
        """

    @abstractmethod
    def snapshots(self, x: Tensor, rows: Numbers, at: Numbers, state: State | None = None) -> State:
        """States in the middle of sequences: for every m the state of row `rows[m]` after its first `at[m]` steps.

        Args:
            x: [B, T, I].
            rows: [M] indices into the batch.
            at: [M] whole numbers in 0..T; 0 means the state before the first step.
            state: the state before the first step, or None for `initial_state(B)`.

        Returns:
            a state whose batch axis has size M, ready for `step`: what a question asked at that point would see.
            Stepping on it changes nothing for the sequence or for other snapshots.
        """

    @abstractmethod
    def rows(self, state: State) -> tuple[Tensor, Tensor | None]:
        """What an attention read-out can look at: (rows [B, R, D], mask [B, R] true where a row exists, or None)."""

    def extra_repr(self) -> str:
        """What the constructor was given: what it needs, and what is not the default."""
        given = getattr(self, "_arguments", {})
        chosen = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if name in given and parameter.default is parameter.empty:
                chosen.append(repr(given[name]))
            elif name in given and given[name] != parameter.default:
                chosen.append(f"{name}={given[name]!r}")
        return ", ".join(chosen)

    def reader(self, size: int, looks: int, heads: int) -> StateReader:
        """How a question looks at a state of this core, with fresh weights: by attention at its `rows`.

        A core whose state is looked at in another way overrides it. The reader belongs to the caller, not to the core.

        Args:
            size: features of a question, and of what a look finds.
            looks: how many looks a question takes, each with weights of its own.
            heads: heads of each look by attention. A core whose state is matrices (`cores.READ_AS_MATRICES`) is looked
                at with one query for each of them, so that the same call does for every core.
        """
        with torch.no_grad():
            row_size = self.rows(self.initial_state(1))[0].shape[-1]
        return RowReader(self.rows, row_size, size, looks, heads)
