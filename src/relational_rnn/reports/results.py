"""Measured figures that stand twice: on a Markdown page and in a JSON file beside it, written by one call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from relational_rnn._check import InputError, describe
from relational_rnn._files import write_together
from relational_rnn.reports.figures import AXIS_LABELS, Figure, learning_curves
from relational_rnn.reports.language import MEASURES
from relational_rnn.reports.records import Record
from relational_rnn.reports.runs import Group, all_names, core_label, one_line
from relational_rnn.tasks.babi.story import TASK_NAMES


def results_figures(groups: Sequence[Group]) -> list[Figure]:
    """Accuracy against training samples, and against the processor's seconds (the clock's, where runs lack those)."""
    figures = []
    runs = [run for group in groups for run in group.runs]
    by_processor = all(run.curve("processor_seconds", "valid_accuracy")[0] for run in runs)
    for name, x in (("samples", "samples"), ("seconds", "processor_seconds" if by_processor else "seconds")):
        if any(run.curve(x, "valid_accuracy")[0] for run in runs):
            description = f"Validation accuracy against {AXIS_LABELS[x]}, one line per run."
            figures.append(Figure(name=name, svg=learning_curves(groups, x), description=description))
    return figures


def write_results(
    stem: str | Path,
    records: Sequence[Record],
    *,
    title: str,
    introduction: str = "",
    figures: Sequence[Figure] = (),
) -> tuple[Path, Path]:
    """Write `<stem>.md` for people and `<stem>.json` for programs, and `<stem>-<name>.svg` for every figure.

    Args:
        stem: path without an ending, e.g. "docs/results/babi".
        records: at least one.
        title: heading of the page.
        introduction: Markdown between the heading and the table.
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
    markdown = render_markdown(records, title=title, introduction=introduction, data_name=data.name, figures=shown)
    write_together({data: text, **{path: figure.svg for path, figure in drawn.items()}, page: markdown})
    return page, data


def render_markdown(
    records: Sequence[Record], *, title: str, introduction: str, data_name: str, figures: Sequence[str] = ()
) -> str:
    """The page: a table of models, a table of tasks, figures (in Markdown), and what is needed to repeat them."""
    ours = [record for record in records if record.published is None]
    parts = [f"# {title}", introduction.strip(), _models(records)]
    for kind in ("task", "group"):
        tables = [_accuracies(record) for record in records if f"per_{kind}" in record.details]
        if any(tables):
            parts += [f"## Per {kind}, %", _per_group(records, kind, all_names(tables))]
    parts += _text_tables(ours)
    if figures:
        parts += ["## Figures", *figures]
    notes = dict.fromkeys(note for record in records for note in record.details.get("notes", ()))
    if notes:
        parts += ["## Notes", "\n".join(f"- {as_text(note)}" for note in notes)]
    if ours:
        parts += ["## How to measure it again", _commands(ours)]
    parts.append(f"The same figures for programs: [{data_name}]({quote(data_name)}).")
    return "\n\n".join(part for part in parts if part) + "\n"


def _models(records: Sequence[Record]) -> str:
    names = list(dict.fromkeys(record.metric for record in records))
    # columns that some of the records have; the others are left out
    extra: list[tuple[str, Callable[[Record], str]]] = []
    if any("tasks_above_95" in record.details for record in records):
        extra.append(("tasks above 95 %", lambda record: _number(record.details.get("tasks_above_95"), ".3g")))
    for name, label in (("whole_accuracy", "whole answers, %"), ("mean_beyond", "beyond training, %")):
        if any(record.details.get(name) not in (None, record.value) for record in records):
            extra.append((label, lambda record, name=name: _number(record.details.get(name), ".1f", 100)))
    costs = ["parameters", "state bytes", "train seconds"]
    processor = any(record.processor_seconds is not None for record in records)
    head = ["task", "model", *(METRICS[name][0] for name in names), *(label for label, _ in extra), "seeds", *costs]
    head += ["processor seconds"] if processor else []
    rows = []
    for record in records:
        form = METRICS[record.metric][1]
        figure = ("below " if record.details.get("below") else "") + form(record.value)
        if len(record.values) > 1:
            figure += f" ± {form(record.spread)}"
        seeds = ", ".join(map(str, record.seeds))
        if record.published:
            setting = record.details.get("setting")
            seeds = f"published: {record.published}" + (f" ({setting})" if setting else "")
        numbers = [record.parameters, record.state_bytes, record.train_seconds]
        numbers += [record.processor_seconds] if processor else []
        rows.append(
            [
                record.task,
                as_text(core_label(record.core)),
                *(figure if name == record.metric else "" for name in names),
                *(cell(record) for _, cell in extra),
                seeds,
                *(_number(number, ",.0f") for number in numbers),
            ]
        )
    return markdown_table(head, rows)


def _text_tables(records: Sequence[Record]) -> list[str]:
    """Records on language: all measures, perplexity by frequency, and what it costs to lose the past."""
    shown = [record for record in records if "resets" in record.details]
    if not shown:
        return []
    labels = [as_text(core_label(record.core)) for record in shown]
    parts = [
        "## All measures",
        markdown_table(
            ["model", *(label for label, _ in MEASURES.values()), "accuracy, %", "tokens seen in training"],
            [
                [
                    label,
                    *(form.format(record.details[name]) for name, (_, form) in MEASURES.items()),
                    _percent(record.details["mean_accuracy"]),
                    f"{record.details['tokens_seen']:,}",
                ]
                for label, record in zip(labels, shown, strict=True)
            ],
        ),
        "## Perplexity per token by its occurrences in the training text",
    ]
    tables = [record.details["perplexity_by_frequency"] for record in shown]
    rows = [
        [name, *("" if name not in found else f"{found[name]:,.2f}" for found in tables)] for name in all_names(tables)
    ]
    parts.append(markdown_table(["occurrences", *labels], rows))
    parts.append("## What it costs to lose the past")
    for name, (label, form) in MEASURES.items():
        tables = [record.details["resets"][name] for record in shown]
        rows = [
            [f"every {int(k):,} tokens", *("" if k not in found else form.format(found[k]) for found in tables)]
            for k in dict.fromkeys(k for found in tables for k in found)
        ]
        rows.append(["never", *(form.format(record.details[name]) for record in shown)])
        parts.append(markdown_table([f"memory reset ({label})", *labels], rows))
    return parts


def _accuracies(record: Record) -> Mapping[str, float]:
    """By bAbI task, with its name, or by group."""
    per_task = record.details.get("per_task", {})
    named = {f"{task} {TASK_NAMES.get(int(task), '')}".strip(): value for task, value in per_task.items()}
    return named or record.details.get("per_group", {})


def _per_group(records: Sequence[Record], kind: str, names: Sequence[str]) -> str:
    shown = [record for record in records if record.details.get(f"per_{kind}")]
    head = [
        kind,
        *(as_text(core_label(record.core)) + (" (published)" if record.published else "") for record in shown),
    ]
    rows = []
    for name in names:
        cells = [_accuracies(record).get(name) for record in shown]
        rows.append([as_text(name), *("" if c is None else _percent(c) for c in cells)])
    return markdown_table(head, rows)


def _commands(records: Sequence[Record]) -> str:
    head = ["model", "machine", "torch", "commit", "date", "command"]
    rows = [
        [
            as_text(core_label(record.core)),
            *(as_text(value or "not recorded") for value in (record.machine, record.torch, record.commit, record.date)),
            as_code(record.command) if record.command else "not recorded",
        ]
        for record in records
    ]
    return markdown_table(head, rows)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(markdown_table(["core", "state"], [["RMC", "fixed"]]))
    | core | state |
    | --- | --- |
    | RMC | fixed |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_text(text: str) -> str:
    """A name for a page in Markdown: it means nothing there but itself.

    >>> as_text("a*b* <i>"), as_text("LSTM + attention, 4_096")
    ('a\\\\*b\\\\* &lt;i&gt;', 'LSTM + attention, 4_096')
    """
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # An underscore inside a word emphasizes nothing.
    return re.sub(r"([\\`*\[\]$~]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def as_code(command: str) -> str:
    """A command for a page in Markdown, however many backticks are in it.

    >>> as_code("echo `date`")
    '`` echo `date` ``'
    """
    command = one_line(command)
    longest = max((len(ticks) for ticks in re.findall("`+", command)), default=0)
    return f"{'`' * (longest + 1)} {command} {'`' * (longest + 1)}" if longest else f"`{command}`"


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "" if value is None else format(factor * value, form)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


METRICS: dict[str, tuple[str, Callable[[float], str]]] = {
    "test_accuracy": ("accuracy, %", _percent),
    **{f"test_{name}": (label, form.format) for name, (label, form) in MEASURES.items()},
}
"""The metrics of records: their heading, and how a value is written."""
