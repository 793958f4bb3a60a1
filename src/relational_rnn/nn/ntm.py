"""The Neural Turing Machine (Graves, Wayne and Danihelka, 2014)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from relational_rnn._check import InputError, check_positive, check_room, describe
from relational_rnn.nn._inputs import Device
from relational_rnn.nn._matrix_memory import MatrixMemoryCore, content_weights
from relational_rnn.nn.core import Tensors

# Axes: A = E + R all heads, write heads first; the others are those of the class.

START = 1e-6
"""Every number of the memory before the first step."""


class NTM(MatrixMemoryCore):
    r"""A Neural Turing Machine with an LSTM controller (Graves et al., 2014, arXiv:1410.5401).

    Every head finds weights over the slots by content, keeps some of its last ones, shifts them around the circle of
    slots and sharpens them (equations 5 to 9). Its numbers k, beta, g, s, gamma come from h_t:

    $$ w^c = \mathrm{softmax}_n(\beta \cos(k, M_{t-1}[n])), \qquad w^g = g\,w^c + (1 - g)\,w_{t-1} $$
    $$ \tilde w[n] = \textstyle\sum_d s[d]\, w^g[n - d], \qquad
       w_t[n] = \tilde w[n]^\gamma / \sum_m \tilde w[m]^\gamma $$

    The write heads erase and add (3 and 4), then the read heads read (2):

    $$ M_t = M_{t-1} \odot \textstyle\prod_h (1 - w_h e_h^\top) + \sum_h w_h a_h^\top, \qquad
       r_t = w_t^\top M_t, \qquad y_t = W_y [h_t; r_t] + b_y $$

    beta is a softplus, g and e are sigmoids, s is a softmax, gamma = 1 + softplus. The paper leaves open which memory
    the heads compare their keys with; here it is that of the step before, for all heads at once.

    The start is constant: h, c and reads are 0; the memory is 1e-6 everywhere, which learned fastest for Collier and
    Beel (2018, arXiv:1807.08518); every head looks at the first slot, which tells slots of equal content apart.

    Args:
        shift_range: how far a head can move in one step, either way; D = 2 * shift_range + 1 shifts, at most N.
        output_size: features of the output, O; None means hidden_size.

    Shape:
        With I = input_size, H = hidden_size, N = memory_slots, W = word_size, R = read_heads and E = write_heads:
        x [B, T, I]; output [B, T, O]; state {"h": [B, H], "c": [B, H], "memory": [B, N, W], "reads": [B, R, W],
        "weights": [B, E + R, N]}.

    Example:
        >>> core = NTM(input_size=5, hidden_size=8, memory_slots=6, word_size=4, read_heads=2)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state["memory"].shape, state["weights"].shape
        (torch.Size([7, 11, 8]), torch.Size([7, 6, 4]), torch.Size([7, 3, 6]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        memory_slots: int = 32,
        word_size: int = 16,
        read_heads: int = 1,
        write_heads: int = 1,
        shift_range: int = 1,
        output_size: int | None = None,
    ) -> None:
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "memory_slots": memory_slots}
        heads = {"word_size": word_size, "read_heads": read_heads, "write_heads": write_heads}
        check_positive("NTM", **sizes, **heads, shift_range=shift_range)
        shifts = 2 * shift_range + 1
        if shifts > memory_slots:
            problem = "a head can reach every slot already, and shift_range would count some twice"
            got = f"shift_range={shift_range}, memory_slots={memory_slots}"
            raise InputError(describe("NTM", problem, got=got, expected="2 * shift_range + 1 <= memory_slots"))
        every = write_heads + read_heads
        parts = (every * word_size, every, every, every * shifts, every, write_heads * word_size)
        parts = (*parts, write_heads * word_size)
        check_room("NTM", every * memory_slots)
        super().__init__(input_size, hidden_size, memory_slots, word_size, read_heads, sum(parts), output_size)
        self.write_heads = write_heads
        self.shift_range = shift_range
        self.parts = parts

    def initial_state(self, batch_size: int, *, device: Device = None, dtype: torch.dtype | None = None) -> Tensors:
        state = super().initial_state(batch_size, device=device, dtype=dtype)
        state["memory"] += START
        state["weights"][..., 0] = 1
        return state

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int]]:
        heads = self.write_heads + self.read_heads
        return {**super().state_axes(batch_size), "weights": {"B": batch_size, "A": heads, "N": self.memory_slots}}

    def advance(self, projected_t: Tensor, state: Tensors) -> Tensors:
        h, c, interface = self.control(projected_t, state)
        keys, strengths, gates, shifts, sharpness, erase, add = interface.split(self.parts, -1)
        every, word = self.write_heads + self.read_heads, self.word_size
        memory = state["memory"]
        by_content = content_weights(memory, keys.unflatten(-1, (every, word)), F.softplus(strengths))
        weights = torch.lerp(state["weights"], by_content.to(h.dtype), torch.sigmoid(gates).unsqueeze(-1))
        weights = shift(weights, torch.softmax(shifts.unflatten(-1, (every, -1)), -1))
        weights = sharpen(weights, 1 + F.softplus(sharpness))
        writing, reading = weights.split((self.write_heads, self.read_heads), 1)
        erase, add = torch.sigmoid(erase).unflatten(-1, (-1, word)), add.unflatten(-1, (-1, word))
        memory = write(memory, writing, erase, add)
        return {"h": h, "c": c, "memory": memory, "reads": (reading @ memory).to(h.dtype), "weights": weights}


def shift(weights: Tensor, by: Tensor) -> Tensor:
    """Circular convolution of `weights` [B, A, N] with `by` [B, A, D], whose middle entry leaves them in place."""
    reach = by.shape[-1] // 2
    moved = [weights.roll(d, -1) * by[..., d + reach, None] for d in range(-reach, reach + 1)]
    return torch.stack(moved).sum(0)


def sharpen(weights: Tensor, power: Tensor) -> Tensor:
    """`weights` [B, A, N] to the `power` [B, A], divided by their sum; by logarithms, so that no sum can be 0."""
    logs = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()
    return torch.softmax(power.unsqueeze(-1) * logs, -1)


def write(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """The memory [B, N, W] after the heads with `weights` [B, E, N] have erased and added, both [B, E, W]."""
    kept = memory
    for w, e in zip(weights.unbind(1), erase.unbind(1), strict=True):
        kept = kept * (1 - w.unsqueeze(2) * e.unsqueeze(1))
    return kept + (weights.mT @ add).to(memory.dtype)
