"""One step for layers: the kernels' where no gradient is wanted, else the definition's, and both the same."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cpu_scan_cases import SIZES, cell_and_input

from relational_rnn import InputError, RelationalMemory
from relational_rnn.ops.relational_scan import relational_step, relational_step_after
from relational_rnn.ops.relational_scan import step as module
from relational_rnn.ops.relational_scan.cpu import kernels_report
from relational_rnn.ops.relational_scan.step import ReadyStep
from relational_rnn.testing import assert_as_good_as


@pytest.fixture
def ran(monkeypatch):
    """What computed the steps, in order."""
    if not kernels_report().startswith("compiled"):
        pytest.skip(kernels_report())
    names = []
    places = [("kernels", ReadyStep, "__call__"), ("kernels", module, "relational_scan_cpu")]
    for name, place, function in (*places, ("definition", module, "relational_step")):
        original = getattr(place, function)

        def noted(*args, name=name, original=original, **kwargs):
            names.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(place, function, noted)
    return names


@pytest.mark.parametrize("batch", [1, 2, 9, 40])
@pytest.mark.parametrize("name", SIZES)
def test_it_is_the_definition(name, batch, rng, ran):
    """Few rows read the weights as they are, more rows have them arranged, many rows are a scan; both dtypes."""
    cell, x, memory = cell_and_input(SIZES[name], rng, steps=1, batch=batch)
    single = copy.deepcopy(cell).float()
    with torch.no_grad():
        oracle = relational_step(x[:, 0], memory, cell.scan_parameters())
        peer = relational_step(x[:, 0].float(), memory.float(), single.scan_parameters())
        for wanted in (False, True):
            got = cell.step_after(x[:, 0], memory, input_rows=wanted)
            assert_as_good_as("memory", got.memory, oracle.memory, oracle.memory)
            assert (got.input_rows is not None) == wanted
            if wanted:
                assert_as_good_as("rows", got.input_rows, oracle.input_rows, oracle.input_rows)
            got = single.step_after(x[:, 0].float(), memory.float(), input_rows=wanted)
            assert_as_good_as("memory", got.memory, peer.memory, oracle.memory)
    assert ran == ["kernels"] * 4


def test_the_definition_computes_what_the_kernels_do_not_take(rng, ran):
    cell, x, memory = cell_and_input(SIZES["unit"], rng, steps=1)
    x, p = x[:, 0], cell.scan_parameters()
    relational_step_after(x, memory, p).memory.sum().backward()  # gradients
    with torch.no_grad():
        relational_step_after(x, memory, p, backend="reference")
        with torch.autocast("cpu"):
            relational_step_after(x, memory, p)
        relational_step_after(x[:0], memory[:0], p)
        torch.func.vmap(lambda row, before: relational_step_after(row[None], before[None], p).memory)(x, memory)
        half = copy.deepcopy(cell).bfloat16().scan_parameters()
        relational_step_after(x.bfloat16(), memory.bfloat16(), half)
    assert ran == ["definition"] * 6


def test_a_layer_and_its_cell_step_by_kernels(rng, ran):
    layer = RelationalMemory(4, mem_slots=3, head_size=2, num_layers=2, read_head="input")
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)
    layer.step(x, state)
    with torch.no_grad():
        layer.step(x, state)
        layer.cell()(x)
        layer.backend = "reference"
        layer.step(x, state)
    assert ran == ["definition"] * 2 + ["kernels"] * 3 + ["definition"] * 2


def test_a_sequence_of_one_step_takes_the_same_kernels(rng, ran):
    for options, shape in (({}, (2, 1, 4)), ({"batch_first": False}, (1, 2, 4)), ({"input_rows": 3}, (2, 1, 3, 4))):
        for more in ({}, {"num_layers": 2}, {"read_head": "input", "output_size": 5}):
            layer = RelationalMemory(4, mem_slots=3, head_size=2, **options, **more)
            x, state = torch.randn(*shape, generator=rng), layer.initial_state(2)
            with torch.no_grad():
                for _ in range(2):  # the second one is quick
                    y, after = layer(x, state)
                    time = 1 if layer.batch_first else 0
                    y_t, after_t = layer.step(x.squeeze(time), state)
                    torch.testing.assert_close((y.squeeze(time), after), (y_t, after_t), rtol=0, atol=0)
                    after.zero_()  # the output is no view of the state
                    assert y.abs().max() > 0
            assert set(ran) == {"kernels"}
            layer.backend = "reference"
            torch.testing.assert_close(layer(x, state)[0], y, rtol=1e-5, atol=1e-5)


def test_a_sequence_of_one_step_with_a_reset_a_length_or_a_gradient_is_no_quick_step(rng, ran):
    layer = RelationalMemory(4, mem_slots=3, head_size=2)
    x, state = torch.randn(2, 1, 4, generator=rng), layer.initial_state(2)
    assert layer(x, state)[0].requires_grad
    with torch.no_grad():
        layer(x, state, reset=torch.zeros(2, 1, dtype=torch.bool))
        layer(x, state, lengths=torch.ones(2, dtype=torch.int64))
    assert ran == []


class Doubled(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


def optimizer_step(layer):
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    with torch.enable_grad():
        layer(torch.ones(2, 3, 4))[0].sum().backward()
    optimizer.step()


def load(layer, assign):
    other = {name: torch.full_like(value, 0.1) for name, value in layer.state_dict().items()}
    layer.load_state_dict(other, assign=assign)


def change_data(change):
    def edit(layer):
        weight = layer.cell().mlp[1].weight
        weight.data = change(weight.data)

    return edit


def replace_a_layer(layer):
    layer.cell().mlp[0] = torch.nn.Linear(6, 6)


def add_a_layer(layer):
    layer.cell().mlp.append(torch.nn.Linear(6, 6))


def replace_a_parameter(layer):
    bias = layer.cell().gate_memory.bias
    layer.cell().gate_memory.bias = torch.nn.Parameter(torch.randn_like(bias))


def double_a_weight(layer):
    torch.nn.utils.parametrize.register_parametrization(layer.cell().mlp[0], "weight", Doubled())


def drop_gates(layer):
    layer.cell().gate_input = layer.cell().gate_memory = None


def swap(layer):
    weight = layer.cell().input.weight
    torch.utils.swap_tensors(weight, torch.nn.Parameter(torch.randn_like(weight)))


CHANGES = {
    "optimizer": optimizer_step,
    "load_state_dict": lambda layer: load(layer, assign=False),
    "load_state_dict, assigned": lambda layer: load(layer, assign=True),
    "written into": lambda layer: layer.cell().input.bias.fill_(0.5),
    "other data": change_data(lambda data: data.flip(0)),
    "the data transposed": change_data(lambda data: data.t()),
    "the data transposed, one step between": change_data(lambda data: data.t().contiguous()),
    "float64": lambda layer: layer.double(),
    "float64 and back": lambda layer: layer.double().float(),
    "bfloat16": lambda layer: layer.bfloat16(),
    "another layer": replace_a_layer,
    "one more layer": add_a_layer,
    "another parameter": replace_a_parameter,
    "no gates": drop_gates,
    "swapped": swap,
    "a parametrization": double_a_weight,
    "drawn anew": lambda layer: layer.cell().reset_parameters(),
    "other settings": lambda layer: setattr(
        layer.cell(), "settings", dataclasses.replace(layer.cell().settings, forget_bias=-2.0, input_bias=-1.0)
    ),
}


@pytest.mark.parametrize(
    ("change", "gate_style"),
    [
        *((change, "unit") for change in CHANGES),
        *((change, "competitive") for change in [*CHANGES, "a share"] if change != "no gates"),
    ],
)
def test_what_is_ready_never_outlives_a_change(change, gate_style, rng, ran):
    """The layer answers as one that never stepped before, from its next step on; and so does its copy."""
    layer = RelationalMemory(4, mem_slots=3, head_size=3, num_heads=2, gate_style=gate_style)
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)
    with torch.no_grad():
        before, _ = layer.step(x, state)
        for _ in range(2):
            layer.step(x[:1], state[:1])
            layer(x.unsqueeze(1), state)
        assert ran.count("kernels") == len(ran) == 5
        (CHANGES | {"a share": lambda layer: layer.cell().share_key.weight.mul_(-9)})[change](layer)
        kind = layer.cell().input.weight.dtype
        x, state = x.to(kind), state.to(kind)
        fresh = copy.deepcopy(layer)
        fresh.backend = "reference"
        expected = fresh.step(x, state)
        assert not torch.allclose(expected[0].float(), before.float(), atol=1e-4) or change in UNCHANGED
        tolerance = {"rtol": 1e-5, "atol": 1e-5}
        for _ in range(2):
            torch.testing.assert_close(layer.step(x, state), expected, **tolerance)
            torch.testing.assert_close(layer(x.unsqueeze(1), state)[1], expected[1], **tolerance)
            torch.testing.assert_close(layer.step(x[:1], state[:1])[0], expected[0][:1], **tolerance)
            torch.testing.assert_close(layer.cell()(x, state), expected[1], **tolerance)


UNCHANGED = {"float64", "float64 and back", "bfloat16"}


def test_a_parametrization_that_goes_leaves_nothing_behind(rng):
    layer = RelationalMemory(4, mem_slots=3, head_size=5)
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)
    with torch.no_grad():
        before = layer.step(x, state)
        double_a_weight(layer)
        assert not torch.allclose(layer.step(x, state)[0], before[0])
        layer.cell().mlp[0].parametrizations.weight.original.mul_(0.5)
        torch.testing.assert_close(layer.step(x, state), before)
        layer.cell().mlp[0].parametrizations.weight.original.mul_(2)
        torch.nn.utils.parametrize.remove_parametrizations(layer.cell().mlp[0], "weight", leave_parametrized=False)
        torch.testing.assert_close(layer.step(x, state), before)


@pytest.mark.parametrize("before", [0, 2])
def test_a_weight_of_the_wrong_size_is_refused(before, rng, compiled):
    """The kernels would read past its end."""
    layer = RelationalMemory(4, mem_slots=3, head_size=5)
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)
    with torch.no_grad():
        for _ in range(before):
            layer.step(x, state)
        layer.cell().mlp[1].weight.data = layer.cell().mlp[1].weight.data[:3]
        with pytest.raises(InputError, match=r"mlp\[1\] has weight .* where the other sizes need"):
            layer.step(x, state)


def test_other_kernels_asked_for_run_from_the_next_step_on(rng, ran, monkeypatch):
    layer = RelationalMemory(4, mem_slots=3, head_size=2)
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)
    with torch.no_grad():
        for choice in ("auto", "off", "auto"):
            monkeypatch.setenv("RELATIONAL_RNN_KERNELS", choice)
            layer.step(x, state)
    assert ran == ["kernels", "definition", "kernels"]


def test_hooks_of_what_a_step_calls_run_at_every_step(rng):
    layer = RelationalMemory(4, mem_slots=3, head_size=2, output_size=5)
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)
    with torch.no_grad():
        y, _ = layer.step(x, state)
        layer.step(x, state)
        layer.projection.register_forward_hook(lambda module, arguments, result: 3 * result)
        torch.testing.assert_close(layer.step(x, state)[0], 3 * y)


def test_other_tensors_for_one_call_are_used_for_that_call(rng):
    layer = RelationalMemory(4, mem_slots=3, head_size=2)
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)
    with torch.no_grad():
        before = layer(x.unsqueeze(1), state)
        layer(x.unsqueeze(1), state)
        half = {name: value * 0.5 for name, value in layer.named_parameters()}
        expected = copy.deepcopy(layer)
        expected.load_state_dict(half)
        got = torch.func.functional_call(layer, half, (x.unsqueeze(1), state))
        torch.testing.assert_close(got, expected(x.unsqueeze(1), state))
        torch.testing.assert_close(layer(x.unsqueeze(1), state), before, rtol=0, atol=0)


def test_what_is_ready_is_left_behind_by_copies_and_files(rng):
    layer = RelationalMemory(4, mem_slots=3, head_size=2)
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)
    with torch.no_grad():
        before = layer.step(x, state)
        for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)):
            torch.testing.assert_close(copied.step(x, state), before, rtol=0, atol=0)
        layer.cell().input.bias.fill_(2.0)
        torch.testing.assert_close(copied.step(x, state)[0], layer.step(x, state)[0], rtol=0, atol=0)


@pytest.mark.parametrize("wrong", ["batch", "features", "slots", "dtype", "rows", "no batch"])
def test_a_wrong_input_is_refused_after_right_ones_too(wrong, rng):
    layer = RelationalMemory(4, mem_slots=3, head_size=2)
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)
    with torch.no_grad():
        layer.step(x, state)
        layer.step(x[:1], state[:1])
        layer(x.unsqueeze(1), state)
        pairs = {
            "batch": (x, state[:1]),
            "features": (x[:, :3], state),
            "slots": (x, state[:, :2]),
            "dtype": (x.double(), state.double()),
            "rows": (x.unsqueeze(1), state),
            "no batch": (x[0], state[:1]),
        }
        with pytest.raises(InputError):
            layer.step(*pairs[wrong])
        if wrong not in ("rows", "no batch"):
            with pytest.raises(InputError):
                layer(pairs[wrong][0].unsqueeze(1), pairs[wrong][1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch scripts its own rules for forward mode
def test_steps_that_are_ready_follow_every_mode(rng, ran):
    layer = RelationalMemory(4, mem_slots=3, head_size=2)
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)
    with torch.no_grad():
        for _ in range(2):
            y, _ = layer.step(x, state)
        ran.clear()
        with torch.autocast("cpu"):
            layer.step(x, state)
        rows = torch.func.vmap(lambda row, before: layer.step(row[None], before[None])[0][0])(x, state)
        torch.testing.assert_close(rows, y)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            tangent = torch.autograd.forward_ad.unpack_dual(layer.step(dual, state)[0]).tangent
            assert tangent is not None
        assert ran == ["definition"] * 3
    assert layer.step(x, state)[0].requires_grad
    with torch.inference_mode():
        ran.clear()
        torch.testing.assert_close(layer.step(x, state)[0], y, rtol=0, atol=0)
        assert ran == ["kernels"]


@pytest.mark.filterwarnings("ignore")  # torch.jit as a whole is deprecated, and a trace warns of every check
def test_a_trace_holds_the_operations_of_a_step_not_its_result(rng):
    layer = RelationalMemory(4, mem_slots=3, head_size=2).requires_grad_(False)
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)
    with torch.no_grad():
        layer.step(x, state)
        traced = torch.jit.trace(lambda a, b: layer.step(a, b)[0], (x, state), check_trace=False)
        torch.testing.assert_close(traced(2 * x, state), layer.step(2 * x, state)[0])


def test_a_compiled_and_an_exported_step_go_the_traceable_way(rng, ran):
    layer = RelationalMemory(4, mem_slots=3, head_size=2)
    x, state = torch.randn(2, 1, 4, generator=rng), layer.initial_state(2)

    class Stepper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, state):
            return self.layer.step(x[:, 0], state)[0], self.layer(x, state)[0]

    with torch.no_grad():
        y, _ = layer.step(x[:, 0], state)
        layer(x, state)
        ran.clear()
        for run in (
            torch.compile(Stepper(), backend="aot_eager", fullgraph=True),
            torch.export.export(Stepper(), (x, state)).module(),
        ):
            for got in run(x, state):
                torch.testing.assert_close(got.flatten(1), y)
    assert "kernels" not in ran


def test_two_threads_do_not_share_what_a_step_works_in(rng):
    """Each carries a state of its own through the same layer."""
    layer = RelationalMemory(32, mem_slots=4, head_size=16, num_heads=4)
    x = torch.randn(2, 1, 32, generator=rng)

    def walk(i):
        state = layer.initial_state(1)
        with torch.no_grad():
            for _ in range(400):
                _, state = layer.step(x[i], state)
        return state

    alone = [walk(0), walk(1)]
    with ThreadPoolExecutor(2) as pool:
        for together in (list(pool.map(walk, (0, 1))) for _ in range(3)):
            torch.testing.assert_close(together, alone, rtol=0, atol=0)


def test_the_sizes_that_are_kept_ready_are_few(rng, compiled):
    layer = RelationalMemory(4, mem_slots=3, head_size=2)
    with torch.no_grad():
        for batch in [*range(1, 30), 60]:
            layer.step(torch.randn(batch, 4, generator=rng), layer.initial_state(batch))
    assert 0 < len(layer.cell()._steps._ready) <= 8
    assert all(x[0] * 3 <= 128 for _, x, _ in layer.cell()._steps._ready)
