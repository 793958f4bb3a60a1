"""What the cores that attend to all of their past share: a growing cache of keys, values and outputs as the state.

Axes: B batch, S stored steps, T new steps, I input features, M questions, W width, L passes of attention, H heads,
K head size (W = H * K).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_positive, check_room, describe
from relational_rnn.nn._growing import (
    compact_steps,
    latest_steps,
    positions,
    segments,
    valid_after,
    valid_at,
    visible,
    within,
)
from relational_rnn.nn._inputs import check_questions, check_sequence, check_state_tensors, check_step, start_at
from relational_rnn.nn._recurrent import asked_steps, blank, valid_steps
from relational_rnn.nn.core import Core, Numbers, State


class CachedAttentionCore(Core):
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

    def initial_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        device, dtype = start_at(self, batch_size, device, dtype)
        outputs = torch.zeros(batch_size, 0, self.hidden_size, device=device, dtype=dtype)
        keys = outputs.new_zeros(batch_size, 0, self.passes, self.num_heads, self.head_size)
        return {
            "keys": keys,
            "values": keys.clone(),
            "outputs": outputs,
            "valid": outputs.new_zeros(batch_size, 0, dtype=torch.bool),
        }

    def step(self, x_t: Tensor, state: State, *, reset: Tensor | None = None) -> tuple[Tensor, State]:
        check_step(self, x_t, reset)
        y, state = self.forward(x_t.unsqueeze(1), state, reset=None if reset is None else reset.unsqueeze(1))
        return y.squeeze(1), state

    def forward(
        self, x: Tensor, state: State | None = None, *, lengths: Numbers | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, State]:
        lengths = check_sequence(self, x, lengths, reset)
        batch_size, steps = x.shape[:2]
        state = self._started(state, batch_size)
        segment = segments(reset, state["valid"], steps)
        valid = valid_after(state["valid"], segment, lengths)
        if lengths is None:
            y, cache = self._attend(x, state, segment)
            return y, self._kept({**cache, "valid": valid})
        in_length = valid_steps(lengths, steps)
        y, cache = self._attend(blank(x, in_length), state, segment)
        return blank(y, in_length), self._kept({**cache, "valid": valid})

    def snapshots(self, x: Tensor, rows: Numbers, at: Numbers, state: State | None = None) -> State:
        check_sequence(self, x, None, None)
        rows, at = check_questions(self, x, rows, at)
        state = self._started(state, x.shape[0])
        segment = segments(None, state["valid"], x.shape[1])
        _, cache = self._attend(blank(x, asked_steps(x, rows, at)), state, segment)
        valid = valid_at(state["valid"], x.shape[1], rows, at)
        return self._kept({**{name: tensor[rows] for name, tensor in cache.items()}, "valid": valid})

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
        heads = {**stored, "L": self.passes, "H": self.num_heads, "K": self.head_size}
        outputs = {**stored, "W": self.hidden_size}
        axes = {"valid": stored, "keys": heads, "values": heads, "outputs": outputs}
        return check_state_tensors(self, state, axes, masks=("valid",))

    def _attend(self, x: Tensor, state: dict[str, Tensor], segment: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The outputs [B, T, W], and the cache with the new steps appended."""
        mask = visible(state["valid"], segment)
        position = torch.cat([state["valid"].cumsum(1) - 1, positions(mask)], 1)
        if self.window is not None:
            mask = within(mask, self.window)
        y, keys, values = self.attend(x, state["keys"], state["values"], mask.unsqueeze(1), position)
        outputs = torch.cat([state["outputs"], y], 1)
        return y, {"keys": torch.stack(keys, 2), "values": torch.stack(values, 2), "outputs": outputs}

    def _kept(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state without what the next step will not see."""
        return state if self.window is None else latest_steps(state, tuple(state), self.window - 1)
