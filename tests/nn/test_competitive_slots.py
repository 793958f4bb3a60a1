"""`gate_style="competitive"` as a layer: who takes the input, what is kept, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn.compat import PortedRelationalMemory
from relational_rnn.nn.cores import MemorySizes, build_core, count_parameters
from relational_rnn.nn.export import export_step
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import relational_scan
from relational_rnn.runs import RunConfig

# Every size differs on every axis.
BATCH, STEPS, INPUTS, SLOTS, HEADS, HEAD, ROWS = 2, 7, 4, 6, 3, 5, 8
TRITON_CANNOT = "it does not compute slots that compete for the input (gate_style='competitive')"
CPU_CANNOT = "it needs the compiled kernels, and RELATIONAL_RNN_KERNELS=off"


@pytest.fixture
def off(monkeypatch):
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "off")


def make(**choices) -> RelationalMemory:
    torch.manual_seed(3)
    choices = {"gate_style": "competitive", "dtype": torch.float64, **choices}
    layer = RelationalMemory(INPUTS, SLOTS, HEAD, num_heads=HEADS, **choices)
    with torch.no_grad():
        for p in layer.parameters():  # biases and norms away from 0 and 1, so that none can be left out
            p.add_(0.2 * torch.randn(p.shape, dtype=p.dtype))
    return layer


def given(rng, *shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=rng, dtype=dtype)


@pytest.mark.parametrize("rows", [None, ROWS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slots_that_take_nothing_keep_their_memory_bit_for_bit(rows, dtype, rng):
    layer = make(dtype=dtype, input_rows=rows)
    with torch.no_grad():  # keys a billion times as long: one slot takes all of a row, and the others exactly nothing
        layer.cell().share_key.weight.mul_(1e9)
    x = given(rng, BATCH, STEPS, *([] if rows is None else [rows]), INPUTS, dtype=dtype)
    state = given(rng, BATCH, SLOTS, HEADS * HEAD, dtype=dtype)
    trace = layer.trace(x, state)
    memories = layer(x, state)[0].view(BATCH, STEPS, SLOTS, -1)
    before = torch.cat([state[:, None], memories[:, :-1]], 1)
    nothing = trace.share.sum(-1) == 0
    assert set(trace.share.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(memories[nothing], before[nothing])
    assert ((memories - before)[~nothing].abs().amax(-1) > 1e-4).all()
    takers = (~nothing).sum(-1)
    assert takers.min() >= 1
    assert (takers > 1).any() == (rows is not None)  # rows of a matrix compete each on its own
    assert (~nothing).flatten(0, 1).any(0).sum() > 2  # not the same slot at every step


def test_shares_sum_to_one_over_slots_and_are_laid_out_like_the_input(rng):
    layer = make(input_rows=ROWS)
    x = given(rng, BATCH, STEPS, ROWS, INPUTS)
    share = layer.trace(x).share
    assert share.shape == (BATCH, STEPS, SLOTS, ROWS)
    torch.testing.assert_close(share.sum(2), torch.ones(BATCH, STEPS, ROWS, dtype=x.dtype), rtol=0, atol=1e-14)
    torch.testing.assert_close(layer.trace(x[1]).share, share[1])
    first = make(input_rows=ROWS, batch_first=False).trace(x.transpose(0, 1)).share
    torch.testing.assert_close(first, share.transpose(0, 1))
    cut = layer.trace(x, lengths=torch.tensor([4, 0])).share
    torch.testing.assert_close(cut[0, :4], share[0, :4])
    assert not cut[0, 4:].any()
    assert not cut[1].any()
    assert layer.alike(gate_style="unit").trace(x).share is None


def test_every_row_of_a_matrix_competes_on_its_own(rng):
    layer = make(input_rows=ROWS)
    x = given(rng, BATCH, 1, ROWS, INPUTS)
    changed = x.clone()
    changed[:, :, 5] = given(rng, BATCH, 1, INPUTS)
    before, after = (layer.trace(rows).share for rows in (x, changed))
    others = [r for r in range(ROWS) if r != 5]
    torch.testing.assert_close(after[..., others], before[..., others])
    assert (after[..., 5] - before[..., 5]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("rows", [None, ROWS])
def test_permuted_slots_permute_everything(rows, rng):
    layer = make(num_blocks=2, input_rows=rows)
    x = given(rng, BATCH, STEPS, *([] if rows is None else [rows]), INPUTS)
    state, order = given(rng, BATCH, SLOTS, HEADS * HEAD), torch.tensor([3, 0, 5, 1, 2, 4])
    y, last = layer(x, state)
    y_permuted, last_permuted = layer(x, state[:, order])
    torch.testing.assert_close(last_permuted, last[:, order])
    torch.testing.assert_close(y_permuted.view(BATCH, STEPS, SLOTS, -1), y.view(BATCH, STEPS, SLOTS, -1)[:, :, order])
    trace, permuted = layer.trace(x, state), layer.trace(x, state[:, order])
    for name in ("share", "input_gate", "candidate", "memory"):
        torch.testing.assert_close(getattr(permuted, name), getattr(trace, name)[:, :, order])
    every = torch.cat([order, torch.arange(SLOTS, SLOTS + (rows or 1))])
    torch.testing.assert_close(permuted.attention, trace.attention[..., every, :][..., every])


def test_gradients_reach_every_input_parameter_and_start(rng):
    """Two layers, a matrix in, a learned start, a reset and a length: against differences."""
    torch.manual_seed(3)
    layer = RelationalMemory(
        3, 4, 5, gate_style="competitive", input_rows=2, num_layers=2, initial_memory="learned", dtype=torch.float64
    )
    names, values = zip(*layer.named_parameters(), strict=True)
    values = [(p + 0.3 * given(rng, *p.shape)).detach().requires_grad_() for p in values]
    x, state = given(rng, 3, 2, 2, 3).requires_grad_(), given(rng, 2, 3, 4, 5).requires_grad_()
    reset, lengths = torch.tensor([[False, True], [False, False], [False, False]]), torch.tensor([2, 2, 1])

    def call(x, state, *values):
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, parameters, (x, state), {"lengths": lengths, "reset": reset})

    assert torch.autograd.gradcheck(call, (x, state, *values), fast_mode=True)
    outputs = call(x, state, *values)
    cotangents = [given(rng, *out.shape) for out in outputs]
    gradients = torch.autograd.grad(outputs, [x, state, *values], cotangents)
    for name, gradient in zip(("x", "state", *names), gradients, strict=True):
        assert gradient.abs().max() > 1e-6, name


def test_layers_steps_files_and_graphs_are_the_sequence(rng, tmp_path):
    """What the table of cores cannot hold: a matrix in, and layers on top of each other."""
    layer = make(input_rows=ROWS, num_layers=2, initial_memory="random", dtype=torch.float32)
    x = given(rng, BATCH, STEPS, ROWS, INPUTS, dtype=torch.float32)
    y, last = layer(x)
    state = layer.initial_state(BATCH)
    low, high = state[0], state[1]
    for t in range(STEPS):
        y_t, state = layer.step(x[:, t], state)
        low = layer.cell(0)(x[:, t], low)
        high = layer.cell(1)(low.flatten(1), high)
        torch.testing.assert_close(y_t, y[:, t])
        torch.testing.assert_close(high.flatten(1), y[:, t])
    torch.testing.assert_close(state, last)
    torch.testing.assert_close(torch.stack([low, high]), last)
    assert layer.trace(x).share.shape == (BATCH, STEPS, SLOTS, 1)
    assert layer.trace(x, layer=0).share.shape == (BATCH, STEPS, SLOTS, ROWS)
    reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[1, 3] = True
    torch.testing.assert_close(layer(x, reset=reset)[0][1, 3:], layer(x[1:, 3:])[0][0])
    layer.save_pretrained(tmp_path)
    assert torch.equal(RelationalMemory.from_pretrained(tmp_path)(x)[0], y)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x)[0], y)
    y_t, _ = export_step(layer).module()(x[:, 0], layer.initial_state(BATCH))
    torch.testing.assert_close(y_t, y[:, 0])


@pytest.mark.parametrize("rows", [None, ROWS])
def test_steps_without_gradients_are_those_with_gradients(rows, rng):
    """The former go to the kernels, where there are any; the weights of gates and shares are put together anew."""
    layer = make(input_rows=rows)
    matrix = [] if rows is None else [rows]
    x, state = given(rng, BATCH, *matrix, INPUTS), given(rng, BATCH, SLOTS, HEADS * HEAD)
    expected, _ = layer.step(x, state)
    with torch.no_grad():
        for _ in range(2):  # the second step of a size may take a shorter way
            torch.testing.assert_close(layer.step(x, state)[0], expected)
            torch.testing.assert_close(layer.cell()(x, state).flatten(1), expected)
            torch.testing.assert_close(layer(x[:, None], state)[0][:, 0], expected)
        layer.cell().share_key.weight.mul_(2)
        changed, _ = layer.step(x, state)
    assert (changed - expected).abs().max() > 1e-4
    torch.testing.assert_close(layer.step(x, state)[0], changed)


def results(layer, x, state):
    """What a layer makes of a sequence, and the gradients of everything."""
    leaves = [x.requires_grad_(), state.requires_grad_(), *layer.parameters()]
    outputs = layer(x, state)
    weights = [torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y) for y in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, weights)]


@pytest.mark.parametrize("activations", ["store", "recompute"])
def test_the_kernels_are_the_plain_loop(activations, compiled, rng):
    x, state = given(rng, BATCH, STEPS, ROWS, INPUTS), given(rng, BATCH, SLOTS, HEADS * HEAD)
    layer = make(input_rows=ROWS, activations=activations)
    chosen = layer.backend_report(x)
    assert (chosen.runs, chosen.kernels[:8]) == ("cpu", "compiled")
    expected = results(make(input_rows=ROWS, backend="reference"), x, state)
    for choice in ("auto", "cpu"):
        layer = make(input_rows=ROWS, activations=activations, backend=choice)
        torch.testing.assert_close(results(layer, x, state), expected, rtol=1e-11, atol=1e-12)


def test_without_kernels_auto_runs_the_plain_loop_and_says_why(off, rng):
    layer = make()
    x = given(rng, BATCH, STEPS, INPUTS)
    assert (
        str(layer.backend_report(x)) == f"backend='auto' runs 'reference': the CPU scan cannot run here: {CPU_CANNOT}"
    )
    same = make(backend="reference")
    assert torch.equal(layer(x)[0], same(x)[0])
    assert str(same.backend_report(x)) == "backend='reference' runs 'reference': it was asked for"


@pytest.mark.parametrize(("backend", "reason"), [("cpu", CPU_CANNOT), ("triton", TRITON_CANNOT)])
def test_a_backend_that_has_no_competition_is_refused_by_name(backend, reason, off, rng):
    layer = make(backend=backend)
    with pytest.raises(InputError) as error:
        layer(given(rng, BATCH, STEPS, INPUTS))
    assert str(error.value) == (
        f"relational_scan: backend {backend!r} cannot run here: {reason}\n"
        "  hint      backend='reference' can run here, and so can 'auto'."
    )
    with pytest.raises(InputError, match=f"backend {backend!r} cannot run here"):
        layer.backend_report()


@pytest.mark.parametrize(("backend", "reason"), [("cpu", CPU_CANNOT), ("triton", TRITON_CANNOT)])
def test_the_scan_called_by_itself_refuses_too(backend, reason, off, rng):
    cell, x = make().cell(), given(rng, BATCH, STEPS, 1, INPUTS)
    memory = given(rng, BATCH, SLOTS, HEADS * HEAD)
    with pytest.raises(InputError, match=f"cannot run here: {re.escape(reason)}"):
        relational_scan(x, memory, cell.scan_parameters(), backend=backend)
    assert relational_scan(x, memory, cell.scan_parameters()).final.shape == memory.shape


def test_more_blocks_than_the_kernels_take_are_refused_with_the_number(compiled, rng):
    x, memory = given(rng, BATCH, STEPS, 1, INPUTS), given(rng, BATCH, SLOTS, HEADS * HEAD)
    params = make().cell().scan_parameters()
    with pytest.raises(InputError, match="cannot run here: it takes at most 64 attention blocks"):
        relational_scan(x, memory, params._replace(blocks=params.blocks * 65), backend="cpu")


@pytest.mark.parametrize("kind", [RelationalMemory, RelationalMemoryCell])
def test_a_forget_bias_is_refused(kind):
    with pytest.raises(InputError) as error:
        kind(5, 3, 4, gate_style="competitive", forget_bias=0.5)
    assert str(error.value) == (
        "RelationalMemory: slots that compete have no forget gate, so forget_bias would have no effect\n"
        "  got       forget_bias=0.5\n"
        "  expected  forget_bias=1.0, the default\n"
        "  hint      leave it out, or pass gate_style='unit' or 'memory' to have a forget gate."
    )
    kind(5, 3, 4, gate_style="competitive", forget_bias=1.0, input_bias=-0.5)


def test_other_formulas_are_refused():
    with pytest.raises(
        InputError, match=r"the chapter's formulation has no gates\n  got       gate_style='competitive'"
    ):
        RelationalMemory(5, 3, 4, gate_style="competitive", formulation="chapter")
    with pytest.raises(InputError, match="PortedRelationalMemory: gate_style is not a known choice"):
        PortedRelationalMemory(5, 3, 4, gate_style="competitive")


def test_the_input_bias_opens_the_gate(rng):
    x = given(rng, BATCH, STEPS, INPUTS)
    plain, open_, shut = (make(input_bias=bias).trace(x) for bias in (0.0, 40.0, -40.0))
    torch.testing.assert_close(open_.input_gate, torch.ones_like(open_.input_gate))
    assert (shut.input_gate < 1e-10).all()
    assert 0.2 < plain.input_gate.mean() < 0.8


def test_it_has_the_parameters_of_a_gate_per_number_but_for_the_bias_of_keys():
    for rows in (None, ROWS):
        layer, unit = make(input_rows=rows), make(input_rows=rows, gate_style="unit")
        assert count_parameters(layer) == count_parameters(unit) - HEADS * HEAD


@pytest.mark.parametrize("choice", ["head_size", "num_heads", "mem_slots", "num_blocks", "attention_mlp_layers"])
def test_the_core_of_that_name_is_the_memory_of_the_same_sizes(choice):
    sizes = MemorySizes(**{"mem_slots": 5, "head_size": 6, "num_heads": 3, "input_bias": 0.25, choice: 4})
    core, memory = (build_core(name, 7, sizes) for name in ("competitive", "rmc"))
    assert isinstance(core, RelationalMemory)
    assert (core.cell().gate_style, core.cell().settings.competitive) == ("competitive", True)
    assert core.cell().settings.input_bias == 0.25
    assert core.initial_state(2).shape == memory.initial_state(2).shape
    assert count_parameters(core) == count_parameters(memory) - memory.width  # the bias of keys


def test_the_core_of_that_name_stands_beside_memories_of_every_style():
    chapter = MemorySizes(head_size=24, num_heads=2, key_size=5, gate_style=None, formulation="chapter")
    per_slot = MemorySizes(mem_slots=4, head_size=64, num_heads=4, gate_style="memory", forget_bias=0.5)
    for sizes in (chapter, per_slot):
        core, memory = (build_core(name, 7, sizes) for name in ("competitive", "rmc"))
        assert core.cell().gate_style == "competitive"
        assert core.mem_slots == memory.mem_slots
        assert core.cell().settings.num_heads == sizes.num_heads
        assert abs(count_parameters(core) / count_parameters(memory) - 1) < 0.05
    assert build_core("rmc", 7, MemorySizes(gate_style="competitive")).cell().gate_style == "competitive"


def test_a_run_of_it_takes_the_options_of_a_memory():
    sizes = MemorySizes(backend="reference")
    RunConfig(core="competitive", memory=sizes)
    assert build_core("competitive", 7, sizes).backend == "reference"
    with pytest.raises(InputError, match="give them to runs of a relational memory"):
        RunConfig(core="lstm", memory=sizes)
