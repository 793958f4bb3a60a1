"""Options of the commands that train generated tasks: a class for each task, made from the task's recipes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn.cli.training import starting_configuration
from relational_rnn.nn.cores import FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.nn.matching import Match
from relational_rnn.recipes.babi import CoreName
from relational_rnn.recipes.comparison import TuningConfig
from relational_rnn.recipes.task_runs import read_task_config
from relational_rnn.recipes.tasks import TASK_RECIPES, TASK_RUNS, DrawnOn, TaskRun
from relational_rnn.tasks.model import TaskModelConfig
from relational_rnn.training import LoopConfig, OptimizerConfig

RECIPE_HELP = "What the options start from."


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """What every task's train command has."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run folder; by default runs/RECIPE/CORE-SEED."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run in --out, under the configuration it began with."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CompareOptions:
    """What every task's compare command has."""

    cores: tuple[CoreName, ...] = ("rmc", "lstm")
    """The recurrent cores."""
    seeds: tuple[int, ...] = (0,)
    """Decide initial weights and every batch."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Gets a run folder CORE-SEED for each run, and the report; by default runs/RECIPE."""
    jobs: int = 1
    """Runs that are trained at the same time, each in a process of its own. A small run gains little from a second
    thread (--loop.threads), so that as many jobs as processor cores are fastest."""
    tuning: TuningConfig = dataclasses.field(default_factory=TuningConfig)
    """Learning rates that every core tries first."""
    match: Match
    """What a rival has as much of as the relational memory: parameters, bytes of state, or operations."""
    batch_size: int
    """Sequences of a batch; every batch is new."""
    valid_samples: int
    """Sequences of the validation set."""
    test_samples: int
    """Sequences that a finished run is measured on."""
    drawn_on: DrawnOn
    """The device whose generator draws the batches; the two draw different ones."""
    memory: MemorySizes
    """The relational memory."""
    rivals: RivalSizes
    """Heads and layers of the cores that have them."""
    fast: FastWeightSizes
    """The fast-weight memory, where it is among the cores."""
    model: TaskModelConfig
    """What stands around the core, the same for every core."""
    optimizer: OptimizerConfig
    """Optimizer and schedule of the learning rate."""
    loop: LoopConfig
    """Budget, validation, device."""


SHARED = tuple(field.name for field in dataclasses.fields(TaskRun) if field.name not in ("core", "seed"))
"""Fields of a run that a comparison takes over as they are."""


def _recipe_field(task: str) -> tuple[str, Any, Any]:
    recipes = tuple(TASK_RECIPES[task])
    return ("recipe", Annotated[Literal[recipes], tyro.conf.arg(help=RECIPE_HELP)], recipes[0])  # type: ignore[valid-type]


def train_arguments(task: str, description: str) -> type[Any]:
    """The class of the arguments of `train TASK`."""
    run = Annotated[TASK_RUNS[task], tyro.conf.arg(name="")]
    return _arguments(TrainOptions, description, [_recipe_field(task), ("config", run, dataclasses.MISSING)])


def compare_arguments(task: str, description: str) -> type[Any]:
    """The class of the arguments of `compare TASK`."""
    data = {field.name: field for field in dataclasses.fields(TASK_RUNS[task])}["data"].default_factory
    assert isinstance(data, type)
    asked = Annotated[data, tyro.conf.arg(help="The task.")]
    return _arguments(CompareOptions, description, [_recipe_field(task), ("data", asked, dataclasses.MISSING)])


def _arguments(base: type[Any], description: str, fields: Sequence[tuple[str, Any, Any]]) -> type[Any]:
    made = dataclasses.make_dataclass(
        "Arguments",
        [(name, kind, dataclasses.field(default=default)) for name, kind, default in fields],
        bases=(base,),
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = description
    return made


def starting_run(task: str, args: Sequence[str], command: str) -> tuple[str, TaskRun]:
    """The name of the recipe, and the configuration that the other options start from; see `starting_configuration`."""

    def read(folder: Path) -> TaskRun:
        config = read_task_config(folder)
        if config.task_name != task:
            raise InputError(describe(command, "the run in this folder has another task", got=config.task_name))
        return config

    return starting_configuration(args, command, TASK_RECIPES[task], read)
