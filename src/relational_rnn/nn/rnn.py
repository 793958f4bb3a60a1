"""The plain recurrent network with a tanh (Elman, 1990)."""

from __future__ import annotations

import torch
from torch import Tensor

from relational_rnn.nn._gates import HiddenStateCore


class RNN(HiddenStateCore):
    r"""A recurrent network without gates (Elman, 1990, *Finding structure in time*):

    $$ h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) $$

    The same function as `torch.nn.RNN` with one layer and `batch_first=True`, and the same parameter names.

    Args:
        input_size: features per step, I.
        hidden_size: width of the hidden state and of the output, H.

    Shape:
        x [B, T, I]; state [B, H], zeros at the start; output [B, T, H], the hidden state after every step.

    Raises:
        InputError: a size, dtype, length or reset that does not fit.

    Example:
        >>> core = RNN(input_size=5, hidden_size=8)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state.shape
        (torch.Size([7, 11, 8]), torch.Size([7, 8]))
    """

    gates = 1

    def advance(self, projected_t: Tensor, state: Tensor) -> Tensor:
        # Under autocast the sum is of lower precision; the state keeps its own.
        return torch.tanh(projected_t + self.project_hidden(state)).to(state.dtype)
