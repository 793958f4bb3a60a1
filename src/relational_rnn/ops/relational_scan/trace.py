"""Seeing inside: everything that a step computes, for every step of a sequence."""

# Shape legend: B batch, T time steps, S attention blocks, H heads, N memory slots, n input rows, R = N + n rows,
#               M memory width, G gate width M or 1

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.loop import happening, walk
from relational_rnn.ops.relational_scan.reference import CalledParameters, ScanParameters, update_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What happened at every step; 0 where a step did not happen (past a length)."""

    attention: Tensor
    """[B, T, S, H, R, R]: in a block and head, the weight that a row gives to each row; slots first, then the input."""
    input_gate: Tensor | None
    """[B, T, N, G], or None where there are no gates."""
    forget_gate: Tensor | None
    """[B, T, N, G], or None where there are no gates or the slots compete."""
    share: Tensor | None = None
    """[B, T, N, n], or None where the slots do not compete: who took which row of the input, and how much of it. Over
    the slots it sums to 1."""
    candidate: Tensor
    """[B, T, N, M]: the attended memory before the gates (and before their tanh)."""
    memory: Tensor
    """[B, T, N, M]: the memory after the step."""

    def update(self) -> tuple[Tensor, Tensor] | None:
        """How much of the candidate came in and how much of the memory before it stayed, each [B, T, N, G]:
        M' = came_in * tanh(candidate) + stayed * M. Both gates, or u and 1 - u of slots that compete; None without
        gates.
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
    """`relational_scan` with nothing thrown away: the same steps, the same arguments."""
    steps = x.shape[1]
    happens = happening(lengths, steps, x.device)
    if steps == 0:  # one step that does not happen has the shapes
        x = x.new_zeros(x.shape[0], 1, *x.shape[2:])
        happens = torch.zeros(x.shape[0], 1, dtype=torch.bool, device=x.device)
        reset = None
    taken = [step for step, _ in walk(x, memory, params, happens=happens, reset=reset, initial=initial)]

    def stacked(tensors: list[Tensor]) -> Tensor:
        together = torch.stack(tensors, dim=1)
        if happens is not None:
            together = together.where(happens.view(*happens.shape, *[1] * (together.dim() - 2)), 0)
        return together[:, :steps]

    def given(tensors: list[Tensor | None]) -> Tensor | None:
        """Stacked, or None where the style of the gates has no such tensor."""
        present = [tensor for tensor in tensors if tensor is not None]
        return stacked(present) if present else None

    return Trace(
        attention=stacked([torch.stack(step.attention, dim=1) for step in taken]),
        input_gate=given([step.input_gate for step in taken]),
        forget_gate=given([step.forget_gate for step in taken]),
        share=given([step.share for step in taken]),
        candidate=stacked([step.candidate for step in taken]),
        memory=stacked([step.memory for step in taken]),
    )
