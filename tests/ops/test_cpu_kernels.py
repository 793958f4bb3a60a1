"""The compiled kernels of the CPU scan against the definition, instance by instance, and how they are found."""

from __future__ import annotations

import ctypes
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from cpu_scan_cases import (
    SIZES,
    B,
    cell_and_input,
    check_exact,
    check_single,
    options_for,
    problem,
    relational_scan_cpu,
    run,
)

from relational_rnn import InputError, RelationalMemory
from relational_rnn.ops.relational_scan import _native, relational_scan, relational_scan_reference
from relational_rnn.ops.relational_scan import cpu as module
from relational_rnn.ops.relational_scan.cpu import kernels_report
from relational_rnn.testing import assert_as_good_as

pytestmark = pytest.mark.usefixtures("compiled")
INSTANCES = ["avx512", "avx2", "baseline"]


@pytest.fixture
def cut(monkeypatch):
    """Three threads, several tiles and chunks, the last of them shorter."""
    monkeypatch.setattr(module, "TILE_ROWS", 11)
    monkeypatch.setattr(module, "CHUNK_ROWS", 29)
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def use(instance, monkeypatch):
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", instance)
    try:
        _native.find()
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("option", "activations"), [("plain", "store"), ("lengths", "recompute"), ("both", "store")])
@pytest.mark.parametrize("name", SIZES)
def test_they_are_the_definition(name, option, activations):
    check_exact(name, option, activations=activations, input_rows=option == "both")


@pytest.mark.parametrize(("option", "activations"), [("plain", "recompute"), ("reset", "store"), ("both", "recompute")])
@pytest.mark.parametrize("name", SIZES)
def test_they_are_the_definition_in_pieces(name, option, activations, cut):
    check_exact(name, option, activations=activations, input_rows=option == "both")


@pytest.mark.parametrize("instance", INSTANCES)
def test_every_instance_is_the_definition(instance, monkeypatch, cut):
    use(instance, monkeypatch)
    for name in SIZES:
        check_exact(name, "both", activations="store")
        check_single(name, "both", activations="store")


@pytest.mark.parametrize("name", SIZES)
def test_single_precision_is_as_good_as_that_of_the_definition(name):
    check_single(name, "plain", activations="store")


def test_the_pieces_are_pieces(cut):
    assert module.plan(5, 7, 3, 4, recompute=False) == module.Plan(threads=3, tile_batch=2, tiles=3, group=3, chunk=1)
    torch.set_num_threads(1)
    assert module.plan(5, 7, 3, 4, recompute=False) == module.Plan(threads=1, tile_batch=3, tiles=2, group=1, chunk=2)


@pytest.mark.parametrize("more", [{}, dict(gate_style="competitive", input_rows=3)], ids=["unit", "competitive"])
@pytest.mark.parametrize("width", [5, 15, 16, 17, 31, 32, 33, 48, 65])
def test_widths_around_those_of_vectors(width, more, rng, monkeypatch):
    """One head, so that width, key and head straddle the same borders; MLP, gates and shares follow the width."""
    for instance in _instances_here():
        monkeypatch.setenv("RELATIONAL_RNN_KERNELS", instance)
        sizes = dict(mem_slots=2, head_size=width, num_heads=1, key_size=width, **more)
        cell, x, memory = cell_and_input(sizes, rng, steps=3)
        expected = run(relational_scan_reference, cell, x, memory)
        for name, value in run(relational_scan_cpu, cell, x, memory).items():
            assert_as_good_as(f"{instance}: {name}", value, expected[name], expected[name])


def _instances_here():
    library = _native.find().library
    return [name for i, name in enumerate(INSTANCES) if library.scan_supported(i)]


def test_memory_that_was_never_written_is_never_read(monkeypatch, cut):
    """Fresh memory is full of NaN: whatever the kernels read they must have written."""
    for name in SIZES:
        problem(name, "both", input_rows=True)  # the definition is not what is poisoned

    def poisoned(function):
        def filled(*args, **kwargs):
            made = function(*args, **kwargs)
            if made.is_floating_point():
                made.detach().fill_(math.nan)
            return made

        return filled

    for owner, name in [
        (torch, "empty"),
        (torch, "empty_like"),
        (torch.Tensor, "new_empty"),
        (_native._Memory, "take"),
    ]:
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
    assert torch.empty(2).isnan().all()
    monkeypatch.setattr("relational_rnn.ops.relational_scan._native._HUGE", 1 << 12)
    for name in SIZES:
        for activations in ("store", "recompute"):
            check_exact(name, "both", activations=activations, input_rows=True)


def test_threads_change_nothing_but_the_order_of_sums(rng):
    """Outputs and the gradients of single sequences are equal bit by bit, whatever the number of threads."""
    cell, x, memory = cell_and_input(SIZES["unit, 2 blocks, wide"], rng)
    chosen = options_for("both", cell, x, rng, per_sequence=True)
    found = {}
    try:
        for threads in (1, 2, 3, 4, 8):
            torch.set_num_threads(threads)
            found[threads] = run(relational_scan_cpu, cell, x, memory, torch.float32, **chosen)
    finally:
        torch.set_num_threads(1)
    for other in found.values():
        for name in ("memories", "final", "gradient of x", "gradient of memory", "gradient of initial"):
            assert torch.equal(other[name], found[1][name]), name
        for name, value in other.items():
            torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-4)


def test_calls_at_the_same_time_do_not_mix(rng):
    torch.set_num_threads(2)
    try:
        cell, x, memory = cell_and_input(SIZES["unit"], rng, steps=40)
        scan = partial(run, relational_scan_cpu, cell, x, memory, torch.float32)
        alone = scan()
        with ThreadPoolExecutor(4) as pool:
            together = [job.result() for job in [pool.submit(scan) for _ in range(12)]]
    finally:
        torch.set_num_threads(1)
    for result in together:
        for name, value in result.items():
            assert torch.equal(value, alone[name]), name


def test_threads_of_python_do_the_same_as_those_of_torch(monkeypatch, cut):
    """Where no OpenMP is at hand."""
    kernels = _native.find()
    lonely = type(kernels)(kernels.library, kernels.instance, kernels.name, None)
    monkeypatch.setattr("relational_rnn.ops.relational_scan.cpu.find", lambda: lonely)
    check_exact("unit", "both")
    check_exact("unit", "both", activations="recompute")


def test_infinities_and_nan_come_through(rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    for bad in (math.nan, math.inf):
        spoilt = memory.clone()
        spoilt[2, 1, 5] = bad
        outputs, final, _ = relational_scan_cpu(x, spoilt, cell.scan_parameters())
        assert final[2].isnan().all()
        assert outputs[[0, 1, 3, 4]].isfinite().all()


def test_no_call_is_too_short_for_them(rng):
    layer = RelationalMemory(4, mem_slots=3, head_size=2)
    assert layer.backend_report(torch.randn(1, 1, 4, generator=rng)).runs == "cpu"


def test_the_variable_chooses_and_is_obeyed(monkeypatch):
    layer = RelationalMemory(4, mem_slots=3, head_size=2)
    for instance in _instances_here():
        monkeypatch.setenv("RELATIONAL_RNN_KERNELS", instance)
        assert layer.backend_report().kernels == f"compiled, {instance}"
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "off")
    assert layer.backend_report().kernels is None
    assert kernels_report() == "none: RELATIONAL_RNN_KERNELS=off"
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "fast")
    cell = layer.cell()
    with pytest.raises(InputError) as error:
        relational_scan(torch.zeros(B, 6, 1, 4), cell.initial_memory(B), cell.scan_parameters())
    assert str(error.value).startswith(
        "RELATIONAL_RNN_KERNELS: does not name kernels that can run here\n  got       fast\n  expected  auto, off, "
    )


def test_a_library_that_is_missing_or_stale_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(_native, "_LIBRARY", tmp_path / "none.so")
    assert _native._load().startswith("the compiled kernels are missing: installation found no C compiler, ")
    (tmp_path / "none.so").write_bytes(b"not a library")
    assert _native._load().startswith("the compiled kernels cannot be loaded: ")
    monkeypatch.undo()
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "call.h").write_text("/* another */")
    monkeypatch.setattr(_native, "_FOLDER", tmp_path)
    assert _native._load().startswith("the compiled kernels are not those of the sources beside them; with a C ")


def test_both_sides_mean_the_same_struct():
    assert _native.find().library.scan_call_bytes() == ctypes.sizeof(_native.NativeCall)
