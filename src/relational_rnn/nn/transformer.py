"""A causal Transformer as a recurrent core: its growing cache of keys and values is its state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relational_rnn._check import check_counts
from relational_rnn.nn._growing import CachedAttentionCore, attend_to
from relational_rnn.nn._inputs import place_of

ROTARY_BASE = 10_000.0


class Transformer(CachedAttentionCore):
    r"""A causal Transformer (Vaswani et al., 2017, arXiv:1706.03762) with layer norms before each part and at the end:

    $$ a = u + \mathrm{Attention}(\mathrm{LN}(u)), \qquad u' = a + W_2\,\mathrm{GELU}(W_1 \mathrm{LN}(a)) $$

    Positions are rotary (Su et al., 2021, arXiv:2104.09864): queries and keys are turned by an angle in proportion to
    their position, so scores depend on distances only. A position counts the steps since the start or the last reset,
    so streaming and chunks equal the whole sequence, of any length; in float32 the angles are accurate to 1e-3 up to
    about 10,000 steps.

    The state grows: a step appends its output and, for every layer, its values and its keys (not yet turned). S steps
    keep (2 * L + 1) * S * W numbers, and one more step takes time and a copy in proportion to S. Padding and steps
    before a reset stay stored, masked; `compact(state)` drops them. Outputs are kept for `rows` alone.

    With a `window`, every step of every layer sees only so many steps, itself included, and the state keeps one less:
    the cost of a step is bounded. What a step knows still reaches L * (window - 1) steps back (Dai et al., 2019,
    arXiv:1901.02860).

    Attention is PyTorch's `scaled_dot_product_attention`. Second derivatives and vmap need its plain kernel:
    `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.

    Args:
        num_heads: attention heads, H; each has K = hidden_size / num_heads numbers, which must be even.
        feedforward_size: hidden units of the feed-forward part; None means 4 * hidden_size.
        window: how many steps a step sees at most, itself included; None for all.

    Shape:
        With I = input_size, W = hidden_size, L = num_layers and S stored steps (0 at the start): x [B, T, I];
        output [B, T, W]; state {"keys": [B, S, L, H, K], "values": [B, S, L, H, K], "outputs": [B, S, W],
        "valid": [B, S] booleans}.

    Example:
        >>> core = Transformer(input_size=5, hidden_size=8, num_layers=3, num_heads=2)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state["keys"].shape
        (torch.Size([7, 11, 8]), torch.Size([7, 11, 3, 2, 4]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int = 3,
        num_heads: int = 4,
        feedforward_size: int | None = None,
        window: int | None = None,
    ) -> None:
        check_counts("Transformer", num_layers=num_layers)
        parts = {"passes": num_layers, "layers": num_layers, "feedforward_size": feedforward_size}
        super().__init__(input_size, hidden_size, num_heads, window=window, **parts)
        self.layers = nn.ModuleList(Layer(hidden_size, num_heads, self.feedforward_size) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.reset_parameters()

    def attend(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, position: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        turn = rotations(position, self.head_size, place_of(self)[1])
        u = self.embed(x)
        all_keys, all_values = [], []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            u, k, v = layer(u, keys[:, :, index], values[:, :, index], mask, turn)
            all_keys.append(k)
            all_values.append(v)
        return self.norm(u), all_keys, all_values


class Layer(nn.Module):
    """One layer: attention over the cache and the new steps, then a feed-forward part, each on a residual stream."""

    def __init__(self, hidden_size: int, num_heads: int, feedforward_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.attention_out = nn.Linear(hidden_size, hidden_size)
        self.feedforward_norm = nn.LayerNorm(hidden_size)
        self.feedforward_in = nn.Linear(hidden_size, feedforward_size)
        self.feedforward_out = nn.Linear(feedforward_size, hidden_size)

    def forward(
        self, u: Tensor, keys: Tensor, values: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The stream after this layer [B, T, W], and its keys and values with the new ones, [B, S + T, H, K]."""
        heads = self.query_key_value(self.attention_norm(u)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = heads.unbind(2)
        new = (turn[0][:, keys.shape[1] :], turn[1][:, keys.shape[1] :])
        keys = torch.cat([keys, k], 1)
        values = torch.cat([values, v], 1)
        a = u + self.attention_out(attend_to(rotate(q, new), rotate(keys, turn), values, mask))
        u = a + self.feedforward_out(nn.functional.gelu(self.feedforward_in(self.feedforward_norm(a))))
        return u, keys, values


def rotations(position: Tensor, head_size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine [B, S + T, 1, K / 2] of the angles at each position; never computed below float32."""
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    speed = ROTARY_BASE ** (-torch.arange(0, head_size, 2, device=position.device, dtype=precise) / head_size)
    angle = (position.unsqueeze(-1) * speed).unsqueeze(2)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x_i, x_{i + K/2}) of `x` [B, T, H, K] by the angle of its position."""
    cos, sin = turn
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
