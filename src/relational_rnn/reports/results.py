"""Measured figures that stand twice: on a Markdown page and in a JSON file beside it, written by one call."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from relational_rnn._check import InputError, describe
from relational_rnn._files import write_together
from relational_rnn.pages import Cell, Table
from relational_rnn.pages.tables import as_text
from relational_rnn.reports.figures import Figure
from relational_rnn.reports.records import Record
from relational_rnn.reports.runs import side_by_side, values_by_name
from relational_rnn.runs import Column, Workload
from relational_rnn.runs.folder import core_label


def write_results(
    stem: str | Path,
    records: Sequence[Record],
    workload: Workload[Any],
    *,
    title: str,
    figures: Sequence[Figure] = (),
) -> tuple[Path, Path]:
    """Write `<stem>.md` for people and `<stem>.json` for programs, and `<stem>-<name>.svg` for every figure.

    Returns the two paths, page first.

    Raises:
        InputError: there is no record.
        OSError: a file cannot be written; then all are as they were.
    """
    if not records:
        raise InputError(describe("results", "there is nothing to write", got="no record"))
    stem = Path(stem)
    page, data = stem.with_name(stem.name + ".md"), stem.with_name(stem.name + ".json")
    text = json.dumps([record.to_json() for record in records], indent=2, ensure_ascii=False) + "\n"
    drawn = {stem.with_name(f"{stem.name}-{figure.name}.svg"): figure for figure in figures}
    shown = [f"![{figure.description}]({quote(path.name)})" for path, figure in drawn.items()]
    markdown = render_markdown(records, workload, title=title, data_name=data.name, figures=shown)
    write_together({data: text, **{path: figure.svg for path, figure in drawn.items()}, page: markdown})
    return page, data


def render_markdown(
    records: Sequence[Record], workload: Workload[Any], *, title: str, data_name: str, figures: Sequence[str] = ()
) -> str:
    """The page: a table of models, tables by group, figures (in Markdown), and what is needed to repeat them."""
    ours = [record for record in records if record.published is None]
    parts = [f"# {title}", _models(records, workload).markdown()]
    models = []
    for record in (record for record in records if record.result or record.groups):
        label = core_label(record.core) + (" (published)" if record.published else "")
        found = workload.breakdowns(record.result, record.groups)
        models.append((label, {part.caption: (part, values_by_name([part.values])) for part in found}))
    for table in side_by_side(models, workload.group_names, missing=""):
        parts += [f"## {table.caption}", table.markdown()]
    if figures:
        parts += ["## Figures", *figures]
    notes = dict.fromkeys(note for record in records for note in record.details.get("notes", ()))
    if notes:
        parts += ["## Notes", "\n".join(f"- {as_text(note)}" for note in notes)]
    if ours:
        parts += ["## How to measure it again", _commands(ours).markdown()]
    parts.append(f"The same figures for programs: [{data_name}]({quote(data_name)}).")
    return "\n\n".join(parts) + "\n"


def _models(records: Sequence[Record], workload: Workload[Any]) -> Table:
    """The metrics of the records first, then other columns that some measurements have a figure of their own for."""
    columns: dict[str, Callable[[Record], str]] = {
        "task": lambda record: record.task,
        "model": lambda record: core_label(record.core),
    }
    metrics = [record.metric for record in records]
    known = {f"test_{column.name.removeprefix('mean_')}": column for column in workload.evaluation.COLUMNS}
    for metric in [*dict.fromkeys(metrics), *known]:
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
    costs = ["parameters", "state_bytes", "train_seconds"]
    if any(record.processor_seconds is not None for record in records):
        costs.append("processor_seconds")
    for name in costs:
        columns[name.replace("_", " ")] = lambda record, name=name: _number(getattr(record, name), "{:,.0f}")
    return Table.of(columns, records)


def _value(record: Record, column: Column) -> str:
    value = column.form.format(column.scale * record.value)
    spread = f" ± {column.form.format(column.scale * record.spread)}" if len(record.values) > 1 else ""
    return f"{'below ' if record.details.get('below') else ''}{value}{spread}"


def _seeds(record: Record) -> str:
    """The seeds of our own figures, and where a published one is from."""
    if not record.published:
        return ", ".join(map(str, record.seeds))
    setting = record.details.get("setting")
    return f"published: {record.published}" + (f" ({setting})" if setting else "")


def _commands(records: Sequence[Record]) -> Table:
    columns: dict[str, Callable[[Record], str | Cell]] = {"model": lambda record: core_label(record.core)}
    for name in ("machine", "torch", "commit", "date"):
        columns[name] = lambda record, name=name: getattr(record, name) or "not recorded"
    columns["command"] = lambda record: Cell(record.command, kind="code") if record.command else "not recorded"
    return Table.of(columns, records)


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "" if value is None else form.format(factor * value)
