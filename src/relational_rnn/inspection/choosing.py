"""What can be looked into, and which example of a set."""

from __future__ import annotations

from relational_rnn._check import InputError, describe
from relational_rnn.nn.relational_memory import RelationalMemory

WHERE = "inspect"


def slots_in(core: object, problem: str = "only a relational memory has slots to look at") -> RelationalMemory:
    """The core of a model, refused where it is no relational memory."""
    if not isinstance(core, RelationalMemory):
        raise InputError(describe(WHERE, problem, got=f"a model with the core {type(core).__name__}"))
    return core


def check_example(number: int, count: int) -> None:
    """Refuse the number of an example, from 1, that a set of so many does not have."""
    if not 1 <= number <= count:
        raise InputError(describe(WHERE, "there is no such example", got=number, expected=f"1 to {count:,}"))
