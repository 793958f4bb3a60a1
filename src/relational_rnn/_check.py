"""The one error pattern: where, what is wrong, got, expected, hint.

Every mistake of a caller raises `InputError` (a `ValueError`) with a complete message; the command line prints it and
exits with code 2. Mistakes of our own are assertions.
"""

from __future__ import annotations

import importlib
import reprlib
import sys
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class InputError(ValueError):
    """Something the caller gave cannot be used. The message says where, what, and what would work."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed. The message names the extra that brings it."""


def describe(where: str, problem: str, *, got: object = None, expected: object = None, hint: str | None = None) -> str:
    """The pinned layout of a message: one sentence, then aligned lines for whatever of the three is given."""
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
    """(B=7, I=3); only ever built for an error, as writing a size down would fix it while a graph is being traced."""
    return "(" + ", ".join(f"{axis}={'any' if size is None else size}" for axis, size in axes.items()) + ")"


def check_choice(where: str, name: str, value: object, choices: Collection[object], *, hint: str | None = None) -> None:
    """Refuse `value` unless it is one of `choices`."""
    if value not in list(choices):  # a list is compared, where a dict or a set would want a hash
        expected = "one of " + ", ".join(repr(choice) for choice in choices)
        raise InputError(
            describe(where, f"{name} is not a known choice", got=repr(value), expected=expected, hint=hint)
        )


def check_flags(where: str, **values: bool) -> None:
    """Refuse any of `values` that is not True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InputError(describe(where, f"{name} must be True or False", got=repr(value)))


def is_number(value: object) -> bool:
    """Whether `value` is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    """Whether `value`, a text or a path, can be written in UTF-8; a name that the system holds in other bytes cannot.

    >>> import os
    >>> is_text("name"), is_text(os.fsdecode(b"\\xff"))
    (True, False)
    """
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


MOST = 2**31 - 1
"""The largest size of anything."""
MOST_LAYERS = 1024
"""The most layers, blocks or passes: each is a module, or a turn of a loop, of its own."""
MOST_NUMBERS = 2**32
"""The most numbers that the weights and one state of a module may have together, 16 GiB in float32."""


def one_line(text: str) -> str:
    """The text without what is no letter, sign or blank: line ends, control characters, bytes that are no UTF-8.

    >>> one_line("run\\n1")
    'run\N{REPLACEMENT CHARACTER}1'
    """
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def check_numbers(where: str, **values: float) -> None:
    """Refuse what is no number, NaN, and whole numbers that no float holds.

    >>> check_numbers("layer", bias=0.5, other=3)
    """
    for name, value in values.items():
        # a comparison of a whole number with a float is exact, whatever its size
        if not is_number(value) or value != value or (isinstance(value, int) and abs(value) > sys.float_info.max):
            raise InputError(describe(where, f"{name} must be a number", got=reprlib.repr(value)))


def check_positive(where: str, **values: int) -> None:
    """Refuse any of `values` that is not a whole number from 1 to `MOST`."""
    _check_up_to(where, MOST, values)


def check_counts(where: str, **values: int) -> None:
    """Refuse any of `values` that is not a whole number from 1 to `MOST_LAYERS`."""
    _check_up_to(where, MOST_LAYERS, values)


def _check_up_to(where: str, most: int, values: Mapping[str, int]) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(
                describe(where, f"{name} must be a whole number of at least 1", got=repr(value), expected=">= 1")
            )
        if value > most:
            got = str(value) if value < 10**12 else "a number of more than 12 digits"
            raise InputError(describe(where, f"{name} is too large", got=got, expected=f"1 to {most:,}"))


def check_room(where: str, *numbers: int) -> None:
    """Refuse sizes by which weights and state would have more than `MOST_NUMBERS`; `numbers` are those of each part."""
    total = sum(numbers)
    if total > MOST_NUMBERS:
        problem = "these sizes ask for more weights and state than any machine holds"
        raise InputError(describe(where, problem, got=f"{total:.1e} numbers", expected=f"up to {MOST_NUMBERS:.1e}"))


def need_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package {module.split('.')[0]!r}, which is not installed: "
            f'pip install "relational-rnn[{extra}]"'
        ) from error
