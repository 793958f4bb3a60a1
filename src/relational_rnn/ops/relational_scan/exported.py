"""The operator of a sequence as one loop of PyTorch operations, for exporters that do not know the operator.

`torch.onnx.export` takes the place of every operator that it cannot translate from PyTorch's table of decompositions,
which is where this one lies: a model with the layer in it exports without further ado, as one `Scan` per layer.
"""

# Shape legend: B batch, T time steps, n input rows, I input features, N memory slots, M memory width

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import register_decomposition

from relational_rnn.ops.relational_scan.compiled import scan_operator
from relational_rnn.ops.relational_scan.reference import advance, input_terms
from relational_rnn.ops.relational_scan.spec import Spec, unflatten


@register_decomposition(scan_operator)
def scan_as_loop(
    x: Tensor,
    memory: Tensor,
    tensors: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
    initial: Tensor | None,
    kernels: bool,
    *spec: Any,
) -> list[Tensor]:
    """`x` [B, T, n, I] and `memory` [B, N, M] to the operator's outputs; forward only."""
    # The one loop that exporters keep as a loop; it has no public name yet.
    from torch._higher_order_ops.scan import scan

    # Its own derivative cannot be exported where the batch is of any size, and none is wanted.
    x, memory, *tensors = (tensor.detach() for tensor in (x, memory, *tensors))
    initial = None if initial is None else initial.detach()
    params, batch_of = unflatten(tensors, Spec(*spec)), (slice(None), None, None)
    happens = None if lengths is None else torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
    if happens is not None:
        x = x.where(happens[:, :, None, None], 0)  # padding may hold anything, even NaN
    autocast = Spec(*spec).autocast
    with torch.autocast(x.device.type, dtype=autocast, enabled=autocast is not None):
        rows, gate_terms = input_terms(x, params)
    given = {"rows": rows, "gate_terms": gate_terms, "happens": happens, "reset": reset}
    steps = {name: tensor.movedim(1, 0) for name, tensor in given.items() if tensor is not None}

    def body(memory: Tensor, at: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        before = memory
        if "reset" in at and initial is not None:
            before = torch.where(at["reset"][batch_of], initial, memory)
        step = advance(before, at["rows"], at.get("gate_terms"), params)
        after, seen, attended = step.memory, step.memory, step.input_rows
        if "happens" in at:
            happens = at["happens"][batch_of]
            after, seen, attended = (
                torch.where(happens, after, memory),
                seen.where(happens, 0),
                attended.where(happens, 0),
            )
        # What a body returns must not share memory with what it was given, nor with its other results.
        return after.clone(), (seen.clone(), attended.clone())

    with torch.autocast(x.device.type, dtype=autocast, enabled=autocast is not None):
        last, (memories, attended) = scan(body, memory.clone(), steps)
    outputs = [memories, attended] if Spec(*spec).input_rows else [memories]
    memories, *attended = (t.movedim(0, 1).clone(memory_format=torch.contiguous_format) for t in outputs)
    return [memories, last, *attended]
