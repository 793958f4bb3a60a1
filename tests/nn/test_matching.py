"""Rivals of equal cost: what is counted, and how near a size comes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from relational_rnn import InputError
from relational_rnn.nn import GRU, LSTM, RNN, RelationalMemory, Transformer
from relational_rnn.nn.cores import (
    CORE_NAMES,
    FastWeightSizes,
    MemorySizes,
    RivalSizes,
    count_parameters,
    state_bytes_after,
)
from relational_rnn.nn.matching import build_matched, count_operations

SIZES = MemorySizes(mem_slots=4, head_size=16, num_heads=3)
STEPS = 2  # operations are counted by running every step of every size that is tried


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize(("kind", "gates"), [(RNN, 1), (GRU, 3), (LSTM, 4)])
def test_operations_of_a_gated_core_are_those_of_its_two_products(kind, gates, steps):
    assert count_operations(kind(5, 6), steps) == steps * 2 * gates * 6 * (5 + 6)


@pytest.mark.parametrize("steps", [1, 7])
def test_operations_of_the_relational_memory_are_those_of_its_equations(steps):
    inputs, slots, width, heads, key, mlp = 5, 4, 6, 3, 7, 2
    core = RelationalMemory(
        inputs, slots, 2, num_heads=heads, key_size=key, attention_mlp_layers=mlp, backend="reference"
    )
    rows = slots + 1
    attention = rows * width * (2 * heads * key + width) + heads * rows * rows * key + heads * rows * rows * 2
    gates = width * 2 * width + slots * width * 2 * width  # from the input, and from every slot
    step = inputs * width + attention + mlp * rows * width * width + gates
    assert count_operations(core, steps) == pytest.approx(steps * 2 * step, rel=0.1)  # the last block may skip a row


def test_operations_of_a_transformer_grow_with_the_square_of_the_length():
    core = Transformer(5, 8, num_layers=2, num_heads=2, feedforward_size=10)
    linear = 5 * 8 + 2 * (8 * 24 + 8 * 8 + 2 * 8 * 10)
    for steps in (3, 9):
        assert count_operations(core, steps) == 2 * (steps * linear + 2 * 2 * steps * steps * 8)


def test_a_core_on_the_meta_device_is_counted_too():
    with torch.device("meta"):
        core = LSTM(5, 6)
    assert count_operations(core, 3) == count_operations(LSTM(5, 6), 3)


COSTS = {
    "parameters": lambda core: count_parameters(core),
    "state": lambda core: state_bytes_after(core, STEPS),
    "flops": lambda core: count_operations(core, STEPS),
}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        *((name, "parameters") for name in CORE_NAMES),
        ("gru", "state"),
        *((name, "flops") for name in ("lstm", "rnn", "deltanet")),
    ]
    + [
        pytest.param(name, "flops", marks=pytest.mark.slow)
        for name in CORE_NAMES
        if name not in ("lstm", "rnn", "deltanet")
    ],
)
def test_a_rival_costs_what_the_relational_memory_costs(name, match):
    wanted = COSTS[match](build_matched("rmc", SIZES, 5, lambda core: core))
    core = build_matched(name, SIZES, 5, lambda core: core, match=match, steps=STEPS)
    assert abs(COSTS[match](core) / wanted - 1) <= 0.1


@pytest.mark.parametrize("match", ["parameters", "flops"])
def test_choices_of_a_rival_are_kept_at_equal_cost(match):
    wanted = COSTS[match](build_matched("rmc", SIZES, 5, lambda core: core))
    rivals = RivalSizes(num_heads=2, num_layers=1)
    core = build_matched("deltanet", SIZES, 5, lambda core: core, rivals=rivals, match=match, steps=STEPS)
    assert (core.num_heads, len(core.layers)) == (2, 1)
    assert abs(COSTS[match](core) / wanted - 1) <= 0.1


@pytest.mark.parametrize("match", ["parameters", "flops"])
def test_choices_of_the_fast_weights_are_kept_at_equal_cost(match):
    wanted = COSTS[match](build_matched("rmc", SIZES, 5, lambda core: core))
    fast = FastWeightSizes(num_heads=2, reads=3)
    core = build_matched("fastweights", SIZES, 5, lambda core: core, fast=fast, match=match, steps=STEPS)
    assert (core.num_heads, len(core.read_key)) == (2, 3)
    assert abs(COSTS[match](core) / wanted - 1) <= 0.1


def test_a_state_that_does_not_grow_with_the_size_is_refused_not_searched_for_ever():
    fast = FastWeightSizes(num_heads=1, key_size=2, value_size=2, carry=False)
    with pytest.raises(InputError, match=r"no size of the core 'fastweights' (.|\n)*16 bytes of state"):
        build_matched("fastweights", SIZES, 5, lambda core: core, fast=fast, match="state", steps=3)


def test_choices_of_the_fast_weights_have_no_effect_on_others():
    with pytest.raises(InputError, match=r"build_matched: fast.carry would have no effect on gru\n"):
        build_matched("gru", SIZES, 5, lambda core: core, fast=FastWeightSizes(carry=False))


def test_a_choice_that_a_rival_does_not_have_is_refused():
    with pytest.raises(InputError, match=r"rivals.num_heads would have no effect on rmc\n.*\n.*transformer, ntm, dnc"):
        build_matched("rmc", SIZES, 5, lambda core: core, rivals=RivalSizes(num_heads=2))


def test_parameters_are_those_of_the_whole_model():
    def wrap(core):
        return nn.ModuleList([core, nn.Linear(core.output_size, 100)])

    counts = [count_parameters(wrap(build_matched(name, SIZES, 5, wrap))) for name in ("rmc", "lstm")]
    assert abs(counts[1] / counts[0] - 1) <= 0.1
    assert (
        abs(
            count_parameters(build_matched("lstm", SIZES, 5, wrap))
            / count_parameters(build_matched("rmc", SIZES, 5, wrap))
            - 1
        )
        > 0.1
    )


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(InputError, match=r"no size of the core 'lstm' comes within 10% of (.|\n)*bytes of state"):
        build_matched(
            "lstm", MemorySizes(mem_slots=1, head_size=3, num_heads=1), 5, lambda c: c, match="state", steps=9
        )
    with pytest.raises(InputError, match="match is not a known choice"):
        build_matched("lstm", SIZES, 5, lambda core: core, match="seconds")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="name is not a known choice"):
        build_matched("ltsm", SIZES, 5, lambda core: core)
    with pytest.raises(InputError, match="steps must be"):
        count_operations(LSTM(5, 6), 0)
