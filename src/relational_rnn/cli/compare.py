"""relational-rnn compare TASK"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from relational_rnn._check import need_extra
from relational_rnn.cli.options import (
    SHARED,
    Common,
    arguments_of,
    check_typed,
    folder_of,
    print_configuration,
    starting,
)
from relational_rnn.cli.trials import TrialReport
from relational_rnn.console.boundary import KEPT, stopped_with
from relational_rnn.console.parsing import parse_arguments, spell_out
from relational_rnn.console.tables import text_table
from relational_rnn.reports import group_runs, published_beside, read_runs, write_report
from relational_rnn.runs import CoreName, RunConfig, TuningConfig, Workload, compare, comparison, workload_of

DESCRIPTION = """Train and measure a model for every core and every seed on {task}; print one table, write a report with
learning curves, and name what others have published for the same settings.

All models have the same parts around the core, and about the same number of parameters. {data}With
--tuning.learning-rates every core tries these first and takes the one that does best on the validation set. Called
again with the same options, it goes on where it was stopped.
"""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Options(Common):
    """What is no part of a run's configuration."""

    cores: tuple[CoreName, ...] = ("rmc", "lstm")
    """The recurrent cores."""
    seeds: tuple[int, ...] = (0,)
    """Decide everything random: initial weights, batches, dropout."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Gets a run folder CORE-SEED for each run, and the report; by default runs/RECIPE, on a text runs/TEXT."""
    jobs: int = 1
    """Runs that are trained at the same time, each in a process of its own. A small run gains little from a second
    thread (--loop.threads), so that as many jobs as processor cores are fastest."""
    tuning: TuningConfig = dataclasses.field(default_factory=TuningConfig)
    """Learning rates that every core tries first."""


class Compare:
    """The command `compare TASK` of one task."""

    def __init__(self, command: str) -> None:
        self.workload: Workload[Any] = workload_of(command.split()[-1])
        self.command = command
        self.EXAMPLES = tuple(f"relational-rnn {command} {words}" for words in self.workload.compare_examples)

    def parse(self, args: Sequence[str]) -> Any:
        words = spell_out(args, self.workload.short)
        recipe, config = starting(self.workload, words, self.command)
        data = f"{self.workload.data_help} " if self.workload.data_help else ""
        description = DESCRIPTION.format(task=self.workload.name, data=data)
        base = _without_core_and_seed(self.workload.config)
        kind = arguments_of(self.workload, Options, description, base)
        default = kind(recipe=recipe, run=base(**_fields(config)))
        arguments = parse_arguments(
            kind, words, command=self.command, examples=self.EXAMPLES, default=default, shared=SHARED
        )
        check_typed(words, self.command, arguments.cores)
        out = arguments.out or folder_of(self.workload, self.base(arguments), words, recipe)
        return dataclasses.replace(arguments, out=out)

    def base(self, arguments: Any) -> RunConfig:
        """The configuration of all runs but for core and seed."""
        return self.workload.config(**_fields(arguments.run))

    def run(self, arguments: Any) -> None:
        base = self.base(arguments)
        if arguments.print_config:
            print_configuration(base)
            return
        need_extra("matplotlib", "report", "the report at the end of a comparison")  # said before the training
        out = arguments.out
        trials = TrialReport(self.workload.best_by)
        with stopped_with(KEPT):
            found = compare(
                base,
                arguments.cores,
                arguments.seeds,
                out,
                tuning=arguments.tuning,
                jobs=arguments.jobs,
                on_trials=trials,
                on_run=lambda path, evaluation: print(f"{path}: {evaluation.line()}", flush=True),
            )
        print(f"\n{text_table(*comparison(list(found.values())))}")
        others = published_beside(group_runs(read_runs(list(found))))
        width = max((len(figure.model) for figure in others), default=0)
        if others:
            print("\npublished:")
        for f in others:
            print(f"  {f.model:<{width}}  {f.shown:>10}  {f.source} ({f.setting})")
        page = write_report(list(found), out / "report", title=self.workload.name, notes=trials.notes)
        print(f"\nreport: {page}")


def _fields(config: RunConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def _without_core_and_seed(config: type[RunConfig]) -> type[RunConfig]:
    """The same options but for the two that a comparison has several of."""
    kinds = get_type_hints(config)
    hidden: list[tuple[str, Any, Any]] = [
        (name, tyro.conf.Suppress[tyro.conf.Fixed[kinds[name]]], dataclasses.field(default=default))
        for name, default in (("core", "rmc"), ("seed", 0))
    ]
    return dataclasses.make_dataclass("Base", hidden, bases=(config,), frozen=True, kw_only=True)
