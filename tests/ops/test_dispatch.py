"""Which implementation runs: names are obeyed or refused, and auto says what it chose and why."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn import FastWeightMemory
from relational_rnn.nn.cores import MemorySizes, build_core
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import BACKENDS, _native, choose, relational_scan
from relational_rnn.ops.relational_scan import scan as scan_module


@pytest.fixture
def given(rng):
    """x [B, T, n, I], memory and parameters of a small cell."""
    cell = RelationalMemoryCell(4, mem_slots=3, head_size=2, num_heads=5)
    return torch.randn(2, 6, 1, 4, generator=rng), cell.initial_memory(2), cell.scan_parameters()


@pytest.fixture
def ran(monkeypatch):
    """Names of the implementations that ran, in order."""
    names = []
    for name, function in (("cpu", "relational_scan_cpu"), ("reference", "loop")):
        original = getattr(scan_module, function)

        def noted(*args, name=name, original=original, **kwargs):
            names.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(scan_module, function, noted)
    return names


def test_a_named_backend_runs(given, ran, compiled):
    for backend in ("cpu", "reference", "auto"):
        relational_scan(*given, backend=backend)
    relational_scan(*given, activations="recompute")
    relational_scan(*given, backend="reference", activations="recompute")
    assert ran == ["cpu", "reference", "cpu", "cpu", "reference"]


def test_all_backends_give_the_same(given, compiled):
    results = [relational_scan(*given, backend=backend, input_rows=True) for backend in BACKENDS if backend != "triton"]
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


NO_KERNELS = "the CPU scan cannot run here: it needs the compiled kernels, and RELATIONAL_RNN_KERNELS=off"


@pytest.mark.parametrize(
    ("situation", "runs", "why"),
    [
        ("usual", "cpu", "it is the fastest that can run here"),
        ("autocast", "reference", "the CPU scan cannot run here: it does not follow autocast"),
        ("meta", "reference", "the CPU scan cannot run here: it runs on the CPU, not on meta"),
        ("half", "reference", "the CPU scan cannot run here: it computes in float32 or float64, not in bfloat16"),
        ("mixed", "reference", "the CPU scan cannot run here: it needs one dtype throughout, not float32, float64"),
        ("deep", "reference", "the CPU scan cannot run here: it takes at most 64 attention blocks"),
        ("off", "reference", NO_KERNELS),
    ],
)
@pytest.mark.parametrize("activations", ["store", "recompute"])
def test_auto_chooses_and_says_why(situation, runs, why, activations, given, compiled, monkeypatch):
    x, memory, p = given
    if situation == "off":
        monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "off")
    elif situation == "deep":
        p = p._replace(blocks=p.blocks * 65)
    elif situation == "meta":
        x = x.to("meta")
    elif situation == "half":
        cell = RelationalMemoryCell(4, mem_slots=3, head_size=2, num_heads=5, dtype=torch.bfloat16)
        x, memory, p = x.bfloat16(), memory.bfloat16(), cell.scan_parameters()
    elif situation == "mixed":
        memory = memory.double()
    with torch.autocast("cpu", enabled=situation == "autocast"):
        report = choose("auto", activations, x, memory, p)
    assert (report.asked, report.runs, report.why) == ("auto", runs, why)
    assert str(report) == f"backend='auto' runs '{runs}': {why}"


@pytest.mark.parametrize("reason", [None, "it takes one attention block per step, not 2"])
def test_on_a_gpu_the_triton_scan_is_asked_for_by_name(reason, given, monkeypatch):
    """A stand-in for the input tells the device, so that no GPU is needed."""
    _, memory, p = given
    x = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    monkeypatch.setattr(scan_module.triton_scan, "unsupported", lambda *_, **__: reason)
    why = "the Triton scan has not been measured on a GPU and runs where it is asked for by name"
    for activations in ("store", "recompute"):
        report = choose("auto", activations, x, memory, p)
        expected = why if reason is None else f"the Triton scan cannot run here: {reason}"
        assert str(report) == f"backend='auto' runs 'reference': {expected}"
        if reason is None:
            report = choose("triton", activations, x, memory, p)
            assert str(report) == "backend='triton' runs 'triton': it was asked for; products in ieee"


def test_what_cannot_be_obeyed_is_refused(given, compiled):
    x, memory, p = given
    with pytest.raises(InputError) as error:
        relational_scan(x.double(), memory, p, backend="cpu")
    assert str(error.value) == (
        "relational_scan: backend 'cpu' cannot run here: it needs one dtype throughout, not float32, float64\n"
        "  hint      backend='reference' can run here, and so can 'auto'."
    )
    for backend in ("auto", "reference"):
        recompute = partial(relational_scan, params=p, backend=backend, activations="recompute")
        with pytest.raises(InputError) as error:
            torch.func.vmap(recompute)(x.unsqueeze(1), memory.unsqueeze(1))
        assert str(error.value) == (
            "relational_scan: activations='recompute' cannot be obeyed here: "
            "it does not work under the transforms of torch.func\n"
            "  hint      activations='store' can run here."
        )
    with pytest.raises(InputError, match="backend is not a known choice"):
        relational_scan(x, memory, p, backend="fast")
    with pytest.raises(InputError, match="activations is not a known choice"):
        relational_scan(x, memory, p, activations="keep")


@pytest.fixture(params=["missing", "damaged", "another library"])
def no_library(request, monkeypatch, tmp_path):
    """The file of the compiled kernels is not there, or is not one of theirs; gives what is said of it."""
    place = tmp_path / "kernels.so"
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "auto")
    monkeypatch.setattr(_native, "_LIBRARY", place)
    if request.param == "damaged":
        place.write_bytes(b"not a library")
    elif request.param == "another library":
        place = Path(importlib.import_module("_ctypes").__file__)
        monkeypatch.setattr(_native, "_LIBRARY", place)
    _native._find.cache_clear()
    yield "are missing" if request.param == "missing" else "cannot be loaded: "
    _native._find.cache_clear()


@pytest.mark.parametrize("style", ["unit", "competitive", "fast weights"])
def test_a_report_says_that_kernels_are_missing_why_and_how_to_build_them(style, no_library, rng):
    x = torch.randn(3, 9, 4, generator=rng)
    if style == "fast weights":
        layer = FastWeightMemory(4, 6)
    else:
        layer = RelationalMemory(4, mem_slots=3, head_size=2, gate_style=style)
    for report in (layer.backend_report(), layer.backend_report(x), layer.backend_report(x[:, :2])):
        assert f"the compiled kernels {no_library}" in str(report)
        assert "python hatch_build.py" in str(report)
        assert "pip install" in str(report)
    layer(x)
    layer.backend = "cpu"
    with pytest.raises(InputError, match=f"and the compiled kernels {no_library}"):
        layer.backend_report()


@pytest.mark.parametrize("time_first", [False, True])
def test_a_layer_reports_what_runs(time_first, rng, compiled, monkeypatch):
    layer = RelationalMemory(4, mem_slots=3, head_size=2, input_rows=2, batch_first=not time_first)
    assert str(layer.backend_report()) == "backend='auto' runs 'cpu': it is the fastest that can run here"
    assert layer.backend_report().kernels.startswith("compiled, ")
    with torch.autocast("cpu"):
        assert layer.backend_report().why == "the CPU scan cannot run here: it does not follow autocast"
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "off")
    report = layer.backend_report(torch.randn(3, 3, 2, 4, generator=rng))
    assert (report.runs, report.why, report.kernels) == ("reference", NO_KERNELS, None)


def test_a_layer_obeys_its_backend(ran, compiled, rng):
    x = torch.randn(2, 6, 4, generator=rng)
    for backend in ("reference", "cpu"):
        layer = RelationalMemory(4, mem_slots=3, head_size=2, num_layers=2, backend=backend)
        layer(x)
        layer.snapshots(x, torch.tensor([1]), torch.tensor([5]))
        assert layer.backend_report(x).runs == backend
    assert ran == ["reference"] * 4 + ["cpu"] * 4
    layer = RelationalMemory(4, mem_slots=3, head_size=2, backend="cpu", activations="recompute")
    with torch.autocast("cpu"), pytest.raises(InputError, match="backend 'cpu' cannot run here"):
        layer(x)
    for changes in (dict(backend="gpu"), dict(activations="all")):
        with pytest.raises(InputError, match=r"RelationalMemory: .* is not a known choice"):
            RelationalMemory(4, mem_slots=3, head_size=2, **changes)


def test_the_configuration_names_the_backend():
    core = build_core("rmc", 4, MemorySizes(mem_slots=3, backend="cpu", activations="recompute"))
    assert (core.backend, core.activations) == ("cpu", "recompute")
    with pytest.raises(InputError, match="MemorySizes: backend is not a known choice"):
        MemorySizes(backend="gpu")
