"""What the cores that keep every step share: which stored step is seen from where.

Such a state stores S steps per row, and a mask `valid` [B, S] says which of them belong to the row's present: padding
and what came before a reset stay in the store as holes, so that shapes never depend on values. The position of a step
is the number of valid steps before it, hence 0 after a reset.

Axes: B batch, S stored steps, T new steps, M questions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection

import torch
from torch import Tensor

from relational_rnn.nn._inputs import check_questions, check_sequence, check_step
from relational_rnn.nn._recurrent import asked_steps, blank
from relational_rnn.nn._stateful import StatefulCore
from relational_rnn.nn.core import Numbers, State
from relational_rnn.ops.relational_scan.pieces import valid_steps


class GrowingCore(StatefulCore[dict[str, Tensor]]):
    """A core that keeps every step, or with a `window` the last ones; subclasses define `take` and `take_until`."""

    masks = ("valid",)
    window: int | None
    """How many steps a step sees at most, itself included; None for all."""

    @abstractmethod
    def take(
        self, x: Tensor, state: dict[str, Tensor], segment: Tensor, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The outputs [B, T, O] of all steps at once, and the state after them but for "valid".

        `segment` is that of every new step; whatever lies past a length is blank in `x`.
        """

    @abstractmethod
    def take_until(
        self, x: Tensor, state: dict[str, Tensor], segment: Tensor, rows: Tensor, at: Tensor
    ) -> dict[str, Tensor]:
        """The states, but for "valid", of `rows` [M] after `at` [M] steps, each with all the steps stored."""

    def step(self, x_t: Tensor, state: State, *, reset: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        check_step(self, x_t, reset)
        y, after = self.forward(x_t.unsqueeze(1), state, reset=None if reset is None else reset.unsqueeze(1))
        return y.squeeze(1), after

    def forward(
        self, x: Tensor, state: State | None = None, *, lengths: Numbers | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        lengths = check_sequence(self, x, lengths, reset)
        before = self.started(state, x.shape[0])
        segment = segments(reset, before["valid"], x.shape[1])
        valid = valid_after(before["valid"], segment, lengths)
        in_length = None if lengths is None else valid_steps(lengths, x.shape[1])
        x = x if in_length is None else blank(x, in_length)
        y, after = self.take(x, before, segment, lengths, reset)
        return y if in_length is None else blank(y, in_length), self._kept(after, valid)

    def snapshots(self, x: Tensor, rows: Numbers, at: Numbers, state: State | None = None) -> dict[str, Tensor]:
        check_sequence(self, x, None, None)
        rows, at = check_questions(self, x, rows, at)
        before = self.started(state, x.shape[0])
        segment = segments(None, before["valid"], x.shape[1])
        after = self.take_until(blank(x, asked_steps(x, rows, at)), before, segment, rows, at)
        return self._kept(after, torch.cat([before["valid"][rows], valid_steps(at, x.shape[1])], 1))

    def compact(self, state: State) -> dict[str, Tensor]:
        """The same state without the stored steps that no row sees any more: padding, and what a reset left behind."""
        assert isinstance(state, dict)
        return compact_steps(state, self._stored())

    def within_window(self, mask: Tensor) -> Tensor:
        """The mask of what is seen, where a new step sees the steps of the window alone."""
        return mask if self.window is None else within(mask, self.window)

    def _stored(self) -> list[str]:
        """The tensors of a state that hold one entry per step."""
        return [name for name, axes in self.state_axes(1).items() if "S" in axes]

    def _kept(self, state: dict[str, Tensor], valid: Tensor) -> dict[str, Tensor]:
        """The state with its mask, without what the next step will not see."""
        state = {**state, "valid": valid}
        return state if self.window is None else latest_steps(state, self._stored(), self.window - 1)


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


def positions(mask: Tensor) -> Tensor:
    """[B, T]: position of every new step within its segment: how many earlier steps it sees in `visible`'s mask."""
    return mask.sum(2) - 1


def within(mask: Tensor, window: int) -> Tensor:
    """`visible`'s mask, where a new step sees only the last `window` of the steps that it would see, itself included.

    >>> within(torch.tensor([[[True, False, True, True]]]), 2).tolist()
    [[[False, False, True, True]]]
    """
    return mask & (mask.flip(2).cumsum(2).flip(2) <= window)


def valid_after(valid: Tensor, segment: Tensor, lengths: Tensor | None) -> Tensor:
    """[B, S + T]: the mask of the stored steps after `lengths` [B] of the new ones (None: all of them)."""
    steps = segment.shape[1]
    if lengths is None:
        lengths = torch.full(segment.shape[:1], steps, device=segment.device)
    before_each = torch.nn.functional.pad(segment, (1, 0))
    last = before_each.gather(1, lengths.long().unsqueeze(1))
    return torch.cat([valid & (last == 0), valid_steps(lengths, steps) & (segment == last)], 1)


def compact_steps(state: dict[str, Tensor], stored: Collection[str]) -> dict[str, Tensor]:
    """The same state with every row's valid steps moved to the front and the columns that no row uses cut off.

    `stored` names the tensors that hold one entry per step, [B, S, ...].
    """
    valid = state["valid"]
    columns = int(valid.sum(1).max()) if valid.numel() else 0
    order = valid.int().argsort(dim=1, descending=True, stable=True)[:, :columns]
    row = torch.arange(valid.shape[0], device=valid.device).unsqueeze(1)
    return {name: tensor[row, order] if name in stored else tensor for name, tensor in state.items()}


def latest_steps(state: dict[str, Tensor], stored: Collection[str], keep: int) -> dict[str, Tensor]:
    """The same state with at most `keep` columns: every row's last valid steps, moved to the end; in an exported graph
    with `keep` columns, holes first.

    `stored` names the tensors that hold one entry per step, [B, S, ...].
    """
    valid = state["valid"]
    if torch.compiler.is_exporting():  # a graph for any number of columns must not ask how many there are
        state = {name: _with_holes(tensor, keep) if name in stored else tensor for name, tensor in state.items()}
        valid = state["valid"]
    elif valid.shape[1] <= keep:
        return state
    columns = valid.shape[1]
    # numbers that are all different, as ONNX has no stable sort
    order = (valid * columns + torch.arange(columns, device=valid.device)).argsort(dim=1)[:, columns - keep :]
    row = torch.arange(valid.shape[0], device=valid.device).unsqueeze(1)
    return {name: tensor[row, order] if name in stored else tensor for name, tensor in state.items()}


def _with_holes(tensor: Tensor, count: int) -> Tensor:
    """`tensor` [B, S, ...] after `count` columns of zeros."""
    return torch.cat([tensor.new_zeros(tensor.shape[0], count, *tensor.shape[2:]), tensor], 1)
