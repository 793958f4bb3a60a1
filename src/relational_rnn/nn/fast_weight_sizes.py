"""What can be chosen of `FastWeightMemory` but its width, which follows from the number of parameters."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from relational_rnn._check import InputError, check_counts, check_flags, check_positive, describe, is_number

FAST_WEIGHTS = "fastweights"
"""The name of the core in the table of cores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FastWeightSizes:
    """Sizes and choices of the fast-weight memory; its width follows from the parameters of the relational memory.

    Raises:
        InputError: a size below 1, a max_strength outside of (0, 2], or a carry that is not True or False.
    """

    num_heads: int = 4
    """Heads, each with a matrix of its own."""
    key_size: int = 16
    """Numbers of a key: rows of a head's matrix."""
    value_size: int = 16
    """Numbers of a value: columns of a head's matrix."""
    reads: int = 1
    """Reads of a step before it writes, each with what the one before found."""
    carry: bool = True
    """Whether a step sees the output of the step before."""
    max_strength: float = 1.0
    """The strongest correction: 1 replaces what a key holds, up to 2 may turn it round."""

    def __post_init__(self) -> None:
        sizes = {"num_heads": self.num_heads, "key_size": self.key_size, "value_size": self.value_size}
        check_positive("FastWeightSizes", **sizes)
        check_counts("FastWeightSizes", reads=self.reads)
        check_flags("FastWeightSizes", carry=self.carry)
        check_strength("FastWeightSizes", self.max_strength)

    @property
    def asked(self) -> dict[str, Any]:
        """The choices that differ from the default."""
        every = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in every.items() if value != default}

    def of(self, core: str) -> FastWeightSizes:
        """These choices for the fast-weight memory, and none for another core.

        >>> FastWeightSizes(reads=2).of("lstm") == FastWeightSizes()
        True
        """
        return self if core == FAST_WEIGHTS else FastWeightSizes()

    def check(self, where: str, *cores: str) -> None:
        """Refuse choices where none of the named cores is the fast-weight memory.

        Raises:
            InputError: names the choice.
        """
        if self.asked and FAST_WEIGHTS not in cores:
            name, value = next(iter(self.asked.items()))
            problem = f"fast.{name} would have no effect on {', '.join(cores)}"
            raise InputError(describe(where, problem, got=value, hint=f"the core that has it: {FAST_WEIGHTS}."))


def check_strength(where: str, max_strength: float) -> None:
    """Refuse a `max_strength` that is not a number in (0, 2]; above 2 a step could make what it holds grow."""
    if not is_number(max_strength) or not 0 < max_strength <= 2:
        problem = "max_strength must be a number above 0 and at most 2"
        raise InputError(describe(where, problem, got=repr(max_strength), expected="(0, 2]"))
