"""The sequence call: what depends on the input alone is computed once for all steps, the rest step by step."""

# Shape legend: B batch, T time steps, n input rows, I input features, N memory slots, M memory width

from __future__ import annotations

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.reference import ScanParameters, advance, input_terms


def relational_scan(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The relational memory over a whole sequence; equals `relational_scan_reference` up to rounding.

    Args:
        x: [B, T, n, I].
        memory: the memory before the first step, [B, N, M].
        params: the weights and choices.
        lengths: [B] whole numbers in 0..T; later steps do not happen, whatever their input holds.
        reset: [B, T] booleans; before a step marked true the row's memory becomes `initial`.
        initial: [N, M] or [B, N, M], needed with `reset`.

    Returns:
        (the memory after every step [B, T, N, M], 0 past a length; the memory after each row's last step [B, N, M]).

    Gradients flow into every tensor, the memory and `initial` included.
    """
    assert reset is None or initial is not None
    steps = x.shape[1]
    if steps == 0:
        return memory.new_zeros(x.shape[0], 0, *memory.shape[1:]), memory

    happens = None
    if lengths is not None:
        happens = torch.arange(steps, device=x.device) < lengths.to(x.device)[:, None]  # [B, T]
        x = x.where(happens[:, :, None, None], 0)
        happens = happens[:, :, None, None].unbind(1)
    resets = None if reset is None else reset[:, :, None, None].unbind(1)
    rows, gate_terms = input_terms(x, params)
    rows_at = rows.unbind(1)
    gates_at = [None] * steps if gate_terms is None else gate_terms.unbind(1)

    outputs = []
    for t in range(steps):
        before = memory
        if resets is not None and initial is not None:
            before = torch.where(resets[t], initial, memory)
        after = advance(before, rows_at[t], gates_at[t], params).memory
        memory = after if happens is None else torch.where(happens[t], after, memory)
        outputs.append(after)
    stacked = torch.stack(outputs, dim=1)
    if happens is not None:
        stacked = stacked.where(torch.stack(happens, dim=1), 0)
    return stacked, memory
