"""Stories that a small model learns in a second, in the published format, and a run on them."""

from __future__ import annotations

import dataclasses
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from relational_rnn.nn.cores import MemorySizes
from relational_rnn.runs import train
from relational_rnn.tasks.babi.model import ModelConfig
from relational_rnn.tasks.babi.recipes import BabiRun, DataConfig
from relational_rnn.tasks.babi.story import TASK_NAMES
from relational_rnn.training import LoopConfig, OptimizerConfig, Progress

TASKS = (1, 6)


def story_lines(task: int, rng: random.Random) -> list[str]:
    """Two people go to places; task 1 asks where one of them is, task 6 whether one is at a place."""
    who, other = rng.sample(["Mary", "John", "Daniel"], 2)
    here, there = rng.sample(["garden", "kitchen", "office"], 2)
    lines = [f"{who} went to the {here}.", f"{other} went to the {there}."]
    if task == 1:
        lines.append(f"Where is {who}? \t{here}\t1")
    else:
        lines.append(f"Is {who} in the {rng.choice([here, there])}? \t?\t1")
        lines[2] = lines[2].replace("\t?\t", f"\t{'yes' if here in lines[2] else 'no'}\t")
    return [f"{i} {line}" for i, line in enumerate(lines, start=1)]


def write_files(folder: Path, train: int = 200, test: int = 30, seed: int = 5) -> Path:
    """A folder of two tasks with one question per story."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    for task in TASKS:
        for split, count in (("train", train), ("test", test)):
            lines = [line for _ in range(count) for line in story_lines(task, rng)]
            (folder / f"qa{task}_{TASK_NAMES[task]}_{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def little_run(data: Path, *, steps: int = 8) -> BabiRun:
    """A run that takes well under a second."""
    return BabiRun(
        data=DataConfig(path=data, tasks=TASKS),
        memory=MemorySizes(mem_slots=3, head_size=4, num_heads=2),
        model=ModelConfig(embedding_size=20, head_size=12, read_heads=3, dropout=0.1),
        optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=3),
        loop=LoopConfig(steps=steps, validate_every=4, checkpoint_every=3, log_every=1),
        batch_questions=24,
        seed=3,
    )


def quiet(progress: Progress) -> None:
    pass


def silent(line: str) -> None:
    pass


def train_quietly(config: BabiRun, folder: Path, **arguments):
    return train(config, folder, on_progress=quiet, on_report=silent, **arguments)


def with_data(config: BabiRun, **changes) -> BabiRun:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def train_and_tell(data: Path, folder: Path, told: Connection) -> None:
    """What a process does that is to be killed."""
    torch.set_num_threads(1)

    def tell(progress: Progress) -> None:
        told.send(progress.step)
        time.sleep(0.05)  # leaves the killer time to aim

    train(little_run(data), folder, on_progress=tell, on_report=silent)
