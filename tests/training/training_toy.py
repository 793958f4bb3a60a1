"""A problem that a few parameters solve in a few steps: the larger of two numbers."""

from __future__ import annotations

import csv
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import nn

from relational_rnn.training import LoopConfig, Measure, OptimizerConfig, Progress, Totals, fit, to_json

OPTIMIZER = OptimizerConfig(learning_rate=0.02, warmup_steps=5, weight_decay=0.1)
LOOP = LoopConfig(steps=60, validate_every=20, checkpoint_every=7, log_every=3)


class Larger(nn.Module):
    """A recurrent net with dropout, so that resuming has a generator to get wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.GRU(1, 6, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.drop(self.core(x)[0][:, -1]))


class Toy:
    """Two groups: group 3 asks for the larger number, group 5 for the smaller."""

    def __init__(self, seed: int, broken_at: int | None = None) -> None:
        torch.manual_seed(seed)
        self.seed = seed
        self.broken_at = broken_at
        self.model = Larger()
        self.asked: list[int] = []

    def _batch(self, number: int, size: int):
        generator = torch.Generator().manual_seed(self.seed * 100_003 + number)
        x = torch.randn(size, 2, 1, generator=generator)
        groups = torch.where(torch.rand(size, generator=generator) < 0.7, 3, 5)
        larger = x[:, 1, 0] > x[:, 0, 0]
        return {"x": x, "answer": torch.where(groups == 3, larger, ~larger).long(), "group": groups}

    def train_batch(self, step: int):
        self.asked.append(step)
        batch = self._batch(step, 13)
        if step == self.broken_at:
            batch["x"] = batch["x"] * float("nan")
        return batch

    def valid_batches(self):
        return [self._batch(90_000 + i, 11) for i in range(3)]

    def measure(self, batch) -> Measure:
        x = torch.cat([batch["x"], (batch["group"] == 3).float().view(-1, 1, 1)], dim=1)
        logits = self.model(x)
        losses = nn.functional.cross_entropy(logits, batch["answer"], reduction="none")
        return Measure(losses, logits.argmax(1) == batch["answer"], batch["group"])


MUON = OptimizerConfig(method="muon", learning_rate=0.02, warmup_steps=5, weight_decay=0.1)


def run(
    folder: Path,
    *,
    seed: int = 11,
    resume: bool = False,
    loop: LoopConfig = LOOP,
    optimizer: OptimizerConfig = OPTIMIZER,
    on_progress=lambda p: None,
):
    configuration = {"optimizer": to_json(optimizer), "loop": to_json(loop), "seed": seed}
    return fit(
        Toy(seed),
        folder,
        optimizer=optimizer,
        loop=loop,
        seed=seed,
        configuration=configuration,
        resume=resume,
        on_progress=on_progress,
        files={"labels.json": ["larger", "smaller"]},
    )


def metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without the seconds, the only things that may differ."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"], row["processor_seconds"]
    return rows


def dictated(accuracy: float, loss: float) -> Totals:
    """What a validation with these figures gives."""
    totals = Totals()
    totals.load_state_dict({"loss": loss * 100, "correct": {0: round(accuracy * 100)}, "count": {0: 100}})
    return totals


class Stop(Exception):
    pass


def stop_at(step: int):
    """A listener that breaks the run off in the middle, as a crash would."""

    def listen(progress: Progress) -> None:
        if progress.step >= step:
            raise Stop

    return listen


def run_and_tell(folder: Path, told: Connection) -> None:
    """What a process does that is to be killed."""
    torch.set_num_threads(1)

    def tell(progress: Progress) -> None:
        told.send(progress.step)
        time.sleep(0.05)  # leaves the killer time to aim

    run(folder, on_progress=tell)
