"""Modules that are no larger than the weights they are built for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from relational_rnn._check import InputError, describe
from relational_rnn._reading.guard import damaged

SPARE = 64
"""Parameters beyond those of the file that may be made: some stand under two names, some are made and then replaced."""


@contextlib.contextmanager
def sized_by(tensors: Mapping[str, Tensor], *, where: str, problem: str) -> Iterator[None]:
    """Building a module inside ends with an `InputError` as soon as it has clearly more parameters than there are
    weights for it, before they are filled: sizes that somebody else wrote could ask for any time and memory.

    Args:
        tensors: the weights.
        where: what messages begin with.
        problem: what is said of sizes that nothing can be built from.
    """
    most, most_planned = 2 * len(tensors) + SPARE, 1000 * len(tensors) + SPARE
    largest = 4 * sum(tensor.numel() for tensor in tensors.values()) + 2**20
    thread, made, planned, numbers = threading.get_ident(), 0, 0, 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made, planned, numbers
        if parameter is None or threading.get_ident() != thread:
            return
        if parameter.is_meta:  # modules that are only counted, to find sizes
            planned += 1
        else:
            made, numbers = made + 1, numbers + parameter.numel()
        if made > most or planned > most_planned or numbers > largest:
            held = f"weights of {len(tensors):,} tensors"
            raise InputError(describe(where, "the sizes are larger than the weights beside them", expected=held))

    hook = register_module_parameter_registration_hook(count)
    try:
        with damaged(where, problem):
            yield
    finally:
        hook.remove()
