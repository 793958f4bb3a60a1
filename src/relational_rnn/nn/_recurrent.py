"""The loop over time that every core with a state of fixed size shares: lengths, resets, snapshots.

Axes: B batch, T time, I input features, O output features, M questions.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from relational_rnn.nn._stateful import StatefulCore, blank
from relational_rnn.nn.core import StateT, map_state, select_state, tensors_of
from relational_rnn.ops.relational_scan.pieces import in_pieces, valid_steps

_PIECE_NUMBERS = 1 << 16  # of the states that are there together without gradients


class RecurrentCore(StatefulCore[StateT]):
    """A core whose state keeps its size. Subclasses define one step in three parts and inherit the sequence.

    What depends on the input alone (`project_input`) is computed for all steps at once, before the loop.
    """

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

    def run_step(self, x_t: Tensor, state: StateT, reset: Tensor | None) -> tuple[Tensor, StateT]:
        if reset is not None:
            state = select_state(reset, self.initial_state(x_t.shape[0]), state)
        after = self.advance(self.project_input(x_t), state)
        return self.output(after).clone(), self.strip(after)  # an output of its own, where it is part of the state

    def run(self, x: Tensor, state: StateT, lengths: Tensor | None, reset: Tensor | None) -> tuple[Tensor, StateT]:
        tensors = tensors_of(state)
        together = _PIECE_NUMBERS // max(1, sum(t.numel() for t in tensors))
        given = [x, lengths, reset, *tensors, *self.parameters()]
        (y,), after = in_pieces(self._run_piece, max(1, together), x, state, lengths, reset, given=given)
        return y, after

    def _run_piece(
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

    def run_until(self, x: Tensor, state: StateT, rows: Tensor, at: Tensor) -> StateT:
        states = self.states(x, state, None)
        if torch.compiler.is_compiling():  # how many questions a step has is a value, and there are none yet
            return pick_states(states, rows, at)
        # States are copied only where a question asks for them, not whole.
        order = at.argsort()
        asked = rows[order].split(at.bincount(minlength=len(states)).tolist())  # which rows, step by step
        back = order.argsort()

        def pick(*tensors: Tensor) -> Tensor:
            found = [tensor.index_select(0, at_t) for tensor, at_t in zip(tensors, asked, strict=True) if len(at_t)]
            return torch.cat(found or [tensors[0][:0]]).index_select(0, back)

        return map_state(pick, *states)

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


def pick_states(states: list[StateT], rows: Tensor, at: Tensor) -> StateT:
    """For every m, row `rows[m]` of `states[at[m]]`; of dicts, the tensors that the first state has."""
    return map_state(lambda *tensors: torch.stack(tensors)[at, rows], *states)
