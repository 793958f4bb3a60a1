"""The plain recurrent network with a tanh (Elman, 1990), and what it shares with the GRU and the LSTM.

Weights are laid out and named as those of `torch.nn.RNN`, `GRU` and `LSTM` with one layer.
Axes: G gates, H hidden size, I input features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from relational_rnn._check import check_positive, check_room
from relational_rnn.nn._recurrent import RecurrentCore
from relational_rnn.nn.core import StateT
from relational_rnn.ops.relational_scan.readable import mode_against


class GatedCore(RecurrentCore[StateT]):
    """A recurrent network of G gates: weights [G * H, I] and [G * H, H], two biases [G * H].

    Gate by gate, the input's weights start Glorot-uniform and the recurrent ones orthogonal (Saxe et al., 2014); biases
    are 0. State dicts of the PyTorch modules with one layer load here, and ours there.
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
        for weight in self.weight_ih_l0.detach().chunk(self.gates):
            nn.init.xavier_uniform_(weight)
        for weight in self.weight_hh_l0.detach().chunk(self.gates):
            nn.init.orthogonal_(weight)
        nn.init.zeros_(self.bias_ih_l0)
        nn.init.zeros_(self.bias_hh_l0)

    def project_input(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight_ih_l0, self.bias_ih_l0)

    @abstractmethod
    def run_fused(self, x: Tensor, state: StateT, weights: list[Tensor]) -> tuple[Tensor, StateT]:
        """A sequence by PyTorch's own kernel."""

    def _run_piece(
        self, x: Tensor, state: StateT, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[list[Tensor], StateT]:
        # PyTorch's kernel knows no resets, keeps no state at a length, and is no operation that transforms see through.
        if lengths is None and reset is None and x.is_cpu and x.numel() and mode_against() is None:
            names = "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"
            y, after = self.run_fused(x, state, [getattr(self, name) for name in names])
            return [y], after
        return super()._run_piece(x, state, lengths, reset)

    def project_hidden(self, h: Tensor) -> Tensor:
        """From the hidden state [B, H] to its part of the gates [B, G * H]."""
        return nn.functional.linear(h, self.weight_hh_l0, self.bias_hh_l0)


class HiddenStateCore(GatedCore[Tensor]):
    """A gated core whose state is its hidden state: one tensor [B, H]."""

    fused: Callable[..., tuple[Tensor, Tensor]]
    """PyTorch's kernel."""

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int]]:
        return {"": {"B": batch_size, "H": self.hidden_size}}

    def output(self, state: Tensor) -> Tensor:
        return state

    def run_fused(self, x: Tensor, state: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        options = True, 1, 0.0, self.training, False, True  # biases, one layer, no dropout, one direction, batch first
        y, last = self.fused(x, state.unsqueeze(0), weights, *options)
        return y, last.squeeze(0)


class RNN(HiddenStateCore):
    r"""A recurrent network without gates (Elman, 1990, *Finding structure in time*):

    $$ h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) $$

    The same function as `torch.nn.RNN` with one layer and `batch_first=True`, and the same parameter names.

    Shape:
        x [B, T, I]; state [B, H], zeros at the start; output [B, T, H], the state after every step (H = hidden_size).

    Example:
        >>> core = RNN(input_size=5, hidden_size=8)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state.shape
        (torch.Size([7, 11, 8]), torch.Size([7, 8]))
    """

    gates = 1
    fused = staticmethod(torch.rnn_tanh)

    def advance(self, projected_t: Tensor, state: Tensor) -> Tensor:
        # Under autocast the sum is of lower precision; the state keeps its own.
        return torch.tanh(projected_t + self.project_hidden(state)).to(state.dtype)
