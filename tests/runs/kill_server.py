"""Trains runs in processes that a test kills; run as a script, which imports everything once and forks for each.

A line on standard input, {"kind", "place", "folder", "resume", "dies_at"}, starts a run; the number of its process is
printed, and when it has ended its exit code (minus the signal that ended it) and how often it was about to die.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import language_runs
import lightning_fabric  # noqa: F401  (imported once, not in every process)
import little_runs
import torch
import torch.utils.tensorboard

from relational_rnn import runs
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.model import TaskModelConfig
from relational_rnn.tasks.nth_farthest import NthFarthest, NthFarthestRun
from relational_rnn.training import LoopConfig

TASK = NthFarthestRun(
    data=NthFarthest(objects=2, dimensions=1),
    memory=MemorySizes(mem_slots=2, head_size=6, num_heads=2),
    model=TaskModelConfig(head_size=12, head_layers=1),
    loop=LoopConfig(steps=12, validate_every=4, checkpoint_every=3, log_every=1, threads=1),
    batch_size=8,
    valid_samples=64,
    test_samples=30,
)


def train(kind: str, place: Path, folder: Path, resume: bool) -> None:
    """One run, or a comparison of two that train at the same time."""
    if kind == "babi":
        config = little_runs.little_run(place / "stories", steps=12)
        little_runs.train_quietly(config, folder, resume=resume)
    elif kind == "task":
        runs.train(TASK, folder, resume=resume, on_progress=little_runs.quiet)
    elif kind == "language":
        language_runs.train_quietly(language_runs.little_run(place / "text.txt"), folder, resume=resume)
    else:
        runs.compare(replace(TASK, core="gru"), ["gru", "rnn"], [0], folder, jobs=2)


def die_while_saving(at: int | None, count: Path) -> None:
    """Have this process killed at moment number `at` of those before and after a file is written and renamed; the file
    that is being written is then half there. How many moments there were stands in `count`."""
    fsync, replace_file, moments = os.fsync, os.replace, 0

    def moment(descriptor: int | None = None) -> None:
        nonlocal moments
        if moments == at:
            if descriptor is not None:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        moments += 1
        count.write_text(str(moments))

    def dying_fsync(descriptor: int) -> None:
        moment(descriptor)
        fsync(descriptor)

    def dying_replace(source, target) -> None:
        moment()
        replace_file(source, target)
        moment()

    os.fsync, os.replace = dying_fsync, dying_replace


def serve() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        place = Path(asked["place"])
        process = os.fork()
        if process == 0:
            sink = os.open(place / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (0, 1, 2):
                os.dup2(sink, stream)
            code = 1
            try:
                if asked["kind"] != "compare":
                    die_while_saving(asked["dies_at"], place / "moments.txt")
                train(asked["kind"], place, Path(asked["folder"]), asked["resume"])
                code = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(code)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
