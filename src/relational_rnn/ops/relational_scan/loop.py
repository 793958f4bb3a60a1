"""The steps of a sequence one after the other; what depends on the input alone is computed once for all of them."""

# Shape legend: B batch, T time steps, n input rows, I input features, N memory slots, M memory width

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.readable import may_be_written
from relational_rnn.ops.relational_scan.reference import (
    CalledParameters,
    Scan,
    ScanParameters,
    Step,
    advance,
    input_terms,
)
from relational_rnn.ops.relational_scan.spec import flatten

_PIECE_ROWS = 1024  # memory and input rows of the steps that are taken together without gradients


def happening(lengths: Tensor | None, steps: int, device: torch.device) -> Tensor | None:
    """Which steps happen, [B, T], or None where all do."""
    return None if lengths is None else torch.arange(steps, device=device) < lengths.to(device)[:, None]


def walk(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters | CalledParameters,
    *,
    happens: Tensor | None = None,
    reset: Tensor | None = None,
    initial: Tensor | None = None,
) -> Iterator[tuple[Step, Tensor]]:
    """Every step in turn, with the memory to go on from: the one before, in rows where the step does not happen."""
    assert reset is None or initial is not None
    if happens is not None:
        x = x.where(happens[:, :, None, None], 0)  # padding may hold anything, even NaN
    steps = x.shape[1]
    rows, gate_terms = input_terms(x, params)
    gates_at = [None] * steps if gate_terms is None else gate_terms.unbind(1)
    happens_at = None if happens is None else happens[:, :, None, None].unbind(1)
    reset_at = None if reset is None else reset[:, :, None, None].unbind(1)
    for t, rows_t in enumerate(rows.unbind(1)):
        before = memory
        if reset_at is not None and initial is not None:
            before = torch.where(reset_at[t], initial, memory)
        step = advance(before, rows_t, gates_at[t], params)
        memory = step.memory if happens_at is None else torch.where(happens_at[t], step.memory, memory)
        yield step, memory


def loop(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters | CalledParameters,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: Tensor | None = None,
    input_rows: bool = False,
) -> Scan:
    """`relational_scan` in plain PyTorch operations, which autograd, torch.func and forward-mode see through.

    Without gradients a long sequence is taken in pieces: what depends on the input alone is then never there for all
    steps, and every step's results go where they stay.
    """
    called = isinstance(params, CalledParameters)  # modules, whose weights nobody knows
    weights = () if called else flatten(params)
    if (called and torch.is_grad_enabled()) or not may_be_written((x, memory, lengths, reset, initial, *weights)):
        return _loop(x, memory, params, lengths, reset, initial, input_rows)
    batch, steps = x.shape[:2]
    together = max(1, _PIECE_ROWS // max(1, batch * (x.shape[2] + memory.shape[1])))
    if steps <= together:
        return _loop(x, memory, params, lengths, reset, initial, input_rows)
    memories = memory.new_empty(batch, steps, *memory.shape[1:])
    attended = memory.new_empty(batch, steps, x.shape[2], memory.shape[2]) if input_rows else None
    for start in range(0, steps, together):
        part = slice(start, min(start + together, steps))
        left = None if lengths is None else (lengths - start).clamp(min=0, max=part.stop - start)
        resets = None if reset is None else reset[:, part]
        made = _loop(x[:, part], memory, params, left, resets, initial, input_rows)
        memories[:, part], memory = made.memories, made.final
        if attended is not None and made.input_rows is not None:
            attended[:, part] = made.input_rows
    return Scan(memories, memory, attended)


def _loop(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters | CalledParameters,
    lengths: Tensor | None,
    reset: Tensor | None,
    initial: Tensor | None,
    input_rows: bool,
) -> Scan:
    happens = happening(lengths, x.shape[1], x.device)
    memories, rows = [], []
    for step, after in walk(x, memory, params, happens=happens, reset=reset, initial=initial):
        memories.append(step.memory)
        rows.append(step.input_rows)
        memory = after
    if not memories:
        none = memory.new_zeros(x.shape[0], 0, x.shape[2], memory.shape[-1])
        nothing = memory.new_zeros(x.shape[0], 0, *memory.shape[1:])
        return Scan(nothing, memory.clone(), none if input_rows else None)  # the caller's memory stays the caller's

    def stacked(tensors: list[Tensor]) -> Tensor:
        together = torch.stack(tensors, dim=1)
        return together if happens is None else together.where(happens[:, :, None, None], 0)

    return Scan(stacked(memories), memory, stacked(rows) if input_rows else None)
