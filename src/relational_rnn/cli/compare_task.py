"""relational-rnn compare TASK, for every generated task"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from relational_rnn._check import need_extra
from relational_rnn.cli.boundary import KEPT, stopped_with
from relational_rnn.cli.parsing import parse_arguments
from relational_rnn.cli.tables import text_table
from relational_rnn.cli.task_options import SHARED, compare_arguments, starting_run
from relational_rnn.cli.trials import TrialReport
from relational_rnn.nn.cores import CORES
from relational_rnn.recipes.task_runs import TaskEvaluation, compare_task, task_config_json
from relational_rnn.recipes.tasks import TASK_RECIPES, TASK_RUNS, TaskRun
from relational_rnn.reports import write_report
from relational_rnn.reports.published import Published, published_beside
from relational_rnn.reports.runs import mean_and_spread

DESCRIPTION = """Train and measure a model for every core and every seed on the task {task}; print one table, write a
report with learning curves, and name what others have published for the same settings.

All models have the same head and the same number of parameters (or as large a state, or as many operations: --match).
With --tuning.learning-rates every core tries these first and takes the one that does best on the validation set.
Called again with the same options, it goes on where it was stopped.
"""


class CompareTask:
    """The command `compare TASK` of one task."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.command = f"compare {task}"
        recipe = next(iter(TASK_RECIPES[task]))
        self.EXAMPLES = (
            f"relational-rnn compare {task} --cores rmc lstm transformer --seeds 0 1 2",
            f"relational-rnn compare {task} --cores rmc lstm --tuning.learning-rates 1e-3 2e-3 4e-3",
            f"relational-rnn compare {task} --recipe {recipe} --cores rmc gru --match flops --out runs/flops",
        )

    def parse(self, args: Sequence[str]) -> Any:
        recipe, config = starting_run(self.task, args, self.command)
        kind = compare_arguments(self.task, DESCRIPTION.format(task=self.task))
        shared = {name: getattr(config, name) for name in SHARED}
        default = kind(recipe=recipe, data=config.task, **shared)
        return parse_arguments(kind, args, command=self.command, examples=self.EXAMPLES, default=default)

    def base(self, arguments: Any) -> TaskRun:
        """The configuration of all runs but for core and seed."""
        shared = {name: getattr(arguments, name) for name in SHARED}
        return TASK_RUNS[self.task](data=arguments.data, **shared)

    def run(self, arguments: Any) -> None:
        # Said before the training, not after it.
        need_extra("matplotlib", "report", "the report at the end of a comparison")
        base = self.base(arguments)
        out: Path = arguments.out or Path("runs") / arguments.recipe
        trials = TrialReport()
        with stopped_with(KEPT):
            found = compare_task(
                base,
                arguments.cores,
                arguments.seeds,
                out,
                tuning=arguments.tuning,
                jobs=arguments.jobs,
                on_trials=trials,
                on_run=lambda p, e: print(describe_task_run(p, e), flush=True),
            )
        print(f"\n{task_table(found)}")
        others = published_beside(task_config_json(base))
        if others:
            print(f"\npublished:\n{published_table(others)}")
        print(f"\nreport: {write_report(list(found), out / 'report', title=self.task, notes=trials.notes)}")


def describe_task_run(folder: Path, found: TaskEvaluation) -> str:
    """One run in one line."""
    line = f"{folder}: {found.mean_accuracy:.1%} right"
    if found.whole_accuracy != found.mean_accuracy:
        line += f", {found.whole_accuracy:.1%} of whole answers"
    return line if found.mean_beyond is None else f"{line}; {found.mean_beyond:.1%} beyond what was trained"


def task_table(found: Mapping[Path, TaskEvaluation]) -> str:
    """A row per core: parameters, state, accuracies, seconds; with the spread over seeds.

    Args:
        found: measurements by run folder, as `compare_task` returns them.
    """
    evaluations = list(found.values())
    beyond = any(evaluation.mean_beyond is not None for evaluation in evaluations)
    head = [
        "core",
        "parameters",
        "state bytes",
        "accuracy",
        "whole answers",
        *(["beyond"] if beyond else []),
        "seconds",
    ]
    rows = []
    for core in dict.fromkeys(evaluation.core for evaluation in evaluations):
        runs = [evaluation for evaluation in evaluations if evaluation.core == core]
        row = [CORES[core].label, f"{runs[0].parameters:,}", f"{runs[0].state_bytes:,}"]
        row += [_percent([run.mean_accuracy for run in runs]), _percent([run.whole_accuracy for run in runs])]
        if beyond:
            row.append(_percent([run.mean_beyond for run in runs if run.mean_beyond is not None]))
        rows.append([*row, f"{mean(run.train_seconds for run in runs):,.0f}"])
    return text_table(head, rows)


def _percent(values: Sequence[float]) -> str:
    value, spread = mean_and_spread(values)
    return f"{100 * value:.1f} %" + (f" ± {100 * spread:.1f}" if len(values) > 1 else "")


def published_table(figures: Sequence[Published]) -> str:
    """A row per published figure, each with its source."""
    width = max(len(figure.model) for figure in figures)
    return "\n".join(f"  {f.model:<{width}}  {f.shown:>10}  {f.source} ({f.setting})" for f in figures)
