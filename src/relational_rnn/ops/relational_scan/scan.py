"""The sequence call that layers use."""

from __future__ import annotations

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.compiled import scan_as_operator
from relational_rnn.ops.relational_scan.cpu import relational_scan_cpu
from relational_rnn.ops.relational_scan.dispatch import Backend, choose
from relational_rnn.ops.relational_scan.loop import ActivationMode, loop
from relational_rnn.ops.relational_scan.reference import CalledParameters, Scan, ScanParameters
from relational_rnn.ops.relational_scan.triton_scan import relational_scan_triton


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
    if runs == "triton":
        return relational_scan_triton(
            x, memory, params, lengths=lengths, reset=reset, initial=initial, activations=activations
        )
    if runs == "cpu":
        return relational_scan_cpu(
            x,
            memory,
            params,
            lengths=lengths,
            reset=reset,
            initial=initial,
            input_rows=input_rows,
            activations=activations,
        )
    if torch.compiler.is_compiling():
        return scan_as_operator(x, memory, params, lengths, reset, initial, input_rows, kernels=backend == "auto")
    return loop(x, memory, params, lengths, reset, initial, input_rows, activations)
