"""Measuring the best weights of a run on what it has not learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relational_rnn._check import check_choice
from relational_rnn.nn.cores import count_parameters
from relational_rnn.runs.evaluation import RunEvaluation
from relational_rnn.runs.folder import RESULT, load, spent_on
from relational_rnn.training.json_files import write_json


def evaluate(folder: Path | str, *, split: str = "test", data: Any = None, **options: Any) -> RunEvaluation:
    """Measure the best weights of a run.

    The result on the run's own test set is kept in result.json; others are only returned.

    Args:
        folder: the run folder.
        split: "test", or "valid" for the validation set that the best weights were chosen on.
        data: other test data than those of the run, where the task reads files: bAbI stories in a folder or an archive,
            or a whole `DataConfig`; a text.
        **options: what else the task lets one choose; see `measure` of its workload.

    Returns:
        a measurement of the task's own class.

    Raises:
        InputError: see `load`; an unknown split; data that cannot be read, or that the task has no use for.
    """
    folder = Path(folder)
    check_choice("evaluate", "split", split, ("test", "valid"))
    run = load(folder)
    found = run.workload.measure(run, split=split, data=data, **options)
    spent = spent_on(folder)
    found["report"] = (*found.get("report", ()), *spent.unfinished(run.config.loop.steps))
    evaluation = run.workload.evaluation(
        **{"split": split, **found},
        task=run.config.task_name,
        parameters=count_parameters(run.model),
        train_seconds=spent.seconds,
        processor_seconds=spent.processor_seconds,
        core=run.config.core,
        seed=run.config.seed,
        steps=spent.steps,
    )
    if split == "test" and data is None:
        write_json(folder / RESULT, evaluation.to_json())
    return evaluation
