"""Run folders made by hand: the layout that `train` and `evaluate` write, with numbers that are easy to recognise."""

import csv
import json
from pathlib import Path

import pytest


@pytest.fixture
def make_run(tmp_path):
    """Returns a function that writes a run folder: (name, core, seed, accuracy per task, ...) to its path."""

    def make(
        name: str,
        *,
        core: str = "rmc",
        seed: int = 0,
        per_task: dict[int, float] | None = None,
        parameters: int = 1234,
        train_seconds: float = 12.5,
        learning_rate: float = 1e-3,
        evaluated: bool = True,
        versions: dict[str, object] | None = None,
        notes: tuple[str, ...] = (),
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        per_task = per_task or {1: 0.97, 2: 0.41, 19: 0.08}
        config = {"core": core, "seed": seed, "optimisation": {"learning_rate": learning_rate}}
        (folder / "config.json").write_text(json.dumps(config))
        facts = {
            "torch": "2.13.0",
            "machine": "2-core CPU (test)",
            "commit": "0123abc",
            "command": "relational-rnn train",
        }
        (folder / "versions.json").write_text(json.dumps(versions or facts))
        (folder / "data.json").write_text(json.dumps({"report": ["task 3: 385 of 2,000 stories"]}))
        with (folder / "metrics.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["step", "seconds", "train_loss", "valid_accuracy"])
            rows.writerows([[10, 1.5, 3.0, ""], [20, 3.0, 2.0, 0.25 + seed / 100], [30, 4.5, "nan", 0.5]])
        if evaluated:
            result = {
                "split": "test",
                "task": "babi",
                "core": core,
                "seed": seed,
                "mean_accuracy": sum(per_task.values()) / len(per_task),
                "per_task": {str(task): value for task, value in per_task.items()},
                "tasks_above_95": sum(value > 0.95 for value in per_task.values()),
                "questions": 3000,
                "parameters": parameters,
                "state_bytes": 4096,
                "train_seconds": train_seconds,
                "processor_seconds": None,
                "evaluate_seconds": 0.5,
                "loss": 1.5,
                "steps": 30,
                "report": list(notes),
            }
            (folder / "result.json").write_text(json.dumps(result))
        return folder

    return make
