"""The whole recurrence as two kernels for NVIDIA GPUs, one per direction.

PyTorch computes what depends on the input alone, and the gradients of the weights, for all steps at once. In between
one kernel takes every sequence through its steps. README.md has the tiling and what is refused.
"""

# Shape legend: as in reference.py; L layers of the MLP, C steps of a chunk

# pyright: reportMissingImports=false

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._triton_launch import MOST_ROWS, Recurrence, TritonSizes, weights_of
from relational_rnn.ops.relational_scan.loop import ActivationMode, happening, loop
from relational_rnn.ops.relational_scan.pieces import Marks
from relational_rnn.ops.relational_scan.readable import unlike, watcher
from relational_rnn.ops.relational_scan.reference import Scan, ScanParameters, input_terms, layer_norm, linear
from relational_rnn.ops.relational_scan.spec import check_fit, flatten

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WIDEST = 512  # memory; README.md has the arithmetic
_LARGEST_PART = 128  # numbers of a key, of a value


def unsupported(x: Tensor, memory: Tensor, params: ScanParameters, *, input_rows: bool = False) -> str | None:
    """Why `relational_scan_triton` cannot take these, or None if it can."""
    watched = watcher()
    if watched is not None:
        return watched
    if params.settings.competitive:
        return "it does not compute slots that compete for the input (gate_style='competitive')"
    if find_spec("triton") is None:
        return "the package triton is not installed"
    tensors = [x, memory, *flatten(params)]
    elsewhere = [t.device for t in tensors if t.device.type != "cuda"]
    if elsewhere and not (elsewhere[0].type == "cpu" and interpreted()):
        return f"it runs on an NVIDIA GPU, not on {elsewhere[0]}"
    if len({t.device for t in tensors}) > 1:
        return "it needs all tensors on one device"
    if not elsewhere and (torch.version.hip is not None or torch.cuda.get_device_capability(x.device) < (8, 0)):
        return "it needs an NVIDIA GPU of compute capability 8.0 or later"
    reason = unlike(tensors)
    if reason is not None:
        return reason
    if x.dtype not in DTYPES:
        return f"it does not compute in {str(x.dtype)[6:]}"
    if elsewhere and x.dtype == torch.bfloat16:
        return "its interpreter on the CPU cannot multiply bfloat16 matrices"
    if torch.is_autocast_enabled(x.device.type):
        return "it does not follow autocast"
    slots, width = memory.shape[1:]
    part = max(params.settings.key_size, width // params.settings.num_heads)
    if len(params.blocks) > 1:
        return f"it takes one attention block per step, not {len(params.blocks)}"
    if input_rows:
        return "it does not compute the attended rows of the input"
    if slots > MOST_ROWS:
        return f"it takes at most {MOST_ROWS} slots, not {slots}"
    if x.shape[2] > slots and x.shape[2] > MOST_ROWS:
        return f"it takes at most {MOST_ROWS} input rows, not {x.shape[2]}"
    if part > _LARGEST_PART:
        return f"it takes keys and values of at most {_LARGEST_PART} numbers, not {part}"
    return f"it takes memories at most {_WIDEST} wide, not {width}" if width > _WIDEST else None


def interpreted() -> bool:
    """Whether the kernels run under Triton's interpreter, on the CPU (`TRITON_INTERPRET=1`)."""
    from triton import JITFunction

    from relational_rnn.ops.relational_scan._triton_forward import forward_kernel

    return not isinstance(forward_kernel, JITFunction)


def relational_scan_triton(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters,
    marks: Marks,
    *,
    activations: ActivationMode = "store",
) -> Scan:
    """`relational_scan` by one kernel per direction, where `unsupported` has nothing against it.

    "recompute" keeps the memories alone, which are the result, and computes the rest again in sqrt(T) chunks of sqrt(T)
    steps. Sums are float32 (float64 for float64), and products of float32 matrices are as exact as
    `torch.backends.cuda.matmul.fp32_precision` says. There are no gradients of gradients. Repeats are equal bit by bit.

    Raises:
        InputError: a parameter, the memory, lengths or resets do not fit.
    """
    check_fit(x, memory, params, marks)
    if x.numel() == 0:
        return loop(x, memory, params, Marks())
    happens = happening(marks.lengths, x.shape[1], x.device)
    if happens is not None:
        x = x.where(happens[:, :, None, None], 0)  # padding may hold anything, even NaN
    settings, block = params.settings, params.blocks[0]
    rows, gate_terms = input_terms(x, params)
    if params.gate_memory is not None and gate_terms is not None:
        constants = x.new_tensor([settings.input_bias, settings.forget_bias])
        gate_terms = gate_terms + params.gate_memory.bias + constants.repeat_interleave(gate_terms.shape[-1] // 2)
    input_qkv = linear(rows, block.qkv)
    if block.qkv_norm is not None:
        input_qkv = layer_norm(input_qkv, block.qkv_norm)
    (batch, steps, inputs, qkv), (slots, width) = input_qkv.shape, memory.shape[1:]
    gates = 0 if gate_terms is None else gate_terms.shape[-1]
    heads, sonnet = settings.num_heads, settings.formulation == "sonnet"
    sizes = TritonSizes(
        batch, steps, slots, inputs, width, qkv, heads, settings.key_size, len(params.mlp), gates, sonnet
    )
    given = input_qkv, gate_terms, *marks, *weights_of(params)
    memories, final = Recurrence.apply(sizes, activations, memory, *given)
    return Scan(memories, final, None)
