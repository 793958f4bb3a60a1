"""A report of finished runs: one self-contained HTML page, and its figures as SVG files beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from relational_rnn._files import sweep, write_together
from relational_rnn.pages import Cell, Table, document, render
from relational_rnn.reports.figures import Figure, curve_name, inline, report_figures
from relational_rnn.reports.runs import (
    Group,
    all_names,
    group_runs,
    measured,
    published_beside,
    read_runs,
    side_by_side,
)
from relational_rnn.runs import Column, Example, Run, Workload

SCRIPTS = ("pages/tables.js", "pages/figures.js")


def write_report(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    title: str = "relational-rnn: report",
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Read run folders and write `out/index.html` and each figure as `out/<name>.svg`, all of them or none.

    Args:
        folders: runs that differ only in their seed become one row with mean and spread.
        out: a folder; files of an earlier report in it are replaced.
        title: heading of the page.
        examples: questions to list under their groups, and their pages.
        notes: what a reader should know besides what the runs say.

    Returns:
        the path of the page.

    Raises:
        InputError: a folder cannot be read as a run (see `read_run`), or the runs do not go together.
        MissingExtraError: matplotlib or Jinja is not installed.
        OSError: a file cannot be written; then all are as they were.
    """
    groups = group_runs(read_runs(folders))
    figures = report_figures(groups)
    page = render_page(title, groups, figures, examples, notes)
    out = Path(out)
    sweep(out)
    path = out / "index.html"
    pages = {out / e.page: e.html for e in examples if e.page is not None and e.html is not None}
    write_together({**pages, **{out / f"{figure.name}.svg": figure.svg for figure in figures}, path: page})
    return path


def render_page(
    title: str,
    groups: Sequence[Group],
    figures: Sequence[Figure],
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page as text."""
    runs, workload = [run for group in groups for run in group.runs], groups[0].workload
    models = [(group.label, group.breakdowns()) for group in groups]
    links = {example.group: f"#{_place(example.group)}" for example in examples}
    body = render(
        "reports/templates/report.html",
        groups=groups,
        runs=runs,
        note=workload.accuracy_note,
        overview=_overview(groups),
        figures=[(figure, inline(figure.svg, figure.name, figure.description)) for figure in figures],
        curves={figure.name: _curves(figure, groups) for figure in figures},
        tables=[*side_by_side(models, workload.group_names, links=links), *_published(groups)],
        noun=workload.group_noun,
        inspected=any(example.page for example in examples),
        examples=_examples(examples, workload),
        facts=_facts(runs),
        notes=[*_notes(groups), *notes],
        configurations=[(group.label, _configuration(group)) for group in groups],
    )
    return document(title, body, scripts=SCRIPTS)


def _curves(figure: Figure, groups: Sequence[Group]) -> list[tuple[str, str]]:
    """The name and the model of every curve that figures.js can hide, if there are several models."""
    names = [(curve_name(number), group.label) for number, group in enumerate(groups) if len(groups) > 1]
    return [(f"{figure.name}-{name}", label) for name, label in names if f'id="{name}-' in figure.svg]


def _overview(groups: Sequence[Group]) -> Table:
    columns: dict[str, Callable[[Group], str | Cell]] = {"model": lambda group: group.label}
    for c in (
        Column("parameters", "parameters", "{:,.0f}"),
        Column("state bytes", "state_bytes", "{:,.0f}"),
        *(c for c in groups[0].workload.evaluation.COLUMNS if any(group.values(c.name) for group in groups)),
        Column("training seconds", "train_seconds", "{:,.0f}"),
    ):
        columns[c.heading] = lambda group, c=c: measured(group.values(c.name), c.form + c.unit, c.scale)
    columns["seeds"] = lambda group: Cell(", ".join(map(str, group.seeds)), len(group.seeds))
    return Table.of(columns, groups, "Results")


def _published(groups: Sequence[Group]) -> list[Table]:
    """What others have published for the settings of these runs: a table, or none."""
    figures = published_beside(groups)
    rows = [[f.model, Cell(f.shown, f.value), f.setting, f.source] for f in figures]
    metrics = ", ".join(dict.fromkeys(f.metric for f in figures))
    return [Table(["model", metrics, "setting", "source"], rows, "Published by others")] if figures else []


def _place(group: str) -> str:
    """The address of a group's examples on the page."""
    return "examples-" + re.sub("[^a-z0-9]+", "-", group.lower()).strip("-")


def _examples(examples: Sequence[Example], workload: Workload[Any]) -> list[tuple[str, Table]]:
    """The address and the table of every group's questions; a question links to its inspection, if it has one."""
    head = ["example", "run", "question", "right answer", "answered", "right one's probability"]
    names = all_names(({e.group: e} for e in examples), workload.group_names)
    found: dict[str, list[list[str | Cell]]] = {group: [] for group in names}
    for e in examples:
        number = Cell(str(e.number), e.number, None if e.page is None else quote(e.page))
        chance = Cell(f"{e.right_probability:.1%}", e.right_probability)
        found[e.group].append([number, e.run, e.question, e.right, e.answer, chance])
    noun = workload.group_noun.capitalize()
    return [(_place(group), Table(head, rows, f"{noun} {group}")) for group, rows in found.items()]


def _facts(runs: Sequence[Run]) -> dict[str, str]:
    """Machine, commit and versions; values that differ are listed with their runs."""
    facts = {}
    # The step at which a sitting began says nothing about the machine.
    for name in dict.fromkeys(name for run in runs for name in run.versions if name != "step"):
        found: dict[str, list[str]] = {}
        for run in runs:
            value = run.versions.get(name)
            found.setdefault("not recorded" if value is None else _plain(value), []).append(run.name)
        alone = len(found) == 1
        facts[name] = "; ".join(value if alone else f"{value} ({', '.join(where)})" for value, where in found.items())
    counted = runs[0].workload.evaluation.COUNTED
    counts = sorted({str(run.result[counted]) for run in runs if run.result and counted})
    if counts:
        facts[f"test {counted}"] = ", ".join(counts)
    return facts | {"run folders": ", ".join(run.name for run in runs)}


def _notes(groups: Sequence[Group]) -> list[str]:
    """The notes of the runs; one that is not about all models names its models."""
    about: dict[str, list[str]] = {}
    for group in groups:
        for note in group.notes:
            about.setdefault(note, []).append(group.label)
    return [note if len(who) == len(groups) else f"{', '.join(who)}: {note}" for note, who in about.items()]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    return "; ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def _configuration(group: Group) -> str:
    config = {name: value for name, value in group.runs[0].config.items() if name != "seed"}
    return json.dumps(config, indent=2, ensure_ascii=False)
