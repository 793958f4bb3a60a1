"""What the two cores with a memory matrix share: the LSTM that controls it, and finding rows by content.

Axes: B batch, I input features, H hidden size, N slots, W word size, R read heads, A any number of heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relational_rnn._check import check_positive, check_room
from relational_rnn.nn._recurrent import RecurrentCore
from relational_rnn.nn.core import Tensors

EPSILON = 1e-6
"""Added to squared norms, so that a row of zeros has similarity 0 to every key, and a gradient."""


class MatrixMemoryCore(RecurrentCore[Tensors]):
    """An LSTM whose input includes what was read from a memory matrix one step before.

    A linear map of its hidden state is the interface, the numbers with which a subclass moves its heads:

        h_t, c_t = LSTM([x_t; r_{t-1}], h_{t-1}, c_{t-1}),    interface_t = W h_t + b,    y_t = W_y [h_t; r_t] + b_y

    Subclasses define `advance` and extend `state_axes`; their states hold "h", "c", "memory" and "reads".
    """

    attended = "memory"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        memory_slots: int,
        word_size: int,
        read_heads: int,
        interface_size: int,
        output_size: int | None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.memory_slots = memory_slots
        self.word_size = word_size
        self.read_heads = read_heads
        self.output_size = hidden_size if output_size is None else output_size
        check_positive(type(self).__name__, output_size=self.output_size)
        seen = hidden_size + read_heads * word_size
        weights = hidden_size * (4 * input_size + 4 * seen + interface_size) + seen * self.output_size
        check_room(type(self).__name__, weights, memory_slots * (memory_slots + word_size))
        self.input = nn.Linear(input_size, 4 * hidden_size)
        self.recurrent = nn.Linear(seen, 4 * hidden_size, bias=False)
        self.interface = nn.Linear(hidden_size, interface_size)
        self.out = nn.Linear(seen, self.output_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for linear in (self.input, self.interface, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.ones_(self.input.bias.detach()[self.hidden_size : 2 * self.hidden_size])  # the forget gates
        for gate in self.recurrent.weight.detach().chunk(4):
            nn.init.xavier_uniform_(gate)
            nn.init.orthogonal_(gate[:, : self.hidden_size])

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int]]:
        hidden = {"B": batch_size, "H": self.hidden_size}
        return {
            "h": hidden,
            "c": hidden,
            "memory": {"B": batch_size, "N": self.memory_slots, "W": self.word_size},
            "reads": {"B": batch_size, "R": self.read_heads, "W": self.word_size},
        }

    def project_input(self, x: Tensor) -> Tensor:
        return self.input(x)

    def control(self, projected_t: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the LSTM: the new h and c, both [B, H], and the interface."""
        i, f, g, o = (projected_t + self.recurrent(_seen(state))).chunk(4, -1)
        c = torch.sigmoid(f) * state["c"] + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, c, self.interface(h).to(h.dtype)  # autocast multiplies in half precision, what follows is exact

    def output(self, state: Tensors) -> Tensor:
        return self.out(_seen(state))

    def outputs(self, states: list[Tensors], x: Tensor) -> Tensor:
        if len(states) == 1:
            return super().outputs(states, x)
        return self.out(torch.stack([_seen(state) for state in states[1:]], 1))


def _seen(state: Tensors) -> Tensor:
    """The hidden state beside what was read, [B, H + R * W]."""
    return torch.cat([state["h"], state["reads"].flatten(1)], 1)


def content_weights(memory: Tensor, keys: Tensor, strengths: Tensor) -> Tensor:
    """Weights over the rows of `memory` [B, N, W] by their cosine similarity to `keys` [B, A, W], [B, A, N].

    softmax over n of strengths[a] * cos(keys[a], memory[n]); strengths [B, A].
    """
    rows = memory * inverse_length(memory)
    scale = strengths.unsqueeze(-1) * inverse_length(keys)
    return torch.softmax((keys * scale) @ rows.mT, -1)


def inverse_length(vectors: Tensor) -> Tensor:
    """About one over the length of `vectors` [..., W], [..., 1]; half precision cannot hold its slope at 0."""
    precise = torch.promote_types(vectors.dtype, torch.float32)
    return torch.rsqrt(vectors.to(precise).square().sum(-1, keepdim=True) + EPSILON).to(vectors.dtype)
