"""Runs on generated tasks from the outside: train one, measure it, load it, compare several.

Axes: M the answers asked for in a batch.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.nn.cores import count_parameters, state_bytes_after
from relational_rnn.recipes.babi import CoreName
from relational_rnn.recipes.comparison import Trial, TuningConfig, for_core, run_grid
from relational_rnn.recipes.evaluation import RunEvaluation
from relational_rnn.recipes.running import (
    as_json,
    check_grid,
    initial_weights,
    load_weights,
    read_config_file,
    read_result,
    spent_on,
)
from relational_rnn.recipes.tasks import TASK_RUNS, TaskRun, check_device
from relational_rnn.tasks.contract import Split, TaskBatch, draw_batch
from relational_rnn.tasks.model import TaskModel, whole_answers
from relational_rnn.training import Measure, Outcome, Progress, Totals, fit, from_json, rows_of_part
from relational_rnn.training.json_files import Json, write_json


class TaskProblem:
    """A task model with its batches; a `training.Problem`."""

    def __init__(self, model: TaskModel, config: TaskRun) -> None:
        self.model = model
        self.config = config
        self._valid: list[TaskBatch] | None = None

    def train_batch(self, step: int) -> TaskBatch:
        """The training batch of this step (from 0), at the level of the curriculum."""
        config, curriculum = self.config, self.model.curriculum
        return draw_batch(
            config.task,
            "train",
            step,
            seed=config.seed,
            size=config.batch_size,
            device=config.drawn_on,
            level=None if curriculum is None else curriculum.level,
        )

    def part(self, batch: TaskBatch, index: int, of: int) -> TaskBatch:
        """Some of the sequences of a batch, for one of several processes."""
        return batch.rows(rows_of_part(len(batch.targets), index, of))

    @property
    def lesson(self) -> tuple[int, int] | None:
        """The lesson of the curriculum, from 1, and how many it has."""
        curriculum = self.model.curriculum
        return None if curriculum is None else (curriculum.level + 1, curriculum.levels)

    def valid_batches(self) -> Sequence[TaskBatch]:
        """The validation set of the seed."""
        if self._valid is None:
            self._valid = split_batches(self.config, "valid")
        return self._valid

    def measure(self, batch: TaskBatch) -> Measure:
        """The model on a batch; an item is an answer. While training, the curriculum hears of the loss."""
        logits = self.model(batch)
        targets = batch.targets[batch.asked]
        losses = F.cross_entropy(logits, targets, reduction="none")
        groups = batch.groups.unsqueeze(1).expand_as(batch.targets)[batch.asked]
        if self.model.training and self.model.curriculum is not None:
            self.model.curriculum.update(losses.mean())
        return Measure(losses, logits.argmax(-1) == targets, groups)


def split_batches(config: TaskRun, split: Split) -> list[TaskBatch]:
    """All batches of the validation or the test set of a run."""
    total = config.valid_samples if split == "valid" else config.test_samples
    sizes = [min(config.batch_size, total - first) for first in range(0, total, config.batch_size)]
    return [
        draw_batch(config.task, split, number, seed=config.seed, size=size, device=config.drawn_on)
        for number, size in enumerate(sizes)
    ]


def build_task_model(config: TaskRun) -> TaskModel:
    """The model of a configuration with its initial weights, which are a function of the seed."""
    with initial_weights(config.seed):
        curriculum = config.task.make_curriculum()
        return TaskModel.build(
            config.task.shape,
            config.core,
            config.memory,
            config.model,
            rivals=config.rivals,
            fast=config.fast,
            match=config.match,
            curriculum=curriculum,
        )


def build_task(config: TaskRun) -> TaskProblem:
    """The problem of a configuration: model, initial weights and batches.

    Raises:
        InputError: the device to draw on is not there, or no size of the core fits.

    Example:
        >>> from relational_rnn.recipes.tasks import nth_farthest_small
        >>> problem = build_task(nth_farthest_small())
        >>> problem.measure(problem.train_batch(0)).losses.shape
        torch.Size([128])
    """
    check_device(config)
    return TaskProblem(build_task_model(config), config)


def task_config_json(config: TaskRun) -> dict[str, Json]:
    """The configuration as config.json holds it: the name of the task comes first."""
    return {"task": config.task_name, **as_json(config)}


def train_task(
    config: TaskRun,
    folder: Path | str,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Train a run into a folder.

    Args:
        config: everything that decides the run.
        folder: the run folder; see `training.run_folder` for what it will hold.
        resume: continue a run that was stopped, from its last checkpoint.
        on_progress: called now and then; None shows the progress on standard error.

    Raises:
        InputError: see `build_task` and `training.fit`.
        KeyboardInterrupt: stopped with Ctrl-C; the message says how to continue.
    """
    config.rivals.check("train", config.core)
    config.fast.check("train", config.core)
    return fit(
        build_task(config),
        Path(folder),
        optimizer=config.optimizer,
        loop=config.loop,
        seed=config.seed,
        configuration=task_config_json(config),
        resume=resume,
        on_progress=on_progress,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LoadedTaskRun:
    """A trained model with all that is needed to use it."""

    folder: Path
    """Where it was trained."""
    config: TaskRun
    """How."""
    model: TaskModel
    """With the weights that did best on the validation set; on the CPU, in evaluation mode."""


def task_of(folder: Path | str) -> str:
    """The name of the task of the run in a folder: one of `TASK_RUNS`, "babi" or "language".

    Raises:
        InputError: there is no run in the folder, or its task is not known.
    """
    path, content = read_config_file(Path(folder))
    name = content.get("task", "babi")
    check_choice(str(path), "task", name, ("babi", "language", *TASK_RUNS))
    return cast(str, name)


def read_task_config(folder: Path | str) -> TaskRun:
    """The configuration of the run in a folder.

    Raises:
        InputError: there is no run of a generated task in it, or it was written by another version of this package.
    """
    path, content = read_config_file(Path(folder))
    name = content.pop("task", "babi")
    check_choice(str(path), "task", name, tuple(TASK_RUNS))
    return from_json(TASK_RUNS[cast(str, name)], content, where=str(path))


def load_task(folder: Path | str) -> LoadedTaskRun:
    """Load the best weights of a run.

    Raises:
        InputError: there is no run in the folder, no weights yet, or a file of it cannot be read.
    """
    folder = Path(folder)
    config = read_task_config(folder)
    return LoadedTaskRun(folder=folder, config=config, model=load_weights(lambda: build_task_model(config), folder))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TaskEvaluation(RunEvaluation):
    """How a run does on sequences it has not learned from.

    `mean_accuracy` is that of the groups that training shows, of single answers (characters, where answers are
    decoded), and the state is that after the longest training sequence.
    """

    task: str
    """Name of the task."""
    mean_beyond: float | None
    """The mean accuracy of the groups that training never shows; None where there is none."""
    per_group: Mapping[str, float]
    """Accuracy of each group."""
    whole_accuracy: float
    """Share of sequences of the groups that training shows in which every answer is right."""
    per_group_whole: Mapping[str, float]
    """The same for each group."""
    sequences: int
    """How many were measured."""
    match: str
    """What the core has as much of as the relational memory."""


def evaluate_task(folder: Path | str, *, split: Split = "test") -> TaskEvaluation:
    """Measure the best weights of a run; the result on the test set is kept in result.json.

    Args:
        folder: the run folder.
        split: "test", or "valid" for the validation set that the best weights were chosen on.

    Raises:
        InputError: see `load_task`; an unknown split.
    """
    folder = Path(folder)
    check_choice("evaluate", "split", split, ("test", "valid"))
    run = load_task(folder)
    config, shape = run.config, run.config.task.shape
    check_device(config)
    problem = TaskProblem(run.model, config)
    answers, whole = Totals(), Totals()
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in split_batches(config, split):
            measure = problem.measure(batch.to("cpu"))
            answers.add(measure)
            whole.add(
                Measure(measure.losses.sum(), whole_answers(measure.correct, batch.to("cpu")), batch.groups.cpu())
            )
    seconds = time.perf_counter() - start
    spent = spent_on(folder)
    per_group = {shape.groups[group]: accuracy for group, accuracy in answers.group_accuracy.items()}
    per_group_whole = {shape.groups[group]: accuracy for group, accuracy in whole.group_accuracy.items()}
    evaluation = TaskEvaluation(
        split=split,
        task=config.task_name,
        mean_accuracy=_mean_of(per_group, [name for name in per_group if name not in shape.beyond]),
        mean_beyond=_mean_of(per_group, shape.beyond) if split == "test" and shape.beyond else None,
        per_group=per_group,
        whole_accuracy=_mean_of(per_group_whole, [name for name in per_group if name not in shape.beyond]),
        per_group_whole=per_group_whole,
        sequences=whole.count,
        loss=answers.loss,
        parameters=count_parameters(run.model),
        state_bytes=state_bytes_after(run.model.core, shape.steps),
        train_seconds=spent.seconds,
        processor_seconds=spent.processor_seconds,
        evaluate_seconds=seconds,
        core=config.core,
        match=config.match,
        seed=config.seed,
        steps=spent.steps,
        report=spent.unfinished(config.loop.steps),
    )
    if split == "test":
        write_json(folder / "result.json", evaluation.to_json())
    return evaluation


def _mean_of(accuracies: Mapping[str, float], names: Sequence[str]) -> float:
    found = [accuracies[name] for name in names if name in accuracies]
    if not found:
        raise InputError(describe("evaluate", "too few test sequences: none of some groups was drawn", got=list(names)))
    return sum(found) / len(found)


def compare_task(
    base: TaskRun,
    cores: Sequence[CoreName],
    seeds: Sequence[int],
    folder: Path | str,
    *,
    tuning: TuningConfig | None = None,
    jobs: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
    on_trials: Callable[[Sequence[Trial]], None] | None = None,
    on_run: Callable[[Path, TaskEvaluation], None] | None = None,
) -> dict[Path, TaskEvaluation]:
    """Train and measure a run for every core and seed; called again, it goes on where it was stopped.

    Args:
        base: the configuration of all runs but for core and seed.
        cores: names of cores.
        seeds: seeds of runs.
        folder: gets one run folder `<core>-<seed>` for each.
        tuning: learning rates that every core tries first, in `folder`/trials; None for the base's.
        jobs: how many runs are trained at the same time, each in a process of its own; a script that asks for several
            does so under `if __name__ == "__main__"`, since these processes import it.
        on_progress: see `train_task`; one job only.
        on_trials: called with the trials of `tuning` when they are done.
        on_run: called with the folder and the measurement of each run as soon as it is there.

    Returns:
        the measurements by run folder, seeds within cores in the given order.

    Raises:
        InputError: a core or a seed is given twice or not at all; no size of a core fits; a folder holds a run of
            another configuration; training diverges with every learning rate to try; `jobs` below 1, or several and
            `on_progress`.
    """
    check_grid(cores, seeds, base.rivals, base.fast)
    check_device(base)
    for core in cores:  # a rival that has no fitting size is found now, not after the first hours
        build_task_model(for_core(base, core))
    curriculum = base.task.make_curriculum()

    def measure(config: TaskRun, path: Path) -> TaskEvaluation:
        return read_result(path, TaskEvaluation, config.loop.steps) or evaluate_task(path)

    return run_grid(
        base,
        cores,
        seeds,
        Path(folder),
        tuning=tuning,
        lessons=None if curriculum is None or curriculum.improvement is not None else curriculum.levels,
        jobs=jobs,
        configuration=task_config_json,
        prepare=lambda: train_task,
        measure=measure,
        on_progress=on_progress,
        on_trials=on_trials,
        on_run=on_run,
    )
