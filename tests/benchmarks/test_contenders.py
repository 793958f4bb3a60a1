"""Who takes part, of what size, and that a wrong backend is not timed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from relational_rnn import InputError
from relational_rnn.benchmarks import contenders as c
from relational_rnn.benchmarks.contenders import CausalEncoder, build, definition, names
from relational_rnn.benchmarks.l0sg import FILE, load_port
from relational_rnn.benchmarks.measuring import CheckFailed, check, judge, peak_memory
from relational_rnn.benchmarks.shapes import QUICK, QUICK_FAST, SHAPES, Benchmark, Case, cases, transformer_flop

TRAIN, STEP = Case(name="q", shape=QUICK, run="train"), Case(name="q", shape=replace(QUICK, steps=1), run="step")
SETTING = Benchmark(threads=1)


@pytest.mark.parametrize("shape", [SHAPES["c"], SHAPES["e"], QUICK], ids=["c", "e", "quick"])
def test_rivals_have_as_many_parameters_or_as_much_state(shape):
    case = Case(name="x", shape=shape, run="infer")
    found = {name: build(case, SETTING, name) for name in (c.LSTM, c.LSTM_STATE, c.TRANSFORMER, f"{c.LAYER}cpu")}
    wanted = found[f"{c.LAYER}cpu"]
    for name in (c.LSTM, c.TRANSFORMER):
        assert found[name].parameters == pytest.approx(wanted.parameters, rel=0.05)
    assert found[c.LSTM_STATE].state_size == wanted.state_size == shape.mem_slots * shape.num_heads * shape.head_size


def test_the_transformer_is_causal_and_its_arithmetic_is_counted():
    torch.manual_seed(0)
    encoder = CausalEncoder(5, 8, 12, steps=6)
    x = torch.randn(2, 6, 5)
    later = torch.cat([x[:, :4], torch.randn(2, 2, 5)], 1)
    for mode in (True, False):
        encoder.train(mode)
        with torch.no_grad():
            a, b = encoder(x), encoder(later)
        torch.testing.assert_close(a[:, :4], b[:, :4])
        assert not torch.allclose(a[:, 4:], b[:, 4:])
    shape = replace(QUICK, batch=1, steps=10_000)
    double = replace(shape, steps=20_000)
    assert transformer_flop(double, 8, 8, 3) / transformer_flop(shape, 8, 8, 3) == pytest.approx(4, rel=0.05)


def test_what_takes_part_follows_from_the_case(compiled):
    plan = {case.name: case for case in cases(("b", "c", "d", "f", "g", "h"), ("T", "slots", "recompute"))}
    runs = [case.run for case in cases(("c", "d", "f", "g", "h"), ())]
    assert runs == ["train", "infer", "step", "infer", "train", "infer", "step"]
    assert names(plan["c"], SETTING)[0] == [
        "relational_rnn:reference",
        "relational_rnn:cpu",
        "relational_rnn:competing slots",
        "nn.LSTM",
        "nn.LSTM, equal state",
        "nn.TransformerEncoder",
    ]
    assert names(plan["c"], SETTING)[1] == {
        "relational_rnn:triton": "on the CPU it runs under Triton's interpreter alone, which is for tests"
    }
    assert names(plan["d"], SETTING)[0][0] == "relational_rnn:step"
    ours = ["relational_rnn:cpu", "relational_rnn:competing slots"]
    assert names(plan["f"], SETTING)[0] == [*ours, "nn.LSTM", "nn.LSTM, equal state"]
    assert "relational_rnn:competing slots" not in names(plan["b"], SETTING)[0]  # one slot has nobody to compete with
    assert "relational_rnn:step, competing slots" in names(plan["d"], SETTING)[0]
    lstms = ["nn.LSTM", "nn.LSTM, equal state"]
    assert names(plan["g"], SETTING)[0] == ["relational_rnn:reference", "relational_rnn:cpu", *lstms]
    assert names(plan["h"], SETTING)[0] == [
        "relational_rnn:step",
        "relational_rnn:reference",
        "relational_rnn:cpu",
        *lstms,
    ]
    assert "relational_rnn:fast weights" in names(plan["T=16384"], SETTING)[0]
    compiled_too = names(plan["c"], Benchmark(threads=1, compiled=True))[0]
    assert set(compiled_too) - set(names(plan["c"], SETTING)[0]) == set(c.COMPILED)
    assert "relational_rnn:reference" in names(plan["T=1024"], SETTING)[0]
    assert "relational_rnn:reference" not in names(plan["T=4096"], SETTING)[0]
    found, refused = names(plan["recompute T=512"], SETTING)
    assert found == ["relational_rnn:cpu", "relational_rnn:cpu, recompute"]
    assert list(refused) == ["relational_rnn:triton"]
    found, refused = names(plan["c"], Benchmark(dtype="bfloat16"))
    assert "relational_rnn:cpu" not in found
    assert "not in bfloat16" in refused["relational_rnn:cpu"]


QUICK_CASES = [
    TRAIN,
    replace(TRAIN, run="infer"),
    STEP,
    replace(TRAIN, sweep="T"),
    Case(name="f", shape=QUICK_FAST, run="train"),
    Case(name="f", shape=replace(QUICK_FAST, steps=1), run="step"),
]


@pytest.mark.parametrize("case", QUICK_CASES, ids=lambda case: f"{case.name} {case.run} {case.sweep}")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backends_that_are_right_pass_the_check(case, dtype):
    setting = Benchmark(dtype=dtype)
    found = {name: build(case, setting, name) for name in names(case, setting)[0]}
    check(case, found, setting)


def test_a_turn_of_single_steps_carries_the_state(tmp_path, compiled):
    """Every contender alike: as many steps as a turn has, each from the state that the one before it left."""
    setting = Benchmark(l0sg=checkout(tmp_path, "q *= (self.size ** -0.5)"))
    ends = {}
    for name in names(STEP, setting)[0]:
        contender = build(STEP, setting, name)
        ends[name] = contender.turn()
        assert len(contender.run()) == 1
    long = c._input(STEP, SETTING).expand(-1, c.STEPS_PER_TURN, -1)
    torch.manual_seed(1)
    layer = c.memory(STEP.shape, SETTING, c.STEP)
    with torch.no_grad():
        _, expected = layer(long)
        first = layer(long[:, :1])[1]
    assert (first - expected).abs().max() > 1e-3
    assert c.STEP_COMPETING in ends
    for name in (c.STEP, f"{c.LAYER}reference", f"{c.LAYER}cpu"):
        torch.testing.assert_close(ends[name], expected, rtol=1e-4, atol=1e-4)
    torch.manual_seed(1)
    lstm = torch.nn.LSTM(QUICK.input_size, c.lstm_size(STEP.shape, equal_state=False), batch_first=True)
    torch.testing.assert_close(ends[c.LSTM], lstm(long)[1])
    assert ends[c.L0SG] == 1 + c.STEPS_PER_TURN


@pytest.mark.parametrize("which", [0, 1, 5], ids=["output", "input's gradient", "a parameter's gradient"])
def test_a_backend_that_is_a_little_wrong_is_red(which, compiled):
    name = f"{c.LAYER}cpu"
    right = build(TRAIN, SETTING, name)

    def wrong():
        results = right.run()
        results[which] = results[which] * (1 + 1e-5)
        return results

    with pytest.raises(CheckFailed, match=f"q, train: {name}, {'gradients' if which else 'output'}: off by"):
        check(TRAIN, {name: replace(right, run=wrong)}, SETTING)


@pytest.mark.parametrize("name", ["competing slots", "fast weights"])
def test_a_newer_memory_is_judged_by_its_own_definition(name, compiled):
    case = replace(TRAIN, sweep="T")
    names_of_ours = [f"{c.LAYER}cpu", f"{c.LAYER}{name}"]
    plain, newer = (build(case, SETTING, one) for one in names_of_ours)
    check(case, dict(zip(names_of_ours, (plain, newer), strict=True)), SETTING)
    with pytest.raises(CheckFailed, match="output"):
        check(case, {names_of_ours[1]: plain}, SETTING)
    assert newer.parameters == pytest.approx(plain.parameters, rel=0.05)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own call
@pytest.mark.parametrize("shape", [QUICK, QUICK_FAST], ids=["slots", "fast weights"])
def test_the_plain_loop_is_compiled_and_judged(shape):
    case = Case(name="q", shape=replace(shape, steps=2), run="train")
    setting = Benchmark(threads=1, compiled=True)
    name = next(iter(c.COMPILED))
    assert name in names(case, setting)[0]
    torch.compiler.reset()
    check(case, {name: build(case, setting, name)}, setting)


def test_a_missing_gradient_and_a_rival_without_numbers_are_red(compiled):
    name = f"{c.LAYER}cpu"
    right = build(TRAIN, SETTING, name)
    broken = [right.run()[0], *right.run()[2:], right.run()[1]]
    with pytest.raises(CheckFailed, match="a gradient of shape"):
        check(TRAIN, {name: replace(right, run=lambda: broken)}, SETTING)
    lstm = replace(build(TRAIN, SETTING, c.LSTM), run=lambda: [torch.tensor([1.0, float("nan")])])
    with pytest.raises(CheckFailed, match="not finite"):
        check(TRAIN, {c.LSTM: lstm}, SETTING)


def test_the_weights_are_calm_enough_to_be_judged_over_many_steps():
    """Without `calm` rounding errors grow with T until nothing can be told apart."""
    case = Case(name="long", shape=replace(QUICK, batch=1, steps=300), run="train")
    name = f"{c.LAYER}reference"
    truths = definition(case, SETTING, name, exact=True)
    peers = definition(case, SETTING, name)
    judge("the plain loop", build(case, SETTING, name).run(), peers, truths)
    error = (peers[1].double() - truths[1]).abs().max() / truths[1].abs().max()
    assert error < 100 * torch.finfo(torch.float32).eps


PORT = """
import torch
from torch import nn

class RelationalMemory(nn.Module):
    def __init__(self, mem_slots, head_size, input_size, num_heads, key_size, attention_mlp_layers, return_all_outputs):
        super().__init__()
        self.size = mem_slots * head_size * num_heads
        self.linear = nn.Linear(input_size, 3 * self.size)

    def initial_state(self, batch_size):
        return torch.ones(1).squeeze()

    def multihead_attention(self, x):
        q, k, v = torch.split(self.linear(x), self.size, -1)
        {statement}
        return q * k + v

    def forward(self, x, memory):
        return self.multihead_attention(x), None if memory is None else memory + 1
"""


def checkout(folder: Path, statement: str) -> Path:
    (folder / FILE).write_text(PORT.replace("{statement}", statement))
    return folder


def test_the_ports_statement_is_mended_in_memory_only(tmp_path):
    folder = checkout(tmp_path, "q *= (self.size ** -0.5)")
    before = (folder / FILE).read_text()
    setting = Benchmark(l0sg=folder)
    contender = build(TRAIN, setting, c.L0SG)
    results = contender.run()
    assert results[0].shape == (QUICK.batch, QUICK.steps, QUICK.state_size)
    assert len(results) == 4
    assert (folder / FILE).read_text() == before
    assert [path.name for path in folder.iterdir()] == [FILE]
    namespace: dict = {"__name__": "as_it_stands"}
    exec(before, namespace)
    kind, load_port_again = namespace["RelationalMemory"], load_port(folder).RelationalMemory
    sizes = (QUICK.mem_slots, QUICK.head_size, QUICK.input_size, QUICK.num_heads, QUICK.key_size, 2, True)
    x = torch.randn(2, 3, QUICK.input_size)
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        kind(*sizes)(x, None)
    mended, plain = load_port_again(*sizes), kind(*sizes)
    plain.load_state_dict(mended.state_dict())
    with torch.no_grad():  # where the original runs, the results are the same
        torch.testing.assert_close(mended(x, None)[0], plain(x, None)[0], rtol=0, atol=0)


@pytest.mark.parametrize("statement", ["pass", "q *= 2\n        q *= 3", "k *= 2"])
def test_another_port_is_refused(tmp_path, statement):
    with pytest.raises(InputError, match="the statement that crashes on current torch is not there exactly once"):
        load_port(checkout(tmp_path, statement))


def test_a_folder_without_the_port_is_refused(tmp_path):
    with pytest.raises(InputError, match="the port is not there"):
        load_port(tmp_path)
    (tmp_path / FILE).write_text("def (")
    with pytest.raises(InputError, match="the port cannot be read"):
        load_port(tmp_path)


def test_peak_memory_tells_storing_from_recomputing(compiled):
    (case,) = [case for case in cases((), ("recompute",)) if case.shape.steps == 512]
    case = replace(case, shape=replace(case.shape, steps=200))
    store, results = peak_memory(case, SETTING, f"{c.LAYER}cpu")
    recompute, same = peak_memory(case, SETTING, f"{c.LAYER}cpu, recompute")
    s = case.shape
    outputs = 4 * s.batch * s.steps * (s.state_size + s.input_size) / 2**20
    assert results == same
    assert results == pytest.approx(outputs, abs=0.05)  # and a few gradients of parameters
    kept = (
        4 * s.batch * s.steps * s.mem_slots * s.width * 6 / 2**20
    )  # at least: three norms' and the MLP's inputs, gates
    assert store - results > kept
    assert recompute - results < 0.5 * (store - results)


def test_inference_takes_the_memory_of_its_results(tmp_path, compiled):
    """At the long shape, cut to what a test has time for, and with many short sequences."""
    long, wide = cases(("f",), ())[0], cases(("a",), ())[1]
    assert (long.run, wide.run) == ("infer", "infer")
    for case in (
        replace(long, shape=replace(long.shape, steps=20_000)),
        replace(wide, shape=replace(wide.shape, batch=200)),
    ):
        peak, results = peak_memory(case, SETTING, f"{c.LAYER}cpu")
        s = case.shape
        assert results == 4 * s.batch * s.steps * s.state_size / 2**20
        assert results < 1.05 * peak < 1.5 * results + 1.5  # the resident set resolves about a MiB


@pytest.mark.slow
def test_recomputing_takes_memory_like_the_square_root_of_the_length(compiled):
    plan = cases((), ("recompute",))
    beside = {}
    for case in plan:
        peak, results = peak_memory(case, SETTING, f"{c.LAYER}cpu, recompute")
        beside[case.shape.steps] = peak - results
    assert beside[8192] < 2.6 * beside[2048] < 2.6**2 * beside[512]  # four times the length each; 2 would be exact
