"""The one tolerance rule for implementations of the same arithmetic; public, so that others can judge theirs by it."""

from __future__ import annotations

import torch
from torch import Tensor

SLACK = 2.0
"""How many times as wrong as plain PyTorch in the same dtype an implementation may be."""
ULPS = 4.0
"""How many rounding steps of the largest true value it may be off on top of that."""
EXACT = 1e-13
"""Bound in float64 instead, relative to the largest true value: there the oracle has no digits to spare."""


def assert_as_good_as(what: str, got: Tensor, reference: Tensor, oracle: Tensor) -> None:
    """Fail unless `got` is about as close to `oracle` as `reference` is.

    The largest error of `got` may be `SLACK` times that of `reference` plus `ULPS` rounding steps of the largest true
    value. No tolerance is chosen per test.

    Args:
        what: the name of the value, for the message.
        got: the value to judge.
        reference: the same value by plain PyTorch in the dtype of `got`.
        oracle: the same value by plain PyTorch in float64.

    Raises:
        AssertionError: `got` has another shape or dtype, is not finite, or is too far off.

    >>> oracle = torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> assert_as_good_as("y", oracle.float(), oracle.float(), oracle)
    >>> assert_as_good_as("y", oracle.float() + 1e-5, oracle.float(), oracle)
    Traceback (most recent call last):
    ...
    AssertionError: y: off by 1.00e-05, may be off by 1.43e-06 (plain PyTorch: 0.00e+00)
    """
    assert got.dtype == reference.dtype, f"{what}: dtype {got.dtype}, expected {reference.dtype}"
    assert oracle.dtype == torch.float64, f"{what}: the oracle must be float64, not {oracle.dtype}"
    shapes = {tuple(got.shape), tuple(reference.shape), tuple(oracle.shape)}
    assert len(shapes) == 1, f"{what}: shapes {sorted(shapes)}"
    if not got.numel():
        return
    truth = oracle.detach().double()
    assert torch.isfinite(got).all(), f"{what}: not finite"
    largest = truth.abs().max().item()
    error = (got.detach().double() - truth).abs().max().item()
    peer = (reference.detach().double() - truth).abs().max().item()
    limit = (
        EXACT * largest if got.dtype == torch.float64 else SLACK * peer + ULPS * torch.finfo(got.dtype).eps * largest
    )
    assert error <= limit, f"{what}: off by {error:.2e}, may be off by {limit:.2e} (plain PyTorch: {peer:.2e})"
