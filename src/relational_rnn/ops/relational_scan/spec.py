"""What a call is, as a flat list of tensors and a tuple of everything else: for operators, and for backward passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.reference import Block, Linear, Norm, ScanParameters, Settings


def flatten(params: ScanParameters) -> list[Tensor]:
    """All tensors in a fixed order: input, MLP, gates, blocks."""
    groups: list[Linear | Norm | None] = [params.input, *params.mlp, params.gate_input, params.gate_memory]
    for block in params.blocks:
        groups.extend(block)
    return [tensor for group in groups if group is not None for tensor in group]


def misfit(params: ScanParameters, x: Tensor, memory: Tensor) -> str | None:
    """The first parameter whose size is not the one that it is read by, or None where all fit.

    PyTorch's operations notice by themselves; kernels would read beyond a tensor's end.

    Args:
        params: the weights and choices.
        x: [..., n, I].
        memory: [B, N, M].
    """
    (inputs, features), m, s = x.shape[-2:], memory.shape[2], params.settings
    qkv = s.num_heads * 2 * s.key_size + m
    gates = 0 if params.gate_memory is None else params.gate_memory.weight.shape[0]
    wanted: list[tuple[str, Linear | Norm | None, tuple[int, ...]]] = [
        ("input", params.input, (m, features)),
        ("gate_memory", params.gate_memory, (2 if gates == 2 and not s.competitive else 2 * m, m)),
        ("gate_input", params.gate_input, (gates, inputs * m)),
        *((f"mlp[{i}]", linear, (m, m)) for i, linear in enumerate(params.mlp)),
    ]
    for i, block in enumerate(params.blocks):
        wanted += [
            (f"blocks[{i}].{name}", getattr(block, name), size)
            for name, size in (
                ("qkv", (qkv, m)),
                ("qkv_norm", (qkv,)),
                ("out", (m, m)),
                ("mlp_norm", (m,)),
                ("attention_norm", (m,)),
            )
        ]
    for name, given, size in wanted:
        if given is not None and (given.weight.shape != size or given.bias.shape != size[:1]):
            found = f"weight {list(given.weight.shape)} and bias {list(given.bias.shape)}"
            return f"{name} has {found} where the other sizes need {list(size)} and {list(size[:1])}"
    return None


class Spec(NamedTuple):
    """What is not a tensor."""

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
    pairs = iter(zip(tensors[::2], tensors[1::2], strict=True))

    def linear() -> Linear:
        return Linear(*next(pairs))

    def norm() -> Norm:
        return Norm(*next(pairs))

    def block() -> Block:
        qkv, mlp_norm = linear(), norm()
        if spec.settings.formulation == "sonnet":
            return Block(qkv, mlp_norm, qkv_norm=norm(), attention_norm=norm())
        return Block(qkv, mlp_norm, out=linear())

    return ScanParameters(
        settings=spec.settings,
        input=linear(),
        mlp=tuple(linear() for _ in range(spec.mlp_layers)),
        gate_input=linear() if spec.gates else None,
        gate_memory=linear() if spec.gates else None,
        blocks=tuple(block() for _ in range(spec.blocks)),
    )
