"""What every core checks at its door: shapes, dtypes and ranges, each refusal in the one error pattern.

Ranges are values, so they are read back from the device once per call; inside `torch.compile` and `torch.export`
values do not exist yet, and only shapes and dtypes are checked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_shape, describe
from relational_rnn.nn.core import Core, State

START_HINT = "start a sequence with core.initial_state(batch_size), or pass state=None."
RESET_HINT = "compare first, for example reset=(episode_start != 0)."


def check_sequence(
    core: Core,
    x: Tensor,
    lengths: Tensor | None,
    reset: Tensor | None,
    *,
    features: Mapping[str, int | None] | None = None,
) -> None:
    """Refuse an `x` that is not [B, T, I] in the parameters' dtype, or `lengths` or `reset` that do not fit it.

    `features` names the axes after T where they are not just I.
    """
    where = type(core).__name__
    check_shape(where, "x", x, {"B": None, "T": None, **(features or {"I": core.input_size})})
    check_kind(core, "x", x)
    batch_size, steps = x.shape[:2]
    if lengths is not None:
        check_whole_numbers(where, "lengths", lengths, {"B": batch_size}, x.device, highest=steps)
    if reset is not None:
        check_shape(where, "reset", reset, {"B": batch_size, "T": steps})
        check_booleans(where, "reset", reset, x.device, hint=RESET_HINT)


def check_step(core: Core, x_t: Tensor) -> None:
    """Refuse an `x_t` that is not [B, I] in the parameters' dtype."""
    check_shape(type(core).__name__, "x_t", x_t, {"B": None, "I": core.input_size})
    check_kind(core, "x_t", x_t)


def check_questions(core: Core, x: Tensor, rows: Tensor, at: Tensor) -> None:
    """Refuse `rows` and `at` unless they are [M] whole numbers that name rows and steps of `x` [B, T, ...]."""
    where = type(core).__name__
    check_whole_numbers(where, "rows", rows, {"M": None}, x.device, highest=x.shape[0] - 1)
    check_whole_numbers(where, "at", at, {"M": rows.shape[0]}, x.device, highest=x.shape[1])


def check_whole_numbers(
    where: str, name: str, tensor: Tensor, axes: Mapping[str, int | None], device: torch.device, *, highest: int
) -> None:
    """Refuse `tensor` unless it holds whole numbers in 0..highest."""
    check_shape(where, name, tensor, axes)
    if tensor.dtype not in (torch.int64, torch.int32):
        raise InputError(
            describe(where, f"{name} must be whole numbers", got=tensor.dtype, expected="torch.int64 or torch.int32")
        )
    check_device(where, name, tensor, device)
    if torch.compiler.is_compiling() or tensor.numel() == 0:
        return
    low, high = (int(bound) for bound in tensor.aminmax())
    if low < 0 or high > highest:
        got = f"values from {low} to {high}"
        raise InputError(describe(where, f"{name} is out of range", got=got, expected=f"0 to {highest}"))


def check_state_tensor(core: Core, state: State, axes: Mapping[str, int | None]) -> None:
    """Refuse `state` unless it is one tensor with the named axes."""
    where = type(core).__name__
    if not isinstance(state, Tensor):
        problem = "state must be a tensor"
        raise InputError(describe(where, problem, got=type(state).__name__, hint=START_HINT))
    check_shape(where, "state", state, axes, hint=START_HINT)
    check_kind(core, "state", state)


def check_state_tensors(
    core: Core, state: State, axes: Mapping[str, Mapping[str, int | None]], *, masks: Collection[str] = ()
) -> dict[str, Tensor]:
    """Refuse `state` unless it is a dict of exactly the named tensors and axes; S is the same in all of them.

    `masks` are booleans, all others of the parameters' dtype.
    """
    where = type(core).__name__
    if not isinstance(state, dict) or set(state) != set(axes):
        got = sorted(state) if isinstance(state, dict) else type(state).__name__
        problem = "state must be a dict of the tensors of this core"
        raise InputError(describe(where, problem, got=got, expected=sorted(axes), hint=START_HINT))
    stored = None
    for name, expected in axes.items():
        if "S" in expected:
            expected = {**expected, "S": stored}
        check_shape(where, f'state["{name}"]', state[name], expected, hint=START_HINT)
        if "S" in expected:
            stored = state[name].shape[1]
        if name in masks:
            parameter = _first_parameter(core)
            assert parameter is not None
            check_booleans(where, f'state["{name}"]', state[name], parameter.device, hint=START_HINT)
        else:
            check_kind(core, f'state["{name}"]', state[name])
    return state


def check_booleans(where: str, name: str, tensor: Tensor, device: torch.device, *, hint: str | None = None) -> None:
    """Refuse a tensor that does not hold booleans, or is on another device."""
    if tensor.dtype != torch.bool:
        raise InputError(describe(where, f"{name} must be booleans", got=tensor.dtype, expected=torch.bool, hint=hint))
    check_device(where, name, tensor, device)


def check_kind(core: nn.Module, name: str, tensor: Tensor) -> None:
    """Refuse a tensor whose device or dtype is not that of the core's parameters (autocast may mix dtypes)."""
    where, parameter = type(core).__name__, _first_parameter(core)
    assert parameter is not None
    check_device(where, name, tensor, parameter.device)
    mixed = tensor.dtype != parameter.dtype
    if mixed and not (tensor.dtype.is_floating_point and torch.is_autocast_enabled(tensor.device.type)):
        hint = f"convert one of them, for example {name}.to({parameter.dtype})."
        problem = f"{name} has another dtype than the parameters"
        raise InputError(describe(where, problem, got=tensor.dtype, expected=parameter.dtype, hint=hint))


def _first_parameter(module: nn.Module) -> nn.Parameter | None:
    """`next(module.parameters())`, or None, in a quarter of the time, which a single step can feel."""
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
