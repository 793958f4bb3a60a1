"""The plain loop with `activations="recompute"`: the same numbers as without, from little that is kept."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from cpu_scan_cases import SIZES, cell_and_input, options_for, run

from relational_rnn import RelationalMemory
from relational_rnn.ops.relational_scan import loop as module
from relational_rnn.ops.relational_scan import relational_scan

stored = partial(relational_scan, backend="reference")
recomputed = partial(stored, activations="recompute")


@pytest.mark.parametrize(
    ("name", "option"),
    [("unit, 2 blocks, wide", "plain"), ("chapter", "lengths"), ("memory, matrix", "reset"), ("competitive", "both")],
)
def test_nothing_but_memory_depends_on_it(name, option, rng):
    """Three chunks of three, three and one steps; with the attended rows and without."""
    cell, x, memory = cell_and_input(SIZES[name], rng)
    chosen = options_for(option, cell, x, rng, per_sequence=True)
    for rows in (False, True):
        got, expected = (run(partial(scan, input_rows=rows), cell, x, memory, input_rows=rows, **chosen)
                         for scan in (recomputed, stored))  # fmt: skip
        for what, value in got.items():
            torch.testing.assert_close(value, expected[what], rtol=1e-11, atol=1e-12, msg=what)


def test_steps_are_run_again_a_chunk_at_a_time(rng, monkeypatch):
    cell, x, memory = cell_and_input(SIZES["unit"], rng, steps=36, batch=2)
    taken, original = [], module.walk
    monkeypatch.setattr(module, "walk", lambda x, *a, **k: (taken.append(x.shape[1]), original(x, *a, **k))[1])
    memories, *_ = recomputed(x, memory, cell.scan_parameters())
    assert taken == [6] * 6
    memories.sum().backward()
    assert taken == [6] * 12
    with torch.no_grad():
        recomputed(x, memory, cell.scan_parameters())
    assert taken == [6] * 12 + [36]


def test_autocast_is_that_of_the_forward_pass(rng, monkeypatch):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    autocast, original = [], module.walk

    def noted(*args, **kwargs):
        autocast.append(torch.is_autocast_enabled("cpu"))
        return original(*args, **kwargs)

    monkeypatch.setattr(module, "walk", noted)
    with torch.autocast("cpu"):
        memories, *_ = recomputed(x.float(), memory.float(), cell.float().scan_parameters())
    memories.sum().backward()
    assert autocast == [True] * 6


@pytest.mark.parametrize("which", ["parameter", "input"])
def test_what_changed_in_between_is_noticed(which, rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    memories, *_ = recomputed(x, memory, cell.scan_parameters())
    with torch.no_grad():
        (cell.mlp[0].weight if which == "parameter" else x).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        memories.sum().backward()


def test_a_layer_without_kernels_recomputes(rng, monkeypatch):
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "off")
    layer = RelationalMemory(4, 3, 5, num_layers=2, activations="recompute").double()
    plain = RelationalMemory(4, 3, 5, num_layers=2, backend="reference").double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 10, 4, generator=rng, dtype=torch.float64)
    assert layer.backend_report(x).runs == "reference"
    found = [torch.autograd.grad(model(x)[0].sin().sum(), list(model.parameters())) for model in (layer, plain)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)
