"""Rivals of equal cost: as many parameters, as large a state, or as many operations as a relational memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.nn.core import Core
from relational_rnn.nn.cores import CORES, TOLERANCE, Asked, asked_for, count_parameters, state_bytes_after
from relational_rnn.nn.sizes import FastWeightSizes, MemorySizes, RivalSizes

Match = Literal["parameters", "state", "flops"]
"""What a rival has as much of as the relational memory."""


def count_operations(core: Core, steps: int) -> int:
    """The floating-point operations of one forward pass over a sequence of `steps` steps.

    PyTorch's counter counts matrix products alone, two operations for each multiply-add. The core may be on "meta".

    Example:
        >>> from relational_rnn.nn import LSTM
        >>> count_operations(LSTM(5, 8), 3), 3 * 2 * (5 + 8) * 4 * 8
        (2496, 2496)
    """
    check_positive("count_operations", steps=steps)
    core = copy.deepcopy(core).to("meta")  # where every core runs its plain definition, whatever runs it elsewhere
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        core(torch.zeros(1, steps, core.input_size, device="meta", dtype=next(core.parameters()).dtype))
    return counter.get_total_flops()


def build_matched(
    name: str,
    sizes: MemorySizes,
    input_size: int,
    wrap: Callable[[Core], nn.Module],
    *,
    rivals: RivalSizes | None = None,
    fast: FastWeightSizes | None = None,
    match: Match = "parameters",
    steps: int = 1,
) -> Core:
    """Build the relational memory of `sizes`, or a rival that costs as much; see `build_core`.

    Args:
        wrap: from a core to the whole model around it, whose parameters are counted.
        match: "parameters" of the whole model, bytes of the core's "state" after a sequence, or the core's "flops" for
            a sequence (see `count_operations`).
        steps: length of that sequence.

    Raises:
        InputError: an unknown name, a choice that the core does not have, or no size of it comes within 10 %.
    """
    check_choice("build_matched", "match", match, get_args(Match))
    asked = asked_for("build_matched", name, input_size, sizes, rivals, fast)
    if name == "rmc":
        return CORES[name].build(asked, 1)
    if match == "parameters":
        return CORES[name].build(asked, match_parameters(name, asked, wrap))
    cost = state_bytes_after if match == "state" else count_operations

    def sized(parameters: int) -> int:
        with torch.device("meta"):
            return cost(CORES[name].build(asked, parameters), steps)

    with torch.device("meta"):
        memory = CORES["rmc"].build(asked, 1)
        wanted = cost(memory, steps)
    target, found = nearest_cost(sized, wanted, count_parameters(memory))
    if abs(found - wanted) > TOLERANCE * wanted:
        what = "bytes of state" if match == "state" else "operations"
        problem = f"no size of the core {name!r} comes within {TOLERANCE:.0%} of the relational memory's {what}"
        got, expected = f"{found:,} {what} for a sequence of {steps}", f"{wanted:,}"
        hint = "choose larger sizes for the memory, or match something else."
        raise InputError(describe("build_matched", problem, got=got, expected=expected, hint=hint))
    return CORES[name].build(asked, target)


def nearest_cost(cost: Callable[[int], int], wanted: int, start: int) -> tuple[int, int]:
    """The size whose `cost`, which grows with it, is nearest to `wanted`, to a hundredth of the size; and that cost.

    A cost may take a while, so it asks for few: it brackets the size from `start`, then halves the bracket.
    """
    costs: dict[int, int] = {}

    def ask(size: int) -> int:
        if size not in costs:
            costs[size] = cost(size)
        return costs[size]

    low = high = start
    # A state may not grow with the size at all; then no size will do.
    while ask(high) < wanted and costs.get(high // 16) != costs[high]:
        low, high = high, 2 * high
    while low > 1 and ask(low) > wanted:
        low, high = low // 2, low
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if ask(middle) < wanted else (low, middle)
    nearest = min(costs, key=lambda size: abs(costs[size] - wanted))
    return nearest, costs[nearest]


def match_parameters(core_name: str, asked: Asked, wrap: Callable[[Core], nn.Module]) -> int:
    """The number of parameters to ask of the named core, so that its whole model matches the relational memory's.

    The head grows with the core's output, so this is not the memory's own number. The secant method finds it.
    """

    def sized(name: str, target: int) -> tuple[int, int]:
        """Parameters of (the whole model, its core)."""
        with torch.device("meta"):
            core = CORES[name].build(asked, target)
            return count_parameters(wrap(core)), count_parameters(core)

    wanted, target = sized("rmc", 1)
    misses: dict[int, int] = {}
    slope = 2.0  # parameters of the whole model per parameter of the core; 2 to begin with, as the head grows too
    while target not in misses and len(misses) < 12:
        misses[target] = sized(core_name, target)[0] - wanted
        if abs(misses[target]) < wanted / 200:
            break
        if len(misses) > 1:
            (before, miss_before), (last, miss) = list(misses.items())[-2:]
            slope = max(1.0, (miss - miss_before) / (last - before))
        target = max(1, target - round(misses[target] / slope))
    best = min(misses, key=lambda target: abs(misses[target]))
    if abs(misses[best]) > TOLERANCE * wanted:
        problem = f"no size of the core {core_name!r} comes within {TOLERANCE:.0%} of the memory's parameters"
        got, hint = f"{wanted + misses[best]:,} parameters of the whole model", "choose larger sizes for the memory."
        raise InputError(describe("build_matched", problem, got=got, expected=f"{wanted:,}", hint=hint))
    return best
