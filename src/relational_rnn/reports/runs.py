"""Groups of runs that differ only in their seed, and what their pages share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.pages import Cell, Table
from relational_rnn.runs import Breakdown, Column, Published, Run, Workload, mean_and_spread, read_run

Breakdowns = Mapping[str, tuple[Breakdown, Mapping[str, Sequence[float]]]]
"""By caption: a breakdown of one measurement, and the values of all seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Runs of one configuration under different seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def core(self) -> str:
        return self.runs[0].core

    @property
    def workload(self) -> Workload[Any]:
        return self.runs[0].workload

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """The evaluations, of those runs that have one."""
        return [run.result for run in self.runs if run.result is not None]

    @property
    def notes(self) -> list[str]:
        """The notes of all runs, each once."""
        return list(dict.fromkeys(note for run in self.runs for note in run.notes))

    def values(self, name: str) -> list[float]:
        """One entry of every evaluation that has it."""
        return [float(result[name]) for result in self.results if result.get(name) is not None]

    def per_group(self) -> dict[str, list[float]]:
        """The accuracies of all evaluated seeds, by group of questions."""
        return values_by_name(run.groups for run in self.runs)

    def breakdowns(self) -> Breakdowns:
        """The breakdowns of all evaluations."""
        found: dict[str, list[Breakdown]] = {}
        for run in self.runs:
            for part in self.workload.breakdowns(run.result, run.groups) if run.result is not None else ():
                found.setdefault(part.caption, []).append(part)
        return {name: (parts[0], values_by_name(part.values for part in parts)) for name, parts in found.items()}


def values_by_name(tables: Iterable[Mapping[str, float]]) -> dict[str, list[float]]:
    """The values of several tables under each of their names."""
    found: dict[str, list[float]] = {}
    for table in tables:
        for name, value in table.items():
            found.setdefault(name, []).append(value)
    return found


def all_names(tables: Iterable[Mapping[str, object]], order: Sequence[str] = ()) -> list[str]:
    """The names of several tables, each once: first those in `order`, then the others as they appear.

    >>> all_names([{"length 9": 0, "length 60": 0}, {"1 facts": 0}], order=["1 facts", "2 facts"])
    ['1 facts', 'length 9', 'length 60']
    """
    names = dict.fromkeys(name for table in tables for name in table)
    return [*(name for name in order if name in names), *(name for name in names if name not in order)]


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read several run folders. Raises InputError if a folder holds no run or is given twice."""
    if not folders:
        raise InputError(describe("report", "no run was given", expected="at least one run folder"))
    resolved = [Path(folder).resolve() for folder in folders]
    for number, path in enumerate(resolved):
        if path in resolved[:number]:
            raise InputError(describe("report", "a run folder was given twice", got=folders[number]))
    return [read_run(folder) for folder in folders]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put runs together whose configurations differ only in the seed.

    Raises:
        InputError: the runs are on different tasks, or two have the same configuration and seed.
    """
    tasks = sorted({run.task for run in runs})
    if len(tasks) > 1:
        hint = "make a report for each"
        raise InputError(describe("report", "the runs are on different tasks", got=", ".join(tasks), hint=hint))
    members: dict[str, dict[int, Run]] = {}
    for run in runs:
        key = json.dumps({name: value for name, value in run.config.items() if name != "seed"}, sort_keys=True)
        first = members.setdefault(key, {}).setdefault(run.seed, run)
        if first is not run:
            problem, got = "two runs have the same configuration and the same seed", f"{first.folder} and {run.folder}"
            raise InputError(describe("report", problem, got=got, hint="leave one of them out"))
    groups = [list(group.values()) for group in members.values()]
    titles = [group[0].title for group in groups]
    return [
        Group(
            label=title if titles.count(title) == 1 else f"{title}, {group[0].name}",
            runs=tuple(sorted(group, key=lambda run: run.seed)),
        )
        for title, group in zip(titles, groups, strict=True)
    ]


def columns_by_metric(workload: Workload[Any]) -> dict[str, Column]:
    """The columns that a measurement of the task can be judged by, under the names of their metrics."""
    return {column.name.removeprefix("mean_"): column for column in workload.evaluation.COLUMNS}


def published_beside(groups: Sequence[Group]) -> list[Published]:
    """The published figures that may stand beside any of the groups, each once.

    Raises:
        InputError: a published figure of the task has a metric that the task does not measure.
    """
    found: list[Published] = []
    for run in (group.runs[0] for group in groups):
        for figure in run.workload.published:
            name = f"the metric of a published figure ({figure.model}, {figure.source})"
            check_choice(f"task {run.task}", name, figure.metric, columns_by_metric(run.workload))
            if figure not in found and figure.fits(run.config, run.data):
                found.append(figure)
    return found


def measured(values: Sequence[float], form: str, factor: float = 1, missing: str = "not evaluated") -> Cell:
    """A mean, and the spread if the values differ.

    >>> measured([0.5, 0.7], "{:.1f} %", 100).text, measured([], "{:g}").text
    ('60.0 % ± 14.1 %', 'not evaluated')
    """
    if not values:
        return Cell(missing, "")
    value, spread = mean_and_spread([factor * value for value in values])
    return Cell(f"{form.format(value)} ± {form.format(spread)}" if spread else form.format(value), value)


def side_by_side(
    models: Sequence[tuple[str, Breakdowns]],
    order: Sequence[str] = (),
    *,
    links: Mapping[str, str] | None = None,
    missing: str = "not evaluated",
) -> list[Table]:
    """A table for every caption, with a column for each model that has it; `links` are addresses of row names."""
    tables = []
    for caption, (part, _) in {caption: found for _, parts in models for caption, found in parts.items()}.items():
        having = [(label, parts[caption][1]) for label, parts in models if caption in parts]
        names = all_names((values for _, values in having), order)
        rows = [
            [
                Cell(name, n, (links or {}).get(name)),
                *(measured(values.get(name, ()), part.form, part.scale, missing) for _, values in having),
            ]
            for n, name in enumerate(names, start=1)
        ]
        tables.append(Table([part.by, *(label for label, _ in having)], rows, caption))
    return tables
