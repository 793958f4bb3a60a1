"""A small recurrent core for tests of what surrounds a core: a GRU cell whose state is two rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relational_rnn.nn.core import Core, State


class StubCore(Core):
    """A GRU of `hidden` numbers; its rows are the two halves of the state."""

    def __init__(self, input_size: int, hidden: int) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden
        self.cell = nn.GRUCell(input_size, hidden)

    def initial_state(self, batch_size: int, *, device=None, dtype=None) -> State:
        weight = self.cell.weight_hh
        return torch.zeros(batch_size, self.output_size, device=device or weight.device, dtype=dtype or weight.dtype)

    def reset_parameters(self) -> None:
        self.cell.reset_parameters()

    def step(self, x_t: Tensor, state: State, *, reset: Tensor | None = None) -> tuple[Tensor, State]:
        assert isinstance(state, Tensor)
        assert reset is None
        state = self.cell(x_t, state)
        return state, state

    def forward(self, x: Tensor, state: State | None = None, *, lengths=None, reset=None) -> tuple[Tensor, State]:
        assert reset is None
        states = torch.stack(self._states(x, state), 1)
        if lengths is None:
            return states[:, 1:], states[:, -1]
        past = torch.arange(x.shape[1]) >= lengths[:, None]
        return states[:, 1:].masked_fill(past[..., None], 0), states[torch.arange(len(x)), lengths]

    def snapshots(self, x: Tensor, rows: Tensor, at: Tensor, state: State | None = None) -> State:
        return torch.stack(self._states(x, state), 1)[rows, at]

    def rows(self, state: State) -> tuple[Tensor, Tensor | None]:
        assert isinstance(state, Tensor)
        return state.unflatten(-1, (2, -1)), None

    def _states(self, x: Tensor, state: State | None) -> list[Tensor]:
        first = self.initial_state(len(x)) if state is None else state
        assert isinstance(first, Tensor)
        states = [first]
        for x_t in x.unbind(1):
            states.append(self.cell(x_t, states[-1]))
        return states
