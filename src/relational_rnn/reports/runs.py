"""Grouping runs that differ in nothing but their seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relational_rnn._check import InputError, describe
from relational_rnn.runs import mean_and_spread, read_run
from relational_rnn.runs.folder import CHAPTER, Run, core_label
from relational_rnn.tasks.babi.story import TASK_NAMES

__all__ = [
    "CHAPTER",
    "Group",
    "Run",
    "all_names",
    "core_label",
    "group_runs",
    "mean_and_spread",
    "read_run",
    "read_runs",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Runs of one configuration under different seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def core(self) -> str:
        return self.runs[0].core

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """The evaluations there are; shorter than `runs` while some are not evaluated."""
        return [run.result for run in self.runs if run.result is not None]

    @property
    def notes(self) -> list[str]:
        """The notes of all runs, each once."""
        return list(dict.fromkeys(note for run in self.runs for note in run.notes))

    def values(self, name: str) -> list[float]:
        """One entry of every evaluation that has it."""
        return [float(result[name]) for result in self.results if result.get(name) is not None]

    def per_group(self) -> dict[str, list[float]]:
        """The accuracies of all evaluated seeds, by group."""
        names = dict.fromkeys(name for run in self.runs for name in run.groups)
        return {name: [run.groups[name] for run in self.runs if name in run.groups] for name in names}


def all_names(tables: Iterable[Mapping[str, object]]) -> list[str]:
    """The names of several tables, each once: bAbI tasks by their numbers, others in order of appearance.

    >>> all_names([{"19 path-finding": 0}, {"2 two-supporting-facts": 0}]), all_names([{"length 9": 0, "length 60": 0}])
    (['2 two-supporting-facts', '19 path-finding'], ['length 9', 'length 60'])
    """
    names = dict.fromkeys(name for table in tables for name in table)
    numbers = {f"{number} {name}": number for number, name in TASK_NAMES.items()}
    return sorted(names, key=lambda name: numbers.get(name, 0))


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read several run folders; the same folder twice is refused."""
    if not folders:
        raise InputError(describe("report", "no run was given", expected="at least one run folder"))
    resolved = [Path(folder).resolve() for folder in folders]
    for number, path in enumerate(resolved):
        if path in resolved[:number]:
            raise InputError(describe("report", "a run folder was given twice", got=folders[number]))
    return [read_run(folder) for folder in folders]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put runs together whose configurations differ in nothing but the seed, in order of first appearance.

    Raises:
        InputError: when the runs are on different tasks, whose figures do not belong in one table; when one
            configuration occurs twice with one seed, which would count the same run twice.
    """
    tasks = sorted({run.task for run in runs})
    if len(tasks) > 1:
        hint = "make a report for each"
        raise InputError(describe("report", "the runs are on different tasks", got=", ".join(tasks), hint=hint))
    members: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps({name: value for name, value in run.config.items() if name != "seed"}, sort_keys=True)
        group = members.setdefault(key, [])
        if run.seed in [other.seed for other in group]:
            first = next(other for other in group if other.seed == run.seed)
            raise InputError(
                describe(
                    "report",
                    "two runs have the same configuration and the same seed",
                    got=f"{first.folder} and {run.folder}",
                    hint="leave one of them out",
                )
            )
        group.append(run)
    titles = [group[0].title for group in members.values()]
    return [
        Group(
            label=group[0].title if titles.count(group[0].title) == 1 else f"{group[0].title}, {group[0].name}",
            runs=tuple(sorted(group, key=lambda run: run.seed)),
        )
        for group in members.values()
    ]
