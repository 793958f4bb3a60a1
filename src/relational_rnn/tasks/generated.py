"""Generated tasks as something to train on: their runs, and the workload that each of them fills in.

Axes: M the answers asked for in a batch.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.nn.cores import MemorySizes, state_bytes_after
from relational_rnn.nn.matching import Match
from relational_rnn.runs import Column, LoadedRun, Published, RunConfig, RunEvaluation, Workload
from relational_rnn.runs.evaluation import Table
from relational_rnn.tasks.contract import Split, Task, TaskBatch, draw_batch
from relational_rnn.tasks.model import TaskModel, TaskModelConfig, whole_answers
from relational_rnn.training import LoopConfig, Measure, OptimizerConfig, Totals, rows_of_part

DrawnOn = Literal["cpu", "cuda"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TaskRun(RunConfig):
    """Everything that decides a run on a generated task; each task has a subclass with its own `data`."""

    match: Match = "parameters"
    """What a rival has as much of as the relational memory: parameters, bytes of state, or operations."""
    model: TaskModelConfig = dataclasses.field(default_factory=TaskModelConfig)
    """What stands around the core, the same for every core."""
    batch_size: int = 128
    """Sequences of a batch; every batch is new."""
    valid_samples: int = 2048
    """Sequences of the validation set."""
    test_samples: int = 12_800
    """Sequences that a finished run is measured on."""
    drawn_on: DrawnOn = "cpu"
    """The device whose generator draws the batches; the two draw different ones."""

    @property
    def task(self) -> Task:
        """The task with its settings."""
        return getattr(self, "data")  # noqa: B009  (each subclass has its own type of it)

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        where = type(self).__name__
        check_choice(where, "match", self.match, get_args(Match))
        check_choice(where, "drawn_on", self.drawn_on, get_args(DrawnOn))
        check_positive(
            where, batch_size=self.batch_size, valid_samples=self.valid_samples, test_samples=self.test_samples
        )
        shape = self.task.shape
        if self.model.teacher_forcing and shape.answer != "decoded":
            problem = f"teacher_forcing would have no effect: {self.task_name} decodes nothing"
            raise InputError(describe(where, problem, got=f"answers at the {shape.answer}"))
        if self.model.thinking_steps and shape.answer != "end":
            problem = f"thinking_steps would have no effect: {self.task_name} does not answer at the end alone"
            raise InputError(describe(where, problem, got=f"answers: {shape.answer}"))


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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TaskEvaluation(RunEvaluation):
    """How a run does on sequences it has not learned from.

    `mean_accuracy` is that of the groups that training shows, of single answers (characters, where answers are
    decoded), and the state is that after the longest training sequence.
    """

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

    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("accuracy", "mean_accuracy", "{:.1f}", scale=100, unit=" %"),
        Column("whole answers", "whole_accuracy", "{:.1f}", scale=100, unit=" %"),
        Column("beyond training", "mean_beyond", "{:.1f}", scale=100, unit=" %"),
    )

    def groups(self) -> Mapping[str, float]:
        return self.per_group

    def line(self) -> str:
        line = f"{self.mean_accuracy:.1%} right"
        if self.whole_accuracy != self.mean_accuracy:
            line += f", {self.whole_accuracy:.1%} of whole answers"
        return line if self.mean_beyond is None else f"{line}; {self.mean_beyond:.1%} beyond what was trained"

    def tables(self) -> Sequence[Table]:
        whole = self.per_group_whole != self.per_group

        def row(name: str, accuracy: float, of_whole: float | None) -> list[str]:
            more = [f"{100 * of_whole:.1f}" if of_whole is not None else ""] if whole else []
            return [name, f"{100 * accuracy:.1f}", *more]

        rows = [row(name, accuracy, self.per_group_whole[name]) for name, accuracy in self.per_group.items()]
        mean = "mean" if self.mean_beyond is None else "mean of what was trained"
        rows.append(row(mean, self.mean_accuracy, self.whole_accuracy))
        if self.mean_beyond is not None:
            rows.append(row("mean beyond", self.mean_beyond, None))
        return [(["group", "accuracy, %", *(["whole answers, %"] if whole else [])], rows)]

    def summary(self) -> str:
        return f"{self.sequences:,} {self.split} sequences"


class TaskWorkload(Workload[Any]):
    """A generated task as something to train on.

    Args:
        config: the class of its runs.
        recipes: by name; the first one is what a run starts from.
        published: what others have measured.
    """

    evaluation = TaskEvaluation

    def __init__(
        self,
        config: type[TaskRun],
        recipes: Mapping[str, Callable[[], TaskRun]],
        published: Sequence[Published] = (),
    ) -> None:
        self.config, self.recipes, self.published = config, recipes, published
        first = next(iter(recipes))
        self.train_examples = ("--core lstm --loop.steps 100 --out runs/first", f"--recipe {first} --seed 1")
        self.compare_examples = (
            "--cores rmc lstm transformer --seeds 0 1 2",
            "--cores rmc lstm --tuning.learning-rates 1e-3 2e-3 4e-3",
            f"--recipe {first} --cores rmc gru --match flops --out runs/flops",
        )

    def check(self, where: str, config: TaskRun, cores: Sequence[str]) -> None:
        if config.drawn_on == "cuda" and not torch.cuda.is_available():
            problem = "this machine cannot draw batches on 'cuda': PyTorch finds no such device"
            raise InputError(describe(type(config).__name__, problem, hint="leave drawn_on at 'cpu'"))

    def read(self, config: TaskRun) -> None:
        return None

    def make_model(self, config: TaskRun, vocabulary: None) -> TaskModel:
        return TaskModel.build(
            config.task.shape,
            config.core,
            config.memory,
            config.model,
            rivals=config.rivals,
            fast=config.fast,
            match=config.match,
            curriculum=config.task.make_curriculum(),
        )

    def make_problem(self, model: TaskModel, config: TaskRun, data: None) -> TaskProblem:
        return TaskProblem(model, config)

    def lessons(self, config: TaskRun) -> int | None:
        curriculum = config.task.make_curriculum()
        return None if curriculum is None or curriculum.improvement is not None else curriculum.levels

    def measure(self, run: LoadedRun[TaskRun], *, split: str, data: Any) -> dict[str, Any]:
        if data is not None:
            raise InputError(describe("evaluate", f"data have no effect: the sequences of {self.name} are generated"))
        config, shape = run.config, run.config.task.shape
        self.check("evaluate", config, [config.core])
        problem = TaskProblem(run.model, config)
        answers, whole = Totals(), Totals()
        start = time.perf_counter()
        with torch.inference_mode():
            for batch in split_batches(config, "valid" if split == "valid" else "test"):
                batch = batch.to("cpu")
                measure = problem.measure(batch)
                answers.add(measure)
                whole.add(Measure(measure.losses.sum(), whole_answers(measure.correct, batch), batch.groups))
        seconds = time.perf_counter() - start
        per_group = {shape.groups[group]: accuracy for group, accuracy in answers.group_accuracy.items()}
        per_group_whole = {shape.groups[group]: accuracy for group, accuracy in whole.group_accuracy.items()}
        trained = [name for name in per_group if name not in shape.beyond]
        return {
            "mean_accuracy": _mean_of(per_group, trained),
            "mean_beyond": _mean_of(per_group, shape.beyond) if split == "test" and shape.beyond else None,
            "per_group": per_group,
            "whole_accuracy": _mean_of(per_group_whole, trained),
            "per_group_whole": per_group_whole,
            "sequences": whole.count,
            "loss": answers.loss,
            "state_bytes": state_bytes_after(run.model.core, shape.steps),
            "evaluate_seconds": seconds,
            "match": config.match,
        }


def _mean_of(accuracies: Mapping[str, float], names: Sequence[str]) -> float:
    found = [accuracies[name] for name in names if name in accuracies]
    if not found:
        raise InputError(describe("evaluate", "too few test sequences: none of some groups was drawn", got=list(names)))
    return sum(found) / len(found)


def muon(*, learning_rate: float, decay_fraction: float) -> OptimizerConfig:
    """Muon for minutes of one processor core, its rate highest until the last part of the updates."""
    return OptimizerConfig(
        method="muon",
        learning_rate=learning_rate,
        warmup_steps=100,
        decay_fraction=decay_fraction,
        final_fraction=0.01,
        weight_decay=0.0,
        beta2=0.95,
    )


def decoding(task: Task) -> dict[str, Any]:
    """What the paper trains decoded tasks with (A.2): 4 slots of 256 numbers, one gate per slot, batches of 128."""
    return {
        "data": task,
        "memory": MemorySizes(mem_slots=4, head_size=64, num_heads=4, gate_style="memory"),
        "model": TaskModelConfig(embedding_size=64, head_size=256, head_layers=4),
        "optimizer": OptimizerConfig(learning_rate=1e-3, warmup_steps=1000, decay="none", weight_decay=0.0),
        "loop": LoopConfig(steps=200_000, validate_every=5000, checkpoint_every=1000, log_every=100),
        "batch_size": 128,
    }


def decoding_small(task: Task, memory: MemorySizes, steps: int) -> dict[str, Any]:
    """For minutes of one processor core: batches of 64, Muon."""
    return {
        "data": task,
        "memory": memory,
        "model": TaskModelConfig(embedding_size=32, head_size=128, head_layers=1),
        "optimizer": muon(learning_rate=4e-3, decay_fraction=0.4),
        "loop": LoopConfig(steps=steps, validate_every=500, checkpoint_every=500, log_every=50, threads=1),
        "batch_size": 64,
        "test_samples": 4096,
    }
