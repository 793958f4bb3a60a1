"""What single rivals promise beyond the contract, and how their sizes are matched."""

import dataclasses
from typing import get_args

import pytest
import torch
from cores_table import BATCH, INPUTS, STEPS, assert_close, assert_same_state, draw, some_state
from torch import nn

from relational_rnn import InputError
from relational_rnn.nn.attention import AttentionLSTM
from relational_rnn.nn.core import state_bytes
from relational_rnn.nn.cores import (
    CORE_NAMES,
    CORES,
    CoreName,
    FastWeightSizes,
    MemorySizes,
    RivalSizes,
    build_core,
    count_parameters,
    nearest_size,
    relational_memory,
    state_bytes_after,
)
from relational_rnn.nn.gru import GRU
from relational_rnn.nn.lstm import LSTM
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.nn.rnn import RNN
from relational_rnn.nn.transformer import Transformer

PAIRS = [(RNN, nn.RNN), (GRU, nn.GRU), (LSTM, nn.LSTM)]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_equals_the_module_of_pytorch_with_its_weights(ours, theirs):
    torch.manual_seed(3)
    reference = theirs(INPUTS, 6, batch_first=True).double()
    core = ours(INPUTS, 6).double()
    core.load_state_dict(reference.state_dict(), strict=True)
    x, h, c = draw(BATCH, STEPS, INPUTS), draw(BATCH, 6, seed=1), draw(BATCH, 6, seed=2)
    leaves = [x.requires_grad_(), h.requires_grad_()] + ([c.requires_grad_()] if ours is LSTM else [])
    y, final = core(x, {"h": h, "c": c} if ours is LSTM else h)
    y_theirs, final_theirs = reference(x, (h[None], c[None]) if ours is LSTM else h[None])
    assert_close(y, y_theirs)
    ends = [final["h"], final["c"]] if ours is LSTM else [final]
    ends_theirs = [end[0] for end in (final_theirs if ours is LSTM else [final_theirs])]
    for end, end_theirs in zip(ends, ends_theirs, strict=True):
        assert_close(end, end_theirs)
    cotangents = [draw(*y.shape, seed=4), *(draw(*end.shape, seed=5) for end in ends)]
    gradients = torch.autograd.grad([y, *ends], [*leaves, *core.parameters()], cotangents)
    theirs_in_order = [dict(reference.named_parameters())[name] for name, _ in core.named_parameters()]
    gradients_theirs = torch.autograd.grad([y_theirs, *ends_theirs], [*leaves, *theirs_in_order], cotangents)
    for gradient, gradient_theirs in zip(gradients, gradients_theirs, strict=True):
        assert_close(gradient, gradient_theirs)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_initial_weights_are_orthogonal_gate_by_gate(ours, theirs):
    core = ours(INPUTS, 6)
    for weight in core.weight_hh_l0.chunk(core.gates):
        torch.testing.assert_close(weight @ weight.T, torch.eye(6), rtol=0, atol=1e-5)
    bound = (6 / (INPUTS + 6)) ** 0.5
    assert core.weight_ih_l0.abs().max() <= bound
    assert core.weight_ih_l0.abs().max() > 0.8 * bound
    ones = torch.arange(len(core.bias_ih_l0)).div(6, rounding_mode="floor") == 1
    assert torch.equal(core.bias_ih_l0.detach(), ones.float() if ours is LSTM else torch.zeros_like(core.bias_ih_l0))
    assert not core.bias_hh_l0.any()


def test_attention_follows_its_formula():
    core = AttentionLSTM(INPUTS, 6).double()
    x = draw(BATCH, STEPS, INPUTS)
    y, state = core(x)
    h, _ = core.lstm(x)
    assert_close(state["states"], h)
    for t in range(STEPS):
        scores = torch.einsum("bi,ij,bsj->bs", h[:, t], core.score.weight.T, h[:, : t + 1]) / 6**0.5
        context = torch.einsum("bs,bsj->bj", scores.softmax(1), h[:, : t + 1])
        expected = torch.tanh(torch.cat([context, h[:, t]], 1) @ core.combine.weight.T + core.combine.bias)
        assert_close(y[:, t], expected)


def test_transformer_follows_its_formula():
    """Position by position and head by head, with the rotation as a product of complex numbers."""
    layers, heads, size = 2, 2, 6
    core = Transformer(INPUTS, heads * size, num_layers=layers, num_heads=heads, feedforward_size=10).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.1 * draw(*parameter.shape, seed=6))
    x = draw(STEPS, INPUTS)
    speed = 10_000.0 ** (-torch.arange(size // 2, dtype=torch.float64) / (size // 2))

    def turned(vector, position):
        pairs = torch.complex(vector[: size // 2], vector[size // 2 :]) * torch.exp(1j * position * speed)
        return torch.cat([pairs.real, pairs.imag])

    stream = core.embed(x)
    for layer in core.layers:
        q, k, v = layer.query_key_value(layer.attention_norm(stream)).view(STEPS, 3, heads, size).unbind(1)
        read = torch.zeros(STEPS, heads * size, dtype=torch.float64)
        for head in range(heads):
            for t in range(STEPS):
                scores = [turned(q[t, head], t) @ turned(k[s, head], s) / size**0.5 for s in range(t + 1)]
                weights = torch.stack(scores).softmax(0)
                read[t, head * size : (head + 1) * size] = weights @ v[: t + 1, head]
        a = stream + layer.attention_out(read)
        stream = a + layer.feedforward_out(nn.functional.gelu(layer.feedforward_in(layer.feedforward_norm(a))))
    assert_close(core(x.unsqueeze(0))[0][0], core.norm(stream))


def test_transformer_scores_depend_on_distances_only():
    core = Transformer(INPUTS, 8, num_heads=2).double()
    x = draw(BATCH, STEPS, INPUTS)
    state = some_state(core, steps=4)
    hidden = {
        **state,
        "valid": torch.zeros_like(state["valid"]),
    }  # stored steps that no row sees do not shift positions
    assert_close(core(x, hidden)[0], core(x)[0])
    from relational_rnn.nn.transformer import rotate, rotations

    q, k = draw(1, 1, 2, 6, seed=1), draw(1, 1, 2, 6, seed=2)

    def score(i, j):
        at = [rotations(torch.tensor([[n]]), 6, torch.float64) for n in (i, j)]
        return (rotate(q, at[0]) * rotate(k, at[1])).sum(-1)

    assert_close(score(9, 4), score(105, 100), rtol=0, atol=1e-12)
    assert not torch.allclose(score(9, 4), score(9, 5))


def test_a_second_derivative_of_fused_attention_raises():
    core, x = Transformer(INPUTS, 8).double(), draw(BATCH, STEPS, INPUTS).requires_grad_()
    (gradient,) = torch.autograd.grad(core(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="is not implemented"):
        gradient.square().sum().backward()


def test_rotary_angles_are_accurate_far_out():
    from relational_rnn.nn.transformer import rotations

    position = torch.tensor([[10_000]])
    low = rotations(position, 8, torch.float32)
    high = rotations(position, 8, torch.float64)
    rounded = rotations(position, 8, torch.bfloat16)  # the angle itself is not rounded to bfloat16
    for a, b, c in zip(low, high, rounded, strict=True):
        assert (a - b).abs().max() < 1e-3
        assert (c - b).abs().max() < 1e-2


def test_a_window_hides_what_lies_further_back_and_bounds_the_state():
    core = Transformer(INPUTS, 8, num_layers=2, num_heads=2, window=3).double()
    x = draw(BATCH, 11, INPUTS)
    y, state = core(x)
    assert state["keys"].shape[1] == state["valid"].shape[1] == 2
    other = x.clone()
    other[:, 2] += 1  # two layers of a window of 3 reach 4 steps back: step 6 is the last that hears of step 2
    changed = (core(other)[0] - y).abs().amax(2) > 1e-9
    assert changed.tolist() == [[t in range(2, 7) for t in range(11)]] * BATCH
    wide = Transformer(INPUTS, 8, num_layers=2, num_heads=2, window=11).double()
    wide.load_state_dict(core.state_dict())
    whole = Transformer(INPUTS, 8, num_layers=2, num_heads=2).double()
    whole.load_state_dict(core.state_dict())
    assert_close(wide(x)[0], whole(x)[0])
    assert not torch.allclose(y, whole(x)[0])


def test_a_window_of_a_recurrent_attention_hides_states_only():
    core, whole = AttentionLSTM(INPUTS, 6, window=2).double(), AttentionLSTM(INPUTS, 6).double()
    whole.load_state_dict(core.state_dict())
    x = draw(BATCH, STEPS, INPUTS)
    y, state = core(x)
    h = whole(x)[1]["states"]
    assert_close(state["states"], h[:, -1:])
    last_two = {**whole.initial_state(BATCH), "states": h[:, -2:-1], "valid": torch.ones(BATCH, 1, dtype=torch.bool)}
    last_two |= {name: whole(x[:, :-1])[1][name] for name in ("h", "c")}
    assert_close(y[:, -1], whole(x[:, -1:], last_two)[0][:, 0])


@pytest.mark.parametrize("kind", [AttentionLSTM, Transformer])
def test_an_impossible_window_is_refused(kind):
    with pytest.raises(InputError, match=f"{kind.__name__}: window must be a whole number of at least 1"):
        kind(INPUTS, 8, window=0)


@pytest.mark.parametrize("kind", [AttentionLSTM, Transformer])
def test_compact_drops_what_no_row_sees(kind):
    core = kind(INPUTS, 8).double()
    reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[:, 4] = True
    _, state = core(draw(BATCH, STEPS, INPUTS), lengths=torch.tensor([6, 7, 5, 7, 6]), reset=reset)
    assert state["valid"].shape == (BATCH, STEPS)
    compact = core.compact(state)
    assert compact["valid"].shape == (BATCH, 3)
    assert compact["valid"].sum(1).tolist() == [2, 3, 1, 3, 2]
    assert_same_state(core, compact, state)
    more = draw(BATCH, 2, INPUTS, seed=1)
    assert_close(core(more, compact)[0], core(more, state)[0])
    empty = core.compact(core.initial_state(BATCH))
    assert empty["valid"].shape == (BATCH, 0)


def test_a_store_whose_parts_disagree_is_refused():
    core = Transformer(INPUTS, 8).double()
    _, state = core(draw(BATCH, STEPS, INPUTS))
    with pytest.raises(InputError, match=r'Transformer: state\["outputs"\] has the wrong size on axis S'):
        core(draw(BATCH, STEPS, INPUTS), {**state, "outputs": state["outputs"][:, 1:]})


def test_a_refusal_word_for_word():
    core = LSTM(INPUTS, 6)
    with pytest.raises(InputError) as error:
        core(torch.zeros(BATCH, STEPS, INPUTS), {"h": torch.zeros(BATCH, 6), "c": torch.zeros(BATCH, 4)})
    assert str(error.value) == (
        'LSTM: state["c"] has the wrong size on axis H\n'
        "  got       (B=5, H=4)\n"
        "  expected  (B=5, H=6)\n"
        "  hint      start a sequence with core.initial_state(batch_size), or pass state=None."
    )


@pytest.mark.parametrize("kind", [RNN, GRU, LSTM, AttentionLSTM, Transformer])
def test_sizes_are_whole_numbers_of_at_least_one(kind):
    with pytest.raises(InputError, match="input_size must be a whole number of at least 1"):
        kind(0, 8)
    with pytest.raises(InputError, match="hidden_size must be a whole number of at least 1"):
        kind(3, 0)


def test_a_transformer_needs_an_even_head_size():
    with pytest.raises(InputError, match=r"hidden_size must be a multiple of 2 \* num_heads"):
        Transformer(INPUTS, 12, num_heads=4)


@pytest.mark.parametrize("name", CORE_NAMES[1:])
@pytest.mark.parametrize(("target", "input_size"), [(3_000, 16), (20_011, 65), (153_777, 16), (1_000_003, 65)])
def test_rivals_meet_a_parameter_count(name, target, input_size):
    sizes = MemorySizes(num_heads=1 if name == "competitive" else 4)  # whose width has steps of a number per head
    fast = FastWeightSizes(num_heads=1).of(name)  # whose keys take weights at any width
    with torch.device("meta"):
        core = build_core(name, input_size, sizes, fast=fast, target_parameters=target)
    classes = {"attention": "AttentionLSTM", "competitive": "RelationalMemory", "fastweights": "FastWeightMemory"}
    assert type(core).__name__ == classes.get(name, CORES[name].label.replace(" ", ""))
    assert core.input_size == input_size
    assert abs(count_parameters(core) - target) <= 0.1 * target


@pytest.mark.parametrize("name", CORE_NAMES)
@pytest.mark.parametrize(
    "sizes",
    [
        MemorySizes(),
        MemorySizes(mem_slots=4, head_size=8, num_heads=2),
        MemorySizes(mem_slots=3, head_size=16, num_heads=3, num_blocks=2, gate_style="memory", attention_mlp_layers=4),
        MemorySizes(head_size=24, num_heads=2, key_size=5, gate_style=None, formulation="chapter"),
    ],
)
def test_every_core_has_the_parameters_of_the_relational_memory(name, sizes):
    with torch.device("meta"):
        target = count_parameters(relational_memory(17, sizes))
        assert abs(count_parameters(build_core(name, 17, sizes)) - target) <= 0.1 * target


def test_the_sizes_reach_the_relational_memory():
    sizes = MemorySizes(mem_slots=3, head_size=5, num_heads=2, key_size=4, gate_style="memory", forget_bias=0.5)
    core = build_core("rmc", 7, sizes)
    assert core.initial_state(2).shape == (2, 3, 10)
    same = RelationalMemory(7, 3, 5, num_heads=2, key_size=4, gate_style="memory", forget_bias=0.5)
    same.load_state_dict(core.state_dict(), strict=True)
    x = draw(BATCH, STEPS, 7, dtype=torch.float32)
    assert torch.equal(core(x)[0], same(x)[0])


def test_a_relational_memory_of_another_count_is_refused():
    with pytest.raises(InputError, match="no size of 'rmc' has a parameter count within 10% of the target"):
        build_core("rmc", 17, MemorySizes(), target_parameters=20_000)


CHOSEN = [
    ("transformer", "num_heads", lambda core: core.num_heads),
    ("transformer", "num_layers", lambda core: len(core.layers)),
    ("universal", "num_heads", lambda core: core.num_heads),
    ("universal", "num_layers", lambda core: core.passes),
    ("deltanet", "num_heads", lambda core: core.num_heads),
    ("deltanet", "num_layers", lambda core: len(core.layers)),
    ("ntm", "num_heads", lambda core: core.read_heads),
    ("dnc", "num_heads", lambda core: core.read_heads),
]


@pytest.mark.parametrize(("name", "choice", "found"), CHOSEN)
@pytest.mark.parametrize("value", [1, 5])
def test_heads_and_layers_of_a_rival_can_be_chosen_at_equal_parameters(name, choice, found, value):
    sizes = MemorySizes(mem_slots=4, head_size=32, num_heads=2)
    with torch.device("meta"):
        target = count_parameters(relational_memory(17, sizes))
        core = build_core(name, 17, sizes, rivals=RivalSizes(**{choice: value}))
    assert found(core) == value
    assert abs(count_parameters(core) - target) <= 0.1 * target


def test_the_table_names_the_choices_that_a_core_has():
    chosen = {choice: {core for core, one, _ in CHOSEN if one == choice} for _, choice, _ in CHOSEN}
    assert {choice: set(cores) for choice, cores in RivalSizes.having.items()} == chosen
    assert FastWeightSizes.having.keys() == FastWeightSizes().but().keys()


def test_the_names_of_the_cores_are_those_of_the_table():
    assert tuple(CORES) == CORE_NAMES == get_args(CoreName)


def test_without_a_choice_machines_read_with_the_heads_of_the_memory_and_layers_have_four():
    sizes = MemorySizes(mem_slots=4, head_size=32, num_heads=2)
    heads = {name: build_core(name, 17, sizes).read_heads for name in ("ntm", "dnc")}
    layered = {name: build_core(name, 17, sizes).num_heads for name in ("transformer", "universal", "deltanet")}
    assert heads | layered == {"ntm": 2, "dnc": 2, "transformer": 4, "universal": 4, "deltanet": 4}


def test_a_choice_that_a_core_does_not_have_is_refused():
    with pytest.raises(InputError) as error:
        build_core("dnc", 16, MemorySizes(), rivals=RivalSizes(num_heads=2, num_layers=3))
    assert str(error.value) == (
        "build_core: rivals.num_layers would have no effect on dnc\n"
        "  got       3\n"
        "  hint      the cores that have it: transformer, universal, deltanet."
    )
    with pytest.raises(InputError, match="RivalSizes: num_heads must be a whole number of at least 1"):
        RivalSizes(num_heads=0)


@pytest.mark.parametrize("target", [20_011, 153_777])
def test_choices_of_the_fast_weights_are_kept_at_equal_parameters(target):
    fast = FastWeightSizes(num_heads=3, key_size=12, value_size=20, reads=2, carry=False, max_strength=1.5)
    with torch.device("meta"):
        core = build_core("fastweights", 17, MemorySizes(), fast=fast, target_parameters=target)
    chosen = {field.name: getattr(fast, field.name) for field in dataclasses.fields(fast)}
    assert {name: core.arguments[name] for name in chosen} == chosen
    assert abs(count_parameters(core) - target) <= 0.1 * target


def test_choices_of_the_fast_weights_are_refused_elsewhere():
    with pytest.raises(InputError) as error:
        build_core("lstm", 16, MemorySizes(), fast=FastWeightSizes(key_size=8))
    assert str(error.value) == (
        "build_core: fast.key_size would have no effect on lstm\n"
        "  got       8\n"
        "  hint      the core that has it: fastweights."
    )
    with pytest.raises(InputError, match="FastWeightSizes: reads must be a whole number of at least 1"):
        FastWeightSizes(reads=0)
    with pytest.raises(InputError, match="FastWeightSizes: max_strength is out of range"):
        FastWeightSizes(max_strength=0.0)


def test_the_search_for_a_size_draws_no_random_numbers():
    torch.manual_seed(11)
    core = build_core("lstm", 16, MemorySizes(), target_parameters=20_000)
    torch.manual_seed(11)
    same = LSTM(16, core.hidden_size)
    assert torch.equal(core.weight_ih_l0, same.weight_ih_l0)


def test_an_impossible_count_is_refused():
    with pytest.raises(InputError) as error:
        build_core("transformer", 16, MemorySizes(), target_parameters=100)
    assert str(error.value) == (
        "build_core: no size of 'transformer' has a parameter count within 10% of the target\n"
        "  got       1,187 parameters\n"
        "  expected  100 parameters\n"
        "  hint      change the sizes of the relational memory or the target."
    )


def test_an_unknown_core_is_refused():
    with pytest.raises(InputError, match="name is not a known choice\n  got       'elman'"):
        build_core("elman", 16, MemorySizes())


def test_nearest_size_looks_on_both_sides():
    assert nearest_size(lambda n: n * n, 1) == 1
    assert nearest_size(lambda n: n * n, 90) == 9  # 81 is nearer than 100
    assert nearest_size(lambda n: n * n, 91) == 10
    assert nearest_size(lambda n: n * n, 10_000) == 100
    assert nearest_size(lambda n: 1000 * n, 3) == 1


def test_state_bytes_grow_only_where_the_state_does():
    fixed, growing = LSTM(INPUTS, 6), AttentionLSTM(INPUTS, 6)
    assert state_bytes_after(fixed, 0) == state_bytes_after(fixed, 50) == 2 * 6 * 4
    assert state_bytes_after(growing, 0) == 2 * 6 * 4
    assert state_bytes_after(growing, 50) == 2 * 6 * 4 + 50 * (6 * 4 + 1)
    transformer = Transformer(INPUTS, 8, num_layers=3, num_heads=2)
    assert state_bytes_after(transformer, 50) == 50 * ((2 * 3 + 1) * 8 * 4 + 1)
    assert state_bytes(transformer.initial_state(4)) == 0


@pytest.mark.parametrize(
    "field", ["mem_slots", "head_size", "num_heads", "num_blocks", "key_size", "attention_mlp_layers"]
)
def test_memory_sizes_are_checked(field):
    with pytest.raises(InputError, match=f"MemorySizes: {field} must be a whole number of at least 1"):
        MemorySizes(**{field: 0})
