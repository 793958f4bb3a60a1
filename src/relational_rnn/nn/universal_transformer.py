"""The Universal Transformer (Dehghani et al., 2019) as a recurrent core: one block, applied again and again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relational_rnn._check import check_counts
from relational_rnn.nn._growing import CachedAttentionCore, attend_to
from relational_rnn.nn._inputs import place_of


class UniversalTransformer(CachedAttentionCore):
    r"""A causal Universal Transformer (Dehghani et al., 2019, arXiv:1807.03819): the same block in each of its passes.

    In pass l, with positions and passes told by sums of sines and cosines (section 2.1, equations 4 to 7):

    $$ p = u^{l-1} + P^l, \qquad a = \mathrm{LN}(p + \mathrm{Attention}(p)), \qquad
       u^l = \mathrm{LN}(a + W_2\,\mathrm{ReLU}(W_1 a + b_1) + b_2) $$
    $$ P^l_{i,2j} = \sin(i / 10000^{2j/W}) + \sin(l / 10000^{2j/W}), \qquad
       P^l_{i,2j+1} = \cos(i / 10000^{2j/W}) + \cos(l / 10000^{2j/W}) $$

    A position counts the steps since the start or the last reset, from 0; passes count from 1. The number of passes is
    fixed, as in the paper's base model: there is no dynamic halting (section 2.2), and no dropout.

    The state grows as that of `Transformer`, with keys and values for every pass; see there for `compact`, distant
    positions and the kernels of attention.

    Args:
        num_heads: attention heads, H; each has K = hidden_size / num_heads numbers, which must be even.
        feedforward_size: hidden units of the transition; None means 4 * hidden_size.

    Shape:
        As of `Transformer`, with W = hidden_size and L = num_passes.

    Example:
        >>> core = UniversalTransformer(input_size=5, hidden_size=8, num_passes=3, num_heads=2)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state["keys"].shape
        (torch.Size([7, 11, 8]), torch.Size([7, 11, 3, 2, 4]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_passes: int = 4,
        num_heads: int = 4,
        feedforward_size: int | None = None,
    ) -> None:
        check_counts("UniversalTransformer", num_passes=num_passes)
        parts = {"passes": num_passes, "layers": 1, "feedforward_size": feedforward_size}
        super().__init__(input_size, hidden_size, num_heads, **parts)
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.attention_out = nn.Linear(hidden_size, hidden_size)
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.transition_in = nn.Linear(hidden_size, self.feedforward_size)
        self.transition_out = nn.Linear(self.feedforward_size, hidden_size)
        self.transition_norm = nn.LayerNorm(hidden_size)
        self.reset_parameters()

    def attend(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, position: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        dtype = place_of(self)[1]
        where = waves(position[:, keys.shape[1] :], self.hidden_size, dtype)
        passes = waves(torch.arange(1, self.passes + 1, device=x.device), self.hidden_size, dtype)
        u = self.embed(x)
        all_keys, all_values = [], []
        for index in range(self.passes):
            p = u + (where + passes[index])
            heads = self.query_key_value(p).unflatten(-1, (3, self.num_heads, -1))
            q, k, v = heads.unbind(2)
            all_keys.append(torch.cat([keys[:, :, index], k], 1))
            all_values.append(torch.cat([values[:, :, index], v], 1))
            a = self.attention_norm(p + self.attention_out(attend_to(q, all_keys[-1], all_values[-1], mask)))
            u = self.transition_norm(a + self.transition_out(F.relu(self.transition_in(a))))
        return u, all_keys, all_values


def waves(count: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Sines (even places) and cosines (odd places) [..., width] of whole numbers; never computed below float32."""
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    speed = 10_000.0 ** (-torch.arange(0, width, 2, device=count.device, dtype=precise) / width)
    angle = count.unsqueeze(-1) * speed
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2).to(dtype)
