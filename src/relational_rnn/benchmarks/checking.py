"""Correctness first: what a backend gives at a case is judged before it is timed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from relational_rnn.benchmarks.contenders import LAYER, Contender, Setting, definition
from relational_rnn.benchmarks.shapes import Case
from relational_rnn.testing import assert_as_good_as


class CheckFailed(Exception):
    """A contender does not give what it must; nothing of its case is timed."""


def check(case: Case, contenders: Mapping[str, Contender], setting: Setting) -> None:
    """Judge every backend of the layer by the definition, by the rule in `relational_rnn.testing`.

    Compared are the output and, in a training pass, the gradients of the input and of every parameter: each on the
    scale of its own largest true value, and all of them in one go, so that a lucky rounding of the definition in one
    small tensor does not condemn anybody. Contenders that are not ours compute something else; they must give finite
    numbers.

    Raises:
        CheckFailed: one of them is not good enough; the message says which, and how far off it is.
    """
    peers = definition(case, setting)
    truths = definition(case, setting, exact=True)
    for name, contender in contenders.items():
        results = contender.run()
        if not name.startswith(LAYER):
            if not all(bool(torch.isfinite(tensor).all()) for tensor in results):
                raise CheckFailed(f"{case.key}: {name} gives numbers that are not finite")
            continue
        try:
            judge(f"{case.key}: {name}", results, peers, truths)
        except AssertionError as error:
            raise CheckFailed(str(error)) from error


def judge(what: str, results: Sequence[Tensor], peers: Sequence[Tensor], truths: Sequence[Tensor]) -> None:
    """Fail unless the output `results[0]` is as good as that of `peers`, and the gradients after it too, together."""
    assert_as_good_as(f"{what}, output", results[0], peers[0], truths[0])
    for got, peer in zip(results, peers, strict=True):
        assert got.shape == peer.shape, f"{what}: a gradient of shape {tuple(got.shape)}, expected {tuple(peer.shape)}"
    if len(results) > 1:
        scales = [truth.abs().max().clamp(min=torch.finfo(truth.dtype).tiny) for truth in truths[1:]]
        got, peer, truth = (
            torch.cat([(t.double() / scale).flatten() for t, scale in zip(tensors[1:], scales, strict=True)])
            for tensors in (results, peers, truths)
        )
        dtype = results[0].dtype
        assert_as_good_as(f"{what}, gradients", got.to(dtype), peer.to(dtype), truth)
