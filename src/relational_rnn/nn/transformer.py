"""A causal Transformer as a recurrent core: its growing cache of keys and values is its state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_positive, describe
from relational_rnn.nn._growing import compact_steps, positions, segments, valid_after, valid_at, visible
from relational_rnn.nn._inputs import check_questions, check_sequence, check_state_tensors, check_step
from relational_rnn.nn._recurrent import asked_steps, blank, valid_steps
from relational_rnn.nn.core import Core, State

# Shape legend: B batch, S stored steps, T new steps, I input features, M questions,
#               W width, L layers, H heads, K head size (W = H * K)

ROTARY_BASE = 10_000.0


class Transformer(Core):
    r"""A causal Transformer (Vaswani et al., 2017, arXiv:1706.03762) with layer norms before each part and at the end:

    $$ a = u + \mathrm{Attention}(\mathrm{LN}(u)), \qquad u' = a + W_2\,\mathrm{GELU}(W_1 \mathrm{LN}(a)) $$

    Positions are rotary (Su et al., 2021, arXiv:2104.09864): queries and keys are turned by an angle in proportion to
    their position, so that scores depend on distances only. A position counts the steps since the start or the last
    reset, which makes streaming, chunks and resets equal to the whole sequence, and needs no largest length; the angles
    are accurate to 1e-3 up to about 10,000 steps in float32.

    The state grows: a step appends its keys and values of every layer and its output, so that S steps keep
    (2 * L + 1) * S * W numbers and one more step costs time and a copy in proportion to S. Padding and steps from
    before a reset stay in the cache, masked; `compact(state)` drops them. Outputs are kept for `rows` alone.

    Attention is PyTorch's `scaled_dot_product_attention`. Its fused kernels have no second derivative (they raise) and
    no vmap rule of their own; both work inside `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.

    Args:
        input_size: features per step, I.
        hidden_size: width W of the residual stream and of the output.
        num_layers: layers, L.
        num_heads: attention heads, H; hidden_size / num_heads is the head size and must be even.
        feedforward_size: hidden units of the feed-forward part; None means 4 * hidden_size.

    Shape:
        x [B, T, I]; output [B, T, W]; state {"keys": [B, S, L, H, K], "values": [B, S, L, H, K], "outputs": [B, S, W],
        "valid": [B, S] booleans}, S stored steps, 0 at the start.

    Raises:
        InputError: a size, dtype, length or reset that does not fit.

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
    ) -> None:
        super().__init__()
        feedforward_size = 4 * hidden_size if feedforward_size is None else feedforward_size
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads}
        check_positive("Transformer", **sizes, feedforward_size=feedforward_size)
        if hidden_size % (2 * num_heads):
            problem = "hidden_size must be a multiple of 2 * num_heads"
            raise InputError(
                describe("Transformer", problem, got=hidden_size, expected=f"a multiple of {2 * num_heads}")
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = hidden_size
        self.num_heads = num_heads
        self.head_size = hidden_size // num_heads
        self.embed = nn.Linear(input_size, hidden_size)
        self.layers = nn.ModuleList(Layer(hidden_size, num_heads, feedforward_size) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def initial_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        like = self.embed.weight
        outputs = torch.zeros(batch_size, 0, self.hidden_size, device=device or like.device, dtype=dtype or like.dtype)
        keys = outputs.new_zeros(batch_size, 0, len(self.layers), self.num_heads, self.head_size)
        return {
            "keys": keys,
            "values": keys.clone(),
            "outputs": outputs,
            "valid": outputs.new_zeros(batch_size, 0, dtype=torch.bool),
        }

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        check_step(self, x_t)
        y, state = self.forward(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def forward(
        self, x: Tensor, state: State | None = None, *, lengths: Tensor | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, State]:
        check_sequence(self, x, lengths, reset)
        batch_size, steps = x.shape[:2]
        state = self._started(state, batch_size)
        segment = segments(reset, state["valid"], steps)
        valid = valid_after(state["valid"], segment, lengths)
        if lengths is None:
            y, cache = self._attend(x, state, segment)
            return y, {**cache, "valid": valid}
        in_length = valid_steps(lengths, steps)
        y, cache = self._attend(blank(x, in_length), state, segment)
        return blank(y, in_length), {**cache, "valid": valid}

    def snapshots(self, x: Tensor, rows: Tensor, at: Tensor, state: State | None = None) -> State:
        check_sequence(self, x, None, None)
        check_questions(self, x, rows, at)
        state = self._started(state, x.shape[0])
        segment = segments(None, state["valid"], x.shape[1])
        _, cache = self._attend(blank(x, asked_steps(x, rows, at)), state, segment)
        valid = valid_at(state["valid"], x.shape[1], rows, at)
        return {**{name: tensor[rows] for name, tensor in cache.items()}, "valid": valid}

    def rows(self, state: State) -> tuple[Tensor, Tensor | None]:
        assert isinstance(state, dict)
        return state["outputs"], state["valid"]

    def compact(self, state: State) -> dict[str, Tensor]:
        """The same state without the stored steps that no row sees any more: padding, and what a reset left behind."""
        assert isinstance(state, dict)
        return compact_steps(state, tuple(state))

    def _started(self, state: State | None, batch_size: int) -> dict[str, Tensor]:
        if state is None:
            return self.initial_state(batch_size)
        stored = {"B": batch_size, "S": None}
        heads = {**stored, "L": len(self.layers), "H": self.num_heads, "K": self.head_size}
        outputs = {**stored, "W": self.hidden_size}
        return check_state_tensors(self, state, {"valid": stored, "keys": heads, "values": heads, "outputs": outputs})

    def _attend(self, x: Tensor, state: dict[str, Tensor], segment: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """All steps of `x` at once: the outputs [B, T, W], and the cache with the new steps appended."""
        mask = visible(state["valid"], segment)
        turn = rotations(positions(mask), self.head_size, self.embed.weight.dtype)
        u = self.embed(x)
        keys, values = [], []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            u, k, v = layer(u, state["keys"][:, :, index], state["values"][:, :, index], mask.unsqueeze(1), turn)
            keys.append(k)
            values.append(v)
        y = self.norm(u)
        outputs = torch.cat([state["outputs"], y], 1)
        return y, {"keys": torch.stack(keys, 2), "values": torch.stack(values, 2), "outputs": outputs}


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
        keys = torch.cat([keys, rotate(k, turn)], 1)
        values = torch.cat([values, v], 1)
        attended = nn.functional.scaled_dot_product_attention(
            rotate(q, turn).transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
        )
        a = u + self.attention_out(attended.transpose(1, 2).flatten(2))
        u = a + self.feedforward_out(nn.functional.gelu(self.feedforward_in(self.feedforward_norm(a))))
        return u, keys, values


def rotations(position: Tensor, head_size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine [B, T, 1, K / 2] of the angles at each position; never computed below float32."""
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    speed = ROTARY_BASE ** (-torch.arange(0, head_size, 2, device=position.device, dtype=precise) / head_size)
    angle = (position.unsqueeze(-1) * speed).unsqueeze(2)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x_i, x_{i + K/2}) of `x` [B, T, H, K] by the angle of its position."""
    cos, sin = turn
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
