"""Gradients of the scan's gradients, which no hand-written backward pass computes: through the plain loop."""

from __future__ import annotations

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.loop import loop
from relational_rnn.ops.relational_scan.spec import Spec, unflatten


def differentiable_backward(
    spec: Spec, inputs: tuple[Tensor, ...], needed: tuple[bool, ...], cotangents: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """The gradients as functions that can be differentiated again.

    `inputs`: x, memory, lengths, reset, initial and the parameters, flat.
    """
    x, memory, lengths, reset, initial, *tensors = inputs
    results = loop(x, memory, unflatten(tensors, spec), lengths, reset, initial, spec.input_rows)
    pairs = [(y, d) for y, d in zip(results, cotangents, strict=True) if y is not None and d is not None]
    wanted = [i for i, need in enumerate(needed) if need]
    found = torch.autograd.grad(
        [y for y, _ in pairs],
        [inputs[i] for i in wanted],
        [d for _, d in pairs],
        create_graph=True,
        allow_unused=True,
    )
    gradients: list[Tensor | None] = [None] * len(inputs)
    for i, gradient in zip(wanted, found, strict=True):
        gradients[i] = gradient
    return gradients
