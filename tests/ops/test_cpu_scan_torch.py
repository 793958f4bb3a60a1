"""The CPU scan by PyTorch operations against the definition, in everything a call can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cpu_scan_cases import CUTS, INPUTS, OPTIONS, TORCH_SIZES, B, T, cell_and_input, check_exact, check_single, problem

from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import cpu as module


@pytest.fixture(autouse=True)
def without_kernels(monkeypatch):
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "off")


# Half of all: every option with either cut and either way to keep activations, and these with each other.
COMBINED = [
    (cut, activations, option)
    for i, cut in enumerate(CUTS)
    for j, activations in enumerate(("store", "recompute"))
    for k, option in enumerate(OPTIONS)
    if (i + j + k) % 2 == 0
]


@pytest.mark.parametrize(("cut", "activations", "option"), COMBINED)
@pytest.mark.parametrize("name", TORCH_SIZES)
def test_it_is_the_definition(name, cut, activations, option, monkeypatch):
    monkeypatch.setattr(module, "_TILE_ROWS", CUTS[cut][0])
    monkeypatch.setattr(module, "_CHUNK_ROWS", CUTS[cut][1])
    check_exact(name, option, activations=activations)


@pytest.mark.parametrize(("option", "activations", "cut"), [("plain", "store", "whole"), ("both", "recompute", "cut")])
@pytest.mark.parametrize("name", TORCH_SIZES)
def test_attended_input_rows(name, option, activations, cut, monkeypatch):
    monkeypatch.setattr(module, "_TILE_ROWS", CUTS[cut][0])
    monkeypatch.setattr(module, "_CHUNK_ROWS", CUTS[cut][1])
    check_exact(name, option, activations=activations, input_rows=True)


@pytest.mark.parametrize(
    ("name", "option", "activations"),
    [(name, *(("plain", "store"), ("both", "recompute"))[i % 2]) for i, name in enumerate(TORCH_SIZES)],
)
def test_single_precision_is_as_good_as_that_of_the_definition(name, option, activations):
    check_single(name, option, activations=activations)


def test_the_cuts_cut(rng, monkeypatch):
    """The sizes above do straddle: several tiles, several chunks, unequal ones of both."""
    cell, x, memory = cell_and_input(TORCH_SIZES["unit"], rng)
    sizes = module.sizes_of(cell.scan_parameters(), x, memory, False)
    monkeypatch.setattr(module, "_TILE_ROWS", CUTS["cut"][0])
    monkeypatch.setattr(module, "_CHUNK_ROWS", CUTS["cut"][1])
    tiles = module.plan(sizes, "store")
    assert [tile[0].sizes.batch for tile in tiles] == [3, 2]
    assert [chunk.sizes.steps for chunk in tiles[0]] == [2, 2, 2, 1]
    forms = {s.products(0) for s in (sizes_of_case(name) for name in TORCH_SIZES)}
    assert forms == {True, False}
    mixed = sizes_of_case("unit, mixed forms")
    assert (mixed.products(0), mixed.products(1)) == (True, False)


def sizes_of_case(name):
    cell = RelationalMemoryCell(INPUTS, **TORCH_SIZES[name])
    x, memory = torch.empty(B, T, cell.input_rows or 1, INPUTS), torch.empty(B, cell.mem_slots, cell.width)
    return module.sizes_of(cell.scan_parameters(), x, memory, False)


def test_memory_that_was_never_written_is_never_read(monkeypatch):
    """Fresh memory is full of NaN: whatever the scan reads it must have written."""
    for name in TORCH_SIZES:
        problem(name, "both")
        problem(name, "both", input_rows=True)  # the definition is not what is poisoned

    def poisoned(function):
        def filled(*args, **kwargs):
            made = function(*args, **kwargs)
            if isinstance(made, np.ndarray):
                made.fill(math.nan)
            elif made.is_floating_point():
                made.detach().fill_(math.nan)
            return made

        return filled

    for owner, name in [
        (torch, "empty"),
        (torch, "empty_like"),
        (torch.Tensor, "new_empty"),
        (np, "empty"),
    ]:
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
    assert torch.empty(2).isnan().all()
    monkeypatch.setattr("relational_rnn.ops.relational_scan._cpu_memory._HUGE", 1 << 12)
    monkeypatch.setattr(module, "_TILE_ROWS", CUTS["cut"][0])
    for name in TORCH_SIZES:
        for activations in ("store", "recompute"):
            check_exact(name, "both", activations=activations)
            check_exact(name, "both", activations=activations, input_rows=True)


def test_chunks_of_a_recomputed_scan_are_as_long_as_the_square_root_of_time(rng):
    cell, x, memory = cell_and_input(TORCH_SIZES["unit"], rng, steps=576, batch=2)
    sizes = [module.sizes_of(cell.scan_parameters(), x[:, :n], memory, False) for n in (36, 576)]
    longest = [max(c.sizes.steps for tile in module.plan(s, "recompute") for c in tile) for s in sizes]
    assert longest == [6, 24]
