"""The table of cores, and rivals sized to the parameter count of a relational memory."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import nn

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.nn.attention import AttentionLSTM
from relational_rnn.nn.core import Core, state_bytes
from relational_rnn.nn.dnc import DNC
from relational_rnn.nn.fast_weight_memory import FastWeightMemory
from relational_rnn.nn.gated_delta_net import GatedDeltaNet
from relational_rnn.nn.gru import GRU
from relational_rnn.nn.lstm import LSTM
from relational_rnn.nn.ntm import NTM
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.nn.rnn import RNN
from relational_rnn.nn.sizes import FAST_WEIGHTS, FORGET_BIAS, CoreName, FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.nn.transformer import Transformer
from relational_rnn.nn.universal_transformer import UniversalTransformer

TOLERANCE = 0.1
"""A rival's parameter count may differ from its target by this share."""


class Asked(NamedTuple):
    """What a core is built for: its input, the relational memory that it is compared with, and choices of its own."""

    input_size: int
    sizes: MemorySizes
    rivals: RivalSizes
    fast: FastWeightSizes


def asked_for(
    where: str, name: str, input_size: int, sizes: MemorySizes, rivals: RivalSizes | None, fast: FastWeightSizes | None
) -> Asked:
    """What the named core is built for; an unknown name, or a choice that the core does not have, is refused."""
    check_choice(where, "name", name, CORE_NAMES)
    asked = Asked(input_size, sizes, rivals or RivalSizes(), fast or FastWeightSizes())
    asked.rivals.check(where, name)
    asked.fast.check(where, name)
    return asked


class CoreRow(NamedTuple):
    """One row of the table of cores."""

    label: str  # its name in tables and figures
    description: str  # one line for help texts
    build: Callable[[Asked, int], Core]  # the core that comes nearest to a number of parameters


def build_core(
    name: str,
    input_size: int,
    sizes: MemorySizes,
    *,
    rivals: RivalSizes | None = None,
    fast: FastWeightSizes | None = None,
    target_parameters: int | None = None,
) -> Core:
    """Build the relational memory of `sizes`, or a rival with as many parameters.

    Args:
        name: one of `CORE_NAMES`.
        input_size: features of one input step.
        sizes: sizes of the relational memory.
        rivals: heads and layers of a rival that has them; None for its own defaults.
        fast: choices of the fast-weight memory; None for its own defaults.
        target_parameters: the count to match; None means that of the relational memory.

    Raises:
        InputError: an unknown name, a choice that the core does not have, or no size within 10 % of the target.

    Example:
        >>> build_core("lstm", 16, MemorySizes(mem_slots=4, head_size=8, num_heads=2))
        LSTM(16, 19)
    """
    asked = asked_for("build_core", name, input_size, sizes, rivals, fast)
    check_positive("build_core", input_size=input_size)
    if target_parameters is None:
        target_parameters = count_on_meta(lambda: relational_memory(input_size, sizes))
    else:
        check_positive("build_core", target_parameters=target_parameters)
    core = CORES[name].build(asked, target_parameters)
    count = count_parameters(core)
    if abs(count - target_parameters) > TOLERANCE * target_parameters:
        problem = f"no size of {name!r} has a parameter count within {TOLERANCE:.0%} of the target"
        got, expected = f"{count:,} parameters", f"{target_parameters:,} parameters"
        hint = "change the sizes of the relational memory or the target."
        raise InputError(describe("build_core", problem, got=got, expected=expected, hint=hint))
    return core


def relational_memory(input_size: int, sizes: MemorySizes) -> Core:
    """The relational memory of `sizes`."""
    return RelationalMemory(input_size, **sizes.but())


def count_parameters(module: nn.Module) -> int:
    """The number of trainable parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def state_bytes_after(core: Core, steps: int) -> int:
    """The size of one sequence's state after `steps` steps, in bytes."""
    parameter = next(core.parameters())
    with torch.no_grad():
        _, state = core(torch.zeros(1, steps, core.input_size, device=parameter.device, dtype=parameter.dtype))
    return state_bytes(state)


def nearest_size(count: Callable[[int], int], target: int) -> int:
    """The size of at least 1 whose `count`, which grows with the size, is nearest to `target`."""
    high = 1
    while count(high) < target:
        high *= 2
    low = high // 2
    while high - low > 1:  # count(low) < target <= count(high), or low is 0
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < target else (low, middle)
    return min((size for size in (low, high) if size >= 1), key=lambda size: abs(count(size) - target))


def count_on_meta(make: Callable[[], nn.Module]) -> int:
    """The parameter count of a module, without allocating or drawing its weights."""
    with torch.device("meta"):
        return count_parameters(make())


@functools.lru_cache(maxsize=10_000)
def parameters_of(make: Callable[..., nn.Module], *sizes: object, **options: object) -> int:
    """The parameter count of `make(*sizes, **options)`, kept for other searches."""
    return count_on_meta(lambda: make(*sizes, **options))


def size_slots(asked: Asked, target: int) -> Core:
    """The relational memory whose slots compete: finds the head size."""

    def sized(head_size: int) -> MemorySizes:
        # The formulation and the forget bias of `sizes` belong to the memory that it is compared with.
        own = {"gate_style": "competitive", "formulation": "sonnet", "forget_bias": FORGET_BIAS}
        return replace(asked.sizes, head_size=head_size, **own)

    found = nearest_size(lambda size: parameters_of(relational_memory, asked.input_size, sized(size)), target)
    return relational_memory(asked.input_size, sized(found))


def size_recurrent(kind: type[RNN] | type[GRU] | type[LSTM] | type[AttentionLSTM], asked: Asked, target: int) -> Core:
    """A core of class `kind`: finds the hidden size."""
    return kind(asked.input_size, nearest_size(partial(parameters_of, kind, asked.input_size), target))


def size_layers(
    kind: type[Transformer] | type[UniversalTransformer] | type[GatedDeltaNet], layers: str, asked: Asked, target: int
) -> Core:
    """A core of class `kind`: finds the width, then the feed-forward size. `layers` names its number of layers."""
    names = {"num_heads": "num_heads", "num_layers": layers}
    chosen = {names[name]: value for name, value in asked.rivals.asked.items()}
    unit = math.lcm(8, 2 * (asked.rivals.num_heads or 4))  # positions turn pairs of the numbers of a head

    def count(width: int, feedforward_size: int) -> int:
        return parameters_of(kind, asked.input_size, width, feedforward_size=feedforward_size, **chosen)

    width = unit * nearest_size(lambda units: count(unit * units, 4 * unit * units), target)
    feedforward_size = nearest_size(lambda size: count(width, size), target)
    return kind(asked.input_size, width, feedforward_size=feedforward_size, **chosen)


def size_machine(kind: type[NTM] | type[DNC], asked: Asked, target: int) -> Core:
    """A core of class `kind`: finds the word size, with a controller four times as wide, then the controller's width.

    Its matrix holds about as many numbers as the relational memory.
    """
    sizes = asked.sizes

    def options(word_size: int) -> dict[str, int]:
        slots = min(max(round(sizes.mem_slots * sizes.width / word_size), 4), 128)
        return {"memory_slots": slots, "word_size": word_size, "read_heads": asked.rivals.num_heads or sizes.num_heads}

    def count(word_size: int, hidden_size: int) -> int:
        return parameters_of(kind, asked.input_size, hidden_size, **options(word_size))

    word = nearest_size(lambda size: count(size, 4 * size), target)
    return kind(asked.input_size, nearest_size(lambda size: count(word, size), target), **options(word))


def fast_weights(input_size: int, fast: FastWeightSizes, hidden_size: int) -> Core:
    """The fast-weight memory of a width with the choices of `fast`."""
    return FastWeightMemory(input_size, hidden_size, **fast.but())


def size_fast_weights(asked: Asked, target: int) -> Core:
    """The fast-weight memory: finds the width."""
    found = nearest_size(partial(parameters_of, fast_weights, asked.input_size, asked.fast), target)
    return fast_weights(asked.input_size, asked.fast, found)


CORES = {
    "rmc": CoreRow(
        "RMC",
        "relational memory: slots that attend to one another",
        lambda asked, target: relational_memory(asked.input_size, asked.sizes),
    ),
    "competitive": CoreRow("RMC, competing slots", "relational memory whose slots compete for the input", size_slots),
    "rnn": CoreRow("RNN", "plain recurrent network with a tanh", partial(size_recurrent, RNN)),
    "gru": CoreRow("GRU", "gated recurrent unit", partial(size_recurrent, GRU)),
    "lstm": CoreRow("LSTM", "long short-term memory", partial(size_recurrent, LSTM)),
    "attention": CoreRow(
        "LSTM + attention", "LSTM that attends to all of its past states", partial(size_recurrent, AttentionLSTM)
    ),
    "transformer": CoreRow(
        "Transformer",
        "causal Transformer whose cache is its state",
        partial(size_layers, Transformer, "num_layers"),
    ),
    "ntm": CoreRow("NTM", "Neural Turing Machine: heads that move over a matrix", partial(size_machine, NTM)),
    "dnc": CoreRow(
        "DNC",
        "Differentiable Neural Computer: a matrix with free slots and an order of writing",
        partial(size_machine, DNC),
    ),
    "universal": CoreRow(
        "Universal Transformer",
        "causal Transformer that applies one block again and again",
        partial(size_layers, UniversalTransformer, "num_passes"),
    ),
    "deltanet": CoreRow(
        "Gated DeltaNet",
        "fast weights in linear time, corrected by the gated delta rule",
        partial(size_layers, GatedDeltaNet, "num_layers"),
    ),
    FAST_WEIGHTS: CoreRow(
        "Fast weights",
        "fast weights that are read before they are written, corrected by the gated delta rule",
        size_fast_weights,
    ),
}
CORE_NAMES: tuple[CoreName, ...] = get_args(CoreName)
"""The names of `CORES`, as a test holds."""
READ_AS_MATRICES = ("deltanet", FAST_WEIGHTS)
"""The cores whose `reader` has one query for each matrix; the heads of a look have no effect there."""
