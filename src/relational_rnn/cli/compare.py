"""relational-rnn compare TASK"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from relational_rnn._check import need_extra
from relational_rnn.cli.train import Common, TrainingCommand, check_typed, fields_of, print_configuration, without
from relational_rnn.console.boundary import KEPT, stopped_with
from relational_rnn.console.tables import text_table
from relational_rnn.nn.cores import CORES
from relational_rnn.reports import group_runs, published_beside, read_runs, write_report
from relational_rnn.runs import CoreName, RunConfig, Trial, TuningConfig, best_trials, compare, comparison
from relational_rnn.training import BestBy


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


class Compare(TrainingCommand):
    """The command `compare TASK` of one task."""

    options = Options
    description = """Train and measure a model for every core and every seed on {task}; print one table, write a report
with learning curves, and name what others have published for the same settings.

All models have the same parts around the core, and about the same number of parameters. {data}With
--tuning.learning-rates every core tries these first and takes the one that does best on the validation set. Called
again with the same options, it goes on where it was stopped.
"""

    def parse(self, args: Sequence[str]) -> Any:
        arguments, words = self.typed(args, without(self.workload.config, "core", "seed"))
        check_typed(words, self.command, arguments.cores)
        out = arguments.out or self.folder(arguments, words)
        return dataclasses.replace(arguments, out=out)

    def base(self, arguments: Any) -> RunConfig:
        """The configuration of all runs but for core and seed."""
        return self.workload.config(**fields_of(arguments.run))

    def run(self, arguments: Any) -> None:
        base, out, best_by = self.base(arguments), arguments.out, self.workload.best_by
        if arguments.print_config:
            print_configuration(base)
            return
        need_extra("matplotlib", "report", "the report at the end of a comparison")  # said before the training
        notes = []

        def tell(trials: Sequence[Trial]) -> None:
            print(f"{trial_table(trials, best_by)}\n", flush=True)
            notes.append(trial_note(trials, best_by))

        with stopped_with(KEPT):
            found = compare(
                base,
                arguments.cores,
                arguments.seeds,
                out,
                tuning=arguments.tuning,
                jobs=arguments.jobs,
                on_trials=tell,
                on_run=lambda path, evaluation: print(f"{path}: {evaluation.line()}", flush=True),
            )
        print(f"\n{text_table(*comparison(list(found.values())))}")
        others = published_beside(group_runs(read_runs(list(found))))
        width = max((len(figure.model) for figure in others), default=0)
        if others:
            print("\npublished:")
        for f in others:
            print(f"  {f.model:<{width}}  {f.shown:>10}  {f.source} ({f.setting})")
        print(f"\nreport: {write_report(list(found), out / 'report', title=self.workload.name, notes=notes)}")


def trial_table(trials: Sequence[Trial], best_by: BestBy = "accuracy") -> str:
    """A row per core: what each learning rate came to, and the rate taken; then the cores that took the lowest or
    highest."""

    def cell(trial: Trial) -> str:
        if trial.valid_accuracy is None:
            return "diverged"
        if trial.lesson_loss is not None:
            return f"lesson {trial.lesson}: {trial.lesson_loss:.4f}"
        return f"{100 * trial.valid_accuracy:.1f}" if best_by == "accuracy" else f"{trial.valid_loss:.4f}"

    rates = list(dict.fromkeys(trial.learning_rate for trial in trials))
    taken = {core: trial.learning_rate for core, trial in best_trials(trials, best_by=best_by).items()}
    rows = []
    for core, rate in taken.items():
        cells = {trial.learning_rate: cell(trial) for trial in trials if trial.core == core}
        rows.append([CORES[core].label, *(cells[tried] for tried in rates), f"{rate:g}"])
    measure = "accuracy, %," if best_by == "accuracy" else "loss"
    title = f"best validation {measure} of {trials[0].steps:,} steps with every learning rate"
    if any(trial.lesson_loss is not None for trial in trials):
        title += "; before the last lesson, its loss"
    lines = [title, text_table(["core", *(f"{rate:g}" for rate in rates), "taken"], rows)]
    at_the_edge = [CORES[core].label for core, rate in taken.items() if rate in (min(rates), max(rates))]
    if at_the_edge:
        lines.append(f"the best rate may lie beyond those tried for: {', '.join(at_the_edge)}")
    return "\n".join(lines)


def trial_note(trials: Sequence[Trial], best_by: BestBy = "accuracy") -> str:
    """One sentence for a report: what every core tried, how long, and what it took."""
    rates = ", ".join(f"{rate:g}" for rate in dict.fromkeys(trial.learning_rate for trial in trials))
    best = best_trials(trials, best_by=best_by)
    taken = ", ".join(f"{CORES[core].label} {trial.learning_rate:g}" for core, trial in best.items())
    furthest = " or was furthest in the lessons" if any(trial.lesson_loss is not None for trial in trials) else ""
    return (
        f"every core tried learning rates of {rates} in {trials[0].steps:,} steps and took what did best on the "
        f"validation set{furthest}: {taken}"
    )
