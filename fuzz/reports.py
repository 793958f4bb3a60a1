"""What reports read: runs of three kinds, and results of a benchmark."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

from fuzz.engine import Family
from fuzz.mutations import damage, damaged_json
from fuzz.runs import METRICS, result, write
from relational_rnn.reports import group_runs, read_benchmark, read_runs, records_of
from relational_rnn.reports.benchmark import render_benchmark
from relational_rnn.reports.page import render_page
from relational_rnn.reports.results import render_markdown

KINDS = ("babi", "memorize", "language")


@functools.cache
def folder_of(kind: str) -> dict[str, Any]:
    """The files of a run, as values."""
    config = {
        "core": "rmc",
        "seed": 0,
        "batch_size": 4,
        "memory": {"gate_style": "unit"},
        "data": {"vocabulary": "word"},
    }
    found = dict(result())
    if kind != "babi":
        config["task"] = kind
        found = {
            name: value for name, value in found.items() if name not in ("per_task", "tasks_above_95", "questions")
        }
        found |= {"per_group": {"length 9": 0.5, "length 60": 0.25}, "sequences": 9, "mean_beyond": 0.1}
    if kind == "language":
        found |= {"per_group_perplexity": {"1 to 9": 30.0}, "perplexity": 20.0, "bits_per_character": 1.5, "tokens": 9}
        found |= {"resets": {"10": {"perplexity": 30.0, "bits_per_character": 2.0}}, "tokens_seen": 99}
    versions = {
        "torch": "2.13.0",
        "machine": "m",
        "commit": "0123abc",
        "date": "2026-01-31",
        "command": "relational-rnn",
    }
    data = {"report": ["a line"], "text": {"train": {"words": 9, "tokens": 9}}}
    return {"config.json": config, "result.json": found, "versions.json": versions, "data.json": data}


def make_run(rng: random.Random) -> dict[str, bytes]:
    values = folder_of(rng.choice(KINDS))
    files = {name: json.dumps(value).encode() for name, value in values.items()} | {"metrics.csv": METRICS}
    name = rng.choice(list(files))
    files[name] = damage(rng, METRICS, (b'"', b"\xff")) if name == "metrics.csv" else damaged_json(rng, values[name])
    if rng.random() < 0.1:
        del files[rng.choice(list(files))]
    return files


def run_run(case: dict[str, bytes], folder: Path) -> bool:
    write(folder, case)
    groups = group_runs(read_runs([folder]))
    render_page("fuzz", groups, [])
    render_markdown(records_of(groups, task="fuzz"), groups[0].workload, title="fuzz", data_name="fuzz.json")
    return True


@functools.cache
def benchmark() -> dict[str, Any]:
    ms = dict.fromkeys(("median_ms", "min_ms", "max_ms", "share_of_matmul", "peak_mib", "result_mib"), 1.5)
    rows = [
        {"shape": shape, "pass": "train", "contender": "nn.LSTM", **ms, "runs": 3, "samples_per_second": 9.0}
        | {"parameters": 7, "state_bytes": 8}
        for shape in ("a", "T=8", "T=2048")
    ]
    sizes = ("batch", "steps", "input_size", "mem_slots", "num_heads", "head_size", "key_size", "mlp_layers")
    about = {"machine": "m", "threads": 2, "dtype": "float32", "versions": {"torch": "2"}, "commit": "0123abc"}
    settings = {"device": "cpu", "recipe_steps": 9, "quick": True}
    return {
        **about, "matmul_gflops": 9.0, "rows": rows, "date": "2026-01-31", "settings": settings, "seconds": 5,
        "shapes": {row["shape"]: dict.fromkeys(sizes, 4) for row in rows}, "cannot_run": {"a": {"x": "why"}},
    }  # fmt: skip


def make_benchmark(rng: random.Random) -> bytes:
    return damaged_json(rng, benchmark())


def run_benchmark(case: bytes, folder: Path) -> bool:
    write(folder, {"results.json": case})
    results = read_benchmark(folder / "results.json")

    results.per_step_growth()
    render_benchmark(results, {})
    return True


FAMILIES = [
    Family("reports: runs", 5, make_run, run_run),
    Family("reports: benchmarks", 3, make_benchmark, run_benchmark),
]
