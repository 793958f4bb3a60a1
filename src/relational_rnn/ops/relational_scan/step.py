"""One step for layers: by one call of the compiled kernels where no gradient is wanted, else as the definition does."""

# Shape legend: as in cpu.py

from __future__ import annotations

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._ready_step import After, ReadyStep, plain
from relational_rnn.ops.relational_scan.cpu import kernels_for
from relational_rnn.ops.relational_scan.dispatch import Backend
from relational_rnn.ops.relational_scan.readable import mode_against
from relational_rnn.ops.relational_scan.reference import CalledParameters, ScanParameters, relational_step
from relational_rnn.ops.relational_scan.spec import flatten, misfit


def relational_step_after(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters | CalledParameters,
    *,
    input_rows: bool = False,
    backend: Backend = "auto",
) -> After:
    """One step: input `x` [B, n, I] and the memory before it [B, N, M]; equals `relational_step` up to rounding.

    Where no gradient is wanted and `backend` is "auto" or "cpu", the compiled kernels compute it in one call if they
    can: calls of PyTorch would take several times as long as the arithmetic of a few rows. `input_rows` says whether
    the attended rows of the input are wanted; the definition gives them anyway.
    """
    plain_modules = not isinstance(params, CalledParameters)
    if plain_modules and backend in ("auto", "cpu") and mode_against() is None and x.shape[0] > 0:
        tensors = (x, memory, *flatten(params))
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        able = not wanted and plain(tensors) and not misfit(params, x, memory)
        kernels = kernels_for(params) if able else ""
        if not isinstance(kernels, str):
            return ReadyStep(kernels, params, x, memory, input_rows)(x, memory)
    taken = relational_step(x, memory, params)
    return After(taken.memory, taken.input_rows)
