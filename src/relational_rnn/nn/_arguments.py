"""What is wrong with the arguments of a constructor, with a hint where another name stands for what was meant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

from relational_rnn._check import InputError, describe

P = ParamSpec("P")
DIRECTIONS = "a core reads in one direction; the guide shows how two of them read both ways (docs/guide.md)."
OF_LSTM = {
    "bidirectional": DIRECTIONS,
    "proj_size": "nothing projects the state; an nn.Linear after the core projects the output.",
    "bias": "all cores have biases.",
    "num_layers": "stack cores: the output of one is the input of the next, or take a core that has num_layers=.",
    "dropout": "put nn.Dropout before or after the core.",
    "batch_first": "the batch is always the first axis: x is [batch, time, features].",
    "device": "build it, then core.to(device).",
    "dtype": "build it, then core.to(dtype).",
}
"""Arguments of `torch.nn.LSTM`, and what stands for them where a core does not have them."""
OF_SLOTS = {
    "hidden_size": "the memory has mem_slots * num_heads * head_size numbers; output_size= gives any size.",
    "proj_size": "output_size= projects the output; the memory itself is not projected.",
    "memory_slots": "mem_slots= is the number of slots.",
    "mem_size": "a slot is num_heads * head_size wide.",
    "nonlinearity": "a step has no choice of it.",
}
"""The same for a memory of slots."""
BY_NAME = "the others are given by their names, such as num_layers= where a core has it."
OF_LAYER = "a cell is one step; RelationalMemory, which takes whole sequences, has it."
OF_CELL = {
    **OF_SLOTS,
    "proj_size": "the memory is not projected.",
    "hidden_size": "the memory has mem_slots * num_heads * head_size numbers.",
    **dict.fromkeys(("num_layers", "dropout", "batch_first", "output_size", "read_head", "backend"), OF_LAYER),
}
"""The same for one step of it."""


def bound_arguments(
    cls: type,
    signature: inspect.Signature,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    hints: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The arguments of a constructor by name, defaults included.

    Raises:
        InputError: one is unknown, missing, or given twice.
    """
    try:
        bound = signature.bind(None, *args, **kwargs)
    except TypeError as error:
        raise misfitting_arguments(cls, signature, args, kwargs, hints) from error
    bound.apply_defaults()
    return {name: value for name, value in list(bound.arguments.items())[1:]}


def of_a_cell(init: Callable[P, None]) -> Callable[P, None]:
    """The constructor of a cell of slots, whose misfitting arguments are refused with a hint."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def explaining(*args: P.args, **kwargs: P.kwargs) -> None:
        bound_arguments(type(args[0]), signature, args[1:], kwargs, {**OF_LSTM, **OF_CELL})
        init(*args, **kwargs)

    return explaining


def misfitting_arguments(
    cls: type,
    signature: inspect.Signature,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    hints: Mapping[str, str] | None = None,
) -> InputError:
    """The error for arguments that `signature` does not take.

    >>> from relational_rnn.nn import GRU
    >>> GRU(5, 8, bidirectional=True)
    Traceback (most recent call last):
    ...
    relational_rnn._check.InputError: GRU: there is no argument 'bidirectional'
      expected  input_size, hidden_size
      hint      a core reads in one direction; the guide shows how two of them read both ways (docs/guide.md).
    """
    parameters = list(signature.parameters.values())[1:]
    names = [parameter.name for parameter in parameters]
    if hints is None:
        hints = ({**OF_LSTM, **OF_SLOTS} if "mem_slots" in names else OF_LSTM) if "input_size" in names else {}
    takes = ", ".join(names)
    unknown = [name for name in kwargs if name not in names]
    if unknown:
        problem = f"there is no argument {unknown[0]!r}"
        return InputError(describe(cls.__name__, problem, expected=takes, hint=hints.get(unknown[0])))
    by_place = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    if len(args) > len(by_place):
        problem = f"only {', '.join(by_place)} can be given without their names"
        return InputError(describe(cls.__name__, problem, got=f"{len(args)} arguments", expected=takes, hint=BY_NAME))
    twice = [name for name in by_place[: len(args)] if name in kwargs]
    if twice:
        return InputError(describe(cls.__name__, f"{twice[0]} was given twice"))
    needed = [p.name for p in parameters if p.default is p.empty and p.name not in kwargs]
    missing = [name for name in needed if name not in by_place[: len(args)]]
    hint = hints.get("hidden_size") if "head_size" in missing else None
    return InputError(describe(cls.__name__, f"{', '.join(missing)} must be given", expected=takes, hint=hint))
