"""The gated recurrent unit (Cho et al., 2014)."""

from __future__ import annotations

import torch
from torch import Tensor

from relational_rnn.nn.rnn import HiddenStateCore


class GRU(HiddenStateCore):
    r"""A gated recurrent unit (Cho et al., 2014, arXiv:1406.1078), in the form that `torch.nn.GRU` computes:

    $$ r_t = \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}), \qquad
       z_t = \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) $$
    $$ n_t = \tanh(W_{in} x_t + b_{in} + r_t \odot (W_{hn} h_{t-1} + b_{hn})), \qquad
       h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1} $$

    The same parameter names and layout (r, z, n) as `torch.nn.GRU` with one layer and `batch_first=True`.

    Shape:
        x [B, T, I]; state [B, H], zeros at the start; output [B, T, H], the state after every step (H = hidden_size).

    Example:
        >>> core = GRU(input_size=5, hidden_size=8)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state.shape
        (torch.Size([7, 11, 8]), torch.Size([7, 8]))
    """

    gates = 3
    fused = staticmethod(torch.gru)

    def advance(self, projected_t: Tensor, state: Tensor) -> Tensor:
        x_rz, x_n = projected_t.split((2 * self.hidden_size, self.hidden_size), -1)
        h_rz, h_n = self.project_hidden(state).split((2 * self.hidden_size, self.hidden_size), -1)
        r, z = torch.sigmoid(x_rz + h_rz).chunk(2, -1)
        n = torch.tanh(x_n + r * h_n)
        return n + z * (state - n)
