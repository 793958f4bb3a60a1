"""A sequence by calls of a cell that is more than the modules in it: hooked, or with a forward of its own."""

# Shape legend: B batch, T time steps, n input rows, I input features, N memory slots, W memory width

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn.ops.relational_scan import ActivationMode, Backend, BackendReport, Scan
from relational_rnn.ops.relational_scan.loop import happening

if TYPE_CHECKING:
    from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell


def report_of_calls(why: str, backend: Backend, activations: ActivationMode, *, input_rows: bool) -> BackendReport:
    """What runs such a cell: plain operations, one call per step.

    Args:
        why: the cell's name, and what it is.
        backend: what is asked for.
        activations: "store" or "recompute".
        input_rows: whether the attended rows of the input are wanted too, which a call does not give.

    Raises:
        InputError: something else was asked for by name, or the attended rows are wanted.
    """
    where, hint = "RelationalMemory", "put hooks and other modules in the places within the cell."
    if backend not in ("auto", "reference"):
        problem = f"backend {backend!r} cannot run here: it calls no inner modules, and {why}"
        raise InputError(describe(where, problem, hint="backend='reference' can run here, and so can 'auto'."))
    if activations == "recompute":
        problem = f"activations='recompute' cannot be obeyed here: {why}"
        raise InputError(describe(where, problem, hint="activations='store' can run here."))
    if input_rows:
        problem = f"read_head='input' needs more of a step than a call of its cell gives, and {why}"
        raise InputError(describe(where, problem, hint=hint))
    return BackendReport(asked=backend, runs="reference", why=f"every step is a call, as {why}")


def scan_by_calls(
    cell: RelationalMemoryCell,
    rows: Tensor,
    memory: Tensor,
    lengths: Tensor | None,
    reset: Tensor | None,
) -> Scan:
    """`relational_scan` where every step is a call of the cell: `rows` [B, T, n, I] and `memory` [B, N, W]."""
    initial = None if reset is None else cell.initial_memory(memory.shape[0], dtype=memory.dtype)
    happens, memories = happening(lengths, rows.shape[1], rows.device), []
    if happens is not None:
        rows = rows.where(happens[:, :, None, None], 0)
    x = rows.squeeze(2) if cell.input_rows is None else rows
    for t, x_t in enumerate(x.unbind(1)):
        before = memory
        if reset is not None and initial is not None:
            before = torch.where(reset[:, t, None, None], initial, memory)
        after = cell(x_t, before)
        memory = after if happens is None else torch.where(happens[:, t, None, None], after, memory)
        memories.append(after if happens is None else after.where(happens[:, t, None, None], 0))
    if not memories:
        return Scan(memory.new_zeros(rows.shape[0], 0, *memory.shape[1:]), memory, None)
    return Scan(torch.stack(memories, dim=1), memory, None)
