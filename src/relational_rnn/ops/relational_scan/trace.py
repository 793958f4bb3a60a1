"""Everything that the steps of a sequence compute."""

# Shape legend: B batch, T time steps, S attention blocks, H heads, N memory slots, n input rows, R = N + n rows,
#               M memory width, G gate width M or 1

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.loop import happening, walk
from relational_rnn.ops.relational_scan.pieces import Marks
from relational_rnn.ops.relational_scan.reference import CalledParameters, ScanParameters, update_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What happened at every step; 0 where a step did not happen (past a length)."""

    attention: Tensor
    """[B, T, S, H, R, R]: the weight that a row gives to each row; slots first, then the input."""
    input_gate: Tensor | None
    """[B, T, N, G], or None where there are no gates."""
    forget_gate: Tensor | None
    """[B, T, N, G], or None where there are no gates or the slots compete."""
    share: Tensor | None = None
    """[B, T, N, n], or None where the slots do not compete: how much of an input row a slot took; 1 over all slots."""
    candidate: Tensor
    """[B, T, N, M]: the attended memory before the gates (and before their tanh)."""
    memory: Tensor
    """[B, T, N, M]: the memory after the step."""

    def update(self) -> tuple[Tensor, Tensor] | None:
        """How much of the candidate came in and how much of the memory stayed, each [B, T, N, G]; None without gates.

        M' = came_in * tanh(candidate) + stayed * M: both gates, or u and 1 - u of slots that compete.
        """
        if self.input_gate is None:
            return None
        if self.share is not None:
            came_in = update_rate(self.share, self.input_gate)
            return came_in, 1 - came_in
        assert self.forget_gate is not None
        return self.input_gate, self.forget_gate

    def map(self, function: Callable[[Tensor], Tensor]) -> Trace:
        """The trace with `function` applied to every tensor."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: function(value) for name, value in values.items() if value is not None}
        return replace(self, **changed)


def relational_trace(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters | CalledParameters,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: Tensor | None = None,
) -> Trace:
    """Everything that the steps of `relational_scan` compute, for the same arguments."""
    steps, marks = x.shape[1], Marks(lengths, reset, initial)
    if steps == 0:  # one step that does not happen has the shapes
        x = x.new_zeros(x.shape[0], 1, *x.shape[2:])
        marks = Marks(torch.zeros(x.shape[0], dtype=torch.int64, device=x.device))
    happens = happening(marks.lengths, x.shape[1], x.device)
    taken = [step for step, _ in walk(x, memory, params, marks)]

    def stacked(tensors: list[Any]) -> Any:
        if tensors[0] is None:  # not every style of gates has every tensor
            return None
        together = torch.stack(tensors, dim=1)
        if happens is not None:
            together = together.where(happens.view(*happens.shape, *[1] * (together.dim() - 2)), 0)
        return together[:, :steps]

    return Trace(
        attention=stacked([torch.stack(step.attention, dim=1) for step in taken]),
        input_gate=stacked([step.input_gate for step in taken]),
        forget_gate=stacked([step.forget_gate for step in taken]),
        share=stacked([step.share for step in taken]),
        candidate=stacked([step.candidate for step in taken]),
        memory=stacked([step.memory for step in taken]),
    )
