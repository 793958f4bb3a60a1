"""Measured figures that stand twice: on a Markdown page and in a JSON file beside it, written by one call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from relational_rnn._check import InputError, describe
from relational_rnn._files import write_together
from relational_rnn.pages import Cell, Table
from relational_rnn.pages.markdown import as_text
from relational_rnn.reports.cells import side_by_side
from relational_rnn.reports.figures import Figure
from relational_rnn.reports.language import MEASURES
from relational_rnn.reports.records import Record
from relational_rnn.reports.runs import all_names, core_label
from relational_rnn.tasks.babi.story import TASK_NAMES

METRICS = {"test_accuracy": ("accuracy, %", "{:.1f}", 100)} | {
    f"test_{name}": (label, form, 1) for name, (label, form) in MEASURES.items()
}
"""The metrics of records: their heading, how a value is written, and times what."""


def write_results(
    stem: str | Path,
    records: Sequence[Record],
    *,
    title: str,
    figures: Sequence[Figure] = (),
) -> tuple[Path, Path]:
    """Write `<stem>.md` for people and `<stem>.json` for programs, and `<stem>-<name>.svg` for every figure.

    Args:
        stem: path without an ending, e.g. "docs/results/babi".
        records: at least one.
        title: heading of the page.
        figures: shown after the tables.

    Returns:
        the two paths, page first.

    Raises:
        InputError: there is no record.
        OSError: when a file cannot be written; then all are as they were.
    """
    if not records:
        raise InputError(describe("results", "there is nothing to write", got="no record"))
    stem = Path(stem)
    page, data = stem.with_name(stem.name + ".md"), stem.with_name(stem.name + ".json")
    text = json.dumps([record.to_json() for record in records], indent=2, ensure_ascii=False) + "\n"
    drawn = {stem.with_name(f"{stem.name}-{figure.name}.svg"): figure for figure in figures}
    shown = [f"![{figure.description}]({quote(path.name)})" for path, figure in drawn.items()]
    markdown = render_markdown(records, title=title, data_name=data.name, figures=shown)
    write_together({data: text, **{path: figure.svg for path, figure in drawn.items()}, page: markdown})
    return page, data


def render_markdown(records: Sequence[Record], *, title: str, data_name: str, figures: Sequence[str] = ()) -> str:
    """The page: a table of models, a table of tasks, figures (in Markdown), and what is needed to repeat them."""
    ours = [record for record in records if record.published is None]
    parts = [f"# {title}", _models(records).markdown()]
    for kind in ("task", "group"):
        names = all_names(_accuracies(record) for record in records if f"per_{kind}" in record.details)
        if names:
            parts += [f"## Per {kind}, %", _per_group(records, kind, names).markdown()]
    for heading, tables in _text_tables([record for record in ours if "resets" in record.details]).items():
        parts += [f"## {heading}", *(table.markdown() for table in tables)]
    if figures:
        parts += ["## Figures", *figures]
    notes = dict.fromkeys(note for record in records for note in record.details.get("notes", ()))
    if notes:
        parts += ["## Notes", "\n".join(f"- {as_text(note)}" for note in notes)]
    if ours:
        parts += ["## How to measure it again", _commands(ours).markdown()]
    parts.append(f"The same figures for programs: [{data_name}]({quote(data_name)}).")
    return "\n\n".join(part for part in parts if part) + "\n"


def _models(records: Sequence[Record]) -> Table:
    columns: dict[str, Callable[[Record], str]] = {
        "task": lambda record: record.task,
        "model": lambda record: core_label(record.core),
    }
    for metric in dict.fromkeys(record.metric for record in records):
        columns[METRICS[metric][0]] = lambda record, metric=metric: _value(record) if record.metric == metric else ""
    # columns that some of the records have; the others are left out
    if any("tasks_above_95" in record.details for record in records):
        columns["tasks above 95 %"] = lambda record: _number(record.details.get("tasks_above_95"), ".3g")
    for name, label in (("whole_accuracy", "whole answers, %"), ("mean_beyond", "beyond training, %")):
        if any(record.details.get(name) not in (None, record.value) for record in records):
            columns[label] = lambda record, name=name: _number(record.details.get(name), ".1f", 100)
    columns["seeds"] = _seeds
    costs = ["parameters", "state_bytes", "train_seconds"]
    if any(record.processor_seconds is not None for record in records):
        costs.append("processor_seconds")
    for name in costs:
        columns[name.replace("_", " ")] = lambda record, name=name: _number(getattr(record, name), ",.0f")
    return Table.of(columns, records)


def _value(record: Record) -> str:
    _, form, factor = METRICS[record.metric]
    value = form.format(factor * record.value)
    spread = f" ± {form.format(factor * record.spread)}" if len(record.values) > 1 else ""
    return f"{'below ' if record.details.get('below') else ''}{value}{spread}"


def _seeds(record: Record) -> str:
    """The seeds of our own figures, and where a published one is from."""
    if not record.published:
        return ", ".join(map(str, record.seeds))
    setting = record.details.get("setting")
    return f"published: {record.published}" + (f" ({setting})" if setting else "")


def _text_tables(records: Sequence[Record]) -> dict[str, list[Table]]:
    """Records on language: all measures, perplexity by frequency, and what it costs to lose the past, by heading."""
    if not records:
        return {}
    columns: dict[str, Callable[[Record], str]] = {"model": lambda record: core_label(record.core)}
    for name, (label, form) in MEASURES.items():
        columns[label] = lambda record, name=name, form=form: form.format(record.details[name])
    columns["accuracy, %"] = lambda record: f"{100 * record.details['mean_accuracy']:.1f}"
    columns["tokens seen in training"] = lambda record: f"{record.details['tokens_seen']:,}"
    frequency = [_model(record, record.details["perplexity_by_frequency"]) for record in records]
    names = {name: Cell(name) for name in all_names(found for _, found in frequency)}
    forgotten = []
    for name, (label, form) in MEASURES.items():
        models = [_model(r, {**r.details["resets"][name], "never": r.details[name]}) for r in records]
        lengths = dict.fromkeys(k for _, found in models for k in found if k != "never")
        first = {k: Cell(f"every {int(k):,} tokens") for k in lengths} | {"never": Cell("never")}
        forgotten.append(side_by_side(f"memory reset ({label})", first, models, form, missing=""))
    return {
        "All measures": [Table.of(columns, records)],
        "Perplexity per token by its occurrences in the training text": [
            side_by_side("occurrences", names, frequency, "{:,.2f}", missing="")
        ],
        "What it costs to lose the past": forgotten,
    }


def _model(record: Record, values: Mapping[str, float]) -> tuple[str, dict[str, list[float]]]:
    """A column of a table."""
    label = core_label(record.core) + (" (published)" if record.published else "")
    return label, {name: [value] for name, value in values.items()}


def _accuracies(record: Record) -> Mapping[str, float]:
    """By bAbI task, with its name, or by group."""
    per_task = record.details.get("per_task", {})
    named = {f"{task} {TASK_NAMES.get(int(task), '')}".strip(): value for task, value in per_task.items()}
    return named or record.details.get("per_group", {})


def _per_group(records: Sequence[Record], kind: str, names: Sequence[str]) -> Table:
    models = [_model(record, _accuracies(record)) for record in records if record.details.get(f"per_{kind}")]
    return side_by_side(kind, {name: Cell(name) for name in names}, models, "{:.1f}", 100, missing="")


def _commands(records: Sequence[Record]) -> Table:
    columns: dict[str, Callable[[Record], str | Cell]] = {"model": lambda record: core_label(record.core)}
    for name in ("machine", "torch", "commit", "date"):
        columns[name] = lambda record, name=name: getattr(record, name) or "not recorded"
    columns["command"] = lambda record: Cell(record.command, kind="code") if record.command else "not recorded"
    return Table.of(columns, records)


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "" if value is None else format(factor * value, form)
