"""Measured figures, each with all that is needed to judge and repeat it: a Markdown page, and a JSON file beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any
from urllib.parse import quote

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn._files import json_text, write_together
from relational_rnn.pages import Cell, Table, render
from relational_rnn.pages.tables import as_text
from relational_rnn.reports.figures import Figure
from relational_rnn.reports.runs import Group, columns_by_metric, published_beside, side_by_side, values_by_name
from relational_rnn.runs import Column, Workload, mean_and_spread
from relational_rnn.runs.folder import core_label

COSTS = ("parameters", "state_bytes", "train_seconds", "processor_seconds")
"""Seconds by the clock, in which other work on the machine counts, and those of all threads of the process."""
MADE = ("machine", "torch", "commit", "date", "command")
"""On what, with what and when a figure was measured (an ISO date), and the command that measures it again."""
WORD = r"""(?:'[^']*'|[^\s'])+"""
"""A word of a command; blanks in it are quoted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One figure with all that is needed to judge and repeat it.

    Raises:
        InputError: there is no value, one of our values has no seed, or a published figure has seeds.
    """

    task: str
    """What the data are called, e.g. "babi-en-10k"."""
    core: str
    metric: str
    """E.g. "test_accuracy", a fraction."""
    seeds: tuple[int, ...] = ()
    """Empty for a published figure."""
    values: tuple[float, ...]
    """One for each seed; a published figure has one."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More of the measurement, for the JSON file."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """The known ones of `COSTS`, means over the seeds."""
    made: Mapping[str, str] = field(default_factory=dict)
    """The known ones of `MADE`."""
    published: str | None = None
    """The "author year" of somebody else's figure."""
    result: Mapping[str, Any] = field(default_factory=dict)
    """The measurement averaged over seeds, for the page."""
    groups: Mapping[str, float] = field(default_factory=dict)
    """The accuracy of every group, for the page."""

    def __post_init__(self) -> None:
        got = f"{len(self.values)} values, seeds {self.seeds}"
        for wrong, problem in (
            (not self.values, "a figure needs at least one value"),
            (self.published is None and len(self.seeds) != len(self.values), "every value needs its seed"),
            (self.published is not None and self.seeds, "a published figure has no seeds of ours"),
        ):
            if wrong:
                raise InputError(describe(f"Record of {self.core} on {self.task}", problem, got=got))

    @property
    def value(self) -> float:
        return mean_and_spread(self.values)[0]

    def to_json(self) -> dict[str, Any]:
        """The record as the JSON file holds it, without empty entries."""
        value, spread = mean_and_spread(self.values)
        entries = {"task": self.task, "core": self.core, "metric": self.metric, "value": value, "spread": spread}
        entries |= {"seeds": self.seeds, "values": self.values, "details": self.details, **self.costs, **self.made}
        entries["published"] = self.published
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in entries.items()
            if value not in (None, {}, ())
        }


def records_of(groups: Sequence[Group], *, task: str, notes: Sequence[str] = ()) -> list[Record]:
    """One record for each group, then the published figures beside them.

    `task` is what the data are called, `notes` what a reader should know besides what the runs say.

    Raises:
        InputError: a run has no evaluation on the test split, two groups share a core, or the task names a measure
            that it does not have.
    """
    _check(groups)
    workload = groups[0].workload
    metric = workload.main_measure(groups[0].runs[0].config).removeprefix("mean_")
    known = columns_by_metric(workload)
    check_choice(f"task {workload.name}", "main_measure", metric, known)
    records = []
    for group in groups:
        result = averaged(group.results)
        records.append(
            Record(
                task=task,
                core=group.core,
                metric=f"test_{metric}",
                values=tuple(group.values(known[metric].name)),
                seeds=tuple(group.seeds),
                details={**workload.details(result), "notes": [*group.notes, *notes]},
                costs={name: result[name] for name in COSTS if name in result},
                made=_made(group),
                result=result,
                groups=averaged([run.groups for run in group.runs]),
            )
        )
    named = {name.split()[0]: name for name in workload.group_names}
    for figure in published_beside(groups):
        details = {"setting": figure.setting, "below": figure.below, "per_task": dict(figure.per_task)}
        records.append(
            Record(
                task=task,
                core=figure.model,
                metric=f"test_{figure.metric}",
                values=(figure.value,),
                details={name: value for name, value in details.items() if value or name == "setting"},
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


def _made(group: Group) -> dict[str, str]:
    """What the runs say on their making; different answers are all named, except for the date, which is the last."""
    made, versions = {}, [without_folder(run.versions) for run in group.runs]
    for name in MADE:
        answers = [str(entry[name]) for entry in versions if entry.get(name)]
        if answers:
            made[name] = max(answers) if name == "date" else "; ".join(dict.fromkeys(answers))
    return made


def averaged(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One measurement with the mean of every number; other entries are left out.

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
    """The entry with a command that names no place on this machine: without the folder of the runs, and with PATH in
    place of every file.

    >>> without_folder({"command": "relational-rnn train babi --data '/home/me/my data' --out runs/a --seed 1"})
    {'command': 'relational-rnn train babi --data PATH --seed 1'}
    """
    command = entry.get("command")
    if not command:
        return entry
    command = re.sub(rf" (--out|-o|--resume)[ =](?!-){WORD}", "", str(command))
    command = re.sub(rf" (--data|--data\.path)[ =](?!-){WORD}", r" \1 PATH", command)
    return {**entry, "command": re.sub(rf"(?<=[ =])(?='?(/|~|[A-Za-z]:\\)){WORD}", "PATH", command)}


def write_results(
    stem: str | Path,
    records: Sequence[Record],
    workload: Workload[Any],
    *,
    title: str,
    figures: Sequence[Figure] = (),
) -> tuple[Path, Path]:
    """Write `<stem>.md` for readers, `<stem>.json` for programs and `<stem>-<name>.svg` for every figure.

    Returns the paths of the page and of the JSON file.

    Raises:
        InputError: there is no record.
        OSError: a file cannot be written; then all are as they were.
    """
    if not records:
        raise InputError(describe("results", "there is nothing to write", got="no record"))
    stem = Path(stem)
    page, data = stem.with_name(stem.name + ".md"), stem.with_name(stem.name + ".json")
    drawn = {stem.with_name(f"{stem.name}-{figure.name}.svg"): figure for figure in figures}
    shown = [f"![{figure.description}]({quote(path.name)})" for path, figure in drawn.items()]
    markdown = render_markdown(records, workload, title=title, data_name=data.name, figures=shown)
    text = json_text([record.to_json() for record in records])
    write_together({data: text, **{path: figure.svg for path, figure in drawn.items()}, page: markdown})
    return page, data


def render_markdown(
    records: Sequence[Record], workload: Workload[Any], *, title: str, data_name: str, figures: Sequence[str] = ()
) -> str:
    """The page; `figures` are links in Markdown."""
    models = []
    for record in (record for record in records if record.result or record.groups):
        label = core_label(record.core) + (" (published)" if record.published else "")
        found = workload.breakdowns(record.result, record.groups)
        models.append((label, {part.caption: (part, values_by_name([part.values])) for part in found}))
    notes = dict.fromkeys(note for record in records for note in record.details.get("notes", ()))
    return render(
        "reports/templates/results.md",
        title=title,
        models=_models(records, workload),
        tables=side_by_side(models, workload.group_names, missing=""),
        figures=figures,
        notes=[as_text(note) for note in notes],
        commands=_commands([record for record in records if record.published is None]),
        data=f"[{data_name}]({quote(data_name)})",
    )


def _models(records: Sequence[Record], workload: Workload[Any]) -> Table:
    """The metrics of the records, then other columns in which a measurement differs from them."""
    columns: dict[str, Callable[[Record], str]] = {
        "task": lambda record: record.task,
        "model": lambda record: core_label(record.core),
    }
    metrics = [record.metric for record in records]
    known = {f"test_{name}": column for name, column in columns_by_metric(workload).items()}
    for metric in [*dict.fromkeys(metrics), *known]:
        check_choice("results", "the metric of a record", metric, known)
        column = known[metric]
        has_own = any(record.result.get(column.name) not in (None, record.value) for record in records)
        if metric in metrics or has_own:
            heading = "accuracy" if metric == "test_accuracy" else column.heading
            columns[f"{heading}{column.unit.replace(' ', ', ')}"] = lambda record, metric=metric, column=column: (
                _value(record, column)
                if record.metric == metric
                else _number(record.result.get(column.name), column.form, column.scale)
            )
    columns["seeds"] = _seeds
    for name in COSTS:
        if name != "processor_seconds" or any(name in record.costs for record in records):
            columns[name.replace("_", " ")] = lambda record, name=name: _number(record.costs.get(name), "{:,.0f}")
    return Table.of(columns, records)


def _value(record: Record, column: Column) -> str:
    value, spread = (_number(number, column.form, column.scale) for number in mean_and_spread(record.values))
    below = "below " if record.details.get("below") else ""
    return f"{below}{value} ± {spread}" if len(record.values) > 1 else f"{below}{value}"


def _seeds(record: Record) -> str:
    """The seeds of our own figures, and where a published one is from."""
    if not record.published:
        return ", ".join(map(str, record.seeds))
    setting = record.details.get("setting")
    return f"published: {record.published}" + (f" ({setting})" if setting else "")


def _commands(records: Sequence[Record]) -> Table:
    columns: dict[str, Callable[[Record], str | Cell]] = {"model": lambda record: core_label(record.core)}
    for name in MADE:
        columns[name] = lambda record, name=name: Cell(
            record.made.get(name, "not recorded"), kind="code" if name == "command" and name in record.made else "text"
        )
    return Table.of(columns, records)


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "" if value is None else form.format(factor * value)
