"""The whole recurrence as two kernels for NVIDIA GPUs, one per direction, with a backward pass written by hand.

What depends on the input alone is computed by PyTorch for all steps at once, and so are the gradients of the weights;
in between, one kernel takes every sequence through all its steps. README.md has the tiling and what is refused.
"""

# Shape legend
#   B  batch             N  memory slots                H  heads
#   T  time steps        M  memory width, H * V         K  key size, V value size per head
#   n  input rows        G  gate width, M or 1          F  H * (2K + V), queries, keys and values of all heads
#   I  input features    L  layers of the MLP           C  steps of a chunk

# pyright: reportMissingImports=false

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.ops.relational_scan._triton_launch import MOST_ROWS, Recurrence, TritonSizes, weights_of
from relational_rnn.ops.relational_scan.loop import ActivationMode, happening, loop
from relational_rnn.ops.relational_scan.reference import Scan, ScanParameters, input_terms, layer_norm, linear
from relational_rnn.ops.relational_scan.spec import flatten, misfit

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WIDEST = 512  # memory; README.md has the arithmetic
_LARGEST_PART = 128  # numbers of a key, of a value


def unsupported(x: Tensor, memory: Tensor, params: ScanParameters, *, input_rows: bool = False) -> str | None:
    """Why `relational_scan_triton` cannot take these, or None if it can."""
    if torch.compiler.is_compiling():
        return "it cannot be traced, compiled or exported"
    if params.settings.competitive:
        return "it does not compute slots that compete for the input (gate_style='competitive')"
    tensors = [x, memory, *flatten(params)]
    if any(type(t) not in (Tensor, torch.nn.Parameter) for t in tensors):
        return "it takes plain tensors only"
    if find_spec("triton") is None:
        return "the package triton is not installed"
    elsewhere = [t.device for t in tensors if t.device.type != "cuda"]
    if elsewhere and not (elsewhere[0].type == "cpu" and interpreted()):
        return f"it runs on an NVIDIA GPU, not on {elsewhere[0]}"
    if len({t.device for t in tensors}) > 1:
        return "it needs all tensors on one device"
    if not elsewhere and (torch.version.hip is not None or torch.cuda.get_device_capability(x.device) < (8, 0)):
        return "it needs an NVIDIA GPU of compute capability 8.0 or later"
    dtypes = {t.dtype for t in tensors}
    if len(dtypes) > 1:
        return "it needs one dtype throughout, not " + ", ".join(sorted(str(d)[6:] for d in dtypes))
    if not dtypes <= set(DTYPES):
        return f"it does not compute in {str(dtypes.pop())[6:]}"
    if elsewhere and x.dtype == torch.bfloat16:
        return "its interpreter on the CPU cannot multiply bfloat16 matrices"
    if torch.is_autocast_enabled(x.device.type):
        return "it does not follow autocast"
    if torch._C._are_functorch_transforms_active():
        return "it does not work under the transforms of torch.func"
    if torch.autograd.forward_ad._current_level >= 0:
        return "it has no forward-mode derivative"
    return _not_taken(x, memory, params, input_rows)


def _not_taken(x: Tensor, memory: Tensor, params: ScanParameters, input_rows: bool) -> str | None:
    """What of the sizes and choices the kernels do not take."""
    slots, width = memory.shape[1:]
    value = width // params.settings.num_heads
    if len(params.blocks) > 1:
        return f"it takes one attention block per step, not {len(params.blocks)}"
    if input_rows:
        return "it does not compute the attended rows of the input"
    if slots > MOST_ROWS:
        return f"it takes at most {MOST_ROWS} slots, not {slots}"
    if x.shape[2] > slots and x.shape[2] > MOST_ROWS:
        return f"it takes at most {MOST_ROWS} input rows, not {x.shape[2]}"
    if max(params.settings.key_size, value) > _LARGEST_PART:
        return (
            f"it takes keys and values of at most {_LARGEST_PART} numbers, not {max(params.settings.key_size, value)}"
        )
    if width > _WIDEST:
        return f"it takes memories at most {_WIDEST} wide, not {width}"
    return None


def interpreted() -> bool:
    """Whether the kernels run under Triton's interpreter, on the CPU (`TRITON_INTERPRET=1`)."""
    from triton import JITFunction

    from relational_rnn.ops.relational_scan._triton_forward import forward_kernel

    return not isinstance(forward_kernel, JITFunction)


def relational_scan_triton(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: Tensor | None = None,
    activations: ActivationMode = "store",
) -> Scan:
    """The relational memory over a whole sequence, one kernel per direction; equals `relational_scan_reference`.

    The arguments and the result are those of `relational_scan`, without the attended rows of the input. With
    `activations="recompute"` the memories alone are kept, which are the result, and the rest is computed again in
    sqrt(T) chunks of sqrt(T) steps.

    float16, bfloat16, float32 or float64, one dtype throughout; sums are float32 (float64 for float64), and products
    of float32 matrices are as exact as `torch.backends.cuda.matmul.fp32_precision` says. Gradients flow into every
    tensor; there are no gradients of gradients. Repeats are equal bit by bit.

    Raises:
        InputError: not of a kind that this implementation takes (see `unsupported`), or the parameters' sizes do not go
            together.
    """
    check_choice("relational_scan_triton", "activations", activations, ("store", "recompute"))
    reason = unsupported(x, memory, params)
    if reason is not None:
        hint = "backend='reference' computes the same, and so does 'auto'."
        raise InputError(describe("relational_scan_triton", f"cannot be used here: {reason}", hint=hint))
    wrong = misfit(params, x, memory)
    if wrong is not None:
        raise InputError(describe("relational_scan_triton", wrong))
    assert reset is None or initial is not None
    if x.numel() == 0:
        return loop(x, memory, params, lengths, reset, initial)
    happens = happening(lengths, x.shape[1], x.device)
    if happens is not None:
        x = x.where(happens[:, :, None, None], 0)  # padding may hold anything, even NaN
    rows, gate_terms = input_terms(x, params)
    if params.gate_memory is not None:
        assert gate_terms is not None
        constants = [params.settings.input_bias, params.settings.forget_bias]
        half = params.gate_memory.bias.shape[0] // 2
        gate_terms = gate_terms + (params.gate_memory.bias + x.new_tensor(constants).repeat_interleave(half))
    block = params.blocks[0]
    input_qkv = linear(rows, block.qkv)
    if block.qkv_norm is not None:
        input_qkv = layer_norm(input_qkv, block.qkv_norm)
    sizes = TritonSizes(
        x.shape[0],
        x.shape[1],
        memory.shape[1],
        x.shape[2],
        memory.shape[2],
        block.qkv.weight.shape[0],
        params.settings.num_heads,
        params.settings.key_size,
        len(params.mlp),
        None if params.gate_memory is None else params.gate_memory.weight.shape[0],
        params.settings.formulation == "sonnet",
    )
    initial = None if reset is None else initial
    memories, final = Recurrence.apply(
        sizes, activations, input_qkv, gate_terms, memory, lengths, reset, initial, *weights_of(params)
    )
    return Scan(memories, final, None)
