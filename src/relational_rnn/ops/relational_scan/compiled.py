"""The sequence call as one opaque operator, for `torch.compile`.

A traced Python loop would become one copy of the step per time step, and one graph per length; as an operator the loop
is a single node whatever the length. Its backward keeps nothing but the inputs and runs the loop once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn.ops.relational_scan.loop import loop
from relational_rnn.ops.relational_scan.reference import (
    Block,
    Formulation,
    Linear,
    Norm,
    Scan,
    ScanParameters,
    Settings,
)


def flatten(params: ScanParameters) -> list[Tensor]:
    """All tensors in a fixed order: input, MLP, gates, blocks."""
    groups: list[Linear | Norm | None] = [params.input, *params.mlp, params.gate_input, params.gate_memory]
    for block in params.blocks:
        groups.extend(block)
    return [tensor for group in groups if group is not None for tensor in group]


class Spec(NamedTuple):
    """What is not a tensor, as arguments of the operator."""

    formulation: Formulation
    num_heads: int
    key_size: int
    forget_bias: float
    input_bias: float
    mlp_layers: int
    blocks: int
    gates: bool
    input_rows: bool
    autocast: torch.dtype | None  # inside a compiled graph autocast is off by the time the operator runs


def spec_of(params: ScanParameters, *, input_rows: bool, autocast: torch.dtype | None = None) -> Spec:
    settings = params.settings
    return Spec(
        formulation=settings.formulation,
        num_heads=settings.num_heads,
        key_size=settings.key_size,
        forget_bias=settings.forget_bias,
        input_bias=settings.input_bias,
        mlp_layers=len(params.mlp),
        blocks=len(params.blocks),
        gates=params.gate_input is not None,
        input_rows=input_rows,
        autocast=autocast,
    )


TENSORS = "Tensor x, Tensor memory, Tensor[] tensors, Tensor? lengths, Tensor? reset, Tensor? initial"
SPEC = (
    "str formulation, int num_heads, int key_size, float forget_bias, float input_bias, int mlp_layers, int blocks, "
    "bool gates, bool input_rows, ScalarType? autocast"
)


def unflatten(tensors: Sequence[Tensor], spec: Spec) -> ScanParameters:
    """The inverse of `flatten`."""
    pairs = iter(zip(tensors[::2], tensors[1::2], strict=True))

    def linear() -> Linear:
        return Linear(*next(pairs))

    def norm() -> Norm:
        return Norm(*next(pairs))

    def block() -> Block:
        qkv, mlp_norm = linear(), norm()
        if spec.formulation == "sonnet":
            return Block(qkv, mlp_norm, qkv_norm=norm(), attention_norm=norm())
        return Block(qkv, mlp_norm, out=linear())

    return ScanParameters(
        settings=Settings(
            formulation=spec.formulation,
            num_heads=spec.num_heads,
            key_size=spec.key_size,
            forget_bias=spec.forget_bias,
            input_bias=spec.input_bias,
        ),
        input=linear(),
        mlp=tuple(linear() for _ in range(spec.mlp_layers)),
        gate_input=linear() if spec.gates else None,
        gate_memory=linear() if spec.gates else None,
        blocks=tuple(block() for _ in range(spec.blocks)),
    )


def scan_as_operator(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters,
    lengths: Tensor | None,
    reset: Tensor | None,
    initial: Tensor | None,
    input_rows: bool,
) -> Scan:
    """`loop` as one operator."""
    device = x.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    spec = spec_of(params, input_rows=input_rows, autocast=autocast)
    outputs = _forward(x, memory, flatten(params), lengths, reset, initial, *spec)
    return Scan(outputs[0], outputs[1], outputs[2] if input_rows else None)


def _run(
    x: Tensor,
    memory: Tensor,
    tensors: Sequence[Tensor],
    lengths: Tensor | None,
    reset: Tensor | None,
    initial: Tensor | None,
    spec: Spec,
) -> list[Tensor]:
    with torch.autocast(x.device.type, dtype=spec.autocast, enabled=spec.autocast is not None):
        scan = loop(x, memory, unflatten(tensors, spec), lengths, reset, initial, spec.input_rows)
    return [tensor for tensor in scan if tensor is not None]


def _own(tensor: Tensor) -> Tensor:
    """An operator's outputs are contiguous and share no memory with its inputs."""
    return tensor.clone(memory_format=torch.contiguous_format)


@torch.library.custom_op("relational_rnn::scan", mutates_args=(), schema=f"({TENSORS}, {SPEC}) -> Tensor[]")
def _forward(x, memory, tensors, lengths, reset, initial, *spec):
    if lengths is not None and lengths.numel() > 0:  # what the layer cannot check while it is traced
        low, high = (int(bound) for bound in lengths.aminmax())
        if low < 0 or high > x.shape[1]:
            got = f"values from {low} to {high}"
            raise InputError(
                describe("relational_scan", "lengths is out of range", got=got, expected=f"0 to {x.shape[1]}")
            )
    return [_own(tensor) for tensor in _run(x, memory, tensors, lengths, reset, initial, Spec(*spec))]


@_forward.register_fake
def _(x, memory, tensors, lengths, reset, initial, *spec):
    batch, steps, rows = x.shape[:3]
    shapes = [(batch, steps, *memory.shape[1:]), memory.shape]
    if Spec(*spec).input_rows:
        shapes.append((batch, steps, rows, memory.shape[-1]))
    return [memory.new_empty(shape) for shape in shapes]


# Below the autograd key a kernel cannot use autograd itself, so this one lets that key fall through. (torch.func.vjp
# would work anywhere, but it keeps its backward differentiable: slower, and wrong by whole multiples in bfloat16.)
_library = torch.library.Library("relational_rnn", "FRAGMENT")
_library.define(f"scan_backward(Tensor[] cotangents, {TENSORS}, {SPEC}) -> Tensor[]")
_library.impl("scan_backward", torch.library.fallthrough_kernel, "Autograd")


@torch.library.impl("relational_rnn::scan_backward", "default", lib=_library)
def _backward(cotangents, x, memory, tensors, lengths, reset, initial, *spec):
    given = [x, memory, *tensors, *([] if initial is None else [initial])]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in [*cotangents, *given]):
        raise RuntimeError("relational_scan as an operator (under torch.compile) has no double backward")
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in given]
        start = None if initial is None else leaves[-1]
        outputs = _run(leaves[0], leaves[1], leaves[2 : 2 + len(tensors)], lengths, reset, start, Spec(*spec))
        reached = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]  # not without steps
        outputs, cotangents = zip(*reached, strict=True)
        gradients = torch.autograd.grad(outputs, leaves, cotangents, materialize_grads=True)
    return [_own(gradient) for gradient in gradients]


@torch.library.register_fake("relational_rnn::scan_backward", lib=_library)
def _(cotangents, x, memory, tensors, lengths, reset, initial, *spec):
    leaves = [x, memory, *tensors, *([] if initial is None else [initial])]
    return [leaf.new_empty(leaf.shape) for leaf in leaves]


def _setup_context(ctx, inputs, output):
    x, memory, tensors, lengths, reset, initial, *ctx.spec = inputs
    ctx.save_for_backward(x, memory, lengths, reset, initial, *tensors)


def _pull_back(ctx, cotangents):
    x, memory, lengths, reset, initial, *tensors = ctx.saved_tensors
    backward = torch.ops.relational_rnn.scan_backward
    gradients = backward(cotangents, x, memory, tensors, lengths, reset, initial, *ctx.spec)
    last = None if initial is None else gradients.pop()
    return gradients[0], gradients[1], gradients[2:], None, None, last, *[None] * len(ctx.spec)


_forward.register_autograd(_pull_back, setup_context=_setup_context)
