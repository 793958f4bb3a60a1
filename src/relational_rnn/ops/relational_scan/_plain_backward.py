"""The backward pass of a scan by plain operations, for what no hand-written one can do: gradients of gradients, batched
gradients, and whatever else of PyTorch wants to see every operation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.loop import loop
from relational_rnn.ops.relational_scan.spec import Spec, unflatten


def plain_backward(
    spec: Spec, inputs: Sequence[Tensor | None], needed: tuple[bool, ...], cotangents: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """The gradients, as functions that can be differentiated again where gradients are being recorded.

    `inputs`: x, memory, lengths, reset, initial and the parameters, flat.
    """
    given = own_leaves(inputs, needed)
    x, memory, lengths, reset, initial, *tensors = given
    assert x is not None
    assert memory is not None
    parameters = [t for t in tensors if t is not None]
    with torch.enable_grad():
        results = loop(x, memory, unflatten(parameters, spec), lengths, reset, initial, spec.input_rows)
    return pull_back(results, given, needed, cotangents)


def own_leaves(tensors: Sequence[Tensor | None], needed: tuple[bool, ...]) -> Sequence[Tensor | None]:
    """The tensors for the second pass: of a graph of their own, unless the gradients are to be differentiated again."""
    if torch.is_grad_enabled():
        return tensors
    return [
        t.detach().requires_grad_() if need and t is not None else t for t, need in zip(tensors, needed, strict=True)
    ]


def pull_back(
    results: tuple[Tensor | None, ...],
    inputs: Sequence[Tensor | None],
    needed: tuple[bool, ...],
    cotangents: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """From the cotangents of `results` to those of the `inputs` that are needed, None for the others."""
    pairs = [(y, d) for y, d in zip(results, cotangents, strict=True) if y is not None and d is not None]
    wanted = {i: tensor for i, (tensor, need) in enumerate(zip(inputs, needed, strict=True)) if need}
    found = torch.autograd.grad(
        [y for y, _ in pairs],
        [tensor for tensor in wanted.values() if tensor is not None],
        [d for _, d in pairs],
        create_graph=torch.is_grad_enabled(),
        allow_unused=True,
    )
    gradients: list[Tensor | None] = [None] * len(inputs)
    for i, gradient in zip(wanted, found, strict=True):
        gradients[i] = gradient
    return gradients
