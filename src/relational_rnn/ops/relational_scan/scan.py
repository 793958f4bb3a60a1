"""The sequence call that layers use. A backend that is named runs or is refused; only "auto" chooses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.ops.relational_scan import cpu, triton_scan
from relational_rnn.ops.relational_scan._triton_launch import precision
from relational_rnn.ops.relational_scan.compiled import scan_as_operator
from relational_rnn.ops.relational_scan.cpu import relational_scan_cpu
from relational_rnn.ops.relational_scan.loop import ActivationMode, loop, recompute_against
from relational_rnn.ops.relational_scan.pieces import Marks
from relational_rnn.ops.relational_scan.reference import CalledParameters, Scan, ScanParameters
from relational_rnn.ops.relational_scan.triton_scan import relational_scan_triton

Backend = Literal["auto", "reference", "cpu", "triton"]
"""What may be asked for.

- "reference": plain PyTorch operations, step by step, for any device and dtype; autograd, torch.func, autocast and
  torch.compile follow them.
- "cpu": the whole sequence as one operation with its own backward pass, by compiled kernels.
- "triton": one kernel per direction for the whole sequence, on NVIDIA GPUs.
- "auto": the fastest of those that can run.
"""
BACKENDS: tuple[str, ...] = get_args(Backend)
ACTIVATION_MODES: tuple[str, ...] = get_args(ActivationMode)


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendReport:
    """What runs a call, and why.

    >>> print(BackendReport(asked="auto", runs="reference", why="the CPU scan does not follow autocast"))
    backend='auto' runs 'reference': the CPU scan does not follow autocast
    """

    asked: str
    runs: str
    why: str

    @property
    def kernels(self) -> str | None:
        """The kernels of the CPU scan, such as "compiled, avx2"; None for other backends."""
        return cpu.kernels_report() if self.runs == "cpu" else None

    def __str__(self) -> str:
        return f"backend={self.asked!r} runs {self.runs!r}: {self.why}"


def choose(
    backend: Backend,
    activations: ActivationMode,
    x: Tensor,
    memory: Tensor,
    params: ScanParameters | CalledParameters,
    *,
    input_rows: bool = False,
) -> BackendReport:
    """What runs this call of `relational_scan`, and why.

    Raises:
        InputError: an unknown name, or one that cannot run here, with the reason and what can.
    """
    check_choice("relational_scan", "backend", backend, BACKENDS)
    check_choice("relational_scan", "activations", activations, ACTIVATION_MODES)
    if activations == "recompute" and backend in ("auto", "reference"):
        against = recompute_against(params)
        if against is not None:
            problem = f"activations='recompute' cannot be obeyed here: {against}"
            raise InputError(describe("relational_scan", problem, hint="activations='store' can run here."))
    special = "triton" if backend == "triton" or (backend == "auto" and x.device.type == "cuda") else "cpu"
    if backend == "reference":
        reason = None
    elif isinstance(params, CalledParameters):
        reason = f"it calls no inner modules, and {params.why}"
    elif special == "triton":
        reason = triton_scan.unsupported(x, memory, params, input_rows=input_rows)
    else:
        reason = cpu.unsupported(x, memory, params)
    report = decide("relational_scan", backend, reason, special=special)
    if report.runs != "triton" or x.dtype != torch.float32:
        return report
    return replace(report, why=f"{report.why}; products in {precision(x.dtype)}")  # a choice of PyTorch's


def decide(where: str, backend: str, reason: str | None, *, special: str = "cpu") -> BackendReport:
    """What runs: the named backend, or for "auto" the `special` one, unless there is a `reason` against it."""
    name = {"cpu": "the CPU scan", "triton": "the Triton scan"}[special]
    why = "it was asked for"
    if backend == "auto":
        why = "it is the fastest that can run here" if reason is None else f"{name} cannot run here: {reason}"
        if reason is None and special == "triton":
            # to be turned round when a GPU has shown that it is right and faster there
            reason = why = f"{name} has not been measured on a GPU and runs where it is asked for by name"
        return BackendReport(asked=backend, runs="reference" if reason else special, why=why)
    if reason is not None:
        hint = "backend='reference' can run here, and so can 'auto'."
        raise InputError(describe(where, f"backend {backend!r} cannot run here: {reason}", hint=hint))
    return BackendReport(asked=backend, runs=backend, why=why)


def relational_scan(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters | CalledParameters,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: Tensor | None = None,
    input_rows: bool = False,
    backend: Backend = "auto",
    activations: ActivationMode = "store",
) -> Scan:
    """The relational memory over a whole sequence; equals `relational_scan_reference` up to rounding.

    Args:
        x: [B, T, n, I].
        memory: the memory before the first step, [B, N, M].
        params: the weights and choices.
        lengths: [B] whole numbers in 0..T; later steps do not happen, whatever their input holds.
        reset: [B, T] booleans; before a step marked true the sequence's memory becomes `initial`.
        initial: [N, M] or [B, N, M], needed with `reset`.
        input_rows: whether to return the attended rows of the input.
        backend: see `Backend`. A name is obeyed or refused.
        activations: what the backward pass works from. "store" keeps everything that it needs; "recompute" computes it
            again, and peak memory grows with the square root of T.

    Returns:
        a `Scan`: the memory after every step [B, T, N, M] (0 past a length), the memory after the last step [B, N, M],
        and the attended input rows [B, T, n, M] or None.

    Gradients flow into every tensor. Under `torch.compile` the sequence is one node of the graph, whatever T is. There
    its backward runs the steps a second time, and there is no double backward.

    Raises:
        InputError: an unknown backend, one that cannot run here, or tensors whose sizes do not fit.
    """
    assert reset is None or initial is not None
    marks = Marks(lengths, reset, None if reset is None else initial)
    runs = choose(backend, activations, x, memory, params, input_rows=input_rows).runs
    if isinstance(params, CalledParameters):
        return loop(x, memory, params, marks, input_rows=input_rows)
    if runs == "triton":
        return relational_scan_triton(x, memory, params, marks, activations=activations)
    if runs == "cpu":
        return relational_scan_cpu(x, memory, params, marks, input_rows=input_rows, activations=activations)
    if torch.compiler.is_compiling():
        return scan_as_operator(x, memory, params, *marks, input_rows, kernels=backend == "auto")
    return loop(x, memory, params, marks, input_rows=input_rows, activations=activations)
