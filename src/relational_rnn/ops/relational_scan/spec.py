"""A call as a flat list of tensors and a tuple of everything else, for operators and backward passes; and its sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_shape, describe
from relational_rnn.ops.relational_scan.pieces import Marks
from relational_rnn.ops.relational_scan.readable import check_marks, unlike
from relational_rnn.ops.relational_scan.reference import Block, Linear, Norm, ScanParameters, Settings


def flatten(params: tuple[Any, ...]) -> list[Tensor]:
    """All tensors of tuples within tuples, in their order."""
    found = []
    for part in params:
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, tuple):
            found += flatten(part)
    return found


def refill(params: Any, tensors: Iterator[Tensor]) -> Any:
    """The same tuples within tuples with other tensors, in the order of `flatten`."""
    parts = []
    for part in params:
        if isinstance(part, tuple):
            part = refill(part, tensors)
        parts.append(next(tensors) if isinstance(part, Tensor) else part)
    return params._make(parts) if hasattr(params, "_make") else tuple(parts)


def misfit(params: ScanParameters, x: Tensor, memory: Tensor) -> str | None:
    """The first parameter that does not go with the sizes of `x` [..., n, I] and `memory` [B, N, M], or None."""
    (inputs, features), m, s = x.shape[-2:], memory.shape[2], params.settings
    qkv = s.num_heads * 2 * s.key_size + m
    gates = 0 if params.gate_memory is None else params.gate_memory.weight.shape[0]
    wanted: list[tuple[str, Linear | Norm | None, tuple[int, ...]]] = [
        ("input", params.input, (m, features)),
        ("gate_memory", params.gate_memory, (2 if gates == 2 and not s.competitive else 2 * m, m)),
        ("gate_input", params.gate_input, (gates, inputs * m)),
        *((f"mlp[{i}]", linear, (m, m)) for i, linear in enumerate(params.mlp)),
    ]
    sizes = {"qkv": (qkv, m), "qkv_norm": (qkv,), "out": (m, m), "mlp_norm": (m,), "attention_norm": (m,)}
    for i, block in enumerate(params.blocks):
        wanted += [(f"blocks[{i}].{name}", getattr(block, name), size) for name, size in sizes.items()]
    for name, given, size in wanted:
        if given is not None and (given.weight.shape != size or given.bias.shape != size[:1]):
            found = f"weight {list(given.weight.shape)} and bias {list(given.bias.shape)}"
            return f"{name} has {found} where the other sizes need {list(size)} and {list(size[:1])}"
    return None


def check_fit(x: Tensor, memory: Tensor, params: ScanParameters, marks: Marks) -> None:
    """Refuse what does not fit the sequence `x` [B, T, n, I]: kernels would read beyond an end."""
    where, batch, (lengths, reset, initial) = "relational_scan", x.shape[0], marks
    assert reset is None or initial is not None
    wrong = misfit(params, x, memory)
    if wrong is not None:
        raise InputError(describe(where, wrong))
    check_shape(where, "memory", memory, {"B": batch, "N": None, "M": None})
    check_marks(where, lengths, reset, x)
    if initial is not None:
        slots, width = memory.shape[1:]
        own = {"B": batch} if initial.dim() == 3 else {}
        check_shape(where, "initial", initial, {**own, "N": slots, "M": width})
        wrong = unlike([x, initial])
        if wrong is None and initial.device != x.device:
            wrong = f"it is on {initial.device}, and the input on {x.device}"
        if wrong is not None:
            raise InputError(describe(where, f"initial cannot be used here: {wrong}"))


class Spec(NamedTuple):
    """What of a call is not a tensor."""

    settings: Settings
    mlp_layers: int
    blocks: int
    gates: bool
    input_rows: bool
    autocast: torch.dtype | None = None  # inside a compiled graph autocast is off by the time the operator runs

    def flat(self) -> tuple[Any, ...]:
        """As an operator takes it."""
        return *dataclasses.astuple(self.settings), *self[1:]

    @classmethod
    def of(cls, flat: Sequence[Any]) -> Spec:
        """The inverse of `flat`."""
        names = [field.name for field in dataclasses.fields(Settings)]
        return cls(Settings(**dict(zip(names, flat, strict=False))), *flat[len(names) :])


def spec_of(params: ScanParameters, *, input_rows: bool, autocast: torch.dtype | None = None) -> Spec:
    gates = params.gate_input is not None
    return Spec(params.settings, len(params.mlp), len(params.blocks), gates, input_rows, autocast)


def unflatten(tensors: Sequence[Tensor], spec: Spec) -> ScanParameters:
    """The inverse of `flatten`."""
    linear, norm = Linear(*tensors[:2]), Norm(*tensors[:2])  # of these only the places are used
    if spec.settings.formulation == "sonnet":
        block = Block(linear, norm, norm, norm)
    else:
        block = Block(linear, norm, out=linear)
    gate = linear if spec.gates else None
    shape = ScanParameters(spec.settings, linear, (linear,) * spec.mlp_layers, gate, gate, (block,) * spec.blocks)
    return refill(shape, iter(tensors))
