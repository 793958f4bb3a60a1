"""Measured figures, each with everything that is needed to judge and to repeat it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import mean
from typing import Any

from relational_rnn._check import InputError, describe
from relational_rnn.reports.runs import Group, published_beside
from relational_rnn.runs import mean_and_spread

WORD = r"""(?:'[^']*'|[^\s'])+"""
"""A word of a command, in quotes where it has blanks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One figure with everything that is needed to judge and to repeat it."""

    task: str
    """What the data are called, e.g. "babi-en-10k"."""
    core: str
    """Which core, or whose model."""
    metric: str
    """E.g. "test_accuracy", a fraction."""
    values: tuple[float, ...]
    """One per seed; a published figure has one."""
    seeds: tuple[int, ...] = ()
    """None for a published figure."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More of the measurement, for the JSON file."""
    parameters: int | None = None
    state_bytes: int | None = None
    train_seconds: float | None = None
    """Mean over the seeds, by the clock, so that other work on the machine counts."""
    processor_seconds: float | None = None
    """Mean over the seeds, all threads of the process together."""
    machine: str | None = None
    torch: str | None = None
    commit: str | None = None
    date: str | None = None
    """ISO date of the measurement."""
    command: str | None = None
    """The line that measures it again."""
    published: str | None = None
    """"author year" of a figure that is not ours."""
    result: Mapping[str, Any] = field(default_factory=dict)
    """The measurement averaged over seeds, for the page; the JSON file has `details` of it."""
    groups: Mapping[str, float] = field(default_factory=dict)
    """The accuracy of every group, for the page."""

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError(describe("Record", "a figure needs at least one value", got=f"{self.task}, {self.core}"))
        if self.published is None and len(self.seeds) != len(self.values):
            got = f"{len(self.values)} values, seeds {self.seeds}"
            raise InputError(describe("Record", "every value needs its seed", got=got))
        if self.published is not None and self.seeds:
            raise InputError(describe("Record", "a published figure has no seeds of ours", got=self.seeds))

    @property
    def value(self) -> float:
        return mean_and_spread(self.values)[0]

    @property
    def spread(self) -> float:
        return mean_and_spread(self.values)[1]

    def to_json(self) -> dict[str, Any]:
        """The record as the JSON file holds it; entries that nobody knows are left out."""
        first = ("task", "core", "metric", "value", "spread", "seeds", "values")
        names = dict.fromkeys([*first, *(field.name for field in fields(self))])
        entries = {name: getattr(self, name) for name in names if name not in ("result", "groups")}
        entries = {name: list(value) if isinstance(value, tuple) else value for name, value in entries.items()}
        return {name: value for name, value in entries.items() if value not in (None, {}, [])}


def records_of(groups: Sequence[Group], *, task: str, notes: Sequence[str] = ()) -> list[Record]:
    """One record per group of runs, of what their task is judged by, then the published figures beside them.

    `task` is what the data are called, `notes` what a reader should know besides what the runs say.

    Raises:
        InputError: a run has not been evaluated, or not on the test split, or two groups share a core.
    """
    _check(groups)
    workload = groups[0].workload
    measure = workload.main_measure(groups[0].runs[0].config)
    records = []
    for group in groups:
        versions, result = [run.versions for run in group.runs], averaged(group.results)
        records.append(
            Record(
                task=task,
                core=group.core,
                metric=f"test_{measure.removeprefix('mean_')}",
                values=tuple(group.values(measure)),
                seeds=tuple(group.seeds),
                details={**workload.details(result), "notes": [*group.notes, *notes]},
                parameters=int(group.values("parameters")[0]),
                state_bytes=int(group.values("state_bytes")[0]),
                train_seconds=result["train_seconds"],
                processor_seconds=result.get("processor_seconds"),
                machine=_joined(versions, "machine"),
                torch=_joined(versions, "torch"),
                commit=_joined(versions, "commit"),
                # Of the last run, when the whole figure was there.
                date=max((str(entry["date"]) for entry in versions if entry.get("date")), default=None),
                command=_joined([without_folder(entry) for entry in versions], "command"),
                result=result,
                groups=averaged([run.groups for run in group.runs]),
            )
        )
    named = {name.split()[0]: name for name in workload.group_names}
    for figure in published_beside(groups):
        more = {"below": figure.below, "per_task": dict(figure.per_task)}
        details = {"setting": figure.setting, **{name: value for name, value in more.items() if value}}
        records.append(
            Record(
                task=task,
                core=figure.model,
                metric=f"test_{figure.metric}",
                values=(figure.value,),
                details=details,
                published=figure.source,
                groups={named.get(number, number): value for number, value in figure.per_task.items()},
            )
        )
    return records


def _check(groups: Sequence[Group]) -> None:
    """Refuse runs that are not measured on their test files, and two groups of one core."""
    for run in (run for group in groups for run in group.runs):
        if run.result is None:
            hint = f"run `relational-rnn evaluate {run.folder}` first"
            raise InputError(describe("results", "this run has not been evaluated", got=run.folder, hint=hint))
        if run.result.get("split") != "test":
            got = f"{run.folder}: {run.result.get('split')}"
            raise InputError(describe("results", "only test results are reported", got=got))
    cores = [group.core for group in groups]
    for number, group in enumerate(groups):
        if group.core in cores[:number]:
            problem = "two configurations of one core cannot stand in one table"
            got = f"{group.core}: {', '.join(run.name for run in group.runs)} and an earlier run"
            raise InputError(describe("results", problem, got=got, hint="write them to two pages"))


def averaged(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One measurement with the mean of every number; entries that are no numbers are left out.

    >>> averaged([{"a": 1, "b": {"c": 0.5}, "d": "test"}, {"a": 2, "b": {"c": 1.0}, "d": "test"}])
    {'a': 1.5, 'b': {'c': 0.75}}
    """
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for result in results for name in result):
        values = [result[name] for result in results if result.get(name) is not None]
        if values and isinstance(values[0], Mapping):
            found[name] = averaged(values)
        elif values and isinstance(values[0], int | float):
            found[name] = mean(values)
    return found


def without_folder(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with a command that names no place on the machine, which is nobody else's: the folder of the runs is
    left out, and where the data lie, or any other file, is PATH.

    >>> without_folder({"command": "relational-rnn train babi --data '/home/me/my data' --out runs/a --seed 1"})
    {'command': 'relational-rnn train babi --data PATH --seed 1'}
    """
    command = entry.get("command")
    if not command:
        return entry
    command = re.sub(rf" (--out|-o|--resume)[ =](?!-){WORD}", "", str(command))
    command = re.sub(rf" (--data|--data\.path)[ =](?!-){WORD}", r" \1 PATH", command)
    return {**entry, "command": re.sub(rf"(?<=[ =])(?='?(/|~|[A-Za-z]:\\)){WORD}", "PATH", command)}


def _joined(versions: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """What the runs say under `name`; different answers are all named, none is chosen."""
    found = list(dict.fromkeys(str(entry[name]) for entry in versions if entry.get(name)))
    return "; ".join(found) or None
