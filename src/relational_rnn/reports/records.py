"""Measured figures, each with everything that is needed to judge and to repeat it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import mean
from typing import Any, TypeVar

from relational_rnn._check import InputError, describe
from relational_rnn.reports.language import MEASURES, is_language, main_measure, perplexity_by_frequency, resets
from relational_rnn.reports.published import published_beside_all
from relational_rnn.reports.runs import Group, mean_and_spread

Name = TypeVar("Name")
WORD = r"""(?:'[^']*'|[^\s'])+"""
"""A word of a command, in quotes where it has blanks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One figure with everything that is needed to judge and to repeat it."""

    task: str
    """What was solved, e.g. "babi-en-10k"."""
    core: str
    """Which core, or whose model."""
    metric: str
    """E.g. "test_accuracy", a fraction."""
    values: tuple[float, ...]
    """One value per seed; a published figure has one."""
    seeds: tuple[int, ...] = ()
    """The seeds of `values`; empty for a published figure."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More of the same measurement, e.g. {"per_task": {"1": 0.99}}."""
    parameters: int | None = None
    state_bytes: int | None = None
    train_seconds: float | None = None
    """Mean over the seeds; of the clock, so that other work on the machine counts."""
    processor_seconds: float | None = None
    """Mean over the seeds of what the process computed meanwhile, its threads together."""
    machine: str | None = None
    torch: str | None = None
    commit: str | None = None
    date: str | None = None
    """ISO date of the measurement."""
    command: str | None = None
    """The line that measures it again."""
    published: str | None = None
    """"author year" of a figure that is not ours."""

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError(describe("Record", "a figure needs at least one value", got=f"{self.task}, {self.core}"))
        if self.published is None and len(self.seeds) != len(self.values):
            raise InputError(
                describe("Record", "every value needs its seed", got=f"{len(self.values)} values, seeds {self.seeds}")
            )
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
        first = dict.fromkeys(("task", "core", "metric", "value", "spread", "seeds", "values"))
        entries = first | {field.name: getattr(self, field.name) for field in fields(self)}
        entries |= {"value": self.value, "spread": self.spread, "values": list(self.values)}
        entries |= {
            "seeds": list(self.seeds) if self.published is None else None,
            "details": dict(self.details) or None,
        }
        return {name: value for name, value in entries.items() if value is not None}


def records_of(groups: Sequence[Group], *, task: str, notes: Sequence[str] = ()) -> list[Record]:
    """One record per group of runs, of test accuracy (on language, of perplexity or bits per character), then the
    published figures that may stand beside them.

    Args:
        groups: from `group_runs`; every run must be evaluated on its test files.
        task: name of the data, e.g. "babi-en-10k".
        notes: what a reader should know besides what the runs themselves say.

    Raises:
        InputError: when a run has not been evaluated, was not evaluated on the test split, or two groups share a core.
    """
    _check(groups)
    measure = main_measure(groups) if is_language(groups) else "accuracy"
    records = []
    for group in groups:
        versions = [run.versions for run in group.runs]
        processor = group.values("processor_seconds")
        records.append(
            Record(
                task=task,
                core=group.core,
                metric=f"test_{measure}",
                values=tuple(group.values("mean_accuracy" if measure == "accuracy" else measure)),
                seeds=tuple(group.seeds),
                details={**_details(group), "notes": [*group.notes, *notes]},
                parameters=int(group.values("parameters")[0]),
                state_bytes=int(group.values("state_bytes")[0]),
                train_seconds=mean(group.values("train_seconds")),
                processor_seconds=mean(processor) if processor else None,
                machine=_joined(versions, "machine"),
                torch=_joined(versions, "torch"),
                commit=_joined(versions, "commit"),
                # Of the last run, when the whole figure was there.
                date=max((str(entry["date"]) for entry in versions if entry.get("date")), default=None),
                command=_joined([without_folder(entry) for entry in versions], "command"),
            )
        )
    for figure in published_beside_all([group.runs[0] for group in groups]):
        details: dict[str, Any] = {"setting": figure.setting, **({"below": True} if figure.below else {})}
        if figure.per_task:
            details["per_task"] = dict(figure.per_task)
        records.append(
            Record(
                task=task,
                core=figure.model,
                metric=f"test_{figure.metric}",
                values=(figure.value,),
                details=details,
                published=figure.source,
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


def _details(group: Group) -> dict[str, Any]:
    """More of what was measured, by the kind of task."""
    if group.runs[0].task == "babi":
        per_task = {str(task): value for task, value in _means(group.per_task()).items()}
        return {"per_task": per_task, **_means({"tasks_above_95": group.values("tasks_above_95")})}
    if is_language([group]):
        by_length = {measure: _means(resets(group, measure)) for measure in MEASURES}
        return {
            **_means({name: group.values(name) for name in (*MEASURES, "mean_accuracy")}),
            "tokens_seen": int(group.values("tokens_seen")[0]),
            "perplexity_by_frequency": _means(perplexity_by_frequency(group)),
            "resets": {measure: {str(k): value for k, value in found.items()} for measure, found in by_length.items()},
        }
    more = {name: group.values(name) for name in ("whole_accuracy", "mean_beyond") if group.values(name)}
    return {**_means(more), "per_group": _means(group.per_group())}


def _means(values: Mapping[Name, Sequence[float]]) -> dict[Name, float]:
    return {name: mean(found) for name, found in values.items()}


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
