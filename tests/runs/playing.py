"""Processes side by side that only play at training; also run as a script. Imports as little as it can: every process
imports it anew."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from relational_rnn.nn.cores import MemorySizes
from relational_rnn.runs import compare
from relational_rnn.runs.comparing import train_side_by_side
from relational_rnn.tasks.model import TaskModelConfig
from relational_rnn.tasks.nth_farthest import NthFarthest, NthFarthestRun
from relational_rnn.training import DivergedError, LoopConfig

BASE = NthFarthestRun(
    data=NthFarthest(objects=2, dimensions=1),
    memory=MemorySizes(mem_slots=2, head_size=6, num_heads=2),
    model=TaskModelConfig(head_size=12, head_layers=1),
    loop=LoopConfig(steps=8, validate_every=2, checkpoint_every=2, threads=1),
    batch_size=8,
    valid_samples=64,
    test_samples=30,
)


def wait_for(path: Path) -> None:
    for _ in range(60_000):
        if path.exists():
            return
        time.sleep(0.01)
    raise TimeoutError(path)


def play(config, folder, *, resume, on_progress):
    """Stands for a training: what it does is in the name of its folder."""
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "threads").write_text(f"{torch.get_num_threads()} {resume} {config.seed}")
    os.dup2(os.open(folder / "said", os.O_WRONLY | os.O_CREAT), 2)
    if folder.name in ("first", "second"):
        wait_for(folder.parent / ("second" if folder.name == "first" else "first") / "pid")
        assert not (folder.parent / "third" / "pid").exists()
    if folder.name == "forever":
        time.sleep(600)
    if folder.name == "diverges":
        raise DivergedError("the loss is no longer a number")
    if folder.name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if folder.name == "mistaken":
        raise ZeroDivisionError


def start(place: Path, *names: str, jobs: int = 2):
    for name in names:
        (place / name).mkdir()
    runs = {place / name: replace(BASE, seed=7) for name in names}
    return train_side_by_side(runs, train=play, resumed={path: path.name == "second" for path in runs}, jobs=jobs)


if __name__ == "__main__" and sys.argv[2:] == ["compare"]:
    endless = LoopConfig(steps=10**6, validate_every=10**6, checkpoint_every=10**6, log_every=1, threads=1)
    compare(replace(BASE, loop=endless), ["gru", "rnn"], [0], Path(sys.argv[1]), jobs=2)
elif __name__ == "__main__":
    list(start(Path(sys.argv[1]), "forever"))
