"""The loop over time that every core with a state of fixed size shares: lengths, resets, snapshots.

A subclass says what one step is, in three parts (`project_input`, `advance`, `output`); everything that depends on the
input alone is computed for all steps at once, before the loop.

Axes: B batch, T time, I input features, O output features, M questions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from relational_rnn.nn._exported import any_length, sequence_of_any_length
from relational_rnn.nn._inputs import check_questions, check_sequence, check_step
from relational_rnn.nn._plain import remake_weights
from relational_rnn.nn._stateful import StatefulCore
from relational_rnn.nn.core import Numbers, State, StateT, map_state, select_state
from relational_rnn.ops.relational_scan.pieces import in_pieces, valid_steps

_PIECE_NUMBERS = 1 << 16  # of the states that are there together without gradients


class RecurrentCore(StatefulCore[StateT]):
    """A core whose state keeps its size; subclasses define one step and inherit the sequence."""

    @abstractmethod
    def project_input(self, x: Tensor) -> Tensor:
        """What a step needs of its input: `x` [B, I] or [B, T, I], to [B, ...] or [B, T, ...]."""

    @abstractmethod
    def advance(self, projected_t: Tensor, state: StateT) -> StateT:
        """The state after one step, from the projected input of that step and the state before it.

        A dict may hold more than a state does, for `output` alone; `strip` takes it out again.
        """

    @abstractmethod
    def output(self, state: StateT) -> Tensor:
        """The output [B, O] of the step that ended in `state`."""

    def strip(self, state: StateT) -> StateT:
        """The state alone, without what `advance` has added for `output`; by default nothing is."""
        return state

    def step(self, x_t: Tensor, state: State, *, reset: Tensor | None = None) -> tuple[Tensor, StateT]:
        check_step(self, x_t, reset)
        before = self.check_state(state, x_t.shape[0])
        remake_weights(self)
        if reset is not None:
            before = select_state(reset, self.initial_state(x_t.shape[0]), before)
        after = self.advance(self.project_input(x_t), before)
        return self.output(after).clone(), self.strip(after)  # an output of its own, where it is part of the state

    def forward(
        self, x: Tensor, state: State | None = None, *, lengths: Numbers | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, StateT]:
        lengths = check_sequence(self, x, lengths, reset)
        before = self.started(state, x.shape[0])
        if any_length(x):
            return sequence_of_any_length(self, x, before, lengths, reset)
        (y,), after = self.take_in_pieces(x, before, lengths, reset)
        return y, after

    def take_in_pieces(
        self, x: Tensor, state: StateT, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[list[Tensor], StateT]:
        """`forward` of arguments that were checked; without gradients few states are there at once."""
        tensors = [state] if isinstance(state, Tensor) else list(state.values())
        together = _PIECE_NUMBERS // max(1, sum(t.numel() for t in tensors))
        given = [x, lengths, reset, *tensors, *self.parameters()]
        return in_pieces(self._take, max(1, together), x, state, lengths, reset, given=given)

    def _take(
        self, x: Tensor, state: StateT, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[list[Tensor], StateT]:
        """All steps, with all their states."""
        if lengths is None:
            states = self.states(x, state, reset)
            return [self.outputs(states, x)], self.strip(states[-1])
        valid = valid_steps(lengths, x.shape[1])
        states = self.states(blank(x, valid), state, reset)
        row = torch.arange(x.shape[0], device=x.device)
        return [blank(self.outputs(states, x), valid)], pick_states(states, row, lengths)

    def snapshots(self, x: Tensor, rows: Numbers, at: Numbers, state: State | None = None) -> StateT:
        check_sequence(self, x, None, None)
        rows, at = check_questions(self, x, rows, at)
        remake_weights(self)
        x = blank(x, asked_steps(x, rows, at))
        return asked_states(self.states(x, self.started(state, x.shape[0]), None), rows, at)

    def states(self, x: Tensor, state: StateT, reset: Tensor | None) -> list[StateT]:
        """The T + 1 states before, between and after the steps of `x`, not stripped but for the first."""
        start, states = self.initial_state(x.shape[0]), [state]
        # unbind, not indexing: its backward is one stack, where T indexings would each fill a tensor as large as x.
        for t, projected_t in enumerate(self.project_input(x).unbind(1)):
            if reset is not None:
                state = select_state(reset[:, t], start, state)
            state = self.advance(projected_t, state)
            states.append(state)
        return states if len(states) > 1 else [map_state(torch.clone, state)]  # the caller's tensors stay the caller's

    def outputs(self, states: list[StateT], x: Tensor) -> Tensor:
        """The outputs [B, T, O] of the steps that ended in `states[1:]`."""
        if len(states) == 1:
            return x.new_zeros(x.shape[0], 0, self.output_size)
        return torch.stack([self.output(state) for state in states[1:]], 1)


def asked_steps(x: Tensor, rows: Tensor, at: Tensor) -> Tensor:
    """[B, T] booleans: true at the steps that any question (`rows`, `at`) [M] can see."""
    last = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    last = last.scatter_reduce(0, rows.long(), at.long(), "amax")
    return valid_steps(last, x.shape[1])


def blank(x: Tensor, valid: Tensor) -> Tensor:
    """`x` [B, T, ...] with zeros where `valid` [B, T] is false: padding reaches neither values nor gradients."""
    return x.masked_fill(~valid.view(*valid.shape, *[1] * (x.dim() - valid.dim())), 0)


def pick_states(states: list[StateT], rows: Tensor, at: Tensor) -> StateT:
    """For every m, row `rows[m]` of `states[at[m]]`; of dicts, the tensors that the first state has."""
    return _of_every_tensor(states, lambda tensors: torch.stack(tensors)[at, rows])


def asked_states(states: list[StateT], rows: Tensor, at: Tensor) -> StateT:
    """The same as `pick_states`, but states are copied only where a question asks for them, not whole."""
    if torch.compiler.is_compiling():  # how many questions a step has is a value, and there are none yet
        return pick_states(states, rows, at)
    order = at.argsort()
    asked = rows[order].split(at.bincount(minlength=len(states)).tolist())  # which rows, step by step
    back = order.argsort()

    def pick(tensors: list[Tensor]) -> Tensor:
        found = [tensor.index_select(0, at_t) for tensor, at_t in zip(tensors, asked, strict=True) if len(at_t)]
        return torch.cat(found or [tensors[0][:0]]).index_select(0, back)

    return _of_every_tensor(states, pick)


def _of_every_tensor(states: list[StateT], pick: Callable[[list[Tensor]], Tensor]) -> StateT:
    """`pick` of the states' tensors; of dicts, tensor by tensor of those that the first state has."""
    if isinstance(states[0], Tensor):
        return cast(StateT, pick(cast(list[Tensor], states)))
    return cast(StateT, {name: pick([cast(dict, state)[name] for state in states]) for name in states[0]})
