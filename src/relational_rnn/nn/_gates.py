"""Weights of the gated recurrent networks, laid out and named as `torch.nn.RNN`, `GRU` and `LSTM` do (one layer).

Axes: G gates, H hidden size, I input features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relational_rnn._check import check_positive, check_room
from relational_rnn.nn._recurrent import RecurrentCore
from relational_rnn.nn.core import State, StateT


class GatedCore(RecurrentCore[StateT]):
    """A recurrent network of G gates: weights [G * H, I] and [G * H, H], two biases [G * H].

    The weights start as usual for these networks: the input's Glorot-uniform, the recurrent ones orthogonal (Saxe et
    al., 2014), each gate on its own; biases are zero. The names are those of the PyTorch modules with one layer, so
    that their state dicts load here and ours there.
    """

    gates: int
    """Number of gates, G."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size)
        check_room(where, self.gates * hidden_size * (input_size + hidden_size))
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = hidden_size
        rows = self.gates * hidden_size
        self.weight_ih_l0 = nn.Parameter(torch.empty(rows, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.empty(rows, hidden_size))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(rows))
        self.bias_hh_l0 = nn.Parameter(torch.zeros(rows))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, as at the start."""
        for weight in self.weight_ih_l0.detach().chunk(self.gates):
            nn.init.xavier_uniform_(weight)
        for weight in self.weight_hh_l0.detach().chunk(self.gates):
            nn.init.orthogonal_(weight)
        nn.init.zeros_(self.bias_ih_l0)
        nn.init.zeros_(self.bias_hh_l0)

    def project_input(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight_ih_l0, self.bias_ih_l0)

    def project_hidden(self, h: Tensor) -> Tensor:
        """What the gates see of the hidden state: [B, H] to [B, G * H]."""
        return nn.functional.linear(h, self.weight_hh_l0, self.bias_hh_l0)


class HiddenStateCore(GatedCore[Tensor]):
    """A gated core whose state is its hidden state: one tensor [B, H]."""

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int]]:
        return {"": {"B": batch_size, "H": self.hidden_size}}

    def output(self, state: Tensor) -> Tensor:
        return state

    def rows(self, state: State) -> tuple[Tensor, Tensor | None]:
        assert isinstance(state, Tensor)
        return state.unsqueeze(1), None
