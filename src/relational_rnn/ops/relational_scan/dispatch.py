"""Which implementation runs a scan: obeys a name or refuses it; only "auto" chooses, and says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.ops.relational_scan import cpu
from relational_rnn.ops.relational_scan.cpu import ActivationMode
from relational_rnn.ops.relational_scan.reference import ScanParameters

Backend = Literal["auto", "reference", "cpu"]
"""What may be asked for.

- "reference": plain PyTorch operations, step by step, which autograd, torch.func, autocast and torch.compile follow,
  on any device and in any dtype.
- "cpu": the whole sequence as one operation with its own backward pass; see `relational_scan_cpu`.
- "auto": the faster one of those that can run.
"""
BACKENDS: tuple[str, ...] = get_args(Backend)
ACTIVATION_MODES: tuple[str, ...] = get_args(ActivationMode)
_FEW_STEPS, _FEW_ROWS = 4, 512  # so small a call is over before the CPU scan has taken its memory, if not compiled


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
        """What the CPU scan computes with: "compiled, avx2", or "PyTorch operations: " and why. None for the others."""
        return cpu.kernels_report() if self.runs == "cpu" else None

    def __str__(self) -> str:
        return f"backend={self.asked!r} runs {self.runs!r}: {self.why}"


def choose(
    backend: Backend, activations: ActivationMode, x: Tensor, memory: Tensor, params: ScanParameters
) -> BackendReport:
    """The implementation that runs a call.

    Args:
        backend: what is asked for.
        activations: "store" or "recompute", what the backward pass works from.
        x: [B, T, n, I].
        memory: [B, N, M].
        params: the weights and choices.

    Raises:
        InputError: an unknown name, or one that cannot run here, with the reason and what can.
    """
    check_choice("relational_scan", "backend", backend, BACKENDS)
    check_choice("relational_scan", "activations", activations, ACTIVATION_MODES)
    recompute = activations == "recompute"
    if backend == "reference":
        if recompute:
            hint = "activations='recompute' needs backend='cpu' (or 'auto', where that can run)."
            problem = "backend 'reference' keeps all activations"
            raise InputError(describe("relational_scan", problem, got="activations='recompute'", hint=hint))
        return BackendReport(asked=backend, runs="reference", why="it was asked for")
    reason = cpu.unsupported(x, memory, params)
    if backend == "cpu":
        if reason is not None:
            hint = "backend='reference' can run here, and 'auto' chooses it."
            raise InputError(describe("relational_scan", f"backend 'cpu' cannot run here: {reason}", hint=hint))
        return BackendReport(asked=backend, runs="cpu", why="it was asked for")
    if reason is not None:
        if recompute:
            hint = "only the CPU scan recomputes; activations='store' can run here."
            problem = f"activations='recompute' cannot be obeyed here: for the CPU scan, {reason}"
            raise InputError(describe("relational_scan", problem, hint=hint))
        return BackendReport(asked=backend, runs="reference", why=f"as to the CPU scan, {reason}")
    if recompute:
        return BackendReport(asked=backend, runs="cpu", why="only it recomputes activations")
    batch, steps, inputs = x.shape[:3]
    if cpu.kernels_for(params) is None and steps <= _FEW_STEPS and batch * (memory.shape[1] + inputs) <= _FEW_ROWS:
        return BackendReport(asked=backend, runs="reference", why="so short a call is over before the CPU scan begins")
    return BackendReport(asked=backend, runs="cpu", why="it is the fastest that can run here")
