"""What the cores that keep every step share: which stored step is seen from where.

Such a state stores S steps per row. Its mask `valid` [B, S] says which of them belong to the row's present: padding and
what came before a reset stay stored as holes, so that shapes never depend on values. The position of a step is the
number of valid steps before it, hence 0 after a reset.

Axes: B batch, S stored steps, T new steps, M questions; of attention I input features, W width, L passes, H heads, K
head size (W = H * K).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relational_rnn._check import InputError, check_positive, check_room, describe
from relational_rnn.nn._stateful import StatefulCore, blank
from relational_rnn.nn.core import State, Tensors
from relational_rnn.nn.initial_weights import draw_glorot
from relational_rnn.ops.relational_scan.pieces import valid_steps


class GrowingCore(StatefulCore[Tensors]):
    """A core that keeps every step, or with a `window` the last ones; subclasses define `take` and `take_until`."""

    masks = ("valid",)
    grows = True
    window: int | None
    """How many steps a step sees at most, itself included; None for all."""

    @abstractmethod
    def take(
        self, x: Tensor, state: Tensors, segment: Tensor, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, Tensors]:
        """The outputs [B, T, O] of all steps at once, and the state after them but for "valid".

        `segment` [B, T] is that of every new step; in `x` the steps past a length are 0.
        """

    @abstractmethod
    def take_until(self, x: Tensor, state: Tensors, segment: Tensor, rows: Tensor, at: Tensor) -> Tensors:
        """The states, but for "valid", of `rows` [M] after `at` [M] steps, each with all the steps stored."""

    def run_step(self, x_t: Tensor, state: Tensors, reset: Tensor | None) -> tuple[Tensor, Tensors]:
        y, after = self.run(x_t.unsqueeze(1), state, None, None if reset is None else reset.unsqueeze(1))
        return y.squeeze(1), after

    def run(self, x: Tensor, state: Tensors, lengths: Tensor | None, reset: Tensor | None) -> tuple[Tensor, Tensors]:
        segment = segments(reset, state["valid"], x.shape[1])
        valid = valid_after(state["valid"], segment, lengths)
        in_length = None if lengths is None else valid_steps(lengths, x.shape[1])
        x = x if in_length is None else blank(x, in_length)
        y, after = self.take(x, state, segment, lengths, reset)
        return y if in_length is None else blank(y, in_length), self._kept(after, valid)

    def run_until(self, x: Tensor, state: Tensors, rows: Tensor, at: Tensor) -> Tensors:
        after = self.take_until(x, state, segments(None, state["valid"], x.shape[1]), rows, at)
        return self._kept(after, torch.cat([state["valid"][rows], valid_steps(at, x.shape[1])], 1))

    def compact(self, state: State) -> Tensors:
        """The same state without the stored steps that no row sees any more: padding, and what a reset left behind."""
        assert isinstance(state, dict)
        valid = state["valid"]
        columns = int(valid.sum(1).max()) if valid.numel() else 0
        return self._picked(state, valid.int().argsort(dim=1, descending=True, stable=True)[:, :columns])

    def within_window(self, mask: Tensor) -> Tensor:
        """`visible`'s mask, where a new step sees only the last steps of the window, itself included."""
        return mask if self.window is None else mask & (mask.flip(2).cumsum(2).flip(2) <= self.window)

    def _kept(self, state: Tensors, valid: Tensor) -> Tensors:
        """The state with its mask, without what the next step will not see: at most window - 1 columns.

        An exported graph always has that many, holes first.
        """
        state = {**state, "valid": valid}
        if self.window is None:
            return state
        keep = self.window - 1
        if torch.compiler.is_exporting():  # a graph for any number of columns must not ask how many there are
            holes = {n: state[n].new_zeros(valid.shape[0], keep, *state[n].shape[2:]) for n in self._stored()}
            state |= {name: torch.cat([zeros, state[name]], 1) for name, zeros in holes.items()}
            valid = state["valid"]
        elif valid.shape[1] <= keep:
            return state
        columns = valid.shape[1]
        # numbers that are all different, as ONNX has no stable sort
        order = (valid * columns + torch.arange(columns, device=valid.device)).argsort(dim=1)
        return self._picked(state, order[:, columns - keep :])

    def _picked(self, state: Tensors, columns: Tensor) -> Tensors:
        """The state with the stored steps `columns` [B, ...] of every row."""
        row = torch.arange(columns.shape[0], device=columns.device).unsqueeze(1)
        return {**state, **{name: state[name][row, columns] for name in self._stored()}}

    def _stored(self) -> list[str]:
        """The tensors of a state that hold one entry per step."""
        return [name for name, axes in self.state_axes(1).items() if "S" in axes]


def segments(reset: Tensor | None, valid: Tensor, steps: int) -> Tensor:
    """[B, T]: how many resets happened up to each new step; 0 is the segment that continues the stored one."""
    if reset is None:
        return torch.zeros(valid.shape[0], steps, dtype=torch.int64, device=valid.device)
    return reset.cumsum(1)


def visible(valid: Tensor, segment: Tensor) -> Tensor:
    """[B, T, S + T]: true where new step t sees a stored step, itself or an earlier new one of its segment.

    Lengths play no part: a step before the length sees only steps before itself.
    """
    stored = valid.unsqueeze(1) & (segment == 0).unsqueeze(2)
    causal = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool, device=segment.device).tril()
    return torch.cat([stored, causal & (segment.unsqueeze(2) == segment.unsqueeze(1))], 2)


def valid_after(valid: Tensor, segment: Tensor, lengths: Tensor | None) -> Tensor:
    """[B, S + T]: the mask of the stored steps after `lengths` [B] of the new ones (None: all of them)."""
    steps = segment.shape[1]
    if lengths is None:
        lengths = torch.full(segment.shape[:1], steps, device=segment.device)
    before_each = F.pad(segment, (1, 0))
    last = before_each.gather(1, lengths.long().unsqueeze(1))
    return torch.cat([valid & (last == 0), valid_steps(lengths, steps) & (segment == last)], 1)


class CachedAttentionCore(GrowingCore):
    """A core whose every step attends to the steps before it; subclasses define `attend` and inherit the rest.

    A step attends in L `passes`, each with its own keys and values in the state; `layers` have weights of their own.
    """

    attended = "outputs"

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
        draw_glorot(self)

    @abstractmethod
    def attend(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, position: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """All steps of `x` [B, T, I] at once.

        Args:
            keys: those of the stored steps, [B, S, L, H, K], as `values`.
            mask: [B, 1, T, S + T], true where a new step sees a stored or new one.
            position: [B, S + T] of stored and new steps.

        Returns:
            (outputs [B, T, W], for each pass the keys [B, S + T, H, K] of stored and new steps, and the values).
        """

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int | None]]:
        stored = {"B": batch_size, "S": None}
        heads = {**stored, "L": self.passes, "H": self.num_heads, "K": self.head_size}
        return {"keys": heads, "values": heads, "outputs": {**stored, "W": self.hidden_size}, "valid": stored}

    def take(
        self, x: Tensor, state: Tensors, segment: Tensor, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, Tensors]:
        mask = visible(state["valid"], segment)
        position = torch.cat([state["valid"].cumsum(1), mask.sum(2)], 1) - 1  # of a new step: the earlier ones it sees
        seen = self.within_window(mask).unsqueeze(1)
        y, keys, values = self.attend(x, state["keys"], state["values"], seen, position)
        outputs = torch.cat([state["outputs"], y], 1)
        return y, {"keys": torch.stack(keys, 2), "values": torch.stack(values, 2), "outputs": outputs}

    def take_until(self, x: Tensor, state: Tensors, segment: Tensor, rows: Tensor, at: Tensor) -> Tensors:
        return {name: tensor[rows] for name, tensor in self.take(x, state, segment, None, None)[1].items()}


def attend_to(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """What the heads of `q` [B, T, H, K] find in `keys` and `values` [B, S + T, H, K], side by side [B, T, W]."""
    q, keys, values = (tensor.transpose(1, 2) for tensor in (q, keys, values))
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).transpose(1, 2).flatten(2)
