"""The whole recurrence as one differentiable operation for the CPU, with a backward pass written by hand.

What depends on the input alone is computed for all steps at once, nothing is computed for rows whose result is dropped,
and each weight's gradient is one product over all steps of a chunk. README.md derives the backward pass and counts the
cost. Compiled kernels compute it (`_native_scan.py`); what they do not take is for the plain loop.
"""

# Shape legend (for this file, _native_scan.py, the steps and native/)
#   B  batch             N  memory slots                H  heads
#   T  time steps        R  rows attended, N + n        K  key size, V value size per head
#   I  input features    M  memory width, H * V         F  H * (2K + V), queries, keys and values of all heads
#   n  input rows        G  gate width, M or 1          S  attention blocks, L layers of the MLP
#   Q  rows whose result is used: R, but N in the last block

from __future__ import annotations

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, check_shape, describe
from relational_rnn.ops.relational_scan._native import Kernels, find
from relational_rnn.ops.relational_scan._native_scan import MOST_BLOCKS, NativeScan
from relational_rnn.ops.relational_scan.loop import ActivationMode, loop
from relational_rnn.ops.relational_scan.readable import check_marks, gradients_wanted, mode_against, tensors_against
from relational_rnn.ops.relational_scan.reference import Scan, ScanParameters
from relational_rnn.ops.relational_scan.spec import flatten, misfit, spec_of


def unsupported(x: Tensor, memory: Tensor, params: ScanParameters) -> str | None:
    """Why `relational_scan_cpu` cannot take these, or None if it can."""
    if torch.compiler.is_compiling():
        return "it cannot be traced, compiled or exported"
    kernels = kernels_for(params)
    if isinstance(kernels, str):
        return kernels
    return mode_against() or tensors_against([x, memory, *flatten(params)])


def relational_scan_cpu(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: Tensor | None = None,
    input_rows: bool = False,
    activations: ActivationMode = "store",
) -> Scan:
    """The relational memory over a whole sequence as one operation; equals `relational_scan_reference` up to rounding.

    The arguments and the result are those of `relational_scan`. With `activations="recompute"` the memory at about
    sqrt(T) of the T steps is kept and the rest is computed again.

    float32 or float64, on the CPU. Gradients flow into every tensor, the memory and `initial` included; a gradient of
    a gradient is computed through the plain loop. Without gradients nothing is kept.

    Raises:
        InputError: the tensors are not of a kind that this implementation takes (see `unsupported`), or the parameters,
            the memory, lengths or resets do not fit.
    """
    check_choice("relational_scan_cpu", "activations", activations, ("store", "recompute"))
    reason = unsupported(x, memory, params)
    if reason is not None:
        hint = "backend='reference' computes the same, and so does 'auto'."
        raise InputError(describe("relational_scan_cpu", f"cannot be used here: {reason}", hint=hint))
    wrong = misfit(params, x, memory)
    if wrong is not None:
        raise InputError(describe("relational_scan_cpu", wrong))
    assert reset is None or initial is not None
    initial = None if reset is None else initial
    _check_sequence(x, memory, lengths, reset, initial)
    if 0 in x.shape[:2]:
        return loop(x, memory, params, input_rows=input_rows)
    spec = spec_of(params, input_rows=input_rows)
    tensors = x, memory, lengths, reset, initial, *flatten(params)
    kernels, mode = kernels_for(params), activations if gradients_wanted(tensors) else None
    assert not isinstance(kernels, str)
    return Scan(*NativeScan.apply(kernels, spec, mode, *tensors))


def _check_sequence(
    x: Tensor, memory: Tensor, lengths: Tensor | None, reset: Tensor | None, initial: Tensor | None
) -> None:
    """Refuse what does not fit the sequence: kernels get addresses, and would read beyond an end."""
    where, batch = "relational_scan_cpu", x.shape[0]
    check_shape(where, "memory", memory, {"B": batch, "N": None, "M": None})
    check_marks(where, lengths, reset, x)
    if initial is not None:
        slots, width = memory.shape[1:]
        own = {"B": batch} if initial.dim() == 3 else {}
        check_shape(where, "initial", initial, {**own, "N": slots, "M": width})
        wrong = tensors_against([x, initial])
        if wrong is not None:
            raise InputError(describe(where, f"initial cannot be used here: {wrong}"))


def kernels_for(params: ScanParameters) -> Kernels | str:
    """The compiled kernels that run a scan or a step with these parameters, or why none do."""
    kernels = find()
    if isinstance(kernels, str):
        return f"it needs the compiled kernels, and {kernels}"
    return kernels if len(params.blocks) <= MOST_BLOCKS else f"it takes at most {MOST_BLOCKS} attention blocks"


def kernels_report() -> str:
    """Whether the compiled kernels run, and if not, why."""
    kernels = find()
    return f"none: {kernels}" if isinstance(kernels, str) else f"compiled, {kernels.name}"
