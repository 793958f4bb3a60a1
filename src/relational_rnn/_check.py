"""The one error pattern: where, what is wrong, got, expected, hint.

A caller's mistake raises `InputError` (a `ValueError`) with a complete message; the command line prints it and exits
with code 2. Our own mistakes are assertions.
"""

from __future__ import annotations

import importlib
import math
import reprlib
import sys
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MOST = 2**31 - 1
"""The largest size of anything, and the largest seed."""
MOST_LAYERS = 1024
"""The most layers, blocks or passes: each is a module, or a turn of a loop, of its own."""
MOST_NUMBERS = 2**32
"""The most numbers that the weights and one state of a module may have together, 16 GiB in float32."""


class InputError(ValueError):
    """Something the caller gave cannot be used. The message says where, what, and what would work."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed. The message names the extra that brings it."""


def describe(
    where: object, problem: str, *, got: object = None, expected: object = None, hint: str | None = None
) -> str:
    """The layout of a message: one sentence, then a line for each of the three that is given."""
    lines = [f"{where}: {problem}"]
    for label, value in (("got", got), ("expected", expected), ("hint", hint)):
        if value is not None:
            lines.append(f"  {label:<9} {value}")
    return "\n".join(lines)


def check_shape(
    where: str, name: str, tensor: Tensor, axes: Mapping[str, int | None], *, hint: str | None = None
) -> None:
    """Refuse `tensor` unless it has exactly the named axes, in order; a size of None accepts any size.

    >>> import torch
    >>> check_shape("demo", "x", torch.zeros(7, 4), {"B": None, "I": 3})
    Traceback (most recent call last):
    ...
    relational_rnn._check.InputError: demo: x has the wrong size on axis I
      got       (B=7, I=4)
      expected  (B=any, I=3)
    """
    import torch  # here, so that `relational-rnn --help` need not wait for it

    if not isinstance(tensor, torch.Tensor):
        raise InputError(describe(where, f"{name} must be a tensor", got=type(tensor).__name__, hint=hint))
    if tensor.layout is not torch.strided or tensor.is_nested:
        got = "a nested tensor" if tensor.is_nested else tensor.layout
        hint = "pad it: torch.nested.to_padded_tensor." if tensor.is_nested else "make it dense first, with to_dense()."
        raise InputError(describe(where, f"{name} must be a dense tensor", got=got, hint=hint))
    if tensor.dim() != len(axes):
        problem = f"{name} must have {len(axes)} axes, not {tensor.dim()}"
        raise InputError(describe(where, problem, got=tuple(tensor.shape), expected=_sizes(axes), hint=hint))
    wrong = [axis for (axis, size), n in zip(axes.items(), tensor.shape, strict=True) if size is not None and n != size]
    if wrong:
        noun = "axis" if len(wrong) == 1 else "axes"
        got = _sizes(dict(zip(axes, tensor.shape, strict=True)))
        problem = f"{name} has the wrong size on {noun} {', '.join(wrong)}"
        raise InputError(describe(where, problem, got=got, expected=_sizes(axes), hint=hint))


def _sizes(axes: Mapping[str, int | None]) -> str:
    """(B=7, I=3); built for errors alone: writing a size down would fix it while a graph is being traced."""
    return "(" + ", ".join(f"{axis}={'any' if size is None else size}" for axis, size in axes.items()) + ")"


def check_choice(where: str, name: str, value: object, choices: Collection[object], *, hint: str | None = None) -> None:
    """Refuse `value` unless it is one of `choices`."""
    if value not in list(choices):  # a list compares, where a dict or a set would want a hash
        expected = "one of " + ", ".join(repr(choice) for choice in choices)
        problem = f"{name} is not a known choice"
        raise InputError(describe(where, problem, got=repr(value), expected=expected, hint=hint))


def check_flags(where: str, **values: bool) -> None:
    """Refuse any of `values` that is not True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InputError(describe(where, f"{name} must be True or False", got=repr(value)))


def is_number(value: object) -> bool:
    """Whether `value` is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    """Whether a text or a path can be written in UTF-8; a name that the system holds in other bytes cannot."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def one_line(text: str) -> str:
    """The text on one line: a sign stands for each line end, control character and byte that is not UTF-8.

    >>> one_line("run\\n1")
    'run\N{REPLACEMENT CHARACTER}1'
    """
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def check_numbers(where: str, **values: float) -> None:
    """Refuse what is not a number, NaN, and whole numbers too large for a float."""
    for name, value in values.items():
        # comparing a whole number with a float is exact, whatever its size
        if not is_number(value) or value != value or (isinstance(value, int) and abs(value) > sys.float_info.max):
            raise InputError(describe(where, f"{name} must be a number", got=reprlib.repr(value)))


def check_range(
    where: str, name: str, value: float, low: float, high: float = math.inf, *, above: bool = False
) -> None:
    """Refuse what is not a finite number in [low, high], or in (low, high] with `above`."""
    if not is_number(value) or not (low < value if above else low <= value) or not value <= high or math.isinf(value):
        expected = f"a number {'above' if above else 'of at least'} {low:g}"
        expected += "" if math.isinf(high) else f" and at most {high:g}"
        raise InputError(describe(where, f"{name} is out of range", got=repr(value), expected=expected))


def check_from_zero(where: str, **values: int) -> None:
    """Refuse any of `values` that is not a whole number from 0 to `MOST`."""
    _check_whole(where, 0, MOST, values)


def check_positive(where: str, **values: int) -> None:
    """Refuse any of `values` that is not a whole number from 1 to `MOST`."""
    _check_whole(where, 1, MOST, values)


def check_counts(where: str, **values: int) -> None:
    """Refuse any of `values` that is not a whole number from 1 to `MOST_LAYERS`."""
    _check_whole(where, 1, MOST_LAYERS, values)


def _check_whole(where: str, least: int, most: int, values: Mapping[str, int]) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            problem = f"{name} must be a whole number of at least {least}"
            raise InputError(describe(where, problem, got=repr(value), expected=f">= {least}"))
        if value > most:
            got = str(value) if value < 10**12 else "a number of more than 12 digits"
            raise InputError(describe(where, f"{name} is too large", got=got, expected=f"{least} to {most:,}"))


def check_room(where: str, *numbers: int) -> None:
    """Refuse sizes that give weights and state more than `MOST_NUMBERS`; `numbers` has those of each part."""
    total = sum(numbers)
    if total > MOST_NUMBERS:
        problem = "these sizes ask for more weights and state than any machine holds"
        raise InputError(describe(where, problem, got=f"{total:.1e} numbers", expected=f"up to {MOST_NUMBERS:.1e}"))


def need_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name is None or error.name.split(".")[0] != package:
            raise
        command = f'pip install "relational-rnn[{extra}]"'
        raise MissingExtraError(
            f"{purpose} needs the package {package!r}, which is not installed: {command}"
        ) from error
