"""Times the Triton scan against the plain scan, cuDNN's LSTM of equal arithmetic and a port, in turns.

    python benchmarks/scan_gpu.py --shapes a language --l0sg PATH/relational_rnn_general.py --out FOLDER

Correctness first: a backend is timed only after its results and gradients were as close to the definition's in float64
as those of the plain scan in the same dtype. A backend that refuses a shape is listed with its reason. Times are CUDA
events around one pass, medians of what fits into --seconds. The last line printed is JSON, which also goes to FOLDER.
`--device cpu --shapes dry` goes through the motions without a GPU, under Triton's interpreter.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from scan_cpu import SHAPES as CPU_SHAPES
from scan_cpu import Shape, arithmetic, lstm_size
from torch import Tensor, nn

from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import relational_scan, relational_scan_reference
from relational_rnn.ops.relational_scan.triton_scan import unsupported
from relational_rnn.testing import assert_as_good_as

SHAPES = {
    **{name: CPU_SHAPES[name] for name in ("a", "c", "e")},
    "language": Shape(64, 100, 1024, 1, 8, 128, 64, 3),
    "dry": Shape(2, 2, 5, 3, 2, 8, 7, 2),
}
DTYPES = {"a": ["float32", "tf32", "bfloat16"], "language": ["bfloat16"], "dry": ["float32"]}
BACKENDS = {"reference": {}, "triton": {}, "triton, recompute": {"activations": "recompute"}}
# The port multiplies a view in place, which PyTorch has refused to differentiate since 2018.
PORT_LINE = "q *= (self.key_size ** -0.5)", "q = q * (self.key_size ** -0.5)"


def cell_of(s: Shape, dtype: torch.dtype, device: str) -> RelationalMemoryCell:
    torch.manual_seed(0)
    return RelationalMemoryCell(
        s.input,
        s.slots,
        s.head_size,
        num_heads=s.heads,
        key_size=s.key,
        attention_mlp_layers=s.layers,
        dtype=dtype,
        device=device,
    )


def options_of(contender: str) -> dict[str, Any]:
    return {"backend": contender.split(",")[0], **BACKENDS[contender]}


def check(s: Shape, dtype: torch.dtype, contender: str, device: str) -> None:
    """Fail unless the backend is as close to the definition as the plain scan is, on the first sequences and steps."""
    s = s._replace(batch=min(s.batch, 48), steps=min(s.steps, 6))
    cell = cell_of(s, dtype, device)
    x = torch.randn(s.batch, s.steps, 1, s.input, device=device).to(dtype)
    memory = torch.randn(s.batch, s.slots, cell.width, device=device).to(dtype)
    d = torch.randn(s.batch, s.steps, s.slots, cell.width, device=device).to(dtype)
    lengths = torch.randint(0, s.steps + 1, (s.batch,), device=device)

    def results(function: Callable[..., Any], dtype: torch.dtype, **options: Any) -> dict[str, Tensor]:
        ours = copy.deepcopy(cell).to(dtype)
        leaves = {"x": x.to(dtype, copy=True), "memory": memory.to(dtype, copy=True)}
        leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
        y, final, _ = function(leaves["x"], leaves["memory"], ours.scan_parameters(), lengths=lengths, **options)
        wanted = leaves | dict(ours.named_parameters())
        found = torch.autograd.grad([y, final], [*wanted.values()], [d.to(dtype), d[:, 0].to(dtype)])
        return {"memories": y, "final": final, **dict(zip(wanted, found, strict=True))}

    got = results(relational_scan, dtype, **options_of(contender))
    plain, oracle = results(relational_scan_reference, dtype), results(relational_scan_reference, torch.float64)
    for name, value in got.items():
        assert_as_good_as(f"{contender}: {name}", value, plain[name], oracle[name])


def port(file: Path, s: Shape, dtype: torch.dtype, device: str) -> nn.Module:
    """The port's layer, from its file, with the line mended that stops it from being trained."""
    source = file.read_text(encoding="utf-8")
    if PORT_LINE[0] not in source:
        raise SystemExit(f"{file}: {PORT_LINE[0]!r} is not in it; is it relational_rnn_general.py of L0SG's port?")
    module = types.ModuleType("port")
    exec(compile(source.replace(*PORT_LINE), str(file), "exec"), module.__dict__)
    layer = module.RelationalMemory(
        s.slots, s.head_size, s.input, s.heads, key_size=s.key, attention_mlp_layers=s.layers, return_all_outputs=True
    )
    return layer.to(device, dtype)


def contenders(
    s: Shape, dtype: torch.dtype, mode: str, device: str, l0sg: Path | None, refused: dict[str, str]
) -> dict[str, Callable[[], object]]:
    """Closures that run one pass each."""
    cell = cell_of(s, dtype, device)
    x = torch.randn(s.batch, s.steps, s.input, device=device).to(dtype).requires_grad_(mode == "train")
    start = cell.initial_memory(s.batch, dtype=dtype)

    def one_pass(call: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Callable[[], object]:
        with torch.no_grad():
            d = torch.randn_like(call())

        def train() -> object:
            return torch.autograd.grad(call(), [x, *parameters], d, allow_unused=True)

        def infer() -> object:
            with torch.no_grad():
                return call()

        return train if mode == "train" else infer

    runs = {}
    for name in BACKENDS:
        if name != "reference":
            reason = unsupported(x.unsqueeze(2), start, cell.scan_parameters())
            if reason is not None:
                refused[f"relational_rnn:{name}"] = reason
                continue
            if mode == "train" or "recompute" not in name:
                check(s, dtype, name, device)

        def scan(name: str = name) -> Tensor:
            return relational_scan(x.unsqueeze(2), start, cell.scan_parameters(), **options_of(name)).memories

        if mode == "train" or "recompute" not in name:
            runs[f"relational_rnn:{name}"] = one_pass(scan, [*cell.parameters()])
    lstm = nn.LSTM(s.input, lstm_size(s), batch_first=True, device=device, dtype=dtype)
    runs["nn.LSTM"] = one_pass(lambda: lstm(x)[0], [*lstm.parameters()])
    if l0sg is not None:
        layer = port(l0sg, s, dtype, device)
        memory = layer.initial_state(s.batch).to(device, dtype)
        runs["L0SG"] = one_pass(lambda: layer(x, memory)[0], [*layer.parameters()])
    return runs


def milliseconds(run: Callable[[], object], device: str) -> float:
    """Of one pass."""
    if device == "cpu":
        before = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - before)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def matmul_rate(dtype: torch.dtype, device: str) -> float:
    """GFLOP/s of a square product, the median of 10."""
    size = 8192 if device == "cuda" else 512
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = [milliseconds(lambda: a @ b, device) for _ in range(13)]
    return 2 * size**3 / statistics.median(times[3:]) / 1e6


def peak_mib(run: Callable[[], object], device: str) -> float:
    """Memory that one pass takes beyond what was there."""
    if device == "cpu":
        return 0.0
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def measure(shape: str, precision: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one shape in one precision."""
    s, device = SHAPES[shape], given.device
    dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
    torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cudnn.rnn.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    rate = matmul_rate(dtype, device)
    refused: dict[str, str] = {}
    runs = contenders(s, dtype, given.mode, device, given.l0sg, refused)
    same = {"shape": shape, "pass": given.mode, "dtype": precision, "matmul_gflops": round(rate)}
    rows: list[dict[str, Any]] = [{**same, "contender": name, "refused": why} for name, why in refused.items()]
    peaks = {}
    for name, run in runs.items():
        run()  # compiles
        peaks[name] = peak_mib(run, device)
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + given.seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 3:
        for name, run in runs.items():
            times[name].append(milliseconds(run, device))
    flop = arithmetic(s) / (1 if given.mode == "train" else 3)
    for name, measured in times.items():
        median = statistics.median(measured)
        rows.append(
            {
                **same,
                "contender": name,
                "median_ms": round(median, 4),
                "min_ms": round(min(measured), 4),
                "max_ms": round(max(measured), 4),
                "runs": len(measured),
                "share_of_matmul": round(flop / median / 1e6 / rate, 4),
                "peak_mib": round(peaks[name], 1),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["a", "language"])
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "tf32", "bfloat16", "float16"])
    parser.add_argument("--mode", choices=["train", "infer"], default="train")
    parser.add_argument("--seconds", type=float, default=5.0, help="per shape and dtype")
    parser.add_argument("--l0sg", type=Path, help="relational_rnn_general.py in a checkout of L0SG's port")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--commit", help="of this package, where git cannot tell")
    parser.add_argument("--out", type=Path, help="a folder")
    given = parser.parse_args()
    rows = []
    for shape in given.shapes:
        for precision in given.dtypes or DTYPES.get(shape, ["float32", "bfloat16"]):
            for row in measure(shape, precision, given):
                rows.append(row)
                print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    git = ["git", "rev-parse", "--short", "HEAD"]
    machine = torch.cuda.get_device_name() if given.device == "cuda" else f"{os.cpu_count()} CPUs"
    triton = sys.modules["triton"]
    record = {
        "machine": machine,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "triton": triton.__version__, "cuda": torch.version.cuda},
        "commit": given.commit or subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
        "date": date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "clock": "CUDA events" if given.device == "cuda" else "wall",
        "tests_green": True,  # a contender that was wrong has stopped the run
        "rows": rows,
    }
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        file = given.out / f"{record['date']}_{machine.replace(' ', '-').lower()}_{given.mode}.json"
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        partial.replace(file)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
