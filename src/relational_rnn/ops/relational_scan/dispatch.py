"""Which implementation runs a scan: obeys a name or refuses it; only "auto" chooses, and says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.ops.relational_scan import cpu, triton_scan
from relational_rnn.ops.relational_scan._triton_launch import precision
from relational_rnn.ops.relational_scan.loop import ActivationMode, recompute_against
from relational_rnn.ops.relational_scan.reference import CalledParameters, ScanParameters

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
        return BackendReport(asked=backend, runs="reference", why=f"as to {name}, {reason}")
    if special == "triton":
        # To be turned round when a GPU has shown that it is right and faster there.
        why = "the Triton scan has not been measured on a GPU and runs where it is asked for by name"
        return BackendReport(asked=backend, runs="reference", why=why)
    return BackendReport(asked=backend, runs="cpu", why="it is the fastest that can run here")


def _products(runs: str, x: Tensor) -> str:
    """How exact the products of float32 matrices are in the Triton scan, which is a choice."""
    return f"; products in {precision(x.dtype)}" if runs == "triton" and x.dtype == torch.float32 else ""
