"""Folders of runs: their configuration, weights, checkpoint and metrics."""

from __future__ import annotations

import functools
import io
import json
import random
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from fuzz.engine import Family
from fuzz.mutations import damage, damaged_json
from relational_rnn._check import InputError
from relational_rnn.runs import build, load, read_config
from relational_rnn.runs.folder import read_result, spent_on
from relational_rnn.tasks.babi.pretrained import pretrained_babi
from relational_rnn.tasks.babi.recipes import BabiRun
from relational_rnn.tasks.nth_farthest import nth_farthest_small
from relational_rnn.training import LoopConfig
from relational_rnn.training.run_folder import CHECKPOINT_KEY, METRICS_COLUMNS, RunFolder, read_metrics

METRICS = (",".join(METRICS_COLUMNS) + "\n10,1.5,2,0.5,2,0.5,1e-3,100,1.4,\n20,3,nan,0.5,2,0.5,1e-3,200,,2\n").encode()


@functools.cache
def files() -> dict[str, Any]:
    """The files of two runs that never were; JSON as values."""
    pretrained = pretrained_babi()
    config = nth_farthest_small()
    weights = safetensors.torch.save({n: t.contiguous() for n, t in build(config).model.state_dict().items()})
    score = {"step": 10, "valid_accuracy": 0.5, "valid_loss": 2.0}
    ours = {"configuration": {"seed": 1}, "step": 10, "seconds": 1.5, "best": score, "valid_accuracy": 0.5}
    buffer = io.BytesIO()
    torch.save({CHECKPOINT_KEY: ours, "model": {"w": torch.zeros(3)}}, buffer)
    return {
        "babi": {name: json.loads((pretrained / name).read_text()) for name in ("config.json", "vocabulary.json")},
        "task": {"config.json": config.to_json()},
        "task weights": weights,
        "checkpoint": buffer.getvalue(),
    }


def make_babi(rng: random.Random) -> dict[str, bytes]:
    written = {name: json.dumps(value).encode() for name, value in files()["babi"].items()}
    name = rng.choice(("config.json", "config.json", "vocabulary.json"))
    return {**written, name: damaged_json(rng, files()["babi"][name])}


def run_babi(case: dict[str, bytes], folder: Path) -> bool:
    write(folder, case)
    (folder / "model.safetensors").symlink_to(pretrained_babi() / "model.safetensors")
    load(folder)
    return True


def make_task(rng: random.Random) -> dict[str, bytes]:
    config, weights = json.dumps(files()["task"]["config.json"]).encode(), files()["task weights"]
    if rng.random() < 0.7:
        config = damaged_json(rng, files()["task"]["config.json"])
    else:
        weights = damage(rng, weights)
    metrics = damage(rng, METRICS) if rng.random() < 0.3 else METRICS
    return {"config.json": config, "model.safetensors": weights, "metrics.csv": metrics}


def run_task(case: dict[str, bytes], folder: Path) -> bool:
    write(folder, case)
    read_config(folder)
    load(folder)
    spent_on(folder)
    return True


def make_checkpoint(rng: random.Random) -> bytes:
    return damage(rng, files()["checkpoint"])


def run_checkpoint(case: bytes, folder: Path) -> bool:
    write(folder, {"last.ckpt": case})
    return RunFolder(folder, {"seed": 1}, resumed=True).read_checkpoint() is not None


def make_metrics(rng: random.Random) -> bytes:
    return damage(rng, METRICS, (b'"', b"\0", b"\xff", b"1e999", b"\r"))


def run_metrics(case: bytes, folder: Path) -> bool:
    write(folder, {"metrics.csv": case})
    read_metrics(folder / "metrics.csv")
    spent_on(folder)
    RunFolder(folder, {}, resumed=True).read_metrics(up_to_step=10)
    return True


@functools.cache
def result() -> dict[str, Any]:
    costs = {
        "parameters": 9,
        "state_bytes": 8,
        "train_seconds": 1.5,
        "processor_seconds": None,
        "evaluate_seconds": 1.0,
    }
    about = {
        "split": "test",
        "task": "babi",
        "mean_accuracy": 0.5,
        "loss": 1.0,
        "core": "rmc",
        "seed": 0,
        "steps": 10,
        "report": ["a"],
    }
    return {**about, **costs, "per_task": {"1": 0.9, "20": 0.3}, "tasks_above_95": 0, "questions": 30}


def make_result(rng: random.Random) -> bytes:
    return damaged_json(rng, result())


def run_result(case: bytes, folder: Path) -> bool:
    write(folder, {"result.json": case})
    found = read_result(folder, BabiRun(loop=LoopConfig(steps=10)))
    if found is None:
        raise InputError("measured again")
    return bool(found.to_json())


def write(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).write_bytes(content)


FAMILIES = [
    Family("runs: on bAbI", 2, make_babi, run_babi),
    Family("runs: on a generated task", 4, make_task, run_task),
    Family("runs: checkpoints", 3, make_checkpoint, run_checkpoint),
    Family("runs: metrics", 4, make_metrics, run_metrics),
    Family("runs: results", 4, make_result, run_result),
]
