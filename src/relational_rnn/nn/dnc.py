"""The Differentiable Neural Computer (Graves et al., 2016)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from relational_rnn._check import check_positive, check_room
from relational_rnn.nn._matrix_memory import MatrixMemoryCore, content_weights
from relational_rnn.nn.core import Tensors

TIE = 2.0**-18
"""Slots whose usage differs by less are filled in their order: rounding must not decide between unused slots."""


class DNC(MatrixMemoryCore):
    r"""A Differentiable Neural Computer with an LSTM controller (Graves et al., 2016, doi:10.1038/nature20101).

    The one write head goes to free slots or by content. The read heads go by content or along the order in which slots
    were written. Their numbers k, beta, e, v, f, g, pi come from h_t.

    Usage, lower where a read head has freed what it read; phi orders the slots from the freest on:

    $$ u_t = (u_{t-1} + w_{t-1} - u_{t-1} \odot w_{t-1}) \odot \textstyle\prod_i (1 - f^i_t r^i_{t-1}), \qquad
       a_t[\phi[j]] = (1 - u_t[\phi[j]]) \textstyle\prod_{i<j} u_t[\phi[i]] $$

    Writing:

    $$ w_t = g^w (g^a a_t + (1 - g^a)\, C(M_{t-1}, k^w, \beta^w)), \qquad
       M_t = M_{t-1} \odot (1 - w_t e_t^\top) + w_t v_t^\top $$

    The order of writing: L[i, j] is near 1 where i was written right after j, and the diagonal is 0:

    $$ L_t[i, j] = (1 - w_t[i] - w_t[j]) L_{t-1}[i, j] + w_t[i]\, p_{t-1}[j], \qquad
       p_t = (1 - \textstyle\sum_i w_t[i])\, p_{t-1} + w_t $$

    Reading, backward, by content and forward:

    $$ r^i_t = \pi^i_1 L_t^\top r^i_{t-1} + \pi^i_2\, C(M_t, k^{r,i}, \beta^{r,i}) + \pi^i_3 L_t r^i_{t-1}, \qquad
       y_t = W_y [h_t; M_t^\top r^1_t; \ldots] + b_y $$

    C is the softmax of beta times the cosine similarities; f, g and e are sigmoids, beta = 1 + softplus, pi a softmax.
    Everything starts at 0, as in the authors' code (google-deepmind/dnc). Where that code differs from the paper, this
    class keeps to the paper: beta there is softplus, and no gradient flows from the usage into the write weights.

    The state has N * N links: keep N in the hundreds.

    Args:
        output_size: features of the output, O; None means hidden_size.

    Shape:
        With I = input_size, H = hidden_size, N = memory_slots, W = word_size and R = read_heads: x [B, T, I];
        output [B, T, O]; state {"h": [B, H], "c": [B, H], "memory": [B, N, W], "reads": [B, R, W], "usage": [B, N],
        "precedence": [B, N], "link": [B, N, N], "write_weights": [B, N], "read_weights": [B, R, N]}.

    Example:
        >>> core = DNC(input_size=5, hidden_size=8, memory_slots=6, word_size=4, read_heads=2)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state["memory"].shape, state["link"].shape
        (torch.Size([7, 11, 8]), torch.Size([7, 6, 4]), torch.Size([7, 6, 6]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        memory_slots: int = 32,
        word_size: int = 16,
        read_heads: int = 1,
        output_size: int | None = None,
    ) -> None:
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "memory_slots": memory_slots}
        check_positive("DNC", **sizes, word_size=word_size, read_heads=read_heads)
        check_room("DNC", read_heads * memory_slots)
        # Keys and strengths (the write head's first), erase and write vectors, free gates, two gates, read modes.
        keys = 1 + read_heads
        parts = (keys * word_size, keys, word_size, word_size, read_heads, 1, 1, 3 * read_heads)
        super().__init__(input_size, hidden_size, memory_slots, word_size, read_heads, sum(parts), output_size)
        self.parts = parts

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int]]:
        slots = {"B": batch_size, "N": self.memory_slots}
        return {
            **super().state_axes(batch_size),
            "usage": slots,
            "precedence": slots,
            "link": {**slots, "N too": self.memory_slots},
            "write_weights": slots,
            "read_weights": {"B": batch_size, "R": self.read_heads, "N": self.memory_slots},
        }

    def advance(self, projected_t: Tensor, state: Tensors) -> Tensors:
        h, c, interface = self.control(projected_t, state)
        keys, strengths, erase, vector, free, allocate, write, modes = interface.split(self.parts, -1)
        keys, strengths = keys.unflatten(-1, (-1, self.word_size)), 1 + F.softplus(strengths)
        usage = used(state["usage"], state["write_weights"], state["read_weights"], torch.sigmoid(free))
        by_content = content_weights(state["memory"], keys[:, :1], strengths[:, :1]).squeeze(1).to(h.dtype)
        chosen = torch.lerp(by_content, allocation(usage), torch.sigmoid(allocate))
        written = torch.sigmoid(write) * chosen
        erased = 1 - written.unsqueeze(2) * torch.sigmoid(erase).unsqueeze(1)
        memory = state["memory"] * erased + written.unsqueeze(2) * vector.unsqueeze(1)
        link = linked(state["link"], state["precedence"], written)
        backward, forward = state["read_weights"] @ link, state["read_weights"] @ link.mT
        by_content = content_weights(memory, keys[:, 1:], strengths[:, 1:])
        modes = torch.softmax(modes.unflatten(-1, (self.read_heads, 3)), -1)
        read = (torch.stack([backward, by_content, forward], -1) * modes.unsqueeze(2)).sum(-1)
        return {
            "h": h,
            "c": c,
            "memory": memory,
            "reads": (read @ memory).to(h.dtype),
            "usage": usage,
            "precedence": (1 - written.sum(1, keepdim=True)) * state["precedence"] + written,
            "link": link,
            "write_weights": written,
            "read_weights": read.to(h.dtype),
        }


def used(usage: Tensor, written: Tensor, read: Tensor, free: Tensor) -> Tensor:
    """The usage [B, N] after a write [B, N], and after the read heads [B, R, N] have freed [B, R] what they read."""
    retained = (1 - free.unsqueeze(-1) * read).prod(1)
    return (usage + written - usage * written) * retained


def allocation(usage: Tensor) -> Tensor:
    """Where to write next, by `usage` [B, N] alone: the freest slots first, each as far as those before it are used.

    A slot is before another when its usage is lower, so a product over the slots before it replaces sorting.
    """
    order = usage + TIE * torch.arange(usage.shape[-1], device=usage.device, dtype=usage.dtype)
    before = order.unsqueeze(-2) < order.unsqueeze(-1)  # [B, N, N], true at [j, i] where i is before j
    return (1 - usage) * torch.where(before, usage.unsqueeze(-2), 1).prod(-1)


def linked(link: Tensor, precedence: Tensor, written: Tensor) -> Tensor:
    """The links [B, N, N] after a write [B, N]; `precedence` [B, N] says which slots were written just before."""
    to, of = written.unsqueeze(2), written.unsqueeze(1)
    link = (1 - to - of) * link + to * precedence.unsqueeze(1)
    return link.masked_fill(torch.eye(link.shape[-1], dtype=torch.bool, device=link.device), 0)
