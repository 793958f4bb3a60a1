"""What every core checks of its arguments: shapes, dtypes and ranges.

Ranges are values, which are read back from the device once per call. Inside `torch.compile` and `torch.export` there
are no values, and only shapes and dtypes are checked.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from relational_rnn._check import MOST, MOST_NUMBERS, InputError, check_shape, describe

if TYPE_CHECKING:
    from relational_rnn.nn.core import Core, Numbers

Device = torch.device | str | None
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
STEPS_HINT = (
    "a call takes the state before its first step alone: of states that were kept for every step, the first one."
)
START_HINT = "start a sequence with core.initial_state(batch_size), or pass state=None."


def check_sequence(core: Core, x: Tensor, lengths: Numbers | None, reset: Tensor | None) -> Tensor | None:
    """The lengths as a tensor, or None; `x` [B, T, I], `lengths` and `reset` are refused where they do not fit."""
    where = type(core).__name__
    check_shape(where, "x", x, {"B": None, "T": None, "I": core.input_size})
    check_kind(core, "x", x)
    batch_size, steps = x.shape[:2]
    if reset is not None:
        check_reset(where, reset, {"B": batch_size, "T": steps}, x.device)
    if lengths is None:
        return None
    return check_whole_numbers(where, "lengths", lengths, {"B": batch_size}, x.device, highest=steps)


def check_reset(where: str, reset: Tensor, axes: Mapping[str, int | None], device: torch.device) -> None:
    """Refuse a `reset` that does not hold booleans on these axes."""
    check_shape(where, "reset", reset, axes)
    hint = "compare first, for example reset=(episode_start != 0)."
    check_booleans(where, "reset", reset, device, hint=hint)


def check_questions(core: nn.Module, x: Tensor, rows: Numbers, at: Numbers) -> tuple[Tensor, Tensor]:
    """`rows` and `at` as tensors; refused unless they are [M] whole numbers of rows and steps in `x` [B, T]."""
    where = type(core).__name__
    rows = check_whole_numbers(where, "rows", rows, {"M": None}, x.device, highest=x.shape[0] - 1)
    return rows, check_whole_numbers(where, "at", at, {"M": rows.shape[0]}, x.device, highest=x.shape[1])


def check_whole_numbers(
    where: str, name: str, numbers: Numbers, axes: Mapping[str, int | None], device: torch.device, *, highest: int
) -> Tensor:
    """`numbers` as a tensor; refused unless it holds whole numbers in 0..highest."""
    problem = f"{name} must be whole numbers"
    if isinstance(numbers, np.ndarray) and numbers.dtype.kind in "iu":
        numbers = torch.as_tensor(numbers.astype(np.int64), device=device)
    elif not isinstance(numbers, Tensor):
        if not isinstance(numbers, list | tuple) or not all(map(_is_whole, numbers)):
            expected = "whole numbers in a tensor, a list, a tuple or an array"
            raise InputError(describe(where, problem, got=reprlib.repr(numbers), expected=expected))
        numbers = torch.tensor([int(one) for one in numbers], dtype=torch.int64, device=device)
    check_shape(where, name, numbers, axes)
    if numbers.dtype not in (torch.int64, torch.int32):
        raise InputError(describe(where, problem, got=numbers.dtype, expected="torch.int64 or torch.int32"))
    check_device(where, name, numbers, device)
    if torch.compiler.is_compiling() or numbers.numel() == 0:
        return numbers
    low, high = (int(bound) for bound in numbers.aminmax())
    if low < 0 or high > highest:
        got = f"values from {low} to {high}"
        raise InputError(describe(where, f"{name} is out of range", got=got, expected=f"0 to {highest}"))
    return numbers


def _is_whole(number: object) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and abs(int(number)) <= MOST


def check_booleans(where: str, name: str, tensor: Tensor, device: torch.device, *, hint: str | None = None) -> None:
    """Refuse a tensor that does not hold booleans, or is on another device."""
    if tensor.dtype != torch.bool:
        raise InputError(describe(where, f"{name} must be booleans", got=tensor.dtype, expected=torch.bool, hint=hint))
    check_device(where, name, tensor, device)


def check_kind(core: nn.Module, name: str, tensor: Tensor) -> None:
    """Refuse a tensor whose device or dtype is not that of the core's parameters (autocast may mix dtypes)."""
    where, (device, dtype) = type(core).__name__, place_of(core)
    check_device(where, name, tensor, device)
    mixed = tensor.dtype != dtype
    if mixed and not (tensor.dtype.is_floating_point and torch.is_autocast_enabled(tensor.device.type)):
        hint = f"convert one of them, for example {name}.to({dtype})."
        problem = f"{name} has another dtype than the parameters"
        raise InputError(describe(where, problem, got=tensor.dtype, expected=dtype, hint=hint))


def place_of(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and dtype in which a module computes: those of its first parameter."""
    parameter = _first_parameter(module)
    if parameter is None:  # quantised linear layers alone, which take and give float32 on the CPU
        return torch.device("cpu"), torch.float32
    return parameter.device, parameter.dtype


def start_at(
    module: nn.Module, batch_size: int, device: Device, dtype: torch.dtype | None, numbers: int = 1
) -> tuple[torch.device, torch.dtype]:
    """The device and dtype of an initial state for `batch_size` sequences of `numbers` each; all are checked."""
    where = type(module).__name__
    if isinstance(batch_size, Tensor) and torch._C._get_tracing_state() is not None:
        hint = "record it with torch.export.export, or relational_rnn.nn.export; or pass the state as well."
        raise InputError(describe(where, "torch.jit.trace would fix the size of the batch", hint=hint))
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | torch.SymInt) or batch_size < 0:
        problem = "batch_size must be a whole number of at least 0"
        raise InputError(describe(where, problem, got=repr(batch_size), expected=">= 0"))
    if isinstance(batch_size, int) and batch_size * numbers > MOST_NUMBERS:
        problem = "an initial state of this batch_size has more numbers than any machine holds"
        raise InputError(describe(where, problem, got=f"{batch_size:.1e} times {numbers}"))
    check_place(where, device, dtype)
    own_device, own_dtype = place_of(module)
    return own_device if device is None else torch.device(device), own_dtype if dtype is None else dtype


def check_place(where: str, device: Device, dtype: torch.dtype | None) -> None:
    """Refuse a device that is not here, and a dtype that layers cannot compute in."""
    if dtype is not None and dtype not in DTYPES:
        expected = "one of " + ", ".join(map(str, DTYPES))
        raise InputError(describe(where, "dtype is not one that layers compute in", got=repr(dtype), expected=expected))
    if device is None or (isinstance(device, torch.device) and device.type in ("cpu", "meta")):
        return
    if not isinstance(device, str | torch.device):
        hint = 'name it, for example device="cpu" or device="cuda:0".'
        raise InputError(describe(where, "device must be a string or a torch.device", got=repr(device), hint=hint))
    if torch.compiler.is_compiling():
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # how PyTorch says that it has no such device
        first = str(error).strip().split("\n")[0].split(". ")[0]
        raise InputError(describe(where, f"device {str(device)!r} cannot be used here", got=first)) from error


def _first_parameter(module: nn.Module) -> nn.Parameter | None:
    """`next(module.parameters())`, or None, in a quarter of the time: a single step is that short."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    for child in module._modules.values():
        found = None if child is None else _first_parameter(child)
        if found is not None:
            return found
    return None


def check_device(where: str, name: str, tensor: Tensor, device: torch.device) -> None:
    """Refuse a tensor that is on another device."""
    if tensor.device != device:
        raise InputError(describe(where, f"{name} is on another device", got=tensor.device, expected=device))
