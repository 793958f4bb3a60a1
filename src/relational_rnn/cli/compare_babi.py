"""relational-rnn compare babi"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

import tyro

from relational_rnn import recipes
from relational_rnn.cli.babi_options import SHORT, RecipeName, check_typed, starting_run
from relational_rnn.cli.boundary import KEPT, stopped_with
from relational_rnn.cli.parsing import parse_arguments, spell_out
from relational_rnn.cli.tables import shown, text_table
from relational_rnn.cli.trials import TrialReport
from relational_rnn.nn.cores import CORES, FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.recipes.babi import CoreName, DataConfig
from relational_rnn.reports.runs import mean_and_spread
from relational_rnn.tasks.babi.model import ModelConfig
from relational_rnn.training import LoopConfig, OptimizerConfig

COMMAND = "compare babi"
EXAMPLES = (
    "relational-rnn compare babi --data data/tasks_1-20_v1-2.tar.gz --cores rmc lstm --seeds 0 1 2 --out runs/babi",
    "relational-rnn compare babi --recipe demo --data.tasks 1 4 --loop.steps 20 --cores rmc gru --out runs/quick",
)

SHARED = tuple(field.name for field in dataclasses.fields(recipes.BabiRun) if field.name not in ("core", "seed"))
"""What all runs of a comparison have in common."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Train and measure a model for every core and every seed, and print one table.

    All models have the same sentence encoder and answer head and about the same number of parameters. Called again with
    the same options, it goes on where it was stopped. With `--tuning.learning-rates` every core tries these first and
    takes the one that does best on the validation set. With `--data PATH` it reads the published files, and with
    `--partial` also a set that is not complete (short for --data.path and --data.partial).
    """

    recipe: RecipeName = "babi"
    """What the options start from."""
    cores: tuple[CoreName, ...] = ("rmc", "lstm")
    """The recurrent cores."""
    seeds: tuple[int, ...] = (0,)
    """Decide initial weights, validation stories, batches and dropout."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Gets a run folder CORE-SEED for each run; by default runs/RECIPE."""
    jobs: int = 1
    """Runs that are trained at the same time, each in a process of its own. A small run gains little from a second
    thread (--loop.threads), so that as many jobs as processor cores are fastest."""
    tuning: recipes.TuningConfig = dataclasses.field(default_factory=recipes.TuningConfig)
    """Learning rates that every core tries first."""
    batch_questions: int
    """About how many questions a batch has."""
    rare_tasks: tuple[int, ...]
    """Tasks of which training shows fewer questions than of others."""
    rare_share: float
    """How many questions of these there are, as a share of the others'."""
    first_tasks: tuple[int, ...]
    """Tasks that are learned before all others, alone."""
    first_steps: int
    """For how many updates."""
    data: DataConfig
    """The stories."""
    memory: MemorySizes
    """The relational memory."""
    rivals: RivalSizes
    """Heads and layers of the cores that have them."""
    fast: FastWeightSizes
    """The fast-weight memory, where it is among the cores."""
    model: ModelConfig
    """Sentence encoder and answer head, the same around every core."""
    optimizer: OptimizerConfig
    """Optimizer and schedule of the learning rate."""
    loop: LoopConfig
    """Budget, validation, device."""

    @property
    def base(self) -> recipes.BabiRun:
        """The configuration of all runs but for core and seed."""
        return recipes.BabiRun(**{name: getattr(self, name) for name in SHARED})


def parse(args: Sequence[str]) -> Arguments:
    words = spell_out(args, SHORT)
    recipe, config = starting_run(words, COMMAND)
    default = Arguments(recipe=recipe, **{name: getattr(config, name) for name in SHARED})
    arguments = parse_arguments(Arguments, words, command=COMMAND, examples=EXAMPLES, default=default)
    check_typed(words, COMMAND, *arguments.cores)
    return arguments


def run(arguments: Arguments) -> None:
    out = arguments.out or Path("runs") / arguments.recipe
    with stopped_with(KEPT):
        found = recipes.compare(
            arguments.base,
            arguments.cores,
            arguments.seeds,
            out,
            tuning=arguments.tuning,
            jobs=arguments.jobs,
            on_trials=TrialReport(),
            on_run=lambda p, e: print(describe_run(p, e)),
        )
    print()
    print(comparison_table(found))
    print(f"\nmake a page of it with: {shown('relational-rnn', 'report', *found, '--out', out / 'report')}")


def describe_run(folder: Path, found: recipes.Evaluation) -> str:
    """One run in one line."""
    return f"{folder}: {found.mean_accuracy:.1%} of test questions right, {found.tasks_above_95} tasks above 95 %"


def comparison_table(found: Mapping[Path, recipes.Evaluation]) -> str:
    """A row per core: parameters, state, mean accuracy, tasks above 95 %, seconds; with the spread over seeds.

    Args:
        found: measurements by run folder, as `recipes.compare` returns them.
    """
    head = ["core", "parameters", "state bytes", "mean accuracy", "tasks above 95 %", "seconds"]
    rows = []
    for core in dict.fromkeys(evaluation.core for evaluation in found.values()):
        runs = [evaluation for evaluation in found.values() if evaluation.core == core]
        accuracy, spread = mean_and_spread([run.mean_accuracy for run in runs])
        above = mean(run.tasks_above_95 for run in runs)
        rows.append(
            [
                CORES[core].label,
                f"{runs[0].parameters:,}",
                f"{max(run.state_bytes for run in runs):,}",
                f"{100 * accuracy:.1f} %" + (f" ± {100 * spread:.1f}" if len(runs) > 1 else ""),
                f"{above:.1f}" if len(runs) > 1 else f"{above:g}",
                f"{mean(run.train_seconds for run in runs):,.0f}",
            ]
        )
    return text_table(head, rows)
