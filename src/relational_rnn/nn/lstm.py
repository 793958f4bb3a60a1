"""The long short-term memory (Hochreiter and Schmidhuber, 1997)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relational_rnn.nn.core import Tensors
from relational_rnn.nn.rnn import GatedCore


class LSTM(GatedCore[Tensors]):
    r"""A long short-term memory with forget gates (Hochreiter and Schmidhuber, 1997; Gers et al., 2000):

    $$ (i_t, f_t, g_t, o_t) = W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} $$
    $$ c_t = \sigma(f_t) \odot c_{t-1} + \sigma(i_t) \odot \tanh(g_t), \qquad h_t = \sigma(o_t) \odot \tanh(c_t) $$

    The same function, parameter names and layout (i, f, g, o) as `torch.nn.LSTM` with one layer and `batch_first=True`.
    The forget gates start with a bias of 1 (Jozefowicz et al., 2015), where `torch.nn.LSTM` starts near 0.

    Shape:
        x [B, T, I]; state {"h": [B, H], "c": [B, H]}, zeros at the start; output [B, T, H], h after every step
        (H = hidden_size).

    Example:
        >>> core = LSTM(input_size=5, hidden_size=8)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state["c"].shape
        (torch.Size([7, 11, 8]), torch.Size([7, 8]))
    """

    gates = 4
    attended = "h"

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.ones_(self.bias_ih_l0.detach()[self.hidden_size : 2 * self.hidden_size])

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int]]:
        axes = {"B": batch_size, "H": self.hidden_size}
        return {"h": axes, "c": axes}

    def advance(self, projected_t: Tensor, state: Tensors) -> Tensors:
        i, f, g, o = (projected_t + self.project_hidden(state["h"])).chunk(4, -1)
        c = torch.sigmoid(f) * state["c"] + torch.sigmoid(i) * torch.tanh(g)
        return {"h": torch.sigmoid(o) * torch.tanh(c), "c": c}

    def output(self, state: Tensors) -> Tensor:
        return state["h"]

    def run_fused(self, x: Tensor, state: Tensors, weights: list[Tensor]) -> tuple[Tensor, Tensors]:
        start = state["h"].unsqueeze(0), state["c"].unsqueeze(0)
        options = True, 1, 0.0, self.training, False, True  # biases, one layer, no dropout, one direction, batch first
        y, h, c = torch.lstm(x, start, weights, *options)
        return y, {"h": h.squeeze(0), "c": c.squeeze(0)}
