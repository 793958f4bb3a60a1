"""What the cores that attend to all of their past share: a growing cache of keys, values and outputs as the state.

Axes: B batch, S stored steps, T new steps, I input features, M questions, W width, L passes of attention, H heads,
K head size (W = H * K).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_positive, check_room, describe
from relational_rnn.nn._growing import GrowingCore, positions, visible
from relational_rnn.nn.core import State
from relational_rnn.nn.initial_weights import draw_glorot


class CachedAttentionCore(GrowingCore):
    """A core whose every step attends to the steps before it; subclasses define `attend` and inherit the rest.

    Args:
        passes: how often a step attends, L; each pass has its own keys and values in the state.
        feedforward_size: hidden units of a feed-forward part; None means 4 * hidden_size.
        layers: how many layers have weights of their own.
        window: how many steps a step sees at most, itself included; None for all.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_heads: int,
        *,
        passes: int,
        feedforward_size: int | None,
        layers: int,
        window: int | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size, num_heads=num_heads)
        if feedforward_size is not None:
            check_positive(where, feedforward_size=feedforward_size)
        if window is not None:
            check_positive(where, window=window)
        if hidden_size % (2 * num_heads):
            problem = "hidden_size must be a multiple of 2 * num_heads"
            raise InputError(describe(where, problem, got=hidden_size, expected=f"a multiple of {2 * num_heads}"))
        self.feedforward_size = 4 * hidden_size if feedforward_size is None else feedforward_size
        of_a_layer = hidden_size * (4 * hidden_size + 2 * self.feedforward_size)
        check_room(where, hidden_size * input_size, layers * of_a_layer)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = hidden_size
        self.num_heads = num_heads
        self.head_size = hidden_size // num_heads
        self.passes = passes
        self.window = window
        self.embed = nn.Linear(input_size, hidden_size)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        draw_glorot(self)

    @abstractmethod
    def attend(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, position: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """All steps of `x` at once.

        Args:
            x: [B, T, I].
            keys: those of the stored steps, [B, S, L, H, K].
            values: the same.
            mask: [B, 1, T, S + T], true where a new step sees a stored or new one.
            position: [B, S + T] of stored and new steps: how many valid steps lie before each in the store or, after
                a reset, in its segment.

        Returns:
            (outputs [B, T, W], for each pass the keys [B, S + T, H, K] of stored and new steps, and the values).
        """

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int | None]]:
        stored = {"B": batch_size, "S": None}
        heads = {**stored, "L": self.passes, "H": self.num_heads, "K": self.head_size}
        return {"keys": heads, "values": heads, "outputs": {**stored, "W": self.hidden_size}, "valid": stored}

    def take(
        self, x: Tensor, state: dict[str, Tensor], segment: Tensor, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        mask = visible(state["valid"], segment)
        position = torch.cat([state["valid"].cumsum(1) - 1, positions(mask)], 1)
        seen = self.within_window(mask).unsqueeze(1)
        y, keys, values = self.attend(x, state["keys"], state["values"], seen, position)
        outputs = torch.cat([state["outputs"], y], 1)
        return y, {"keys": torch.stack(keys, 2), "values": torch.stack(values, 2), "outputs": outputs}

    def take_until(
        self, x: Tensor, state: dict[str, Tensor], segment: Tensor, rows: Tensor, at: Tensor
    ) -> dict[str, Tensor]:
        return {name: tensor[rows] for name, tensor in self.take(x, state, segment, None, None)[1].items()}

    def rows(self, state: State) -> tuple[Tensor, Tensor | None]:
        assert isinstance(state, dict)
        return state["outputs"], state["valid"]


def attended(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """What the heads of `q` [B, T, H, K] find in `keys` and `values` [B, S + T, H, K], side by side [B, T, W]."""
    q, keys, values = (tensor.transpose(1, 2) for tensor in (q, keys, values))
    return nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask).transpose(1, 2).flatten(2)
