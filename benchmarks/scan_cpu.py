"""Times the CPU scan against the plain scan and an `nn.LSTM` of equal arithmetic, alternating in one process.

    python benchmarks/scan_cpu.py --shapes c e --threads 1 --seconds 8 --out benchmarks/results/<date>_<machine>.json

"cpu" is the compiled kernels, "reference" the plain loop. With
`--mode step` a layer takes one step of one sequence, without gradients. A contender is timed only after its results
agreed with the definition's. With one thread, `--clock cpu` counts the processor's time instead of the wall's, which is
what tells contenders apart on a machine that others use too.
The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from relational_rnn import RelationalMemory
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import relational_scan, relational_scan_reference
from relational_rnn.ops.relational_scan.cpu import kernels_report


class Shape(NamedTuple):
    batch: int
    steps: int
    input: int
    slots: int
    heads: int
    head_size: int
    key: int
    layers: int


SHAPES = {
    "a": Shape(1600, 8, 40, 8, 8, 32, 32, 2),
    "a/8": Shape(200, 8, 40, 8, 8, 32, 32, 2),  # an eighth of a, for a quick look
    "b": Shape(32, 35, 768, 1, 4, 192, 64, 3),
    "c": Shape(32, 20, 128, 4, 4, 16, 16, 2),
    "e": Shape(32, 16, 128, 8, 4, 32, 32, 2),
}


def arithmetic(s: Shape) -> float:
    """Floating-point operations of a training pass that cannot be avoided (unit gates, one block)."""
    width, rows = s.heads * s.head_size, s.slots + 1
    qkv = s.heads * (2 * s.key + s.head_size)
    attention = 2 * s.slots * rows * s.heads * (s.key + s.head_size)
    recurrent = 2 * s.slots * width * qkv + attention + 2 * s.layers * s.slots * width**2 + 4 * s.slots * width**2
    hoisted = 2 * s.input * width + 2 * width * qkv + 4 * width**2
    return 3.0 * s.batch * s.steps * (recurrent + hoisted)


def lstm_size(s: Shape) -> int:
    """Hidden size at which an LSTM of the same call has the same arithmetic: 24 B T h (I + h)."""
    wanted = arithmetic(s) / (24 * s.batch * s.steps)
    return round((-s.input + math.sqrt(s.input**2 + 4 * wanted)) / 2)


def steppers(s: Shape) -> dict[str, Callable[[], object]]:
    """Closures that take one step of one sequence each, without gradients."""
    sizes = dict(mem_slots=s.slots, head_size=s.head_size, num_heads=s.heads, key_size=s.key)
    layer = RelationalMemory(s.input, **sizes, attention_mlp_layers=s.layers)
    x, state = torch.randn(1, s.input), layer.initial_state(1)

    def stepper(backend: str) -> Callable[[], object]:
        def step() -> object:
            layer.backend = backend
            with torch.no_grad():
                return layer.step(x, state)

        return step

    runs = {f"relational_rnn:{backend}": stepper(backend) for backend in ("reference", "cpu")}
    (expected, _), (got, _) = (run() for run in runs.values())
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max(), "cpu is wrong"
    return runs


def contenders(s: Shape, mode: str) -> dict[str, Callable[[], object]]:
    """Closures that run one pass each; all on the same weights and inputs."""
    torch.manual_seed(0)
    if mode == "step":
        return steppers(s)
    cell = RelationalMemoryCell(
        s.input,
        s.slots,
        s.head_size,
        num_heads=s.heads,
        key_size=s.key,
        attention_mlp_layers=s.layers,
    )
    x = torch.randn(s.batch, s.steps, 1, s.input, requires_grad=mode == "train")
    start = cell.initial_memory(s.batch)
    d = torch.randn(s.batch, s.steps, s.slots, cell.width)
    lstm = nn.LSTM(s.input, lstm_size(s), batch_first=True)
    d_lstm = torch.randn(s.batch, s.steps, lstm.hidden_size)
    parameters = [*cell.parameters()]

    def scan(function: Callable, **options: str) -> Callable[[], object]:
        def train() -> list[torch.Tensor]:
            y, *_ = function(x, start, cell.scan_parameters(), **options)
            return [y, *torch.autograd.grad(y, [x, *parameters], d)]

        def infer() -> list[torch.Tensor]:
            with torch.no_grad():
                return [function(x, start, cell.scan_parameters(), **options)[0]]

        return train if mode == "train" else infer

    def lstm_pass() -> object:
        x_lstm = x[:, :, 0]
        if mode == "infer":
            with torch.no_grad():
                return lstm(x_lstm)
        return torch.autograd.grad(lstm(x_lstm)[0], [x, *lstm.parameters()], d_lstm)

    runs = {
        "relational_rnn:reference": scan(relational_scan, backend="reference"),
        "relational_rnn:cpu": scan(relational_scan, backend="cpu"),
    }
    if mode == "train":
        runs["relational_rnn:reference, recompute"] = scan(
            relational_scan, backend="reference", activations="recompute"
        )
        runs["relational_rnn:cpu, recompute"] = scan(relational_scan, backend="cpu", activations="recompute")
    if arithmetic(s) < 5e10:
        expected = scan(relational_scan_reference)()
        for name, run in runs.items():
            for got, right in zip(run(), expected, strict=True):
                assert (got - right).abs().max() <= 1e-3 * right.abs().max(), f"{name} is wrong"
    return runs | {"nn.LSTM": lstm_pass}


def matmul_rate(clock: Callable[[], float]) -> float:
    """GFLOP/s of a product of two 2048 x 2048 matrices, the best of 3."""
    a, b, out = (torch.randn(2048, 2048) for _ in range(3))
    best = math.inf
    for _ in range(3):
        before = clock()
        torch.mm(a, b, out=out)
        best = min(best, clock() - before)
    return 2 * 2048**3 / best / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["c", "e"])
    parser.add_argument("--mode", choices=["train", "infer", "step"], default="train")
    parser.add_argument("--only", nargs="+", help="contenders to time, by the end of their name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="per shape")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.clock == "cpu" and given.threads > 1:
        parser.error("the processor's time is that of one thread: --clock cpu needs --threads 1")
    clock = time.thread_time if given.clock == "cpu" else time.perf_counter
    torch.set_num_threads(given.threads)
    rate = matmul_rate(clock)
    print(f"matmul: {rate:.0f} GFLOP/s, {given.threads} threads, {given.clock} clock, load {os.getloadavg()[0]:.1f}")
    print(f"CPU scan: {kernels_report()}")
    rows = []
    for shape in given.shapes:
        s = SHAPES[shape]
        flop = arithmetic(s) / {"train": 1, "infer": 3, "step": 3 * s.batch * s.steps}[given.mode]
        runs = contenders(s, given.mode)
        if given.only:
            runs = {name: run for name, run in runs.items() if any(name.endswith(end) for end in given.only)}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        end = time.perf_counter() + given.seconds
        while time.perf_counter() < end or min(map(len, times.values())) < 3:
            for name, run in runs.items():
                before = clock()
                run()
                times[name].append(1e3 * (clock() - before))
        for name, measured in times.items():
            median = statistics.median(measured)
            rows.append(
                {
                    "shape": shape,
                    "pass": given.mode,
                    "contender": name,
                    "median_ms": round(median, 4),
                    "min_ms": round(min(measured), 4),
                    "max_ms": round(max(measured), 4),
                    "runs": len(measured),
                    "share_of_matmul": round(flop / median / 1e6 / rate, 3),
                }
            )
            print(
                f"{shape:4} {name:32} median {median:9.3f} ms  (min {min(measured):9.3f}, {len(measured):3} runs)"
                f"  {flop / median / 1e6 / rate:6.1%} of the matmul's rate"
            )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    record = {
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": given.threads,
        "clock": given.clock,
        "dtype": "float32",
        "kernels": kernels_report(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "commit": commit.stdout.strip(),
        "command": " ".join(["python", *sys.argv]),
        "matmul_gflops": round(rate, 1),
        "rows": rows,
    }
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        partial = given.out.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        partial.replace(given.out)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
