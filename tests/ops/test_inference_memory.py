"""Without gradients a sequence needs its output's memory and little more, whatever computes it; and with gradients a
loop that recomputes needs little of what one that stores does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from relational_rnn.ops.relational_scan.cpu import kernels_report

# What is measured is the resident memory of a process that has run a few steps and nothing else. Importing PyTorch
# takes longer than all of it, so one process imports, and each case runs in a fork of it. At these sizes steps that
# were kept, or input terms of all steps, would take as much as the output or several times that.
MEASURE = """
import json, os, sys
import torch
from relational_rnn import RelationalMemory
from relational_rnn.benchmarks.measuring import resident_growth
from relational_rnn.nn import GRU, FastWeightMemory

def fast(**options):
    return FastWeightMemory(8, 96, num_heads=2, key_size=8, value_size=8, **options)

def wide(**options):
    return RelationalMemory(8, 4, 32, num_heads=4, **options)

torch.set_num_threads(1)
MAKES = {
    "kernels": (lambda: RelationalMemory(8, 4, 8, num_heads=2), 2, 8_000),
    "kernels, competitive": (lambda: RelationalMemory(8, 4, 8, num_heads=2, gate_style="competitive"), 2, 8_000),
    "kernels, blocks": (lambda: RelationalMemory(8, 4, 8, num_heads=2, num_blocks=3), 2, 8_000),
    "kernels, wide batch": (wide, 512, 9),
    "loop": (lambda: wide(backend="reference"), 64, 160),
    "loop, competitive": (lambda: wide(gate_style="competitive", backend="reference"), 64, 200),
    "kernels, fast": (fast, 2, 20_000),
    "loop, fast": (lambda: fast(backend="reference"), 128, 260),
    "loop, GRU": (lambda: GRU(8, 96), 128, 300),
    "loop, stored": (lambda: wide(backend="reference"), 16, 160),
    "loop, recomputed": (lambda: wide(backend="reference", activations="recompute"), 16, 160),
}
GUARDS = {"no_grad": torch.no_grad, "lengths": torch.no_grad, "inference": torch.inference_mode}

def measure(kind, mode):
    make, batch, steps = MAKES[kind]
    layer, x = make(), torch.randn(batch, steps, 8)
    lengths = None if mode != "lengths" else torch.tensor([steps - 5] + [steps] * (batch - 1))
    layer.requires_grad_(mode != "frozen")

    def run(x, lengths=None):
        with GUARDS.get(mode, torch.enable_grad)():
            return layer(x, lengths=lengths)[0]

    run(x[:2, :6].contiguous(), None if lengths is None else lengths[:2].clamp(max=6))
    if mode == "train":
        y, growth = resident_growth(lambda: (y := layer(x)[0], y.sum().backward())[0].detach())
    else:
        y, growth = resident_growth(lambda: run(x, lengths))
    assert y.grad_fn is None
    print(json.dumps([kind, mode, growth, y.numel() * y.element_size()]), flush=True)

for kind, mode in json.loads(sys.argv[1]):
    process = os.fork()
    if process == 0:
        try:
            measure(kind, mode)
        finally:
            os._exit(0)
    os.waitpid(process, 0)
"""
CASES = [
    ("kernels", "no_grad"),
    ("kernels", "frozen"),
    ("kernels", "lengths"),
    ("kernels, competitive", "inference"),
    ("kernels, blocks", "no_grad"),
    ("kernels, wide batch", "no_grad"),
    ("loop", "frozen"),
    ("loop, competitive", "no_grad"),
    ("kernels, fast", "no_grad"),
    ("kernels, fast", "lengths"),
    ("loop, fast", "inference"),
    ("loop, GRU", "no_grad"),
]
TRAINING = [("loop, stored", "train"), ("loop, recomputed", "train")]


@pytest.fixture(scope="module")
def measured():
    """Of every case, bytes by which the peak of resident memory grows, and bytes of the output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, json.dumps(CASES + TRAINING)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {(kind, mode): (growth, size) for kind, mode, growth, size in map(json.loads, done.stdout.splitlines())}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("kind", "mode"), CASES)
def test_inference_takes_its_output(kind, mode, measured):
    if kind.startswith("kernels") and not kernels_report().startswith("compiled"):
        pytest.skip(kernels_report())
    growth, output = measured[kind, mode]
    assert 0.9 * output < growth < 1.5 * output, f"{growth / output:.2f} times the output"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_loop_that_recomputes_keeps_little(measured):
    (store, output), (recompute, _) = (measured[case] for case in TRAINING)
    assert store > 10 * output
    assert recompute < 0.4 * store, f"{recompute / store:.2f} times the memory of storing"
