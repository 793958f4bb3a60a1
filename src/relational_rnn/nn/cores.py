"""The table of cores, and rivals sized to the parameter count of a relational memory."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

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


Builder = Callable[[int, MemorySizes, RivalSizes, int], Core]
"""From the input size, the sizes of the relational memory, the choices of rivals and a target to the core whose count
of parameters is nearest to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreRow:
    """One row of the table of cores."""

    label: str
    """Its name in tables and figures."""
    description: str
    """One line for help texts."""
    build: Builder
    """What makes it."""


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
        rivals: heads and layers of a rival that has them; None for what it has by itself.
        fast: choices of the fast-weight memory; None for what it has by itself.
        target_parameters: the count to match; None means that of the relational memory of `sizes`.

    Raises:
        InputError: an unknown name, a choice that the core does not have, or no size whose parameter count is within
            10 % of the target.

    Example:
        >>> build_core("lstm", 16, MemorySizes(mem_slots=4, head_size=8, num_heads=2))
        LSTM(16, 19)
    """
    build = builder("build_core", name, input_size, sizes, rivals, fast)
    check_positive("build_core", input_size=input_size)
    if target_parameters is None:
        target_parameters = count_on_meta(lambda: relational_memory(input_size, sizes))
    else:
        check_positive("build_core", target_parameters=target_parameters)
    core = build(name, target_parameters)
    count = count_parameters(core)
    if abs(count - target_parameters) > TOLERANCE * target_parameters:
        problem = f"no size of {name!r} has a parameter count within {TOLERANCE:.0%} of the target"
        got, expected = f"{count:,} parameters", f"{target_parameters:,} parameters"
        hint = "change the sizes of the relational memory or the target."
        raise InputError(describe("build_core", problem, got=got, expected=expected, hint=hint))
    return core


def builder(
    where: str, name: str, input_size: int, sizes: MemorySizes, rivals: RivalSizes | None, fast: FastWeightSizes | None
) -> Callable[[str, int], Core]:
    """What makes a core, from its name and a number of parameters, for the named core and those beside it.

    Raises:
        InputError: an unknown name, or a choice that the named core does not have.
    """
    check_choice(where, "name", name, CORE_NAMES)
    rivals, fast = rivals or RivalSizes(), fast or FastWeightSizes()
    rivals.check(where, name)
    fast.check(where, name)

    def build(name: str, parameters: int) -> Core:
        row = size_fast_weights(fast) if name == FAST_WEIGHTS else CORES[name].build
        return row(input_size, sizes, rivals, parameters)

    return build


def relational_memory(input_size: int, sizes: MemorySizes) -> Core:
    """The relational memory of `sizes`."""
    return RelationalMemory(input_size, **sizes.but())


def competing_slots(input_size: int, sizes: MemorySizes, rivals: RivalSizes, target: int) -> Core:
    """The relational memory of `sizes` with slots that compete and the head size that comes nearest to `target`."""

    def sized(head_size: int) -> MemorySizes:
        # The formulation and the forget bias of `sizes` belong to the memory that it is compared with.
        own = {"gate_style": "competitive", "formulation": "sonnet", "forget_bias": FORGET_BIAS}
        return replace(sizes, head_size=head_size, **own)

    found = nearest_size(lambda size: parameters_of(relational_memory, input_size, sized(size)), target)
    return relational_memory(input_size, sized(found))


def count_parameters(module: nn.Module) -> int:
    """Trainable numbers of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def state_bytes_after(core: Core, steps: int) -> int:
    """Bytes of the state of one sequence after `steps` steps; the number of steps matters where the state grows."""
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
    """The parameter count of `make(*sizes, **options)`; kept, as searches for other targets ask for the same sizes."""
    return count_on_meta(lambda: make(*sizes, **options))


def size_recurrent(kind: type[RNN] | type[GRU] | type[LSTM] | type[AttentionLSTM]) -> Builder:
    """A builder that finds the hidden size."""

    def build(input_size: int, sizes: MemorySizes, rivals: RivalSizes, target: int) -> Core:
        return kind(input_size, nearest_size(lambda size: parameters_of(kind, input_size, size), target))

    return build


def size_layers(kind: type[Transformer] | type[UniversalTransformer] | type[GatedDeltaNet], layers: str) -> Builder:
    """A builder that finds the width, in steps that the heads can share, then the feed-forward size.

    Args:
        kind: the class of the core.
        layers: what its constructor calls the number of layers.
    """

    def build(input_size: int, sizes: MemorySizes, rivals: RivalSizes, target: int) -> Core:
        names = {"num_heads": "num_heads", "num_layers": layers}
        chosen = {names[name]: value for name, value in rivals.asked.items()}
        unit = math.lcm(8, 2 * (rivals.num_heads or 4))  # positions turn pairs of the numbers of a head

        def count(width: int, feedforward_size: int) -> int:
            return parameters_of(kind, input_size, width, feedforward_size=feedforward_size, **chosen)

        width = unit * nearest_size(lambda units: count(unit * units, 4 * unit * units), target)
        feedforward_size = nearest_size(lambda size: count(width, size), target)
        return kind(input_size, width, feedforward_size=feedforward_size, **chosen)

    return build


def size_machine(kind: type[NTM] | type[DNC]) -> Builder:
    """A builder that finds the word size, with a controller four times as wide, then the width of the controller.

    Unless said otherwise there are as many read heads as the relational memory has heads; the matrix holds about as
    many numbers as it.
    """

    def build(input_size: int, sizes: MemorySizes, rivals: RivalSizes, target: int) -> Core:
        numbers = sizes.mem_slots * sizes.num_heads * sizes.head_size

        def options(word_size: int) -> dict[str, int]:
            slots = min(max(round(numbers / word_size), 4), 128)
            return {"memory_slots": slots, "word_size": word_size, "read_heads": rivals.num_heads or sizes.num_heads}

        def count(word_size: int, hidden_size: int) -> int:
            return parameters_of(kind, input_size, hidden_size, **options(word_size))

        word = nearest_size(lambda size: count(size, 4 * size), target)
        return kind(input_size, nearest_size(lambda size: count(word, size), target), **options(word))

    return build


def fast_weights(input_size: int, hidden_size: int, fast: FastWeightSizes) -> Core:
    """The fast-weight memory of a width with the choices of `fast`."""
    return FastWeightMemory(input_size, hidden_size, **fast.but())


def size_fast_weights(fast: FastWeightSizes) -> Builder:
    """A builder that finds the width; heads, keys, values and reads are those of `fast`."""

    def build(input_size: int, sizes: MemorySizes, rivals: RivalSizes, target: int) -> Core:
        found = nearest_size(lambda size: parameters_of(fast_weights, input_size, size, fast), target)
        return fast_weights(input_size, found, fast)

    return build


CORES = {
    "rmc": CoreRow(
        label="RMC",
        description="relational memory: slots that attend to one another",
        build=lambda input_size, sizes, rivals, target: relational_memory(input_size, sizes),
    ),
    "competitive": CoreRow(
        label="RMC, competing slots",
        description="relational memory whose slots compete for the input",
        build=competing_slots,
    ),
    "rnn": CoreRow(label="RNN", description="plain recurrent network with a tanh", build=size_recurrent(RNN)),
    "gru": CoreRow(label="GRU", description="gated recurrent unit", build=size_recurrent(GRU)),
    "lstm": CoreRow(label="LSTM", description="long short-term memory", build=size_recurrent(LSTM)),
    "attention": CoreRow(
        label="LSTM + attention",
        description="LSTM that attends to all of its past states",
        build=size_recurrent(AttentionLSTM),
    ),
    "transformer": CoreRow(
        label="Transformer",
        description="causal Transformer whose cache is its state",
        build=size_layers(Transformer, "num_layers"),
    ),
    "ntm": CoreRow(
        label="NTM", description="Neural Turing Machine: heads that move over a matrix", build=size_machine(NTM)
    ),
    "dnc": CoreRow(
        label="DNC",
        description="Differentiable Neural Computer: a matrix with free slots and an order of writing",
        build=size_machine(DNC),
    ),
    "universal": CoreRow(
        label="Universal Transformer",
        description="causal Transformer that applies one block again and again",
        build=size_layers(UniversalTransformer, "num_passes"),
    ),
    "deltanet": CoreRow(
        label="Gated DeltaNet",
        description="fast weights in linear time, corrected by the gated delta rule",
        build=size_layers(GatedDeltaNet, "num_layers"),
    ),
    FAST_WEIGHTS: CoreRow(
        label="Fast weights",
        description="fast weights that are read before they are written, corrected by the gated delta rule",
        build=size_fast_weights(FastWeightSizes()),
    ),
}
CORE_NAMES: tuple[CoreName, ...] = get_args(CoreName)
"""The names of `CORES`, as a test holds."""
READ_AS_MATRICES = ("deltanet", FAST_WEIGHTS)
"""The cores whose `reader` looks into matrices, each with a query of its own: heads of a look have no effect there."""
