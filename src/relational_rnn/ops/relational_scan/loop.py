"""The steps of a sequence one after the other; what depends on the input alone is computed once for all of them."""

# Shape legend: B batch, T time steps, n input rows, I input features, N memory slots, M memory width

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from relational_rnn.ops.relational_scan.pieces import Marks, in_pieces, pieces, valid_steps
from relational_rnn.ops.relational_scan.readable import gradients_wanted
from relational_rnn.ops.relational_scan.reference import (
    CalledParameters,
    Scan,
    ScanParameters,
    Step,
    advance,
    input_terms,
)
from relational_rnn.ops.relational_scan.spec import flatten

ActivationMode = Literal["store", "recompute"]
_PIECE_ROWS = 1024  # memory and input rows of the steps that are taken together without gradients


def happening(lengths: Tensor | None, steps: int, device: torch.device) -> Tensor | None:
    """Which steps happen, [B, T], or None where all do."""
    return None if lengths is None else valid_steps(lengths.to(device), steps)


def walk(
    x: Tensor, memory: Tensor, params: ScanParameters | CalledParameters, marks: Marks
) -> Iterator[tuple[Step, Tensor]]:
    """Every step in turn, with the memory to go on from: the one before, in rows where the step does not happen."""
    lengths, reset, initial = marks
    assert reset is None or initial is not None
    happens = happening(lengths, x.shape[1], x.device)
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


def recompute_against(params: ScanParameters | CalledParameters) -> str | None:
    """Why the loop cannot run its steps again in the backward pass, or None if it can."""
    if isinstance(params, CalledParameters):
        return f"it would call inner modules twice, and {params.why}"
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return "it cannot be traced, compiled or exported"
    if torch._C._are_functorch_transforms_active():
        return "it does not work under the transforms of torch.func"
    return None


def loop(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters | CalledParameters,
    marks: Marks,
    *,
    input_rows: bool = False,
    activations: ActivationMode = "store",
) -> Scan:
    """`relational_scan` in plain PyTorch operations, which autograd, torch.func and forward-mode see through.

    "recompute" keeps the memory before each of about sqrt(T) chunks, which the backward pass runs again.
    """
    called = isinstance(params, CalledParameters)  # modules, whose weights nobody knows
    tensors = [t for t in (x, memory, *marks) if t is not None] + ([] if called else flatten(params))
    batch, steps = x.shape[:2]
    versions: list[int] = []

    def take(x: Tensor, memory: Tensor, lengths: Tensor | None, reset: Tensor | None) -> tuple[list[Tensor], Tensor]:
        if versions and versions != [t._version for t in tensors]:  # `checkpoint` does not look
            raise RuntimeError("what the gradient is computed from has been modified by an inplace operation")
        happens = happening(lengths, x.shape[1], x.device)
        here = Marks(lengths, reset, marks.initial)
        made: list[tuple[Tensor, ...]] = []
        for step, after in walk(x, memory, params, here):
            made.append((step.memory, step.input_rows) if input_rows else (step.memory,))
            memory = after
        if not made:
            shapes = memory.shape[1:], (x.shape[2], memory.shape[-1])
            nothing = [memory.new_zeros(batch, 0, *shape) for shape in shapes[: 1 + input_rows]]
            return nothing, memory.clone()  # the caller's memory stays the caller's
        results = [torch.stack(tensors, dim=1) for tensors in zip(*made, strict=True)]
        if happens is not None:
            results = [t.where(happens[:, :, None, None], 0) for t in results]
        return results, memory

    if activations == "recompute" and steps > 1 and gradients_wanted(tensors):
        versions += [t._version for t in tensors]
        parts = []
        for _, part, left, resets in pieces(math.ceil(math.sqrt(steps)), x, marks.lengths, marks.reset):
            again = checkpoint(take, part, memory, left, resets, use_reentrant=False, preserve_rng_state=False)
            results, memory = cast(tuple[list[Tensor], Tensor], again)
            parts.append(results)
        results, final = [torch.cat(tensors, 1) for tensors in zip(*parts, strict=True)], memory
    else:
        rows = batch * (x.shape[2] + memory.shape[1])
        together = steps if called and torch.is_grad_enabled() else max(1, _PIECE_ROWS // max(1, rows))
        results, final = in_pieces(take, together, x, memory, marks.lengths, marks.reset, given=tensors)
    return Scan(results[0], final, results[1] if input_rows else None)
