"""The sequence call that layers use. It obeys the name of an implementation or refuses it; only "auto" chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.ops.relational_scan import cpu, triton_scan
from relational_rnn.ops.relational_scan._triton_launch import precision
from relational_rnn.ops.relational_scan.compiled import scan_as_operator
from relational_rnn.ops.relational_scan.cpu import relational_scan_cpu
from relational_rnn.ops.relational_scan.loop import ActivationMode, loop, recompute_against
from relational_rnn.ops.relational_scan.reference import CalledParameters, Scan, ScanParameters
from relational_rnn.ops.relational_scan.triton_scan import relational_scan_triton

Backend = Literal["auto", "reference", "cpu", "triton"]
"""What may be asked for.

- "reference": plain PyTorch operations, step by step, which autograd, torch.func, autocast and torch.compile follow,
  on any device and in any dtype.
- "cpu": the whole sequence as one operation with its own backward pass, by compiled kernels; see
  `relational_scan_cpu`.
- "triton": one kernel per direction for the whole sequence, on NVIDIA GPUs; see `relational_scan_triton`.
- "auto": the faster one of those that can run.
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
    """The backend that was asked for."""
    runs: str
    """The one that runs."""
    why: str
    """In one sentence."""

    @property
    def kernels(self) -> str | None:
        """Which kernels the CPU scan computes with: "compiled, avx2". None for the others."""
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
    """The implementation that runs a call.

    Args:
        backend: what is asked for.
        activations: "store" or "recompute", what the backward pass works from.
        x: [B, T, n, I].
        memory: [B, N, M].
        params: the weights and choices.
        input_rows: whether the attended rows of the input are wanted too.

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
    if backend == "reference":
        return BackendReport(asked=backend, runs="reference", why="it was asked for")
    special = "triton" if backend == "triton" or (backend == "auto" and x.device.type == "cuda") else "cpu"
    name = {"cpu": "the CPU scan", "triton": "the Triton scan"}[special]
    if isinstance(params, CalledParameters):
        reason = f"it calls no inner modules, and {params.why}"
    elif special == "cpu":
        reason = cpu.unsupported(x, memory, params)
    else:
        reason = triton_scan.unsupported(x, memory, params, input_rows=input_rows)
    if backend == special:
        if reason is not None:
            hint = "backend='reference' can run here, and so can 'auto'."
            raise InputError(describe("relational_scan", f"backend {backend!r} cannot run here: {reason}", hint=hint))
        return BackendReport(asked=backend, runs=special, why="it was asked for" + _products(special, x))
    if reason is not None:
        return BackendReport(asked=backend, runs="reference", why=f"{name} cannot run here: {reason}")
    if special == "triton":
        # To be turned round when a GPU has shown that it is right and faster there.
        why = "the Triton scan has not been measured on a GPU and runs where it is asked for by name"
        return BackendReport(asked=backend, runs="reference", why=why)
    return BackendReport(asked=backend, runs="cpu", why="it is the fastest that can run here")


def _products(runs: str, x: Tensor) -> str:
    """How exact the products of float32 matrices are in the Triton scan, which is a choice."""
    return f"; products in {precision(x.dtype)}" if runs == "triton" and x.dtype == torch.float32 else ""


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
        reset: [B, T] booleans; before a step marked true the row's memory becomes `initial`.
        initial: [N, M] or [B, N, M], needed with `reset`.
        input_rows: whether the attended rows of the input are wanted too.
        backend: "reference", "cpu", "triton" or "auto"; see `Backend`. A name is obeyed or refused.
        activations: "store" keeps what the backward pass needs; "recompute" keeps little and computes it again, for
            peak memory that grows with the square root of T.

    Returns:
        a `Scan`: the memory after every step [B, T, N, M] (0 past a length), the memory after each row's last step
        [B, N, M], and the attended input rows [B, T, n, M] or None.

    Gradients flow into every tensor, the memory and `initial` included. Under `torch.compile` the sequence is one node
    of the graph, whatever T is; there its backward runs the steps a second time, and there is no double backward.

    Raises:
        InputError: an unknown backend, or one that cannot run here.
    """
    assert reset is None or initial is not None
    runs = choose(backend, activations, x, memory, params, input_rows=input_rows).runs
    if isinstance(params, CalledParameters):
        return loop(x, memory, params, lengths, reset, initial, input_rows)
    given = {"lengths": lengths, "reset": reset, "initial": initial}
    if runs == "triton":
        return relational_scan_triton(x, memory, params, activations=activations, **given)
    if runs == "cpu":
        return relational_scan_cpu(x, memory, params, input_rows=input_rows, activations=activations, **given)
    if torch.compiler.is_compiling():
        return scan_as_operator(x, memory, params, lengths, reset, initial, input_rows, kernels=backend == "auto")
    return loop(x, memory, params, lengths, reset, initial, input_rows, activations)
