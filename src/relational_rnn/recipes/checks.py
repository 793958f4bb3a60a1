"""Refusals that every kind of run shares."""

from __future__ import annotations

from relational_rnn._check import InputError, describe
from relational_rnn.nn.cores import MemorySizes


def check_seed(where: str, seed: int) -> None:
    """Refuse anything but a whole number from 0 to 2^31 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise InputError(describe(where, "seed must be a whole number", got=repr(seed), expected="0 to 2147483647"))


def check_memory_options(where: str, core: str, memory: MemorySizes) -> None:
    """Refuse choices of how the relational memory computes in a run of another core."""
    asked = (memory.backend, memory.activations)
    if core not in ("rmc", "competitive") and asked != ("auto", "store"):
        problem = f"memory.backend and memory.activations would have no effect on the core {core!r}"
        hint = "give them to runs of a relational memory (rmc, competitive) alone."
        raise InputError(describe(where, problem, got=asked, expected=("auto", "store"), hint=hint))
