"""The sequence call as one opaque operator, for `torch.compile`.

A traced loop would become one copy of the step per time step, and one graph per length. The operator is a single node,
and may run kernels that cannot be traced. Its backward keeps only the inputs and runs the steps once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import register_decomposition

from relational_rnn._check import InputError, describe
from relational_rnn.ops.relational_scan.cpu import relational_scan_cpu, unsupported
from relational_rnn.ops.relational_scan.loop import happening, loop
from relational_rnn.ops.relational_scan.pieces import Marks
from relational_rnn.ops.relational_scan.readable import plain_backward
from relational_rnn.ops.relational_scan.reference import Scan, ScanParameters, advance, input_terms
from relational_rnn.ops.relational_scan.spec import Spec, flatten, spec_of, unflatten

TENSORS = "Tensor x, Tensor memory, Tensor[] tensors, Tensor? lengths, Tensor? reset, Tensor? initial"
SPEC = (
    "str formulation, int num_heads, int key_size, float forget_bias, float input_bias, bool competitive, "
    "int mlp_layers, int blocks, bool gates, bool input_rows, ScalarType? autocast"
)
KERNELS = "bool kernels"


def scan_as_operator(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters,
    lengths: Tensor | None,
    reset: Tensor | None,
    initial: Tensor | None,
    input_rows: bool,
    kernels: bool = False,
) -> Scan:
    """The scan as one operator: by `loop`, or with `kernels` by compiled kernels where they take it."""
    device = x.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    spec = spec_of(params, input_rows=input_rows, autocast=autocast)
    outputs = _forward(x, memory, flatten(params), lengths, reset, initial, kernels, *spec.flat())
    return Scan(outputs[0], outputs[1], outputs[2] if input_rows else None)


def _run(x: Tensor, memory: Tensor, tensors: Sequence[Tensor], marks: Marks, kernels: bool, spec: Spec) -> list[Tensor]:
    params = unflatten(tensors, spec)
    takes = kernels and spec.autocast is None and unsupported(x, memory, params) is None
    scan = relational_scan_cpu if takes else loop
    with torch.autocast(x.device.type, dtype=spec.autocast, enabled=spec.autocast is not None):
        made = scan(x, memory, params, marks, input_rows=spec.input_rows)
    return [tensor for tensor in made if tensor is not None]


@torch.library.custom_op("relational_rnn::scan", mutates_args=(), schema=f"({TENSORS}, {KERNELS}, {SPEC}) -> Tensor[]")
def _forward(x, memory, tensors, lengths, reset, initial, kernels, *spec):
    if lengths is not None and lengths.numel() > 0:  # what the layer cannot check while it is traced
        low, high = (int(bound) for bound in lengths.aminmax())
        if low < 0 or high > x.shape[1]:
            got = f"values from {low} to {high}"
            raise InputError(
                describe("relational_scan", "lengths is out of range", got=got, expected=f"0 to {x.shape[1]}")
            )
    with torch.no_grad():  # the backward pass runs the steps itself
        made = _run(x, memory, tensors, Marks(lengths, reset, initial), kernels, Spec.of(spec))
    # An operator's outputs are contiguous and share no memory; a scan makes each of its own.
    return [tensor.contiguous() for tensor in made]


@_forward.register_fake
def _(x, memory, tensors, lengths, reset, initial, kernels, *spec):
    batch, steps, rows = x.shape[:3]
    shapes = [(batch, steps, *memory.shape[1:]), memory.shape]
    if Spec.of(spec).input_rows:
        shapes.append((batch, steps, rows, memory.shape[-1]))
    return [memory.new_empty(shape) for shape in shapes]


# Below the autograd key a kernel cannot use autograd itself, so this one lets that key fall through. (torch.func.vjp
# would work anywhere, but it keeps its backward differentiable: slower, and wrong by whole multiples in bfloat16.)
_library = torch.library.Library("relational_rnn", "FRAGMENT")
_library.define(f"scan_backward(Tensor[] cotangents, {TENSORS}, {KERNELS}, {SPEC}) -> Tensor[]")
_library.impl("scan_backward", torch.library.fallthrough_kernel, "Autograd")


@torch.library.impl("relational_rnn::scan_backward", "default", lib=_library)
def _backward(cotangents, x, memory, tensors, lengths, reset, initial, kernels, *spec):
    given = [x, memory, *tensors, *([] if initial is None else [initial])]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in [*cotangents, *given]):
        raise RuntimeError("relational_scan as an operator (under torch.compile) has no double backward")

    def scan(x: Tensor, memory: Tensor, *rest: Tensor) -> list[Tensor]:
        marks = Marks(lengths, reset, None if initial is None else rest[-1])
        return _run(x, memory, rest[: len(tensors)], marks, kernels, Spec.of(spec))

    with torch.no_grad():
        found = plain_backward(scan, given, [True] * len(given), cotangents)
    gradients = [torch.zeros_like(t) if d is None else d for d, t in zip(found, given, strict=True)]
    return [gradient.clone(memory_format=torch.contiguous_format) for gradient in gradients]  # may be a cotangent


@torch.library.register_fake("relational_rnn::scan_backward", lib=_library)
def _(cotangents, x, memory, tensors, lengths, reset, initial, kernels, *spec):
    leaves = [x, memory, *tensors, *([] if initial is None else [initial])]
    return [leaf.new_empty(leaf.shape) for leaf in leaves]


def _setup_context(ctx, inputs, output):
    x, memory, tensors, lengths, reset, initial, *ctx.how = inputs
    ctx.save_for_backward(x, memory, lengths, reset, initial, *tensors)


def _pull_back(ctx, cotangents):
    x, memory, lengths, reset, initial, *tensors = ctx.saved_tensors
    backward = torch.ops.relational_rnn.scan_backward
    gradients = backward(cotangents, x, memory, tensors, lengths, reset, initial, *ctx.how)
    last = None if initial is None else gradients.pop()
    return gradients[0], gradients[1], gradients[2:], None, None, last, *[None] * len(ctx.how)


_forward.register_autograd(_pull_back, setup_context=_setup_context)

scan_operator = torch.ops.relational_rnn.scan.default


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
    """The operator as one loop of PyTorch operations, for exporters that do not know it; forward only.

    `torch.onnx.export` finds it in PyTorch's table of decompositions, so a layer exports as one `Scan`.
    """
    # The one loop that exporters keep as a loop; it has no public name yet.
    from torch._higher_order_ops.scan import scan

    # Its own derivative cannot be exported where the batch is of any size, and none is wanted.
    x, memory, *tensors = (tensor.detach() for tensor in (x, memory, *tensors))
    initial = None if initial is None else initial.detach()
    how = Spec.of(spec)
    params, batch_of = unflatten(tensors, how), (slice(None), None, None)
    happens = happening(lengths, x.shape[1], x.device)
    if happens is not None:
        x = x.where(happens[:, :, None, None], 0)  # padding may hold anything, even NaN
    with torch.autocast(x.device.type, dtype=how.autocast, enabled=how.autocast is not None):
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
            after, seen = torch.where(happens, after, memory), seen.where(happens, 0)
            attended = attended.where(happens, 0)
        # What a body returns must not share memory with what it was given, nor with its other results.
        return after.clone(), (seen.clone(), attended.clone())

    with torch.autocast(x.device.type, dtype=how.autocast, enabled=how.autocast is not None):
        last, (memories, attended) = scan(body, memory.clone(), steps)
    outputs = [memories, attended] if how.input_rows else [memories]
    memories, *attended = (t.movedim(0, 1).clone(memory_format=torch.contiguous_format) for t in outputs)
    return [memories, last, *attended]
