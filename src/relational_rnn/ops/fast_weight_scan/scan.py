"""The sequence call that the layer uses, and which implementation runs it."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor

from relational_rnn._check import check_choice, check_shape
from relational_rnn.ops.fast_weight_scan.cpu import fast_weight_scan_cpu, unsupported
from relational_rnn.ops.fast_weight_scan.reference import (
    FastWeightParameters,
    FastWeightScan,
    FastWeightState,
    fast_weight_scan_reference,
)
from relational_rnn.ops.relational_scan.pieces import in_pieces
from relational_rnn.ops.relational_scan.readable import check_marks
from relational_rnn.ops.relational_scan.scan import BackendReport, decide
from relational_rnn.ops.relational_scan.spec import flatten, refill

FastWeightBackend = Literal["auto", "reference", "cpu"]
"""What may be asked for.

- "reference": plain PyTorch operations, step by step, on any device and in any dtype.
- "cpu": the whole sequence as one operation with its own backward pass, by compiled kernels.
- "auto": "cpu" where it can run.
"""
FAST_WEIGHT_BACKENDS: tuple[str, ...] = get_args(FastWeightBackend)
_PIECE_ROWS = 64  # sequences times steps that the reference takes together without gradients


def choose(
    backend: FastWeightBackend,
    p: Tensor,
    state: FastWeightState,
    params: FastWeightParameters,
    initial: FastWeightState | None = None,
) -> BackendReport:
    """What runs this call of `fast_weight_scan`, and why.

    Raises:
        InputError: an unknown name, or one that cannot run here, with the reason and what can.
    """
    check_choice("fast_weight_scan", "backend", backend, FAST_WEIGHT_BACKENDS)
    reason = None if backend == "reference" else unsupported(p, state, params, initial)
    return decide("fast_weight_scan", backend, reason)


def fast_weight_scan(
    p: Tensor,
    state: FastWeightState,
    params: FastWeightParameters,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: FastWeightState | None = None,
    outputs_wanted: bool = True,
    states_wanted: bool = False,
    backend: FastWeightBackend = "auto",
) -> FastWeightScan:
    """The fast-weight memory over a whole sequence; equals `fast_weight_scan_reference` up to rounding.

    Args:
        p: the projected input, of h and of the keys of all heads, [B, T, W + H * K].
        state: before the first step; `carried` is read only with `params.recurrent`.
        params: the weights and choices.
        lengths: [B] whole numbers in 0..T; later steps do not happen, whatever their input holds.
        reset: [B, T] booleans; before a step marked true the sequence's state becomes `initial`.
        initial: as `state`; None means zeros.
        outputs_wanted: whether to return the outputs of all steps.
        states_wanted: whether to return the memories S after all steps.
        backend: see `FastWeightBackend`. A name is obeyed or refused.

    Returns:
        a `FastWeightScan`: outputs [B, T, W] and states [B, T, H, K, V] (0 past a length), None where not wanted, and
        the state after the last step. Gradients flow into every tensor.

    Raises:
        InputError: an unknown backend, or one that cannot run here; lengths, resets or sizes that do not fit.

    Example:
        >>> import torch
        >>> from relational_rnn.ops.fast_weight_scan import Linear, Norm
        >>> W, H, K, V = 12, 2, 3, 5
        >>> def linear(out, into):
        ...     return Linear(torch.randn(out, into) * into**-0.5, torch.zeros(out))
        >>> norm = Norm(torch.ones(W), torch.zeros(W))
        >>> weights = linear(W, W), linear(W, W), linear(H * (K + V + 2), W), linear(W, H * V)
        >>> params = FastWeightParameters(H, 1.0, None, *weights, mlp_norm=norm, out_norm=norm, reads=())
        >>> scan = fast_weight_scan(torch.randn(7, 11, W + H * K), FastWeightState(torch.zeros(7, H, K, V)), params)
        >>> scan.outputs.shape, scan.states, scan.final.fast.shape
        (torch.Size([7, 11, 12]), None, torch.Size([7, 2, 3, 5]))
    """
    check_shape("fast_weight_scan", "p", p, {"B": None, "T": None, "W + H * K": None})
    check_marks("fast_weight_scan", lengths, reset, p)
    runs = choose(backend, p, state, params, initial).runs
    scan = fast_weight_scan_cpu if runs == "cpu" and 0 not in p.shape[:2] else _loop
    given = {"lengths": lengths, "reset": reset, "initial": initial}
    return scan(p, state, params, **given, outputs_wanted=outputs_wanted, states_wanted=states_wanted)


def _loop(
    p: Tensor,
    state: FastWeightState,
    params: FastWeightParameters,
    *,
    lengths: Tensor | None,
    reset: Tensor | None,
    initial: FastWeightState | None,
    **wanted: Any,
) -> FastWeightScan:
    """The reference, in pieces."""

    def take(
        p: Tensor, state: FastWeightState, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[list[Tensor], FastWeightState]:
        given = {"lengths": lengths, "reset": reset, "initial": initial}
        made = fast_weight_scan_reference(p, state, params, **given, **wanted)
        return [t for t in (made.outputs, made.states) if t is not None], made.final

    if p.shape[1] == 0:  # the caller's state stays the caller's
        state = refill(state, (t.clone() for t in flatten(state)))
    given = (p, lengths, reset, *flatten((state, initial or (), params)))
    together = max(1, _PIECE_ROWS // max(1, p.shape[0]))
    results, final = in_pieces(take, together, p, state, lengths, reset, given=given)
    outputs = results.pop(0) if wanted["outputs_wanted"] else None
    return FastWeightScan(outputs, results.pop(0) if wanted["states_wanted"] else None, final)
