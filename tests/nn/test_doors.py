"""What users of `nn.LSTM` and of rollouts bring along: other names, lists, pairs, zeros, absurd sizes, printing."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from cores_table import BATCH, INPUTS, STEPS, assert_close, assert_same_state, draw, some_state
from torch import nn
from torch.nn.utils import prune

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn import (
    DNC,
    GRU,
    LSTM,
    NTM,
    AttentionLSTM,
    FastWeightMemory,
    GatedDeltaNet,
    MemorySizes,
    RelationNetwork,
    Transformer,
    UniversalTransformer,
    build_core,
)
from relational_rnn.nn.compat import PortedRelationalMemory
from relational_rnn.nn.readers import MatrixReader, RowReader
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell, warn_once

# Every core


def test_weights_are_drawn_anew(case):
    torch.manual_seed(1)
    fresh = case.create()
    core = case.create()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.fill_(7.0)
    core.reset_parameters()
    for (name, found), start in zip(core.named_parameters(), fresh.parameters(), strict=True):
        assert not (found == 7).any(), name
        # a bias, a gain, the identity; the strengths and shares with which fast weights begin
        if start.unique().numel() <= min(2, start.numel() - 1) or start.numel() == 1 or name == "write.bias":
            assert torch.equal(found, start), name
        else:
            assert not torch.equal(found, start), name
            assert start.numel() < 20 or 0.3 < found.std() / start.std() < 3, name


def test_a_step_can_begin_an_episode(case):
    core, x_t = case.core(), draw(BATCH, INPUTS)
    state, reset = some_state(core), torch.tensor([False, True, False, True, True])
    y, after = core.step(x_t, state, reset=reset)
    y_whole, after_whole = core(x_t.unsqueeze(1), state, reset=reset.unsqueeze(1))
    assert_close(y, y_whole.squeeze(1))
    assert_same_state(core, after, after_whole)
    y_start, _ = core.step(x_t, core.initial_state(BATCH))
    assert_close(y[reset], y_start[reset])
    assert not torch.allclose(y[~reset], y_start[~reset])
    for wrong in (reset.float(), reset[:-1]):
        with pytest.raises(InputError, match="reset"):
            core.step(x_t, state, reset=wrong)


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda numbers: np.array(numbers, dtype=np.uint8)])
def test_lengths_may_be_plain_numbers(case, kind):
    core, x, lengths = case.core(), draw(BATCH, STEPS, INPUTS), [3, 7, 0, 1, 5]
    (y, state), (y_tensor, state_tensor) = core(x, lengths=kind(lengths)), core(x, lengths=torch.tensor(lengths))
    assert torch.equal(y, y_tensor)
    assert_same_state(core, state, state_tensor)


def test_questions_may_be_plain_numbers(case):
    core, x, rows, at = case.core(), draw(BATCH, STEPS, INPUTS), [0, 4, 4], (7, 0, 2)
    found = core.snapshots(x, rows, at)
    assert_same_state(core, found, core.snapshots(x, torch.tensor(rows), torch.tensor(at)), batch_size=3)


def test_a_state_for_every_step_is_refused_with_a_hint(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    state = core.initial_state(BATCH)
    name, tensor = next(iter(state.items())) if isinstance(state, dict) else (None, state)
    kept = tensor.unsqueeze(1).expand(BATCH, STEPS, *tensor.shape[1:])
    with pytest.raises(InputError, match="of states that were kept for every step, the first one") as error:
        core(x, kept if name is None else {**state, name: kept})
    assert str(error.value).startswith(f"{type(core).__name__}: state")


def test_a_core_shows_what_it_was_given(case):
    core = case.create()
    shown = core.extra_repr()
    assert shown in repr(core)
    if isinstance(core, RelationalMemory):
        for said in ("mem_slots=", "head_size=", "num_heads=", "gate_style=", "num_layers=", "backend="):
            assert said in shown
        return
    given = core.arguments
    assert shown.startswith(f"{INPUTS}, ")
    for name in ("num_heads", "read_heads", "window", "chunk_size", "carry", "max_strength"):
        if name in given and given[name] not in (1, 4, None, 64, True, 1.0):
            assert f"{name}={given[name]!r}" in shown


def test_what_cannot_be_a_start_is_refused(case):
    core = case.create()
    for batch in ("2", -1, 2.0, True, None):
        with pytest.raises(InputError, match="batch_size must be a whole number of at least 0"):
            core.initial_state(batch)
    for device in (3, "nowhere", "cuda:99"):
        with pytest.raises(InputError, match="device"):
            core.initial_state(2, device=device)
    for dtype in ("float32", torch.int64, torch.complex64):
        with pytest.raises(InputError, match="dtype is not one that layers compute in"):
            core.initial_state(2, dtype=dtype)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_tensors_that_are_not_dense_are_refused(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    with pytest.raises(InputError, match=r"x must be a dense tensor\n  got       torch\.sparse_coo"):
        core(x.to_sparse())
    nested = torch.nested.nested_tensor([x[0], x[1, :3]])
    with pytest.raises(InputError, match="x must be a dense tensor\n  got       a nested tensor"):
        core(nested)


# Sizes that no machine has

SIZES = {
    RelationalMemory: (dict(input_size=3, mem_slots=4, head_size=2), "num_blocks attention_mlp_layers num_layers"),
    RelationalMemoryCell: (dict(input_size=3, mem_slots=4, head_size=2), "num_blocks attention_mlp_layers"),
    PortedRelationalMemory: (dict(input_size=3, mem_slots=4, head_size=2), "num_blocks attention_mlp_layers"),
    LSTM: (dict(input_size=3, hidden_size=4), ""),
    GRU: (dict(input_size=3, hidden_size=4), ""),
    AttentionLSTM: (dict(input_size=3, hidden_size=4), ""),
    Transformer: (dict(input_size=3, hidden_size=8), "num_layers"),
    UniversalTransformer: (dict(input_size=3, hidden_size=8), "num_passes"),
    GatedDeltaNet: (dict(input_size=3, hidden_size=8), "num_layers"),
    NTM: (dict(input_size=3, hidden_size=4), ""),
    DNC: (dict(input_size=3, hidden_size=4), ""),
    FastWeightMemory: (dict(input_size=3, hidden_size=4), "reads"),
    RelationNetwork: (dict(object_size=3, question_size=4, answer_size=2), "pair_layers answer_hidden_layers"),
    RowReader: (dict(rows=None, row_size=3, size=4, looks=1, heads=2), "looks"),
    MatrixReader: (dict(matrices=None, shape=(2, 3, 4), size=4, looks=1), "looks"),
}
OTHER = (
    "window",
    "chunk_size",
    "max_strength",
    "carry",
    "shift_range",
    "dropout",
    "forget_bias",
    "input_bias",
    "shape",
)


def sizes_of(cls):
    import inspect

    given, _ = SIZES[cls]
    taken = inspect.signature(cls).parameters
    return [n for n in taken if n not in OTHER and (isinstance(given.get(n, taken[n].default), int) or n == "key_size")]


@pytest.mark.parametrize("cls", SIZES, ids=lambda cls: cls.__name__)
def test_absurd_sizes_are_refused_before_anything_is_made(cls):
    given, counts = SIZES[cls]
    names = [
        n for n in sizes_of(cls) if not isinstance(given.get(n), bool) and n not in ("batch_first", "check_finite")
    ]
    assert names
    for name in names:
        for size in (10**30, 10**12):
            with pytest.raises(InputError) as error:
                cls(**{**given, name: size})
            assert re.match(
                r"\w+: (\w+ is too large|these sizes ask|hidden_size must be|heads must|a head can)", str(error.value)
            )
    for name in counts.split():
        with pytest.raises(InputError, match=rf"{name} is too large\n  got       1025\n  expected  1 to 1,024"):
            cls(**{**given, name: 1025})


def test_layers_that_fit_alone_and_not_together_are_refused():
    with pytest.raises(InputError, match=r"these sizes ask for more .*\n  got       1\.7e\+10 numbers"):
        RelationalMemory(5, 2**18, 4, num_heads=2, num_layers=1024)


def test_absurd_starts_and_rivals_are_refused():
    with pytest.raises(InputError, match="an initial state of this batch_size has more numbers than any machine holds"):
        RelationalMemory(3, 4, 2).initial_state(10**12)
    with pytest.raises(InputError, match="attention_mlp_layers is too large"):
        MemorySizes(attention_mlp_layers=10**30)
    with pytest.raises(InputError):
        build_core("lstm", 3, MemorySizes(), target_parameters=2**31 - 1 + 2**40)


# Names of other libraries


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: RelationalMemory(16, 64), "RelationalMemory: head_size must be given"),
        (lambda: RelationalMemory(16, hidden_size=64), "output_size= gives any size"),
        (lambda: RelationalMemory(16, 4, 8, bidirectional=True), "a core reads in one direction; the guide shows"),
        (lambda: RelationalMemory(16, 4, 8, proj_size=5), "output_size= projects the output"),
        (
            lambda: RelationalMemory(16, 4, 8, 2),
            "only input_size, mem_slots, head_size can be given without their names",
        ),
        (lambda: RelationalMemory(16, 4, 8, input_size=2), "input_size was given twice"),
        (lambda: LSTM(16, 64, num_layers=2), "stack cores: the output of one is the input of the next"),
        (lambda: GRU(16, 64, batch_first=True), "the batch is always the first axis"),
        (lambda: Transformer(16), "Transformer: hidden_size must be given"),
        (
            lambda: RelationalMemory(16, 4, 8, sloths=2),
            "there is no argument 'sloths'\n  expected  input_size, mem_slots",
        ),
        (lambda: GRU(16, 64, 2), "the others are given by their names, such as num_layers="),
        (lambda: RelationalMemoryCell(16, 64), "RelationalMemoryCell: head_size must be given"),
        (lambda: RelationalMemoryCell(16, hidden_size=64), "the memory has mem_slots * num_heads * head_size numbers."),
        (lambda: RelationalMemoryCell(16, 4, 8, num_layers=2), "RelationalMemory, which takes whole sequences, has it"),
        (lambda: RelationalMemoryCell(16, 4, 8, 2), "head_size can be given without their names"),
        (lambda: RelationalMemoryCell("16", 4, 8), "input_size must be a whole number of at least 1"),
    ],
)
def test_other_names_are_refused_with_a_hint(call, said):
    with pytest.raises(InputError, match=re.escape(said)):
        call()


def test_a_pair_is_refused_with_a_hint():
    x = torch.zeros(2, 3, 5)
    with pytest.raises(InputError, match=r"there is no pair \(h, c\): the memory is one tensor"):
        RelationalMemory(5, 4, 2)(x, (torch.zeros(2, 4, 2), torch.zeros(2, 4, 2)))
    with pytest.raises(InputError, match=r'of a pair \(h, c\): \{"h": h, "c": c\}, without an axis of layers'):
        LSTM(5, 4)(x, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))


@pytest.mark.parametrize(
    "given", [dict(device=3), dict(device="nowhere"), dict(dtype="float32"), dict(dtype=torch.int64)]
)
@pytest.mark.parametrize("cls", [RelationalMemory, RelationalMemoryCell])
def test_where_and_how_precise(cls, given):
    with pytest.raises(InputError, match=r"RelationalMemory: (device|dtype) "):
        cls(5, 4, 2, **given)


# A start of zeros


@pytest.fixture
def unwarned():
    warn_once.cache_clear()
    yield
    warn_once.cache_clear()


@pytest.mark.parametrize("rows", [[0, 1, 2], [1]])
@pytest.mark.parametrize("how", ["sequence", "step", "cell"])
def test_a_start_of_zeros_warns_once(how, rows, unwarned):
    layer, x = RelationalMemory(5, 4, 6), torch.randn(3, 2, 5)
    state = layer.initial_state(3)
    state[rows] = 0
    calls = {
        "sequence": lambda: layer(x, state),
        "step": lambda: layer.step(x[:, 0], state),
        "cell": lambda: layer.cell()(x[:, 0], state),
    }
    with pytest.warns(UserWarning, match=r"a state of zeros was passed.* initial_state\(batch_size\)") as seen:
        calls[how]()
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calls[how]()


def test_starts_that_are_meant_do_not_warn(unwarned):
    x = torch.randn(3, 2, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in (RelationalMemory(5, 4, 6), RelationalMemory(5, 1, 6), RelationalMemory(5, 4, 6, num_layers=2)):
            _, state = layer(x, layer.initial_state(3))
            layer(x, state)
        RelationalMemory(5, 1, 6)(x, torch.zeros(3, 1, 6))


# Two directions, as the guide has them, and files of tied or changed weights


def test_tied_weights_are_saved_and_load_to_the_same_numbers(tmp_path):
    layer = RelationalMemory(5, 4, 6)
    layer.cells[0].mlp[1].weight = layer.cells[0].mlp[0].weight
    layer.save_pretrained(tmp_path / "layer")
    loaded, x = RelationalMemory.from_pretrained(tmp_path / "layer"), torch.randn(2, 3, 5)
    assert torch.equal(loaded(x)[0], layer(x)[0])
    safetensors.torch.save_model(layer, str(tmp_path / "layer.safetensors"))
    other = RelationalMemory(5, 4, 6)
    other.cells[0].mlp[1].weight = other.cells[0].mlp[0].weight
    safetensors.torch.load_model(other, str(tmp_path / "layer.safetensors"))
    assert torch.equal(other(x)[0], layer(x)[0])


def test_weights_that_no_constructor_makes_are_not_saved(tmp_path):
    pruned, larger = RelationalMemory(5, 4, 6), LSTM(5, 6)
    prune.l1_unstructured(pruned.cells[0].input, "weight", 0.5)
    larger.weight_ih_l0 = nn.Parameter(torch.zeros(24, 7))
    for core in (pruned, larger):
        with pytest.raises(InputError, match="save_pretrained: the weights are not those of this constructor"):
            core.save_pretrained(tmp_path / "core")
    assert not (tmp_path / "core").exists()


@pytest.mark.parametrize("bias", ["ce", [], None, True, float("nan"), 10**400])
@pytest.mark.parametrize("name", ["forget_bias", "input_bias"])
def test_a_gate_of_a_port_begins_with_a_number(name, bias):
    with pytest.raises(InputError, match=f"PortedRelationalMemory: {name} must be a number"):
        PortedRelationalMemory(3, 4, 2, **{name: bias})


def test_a_sparse_sequence_of_one_step_is_refused():
    layer, x = RelationalMemory(3, 4, 2), torch.zeros(5, 1, 3)
    with torch.no_grad():
        _, memory = layer(x)
        with pytest.raises(InputError, match="x must be a dense tensor"):
            layer(x.to_sparse(), memory)
        with pytest.raises(InputError, match="x_t must be a dense tensor"):
            layer.step(x.squeeze(1).to_sparse(), memory)
