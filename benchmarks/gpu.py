"""Judges and times every backend of the layer on a GPU, in at most eight minutes and without a network.

    python benchmarks/gpu.py --l0sg PATH/relational-rnn-pytorch --out FOLDER
    TRITON_INTERPRET=1 python benchmarks/gpu.py --toy          the same motions on a CPU; its times mean nothing

First every backend is compared with the definition, at every shape and in every dtype; what is wrong is not timed. Then
contenders take turns: the plain loop, the Triton kernels, cuDNN's LSTM of as many parameters and the L0SG port; and
last, as it takes minutes to compile, the plain loop under `torch.compile` with CUDA graphs beside the fastest backend.
The clock covers one call, from tensors on the GPU until the GPU has done it. The end says which backend "auto" should
take at which shape. The last line printed is JSON, which also goes to FOLDER.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relational_rnn._check import InputError, describe
from relational_rnn._files import write_json
from relational_rnn.benchmarks import Benchmark, CheckFailed
from relational_rnn.benchmarks.contenders import L0SG, LAYER, LSTM, Contender, build, memory, one_pass
from relational_rnn.benchmarks.measuring import MIB, Rounds, check, matmul_rate, take_turns, wait_for
from relational_rnn.benchmarks.shapes import SHAPES, Case, Pass, Shape
from relational_rnn.console.boundary import guarded
from relational_rnn.training.run_folder import describe_machine, describe_software

BACKENDS = ("reference", "triton")
GRAPHS = f"{LAYER}reference, torch.compile, CUDA graphs"
LANGUAGE = Shape(batch=64, steps=100, input_size=512, mem_slots=1, num_heads=4, head_size=128, key_size=64)
NAMED = {**{name: SHAPES[name] for name in ("a", "b", "c", "e")}, "language": LANGUAGE}
TOY = Shape(batch=2, steps=2, input_size=5, mem_slots=3, num_heads=2, head_size=8, key_size=7)
PASSES: tuple[Pass, ...] = ("train", "infer")
SECONDS, COMPILING = 480.0, 90.0
"""What all of it may take, and what must be left before something is compiled."""

Row = dict[str, Any]


def sized_for_judging(case: Case) -> Case:
    """The same kernels on fewer sequences and steps, as the definition in float64 is slow."""
    s = case.shape
    return replace(case, shape=replace(s, batch=min(s.batch, 48), steps=min(s.steps, 8)))


def judged(case: Case, benchmark: Benchmark) -> tuple[list[str], dict[str, str]]:
    """The backends that are right, and by name why others are not timed."""
    right, against = [], {}
    for backend in BACKENDS:
        name = f"{LAYER}{backend}"
        small = sized_for_judging(case)
        try:
            x = torch.zeros(case.shape.batch, case.shape.steps, case.shape.input_size)
            memory(case.shape, benchmark, name).backend_report(x.to(benchmark.device, benchmark.torch_dtype))
            check(small, {name: build(small, benchmark, name)}, benchmark)
            right.append(name)
        except InputError as error:
            against[name] = str(error).splitlines()[0]
        except CheckFailed as error:
            against[name] = f"WRONG: {error}"
    return right, against


def compiled(case: Case, benchmark: Benchmark) -> Contender:
    """The plain loop under `torch.compile`; on a CPU there is nothing to gain, and nothing is compiled."""
    plain = build(case, benchmark, f"{LAYER}reference")
    torch.manual_seed(1)  # the weights of `build`
    layer: nn.Module = memory(case.shape, benchmark, f"{LAYER}reference")
    how = {"mode": "reduce-overhead"} if benchmark.device == "cuda" else {"backend": "eager"}
    fast = torch.compile(layer, fullgraph=True, **how)
    generator = torch.Generator().manual_seed(0)
    s = case.shape
    x = torch.randn(s.batch, s.steps, s.input_size, generator=generator).to(benchmark.device, benchmark.torch_dtype)
    run = one_pass(case, x.requires_grad_(case.run == "train"), layer, lambda: fast(x)[0].clone())
    return replace(plain, run=run, turn=run)


def timed(
    case: Case, contenders: Mapping[str, Contender], benchmark: Benchmark, rate: float, rounds: Rounds
) -> list[Row]:
    """A row for each contender, all of them warm after one call."""
    peaks = {}
    for name, contender in contenders.items():
        contender.run()
        peaks[name] = peak_mib(contender.run) if benchmark.device == "cuda" else None
    samples: dict[str, list[float]] = {}
    turns: dict[str, Callable[[], object]] = {name: contender.turn for name, contender in contenders.items()}
    take_turns(turns, samples, rounds, wait=wait_for(benchmark.device))
    rows = []
    for name, contender in contenders.items():
        median = statistics.median(samples[name])
        row = {"shape": case.name, "pass": case.run, "dtype": benchmark.dtype, "contender": name}
        row |= {"median_ms": 1e3 * median, "min_ms": 1e3 * min(samples[name]), "max_ms": 1e3 * max(samples[name])}
        row |= {"runs": len(samples[name]), "share_of_matmul": contender.flop / median / 1e9 / rate}
        rows.append({**row, "peak_mib": peaks[name], "parameters": contender.parameters})
    return rows


def peak_mib(run: Callable[[], object]) -> float:
    """What one pass takes at its worst moment beyond what was there."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def verdicts(rows: list[Row]) -> list[Row]:
    """For every shape, dtype and pass the fastest backend, and how many times faster it is than each other contender.

    >>> same = {"shape": "c", "pass": "train", "dtype": "float32"}
    >>> pair = [{**same, "contender": f"{LAYER}reference", "median_ms": 6.0}]
    >>> pair += [{**same, "contender": f"{LAYER}triton", "median_ms": 2.0}]
    >>> verdicts(pair)[0]["auto should take"], verdicts(pair)[0]["times faster than"]
    ('triton', {'relational_rnn:reference': 3.0})
    """
    found = []
    for key in dict.fromkeys((row["shape"], row["pass"], row["dtype"]) for row in rows):
        times: dict[str, float] = {}
        for row in rows:
            if (row["shape"], row["pass"], row["dtype"]) == key:
                times.setdefault(row["contender"], row["median_ms"])
        ours = {name: times[name] for name in times if name.removeprefix(LAYER) in BACKENDS}
        if not ours:
            continue
        best = min(ours, key=ours.__getitem__)
        faster = {name: round(time / times[best], 2) for name, time in times.items() if name != best}
        same = dict(zip(("shape", "pass", "dtype"), key, strict=True))
        found.append({**same, "auto should take": best.removeprefix(LAYER), "times faster than": faster})
    return found


def measure(given: argparse.Namespace) -> Row:
    """Everything, in the order of its worth; what there is no time for is named."""
    end = time.monotonic() + given.seconds
    shapes = {"toy": TOY} if given.toy else {name: NAMED[name] for name in given.shapes}
    cases = [Case(name=name, shape=shape, run=run) for name, shape in shapes.items() for run in PASSES]
    settings = [
        Benchmark(device="cpu" if given.toy else "cuda", dtype=dtype, l0sg=given.l0sg, shapes=("c",), sweeps=())
        for dtype in (["float32"] if given.toy else given.dtypes)
    ]
    rows: list[Row] = []
    right: dict[tuple[str, str], list[str]] = {}
    against: dict[str, str] = {}
    left_out: list[str] = []
    for benchmark in settings:
        for case in cases:
            right[case.key, benchmark.dtype], found = judged(case, benchmark)
            against |= {f"{case.key}, {benchmark.dtype}: {name}": why for name, why in found.items()}
            print(f"judged  {case.key}, {benchmark.dtype}: right {right[case.key, benchmark.dtype]}", flush=True)
    rates = {b.dtype: matmul_rate(64 if given.toy else 8192, device=b.device, dtype=b.torch_dtype) for b in settings}
    share = max(1.0, (end - time.monotonic()) / 2 / (len(cases) * len(settings)))
    rounds = Rounds(seconds=0.0, least=1, most=1) if given.toy else Rounds(seconds=share, least=3, most=200)
    for graphs in (False, True):
        for benchmark in settings:
            for case in cases:
                what = f"{case.key}, {benchmark.dtype}" + (", CUDA graphs" if graphs else "")
                names = right[case.key, benchmark.dtype]
                if time.monotonic() > end - (COMPILING if graphs and not given.toy else 0):
                    left_out.append(what)
                    continue
                if graphs:
                    contenders = {GRAPHS: compiled(case, benchmark)}
                    try:
                        check(case, contenders, benchmark)
                    except CheckFailed as error:
                        against[what] = f"WRONG: {error}"
                        continue
                    contenders |= {name: build(case, benchmark, name) for name in names[-1:]}
                else:
                    rivals = [LSTM, *([L0SG] if given.l0sg else [])]
                    contenders = {name: build(case, benchmark, name) for name in [*names, *rivals]}
                for row in timed(case, contenders, benchmark, rates[benchmark.dtype], rounds):
                    rows.append({**row, "beside": "CUDA graphs"} if graphs else row)
                    print(f"timed   {what}: {row['contender']} {row['median_ms']:.3f} ms", flush=True)
    return {
        **describe_machine(settings[0].device),
        **describe_software(),
        "clock": "wall, until the device is done",
        "float32_products": torch.backends.cuda.matmul.fp32_precision,
        "matmul_gflops": rates,
        "refused_or_wrong": against,
        "left_out_for_time": left_out,
        "verdicts": verdicts(rows),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=NAMED, default=list(NAMED))
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="about, for all of it")
    parser.add_argument("--l0sg", type=Path, metavar="CHECKOUT", help="of L0SG's port; its code is run")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    parser.add_argument("--toy", action="store_true", help="tiny sizes on the CPU, under Triton's interpreter")
    given = parser.parse_args()
    if not given.toy and not torch.cuda.is_available():
        raise InputError(describe("gpu", "there is no CUDA device here", hint="--toy goes through the motions"))
    if not given.toy:  # as exact as the definition, for PyTorch's LSTM too
        torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = "ieee"
    record = measure(given)
    for verdict in record["verdicts"]:
        print("  ".join(f"{name}: {value}" for name, value in verdict.items()))
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        write_json(given.out / f"{record['date']}_gpu.json", record)
    print(json.dumps(record))
    if any(why.startswith("WRONG") for why in record["refused_or_wrong"].values()):
        sys.exit(1)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
