"""One step for layers: the kernels' where no gradient is wanted, else the definition's, and both the same."""

from __future__ import annotations

import copy

import pytest
import torch
from cpu_scan_cases import SIZES, cell_and_input

from relational_rnn import RelationalMemory
from relational_rnn.ops.relational_scan import relational_step, relational_step_after
from relational_rnn.ops.relational_scan import step as module
from relational_rnn.ops.relational_scan.cpu import kernels_report
from relational_rnn.testing import assert_as_good_as


@pytest.fixture
def ran(monkeypatch):
    """What computed the steps, in order."""
    if not kernels_report().startswith("compiled"):
        pytest.skip(kernels_report())
    names = []
    for name, function in (("kernels", "_by_kernels"), ("definition", "relational_step")):
        original = getattr(module, function)

        def noted(*args, name=name, original=original, **kwargs):
            names.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, function, noted)
    return names


@pytest.mark.parametrize("batch", [1, 2, 9, 40])
@pytest.mark.parametrize("name", SIZES)
def test_it_is_the_definition(name, batch, rng, ran):
    """Few rows read the weights as they are, more rows have them arranged; both dtypes."""
    cell, x, memory = cell_and_input(SIZES[name], rng, steps=1, batch=batch)
    single = copy.deepcopy(cell).float()
    with torch.no_grad():
        oracle = relational_step(x[:, 0], memory, cell.scan_parameters())
        peer = relational_step(x[:, 0].float(), memory.float(), single.scan_parameters())
        for wanted in (False, True):
            got = relational_step_after(x[:, 0], memory, cell.scan_parameters(), input_rows=wanted)
            assert_as_good_as("memory", got.memory, oracle.memory, oracle.memory)
            assert (got.input_rows is not None) == wanted
            if wanted:
                assert_as_good_as("rows", got.input_rows, oracle.input_rows, oracle.input_rows)
            got = relational_step_after(x[:, 0].float(), memory.float(), single.scan_parameters(), input_rows=wanted)
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
        relational_step_after(x, memory.transpose(1, 2).contiguous().transpose(1, 2), p)
        relational_step_after(x[:0], memory[:0], p)
        torch.func.vmap(lambda row, before: relational_step_after(row[None], before[None], p).memory)(x, memory)
        half = copy.deepcopy(cell).bfloat16().scan_parameters()
        relational_step_after(x.bfloat16(), memory.bfloat16(), half)
    assert ran == ["definition"] * 7


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


def test_a_parameter_made_by_a_parametrization_is_used(rng):
    """Its weight does not lie where the others do."""
    layer = RelationalMemory(4, mem_slots=3, head_size=2)
    x, state = torch.randn(2, 4, generator=rng), layer.initial_state(2)

    class Doubled(torch.nn.Module):
        def forward(self, weight):
            return 2 * weight

    with torch.no_grad():
        expected = copy.deepcopy(layer)
        expected.cell().mlp[0].weight.mul_(2)
        torch.nn.utils.parametrize.register_parametrization(layer.cell().mlp[0], "weight", Doubled())
        for got, right in zip(layer.step(x, state), expected.step(x, state), strict=True):
            torch.testing.assert_close(got, right)
