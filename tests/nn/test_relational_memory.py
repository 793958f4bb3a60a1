"""The relational memory as a layer: shapes, states, snapshots, initialisers, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn.core import Core


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return RelationalMemory(5, mem_slots=3, head_size=4, num_heads=2, num_blocks=2, dtype=torch.float64)


def test_it_is_a_core(layer, rng):
    assert isinstance(layer, Core)
    y, memory = layer(torch.randn(7, 11, 5, generator=rng, dtype=torch.float64))
    assert y.shape == (7, 11, layer.output_size) == (7, 11, 24)
    assert torch.equal(y[:, -1], memory.flatten(1))
    rows, mask = layer.rows(memory)
    assert rows is memory
    assert mask is None


def test_steps_are_the_sequence_and_the_state_carries_over(layer, rng):
    x = torch.randn(7, 11, 5, generator=rng, dtype=torch.float64)
    y, final = layer(x)
    first, memory = layer(x[:, :4])
    second, memory = layer(x[:, 4:], memory)
    torch.testing.assert_close(torch.cat([first, second], 1), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(memory, final, rtol=1e-12, atol=1e-12)
    state = layer.initial_state(7)
    for t in range(11):
        y_t, state = layer.step(x[:, t], state)
        torch.testing.assert_close(y_t, y[:, t], rtol=1e-12, atol=1e-12)


def test_matrix_input_and_time_first(rng):
    layer = RelationalMemory(5, mem_slots=3, head_size=4, input_rows=2, batch_first=False, dtype=torch.float64)
    x = torch.randn(11, 7, 2, 5, generator=rng, dtype=torch.float64)
    y, memory = layer(x)
    assert y.shape == (11, 7, 12)
    assert torch.equal(y[-1], memory.flatten(1))
    state = layer.initial_state(7)
    for t in range(11):
        y_t, state = layer.step(x[t], state)
        torch.testing.assert_close(y_t, y[t], rtol=1e-12, atol=1e-12)


def test_snapshots_are_the_memories_on_the_way(layer, rng):
    x = torch.randn(7, 11, 5, generator=rng, dtype=torch.float64)
    start = torch.randn(7, 3, 8, generator=rng, dtype=torch.float64)
    rows, at = torch.tensor([6, 0, 0, 3]), torch.tensor([11, 0, 4, 1])
    found = layer.snapshots(x, rows, at, start)
    for m, (row, steps) in enumerate(zip(rows, at, strict=True)):
        _, alone = layer(x[row : row + 1, :steps], start[row : row + 1])
        torch.testing.assert_close(found[m], alone[0], rtol=1e-12, atol=1e-12)
    assert torch.equal(layer.snapshots(x, rows, torch.zeros_like(at)), layer.initial_state(4))


def test_gradients_reach_the_state_that_came_in(layer, rng):
    memory = torch.randn(2, 3, 8, generator=rng, dtype=torch.float64, requires_grad=True)
    y, _ = layer(torch.randn(2, 6, 5, generator=rng, dtype=torch.float64), memory)
    (gradient,) = torch.autograd.grad(y[:, -1].square().sum(), memory)
    assert gradient.abs().max() > 1e-4


def test_initial_state_is_the_identity():
    wide = RelationalMemory(5, mem_slots=3, head_size=4).initial_state(2)
    assert torch.equal(wide[1], torch.eye(3, 4))
    narrow = RelationalMemory(5, mem_slots=4, head_size=3).initial_state(2, dtype=torch.float64)
    assert torch.equal(narrow[0], torch.eye(4, 3, dtype=torch.float64))


def test_parameters_start_as_the_original_draws_them():
    torch.manual_seed(0)
    layer = RelationalMemory(50, mem_slots=3, head_size=30, num_heads=2, input_rows=2)
    for name, p in layer.named_parameters():
        if "norm" in name:
            assert torch.equal(p, torch.ones_like(p) if name.endswith("weight") else torch.zeros_like(p)), name
        elif name.endswith("bias"):
            assert torch.equal(p, torch.zeros_like(p)), name
        else:
            scaled = p * p.shape[1] ** 0.5
            assert 1.95 < scaled.abs().max() <= 2.0, name
            assert 0.86 < scaled.std() < 0.90, name
            assert scaled.mean().abs() < 0.04, name


def test_parameters_do_not_depend_on_the_number_of_slots():
    few, many = (RelationalMemory(5, mem_slots=n, head_size=4, num_heads=2) for n in (1, 9))
    many.load_state_dict(few.state_dict())


def test_names_of_the_parameters_are_pinned():
    block = [
        f"cells.0.blocks.0.{part}.{kind}"
        for part in ("qkv", "mlp_norm", "qkv_norm", "attention_norm")
        for kind in ("weight", "bias")
    ]
    linears = ["input", "mlp.0", "mlp.1", "gate_input", "gate_memory"]
    names = [f"cells.0.{name}.{kind}" for name in linears for kind in ("weight", "bias")]
    assert sorted(RelationalMemory(5, mem_slots=3, head_size=4).state_dict()) == sorted(names + block)


def test_a_state_from_a_wider_layer_is_refused_with_a_way_out(layer):
    with pytest.raises(InputError) as error:
        layer(torch.zeros(7, 11, 5, dtype=torch.float64), torch.zeros(7, 4, 8))
    assert str(error.value) == (
        "RelationalMemory: state has the wrong size on axis N\n"
        "  got       (B=7, N=4, W=8)\n"
        "  expected  (B=7, N=3, W=8)\n"
        "  hint      start a sequence with core.initial_state(batch_size), or pass state=None."
    )


def test_gates_with_the_chapters_formulation_are_refused():
    with pytest.raises(InputError) as error:
        RelationalMemory(5, mem_slots=3, head_size=4, formulation="chapter")
    assert str(error.value) == (
        "RelationalMemory: the chapter's formulation has no gates\n"
        "  got       gate_style='unit'\n"
        "  expected  gate_style=None\n"
        "  hint      pass gate_style=None, or formulation='sonnet' to have gates."
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (dict(mem_slots=0), "mem_slots must be a whole number of at least 1"),
        (dict(key_size=0), "key_size must be a whole number of at least 1"),
        (dict(input_rows=-1), "input_rows must be a whole number of at least 1"),
        (dict(num_blocks=1.5), "num_blocks must be a whole number of at least 1"),
        (dict(gate_style="slot"), "gate_style is not a known choice"),
        (dict(formulation="paper"), "formulation is not a known choice"),
        (dict(batch_first=1), "batch_first must be True or False"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(change, problem):
    with pytest.raises(InputError, match=f"RelationalMemory: {problem}"):
        RelationalMemory(**{"input_size": 5, "mem_slots": 3, "head_size": 4, **change})


def test_importing_the_layer_needs_no_extra():
    """Only torch, numpy and safetensors may be imported along with the layer."""
    code = (
        "import sys, torch, numpy, safetensors; before = set(sys.modules)\n"
        "import relational_rnn; relational_rnn.RelationalMemory\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "assert new <= {'relational_rnn', 'torch', 'numpy', 'safetensors'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
