"""Which implementation runs: names are obeyed or refused, and auto says what it chose and why."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn import FastWeightMemory
from relational_rnn.nn.cores import MemorySizes, build_core
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import BACKENDS, _native, choose, relational_scan
from relational_rnn.ops.relational_scan import dispatch as dispatch_module
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


def test_a_named_backend_runs(given, ran):
    for backend in ("cpu", "reference", "auto"):
        relational_scan(*given, backend=backend)
    relational_scan(*given, activations="recompute")
    assert ran == ["cpu", "reference", "cpu", "cpu"]


def test_all_backends_give_the_same(given):
    results = [relational_scan(*given, backend=backend, input_rows=True) for backend in BACKENDS if backend != "triton"]
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


OPERATIONS = "; without compiled kernels it computes by PyTorch operations: RELATIONAL_RNN_KERNELS=off"


@pytest.mark.parametrize(
    ("situation", "runs", "why"),
    [
        ("usual", "cpu", "it is the fastest that can run here" + OPERATIONS),
        ("short", "reference", "so short a call is over before the CPU scan begins" + OPERATIONS),
        ("short but wide", "cpu", "it is the fastest that can run here" + OPERATIONS),
        ("recompute", "cpu", "only it recomputes activations" + OPERATIONS),
        ("autocast", "reference", "as to the CPU scan, it does not follow autocast"),
        ("meta", "reference", "as to the CPU scan, it runs on the CPU, not on meta"),
        ("half", "reference", "as to the CPU scan, it computes in float32 or float64, not in bfloat16"),
        ("mixed", "reference", "as to the CPU scan, it needs one dtype throughout, not float32, float64"),
    ],
)
def test_auto_chooses_and_says_why(situation, runs, why, given, monkeypatch):
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "off")
    x, memory, p = given
    if situation == "short":
        x = x[:, :4]
    elif situation == "short but wide":
        x, memory = x[:1, :4].expand(200, -1, -1, -1), memory[:1].expand(200, -1, -1)
    elif situation == "meta":
        x = x.to("meta")
    elif situation == "half":
        cell = RelationalMemoryCell(4, mem_slots=3, head_size=2, num_heads=5, dtype=torch.bfloat16)
        x, memory, p = x.bfloat16(), memory.bfloat16(), cell.scan_parameters()
    elif situation == "mixed":
        memory = memory.double()
    with torch.autocast("cpu", enabled=situation == "autocast"):
        report = choose("auto", "recompute" if situation == "recompute" else "store", x, memory, p)
    assert (report.asked, report.runs, report.why) == ("auto", runs, why)
    assert str(report) == f"backend='auto' runs '{runs}': {why}"


@pytest.mark.parametrize("reason", [None, "it takes one attention block per step, not 2"])
def test_on_a_gpu_the_triton_scan_is_asked_for_by_name_or_for_recomputing(reason, given, monkeypatch):
    """A stand-in for the input tells the device, so that no GPU is needed."""
    _, memory, p = given
    x = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    monkeypatch.setattr(dispatch_module.triton_scan, "unsupported", lambda *_, **__: reason)
    report = choose("auto", "store", x, memory, p)
    if reason is None:
        why = "the Triton scan has not been measured on a GPU and runs where it is asked for by name"
        assert str(report) == f"backend='auto' runs 'reference': {why}"
        why = "only it recomputes activations; products in ieee"
        assert str(choose("auto", "recompute", x, memory, p)) == f"backend='auto' runs 'triton': {why}"
        assert str(choose("triton", "store", x, memory, p)).startswith("backend='triton' runs 'triton': it was asked")
        return
    assert str(report) == f"backend='auto' runs 'reference': as to the Triton scan, {reason}"
    with pytest.raises(InputError, match="for the Triton scan, it takes one attention block"):
        choose("auto", "recompute", x, memory, p)


def test_what_cannot_be_obeyed_is_refused(given):
    x, memory, p = given
    with pytest.raises(InputError) as error:
        relational_scan(x.double(), memory, p, backend="cpu")
    assert str(error.value) == (
        "relational_scan: backend 'cpu' cannot run here: it needs one dtype throughout, not float32, float64\n"
        "  hint      backend='reference' can run here, and so can 'auto'."
    )
    with pytest.raises(InputError) as error:
        relational_scan(x, memory, p, backend="reference", activations="recompute")
    assert str(error.value) == (
        "relational_scan: backend 'reference' keeps all activations\n"
        "  got       activations='recompute'\n"
        "  hint      activations='recompute' needs backend='cpu' or 'triton' (or 'auto', where one of them can run)."
    )
    with torch.autocast("cpu"), pytest.raises(InputError) as error:
        relational_scan(x, memory, p, activations="recompute")
    assert str(error.value) == (
        "relational_scan: activations='recompute' cannot be obeyed here: "
        "for the CPU scan, it does not follow autocast\n"
        "  hint      only the CPU scan recomputes; activations='store' can run here."
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
    if style == "unit":
        why = "it was asked for; without compiled kernels it computes by PyTorch operations: the compiled kernels "
        assert layer.backend_report().why.startswith(why + no_library)
    else:
        with pytest.raises(InputError, match=f"the compiled kernels {no_library}"):
            layer.backend_report()


@pytest.mark.parametrize("time_first", [False, True])
def test_a_layer_reports_what_runs(time_first, rng, monkeypatch):
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "off")
    layer = RelationalMemory(4, mem_slots=3, head_size=2, input_rows=2, batch_first=not time_first)
    assert str(layer.backend_report()) == "backend='auto' runs 'cpu': it is the fastest that can run here" + OPERATIONS
    x = torch.randn(3, 3, 2, 4, generator=rng)
    assert layer.backend_report(x).runs == "reference"
    assert layer.backend_report().kernels == "PyTorch operations: RELATIONAL_RNN_KERNELS=off"
    assert layer.backend_report(x).kernels is None
    with torch.autocast("cpu"):
        assert layer.backend_report().why == "as to the CPU scan, it does not follow autocast"


def test_a_layer_obeys_its_backend(ran, rng):
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
