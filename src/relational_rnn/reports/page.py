"""A report of finished runs: one self-contained HTML page, and its figures as SVG files beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from relational_rnn._files import sweep, write_together
from relational_rnn.pages import Cell, Script, Table, document, render
from relational_rnn.reports.cells import measured, side_by_side
from relational_rnn.reports.figures import Figure, curve_name, inline
from relational_rnn.reports.language import MEASURES, is_language, perplexity_by_frequency, resets
from relational_rnn.reports.published import published_beside_all
from relational_rnn.reports.run_figures import noun, report_figures
from relational_rnn.reports.runs import Group, Run, all_names, group_runs, read_runs

SCRIPTS = tuple(Script("relational_rnn.pages", name) for name in ("tables.js", "figures.js"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A question that a run was asked, for the page of a report."""

    run: str
    """What the run is called."""
    group: str
    """The row of the table of accuracies that it belongs to, e.g. "2 two-supporting-facts"."""
    number: int
    """Its place, from 1: among the test questions of a bAbI task, or among all test sequences."""
    question: str
    right: str
    """The right answer."""
    answer: str
    """The run's answer."""
    right_probability: float
    """That the run gives to the right answer."""
    page: str | None
    """Its inspection: a path relative to the report; None where there is none."""


def write_report(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    title: str = "relational-rnn: report",
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
    pages: Mapping[str, str] | None = None,
) -> Path:
    """Read run folders and write `out/index.html` with everything in it, and each figure as `out/<name>.svg`, all of
    them or none.

    Args:
        folders: run folders; runs that differ only in their seed become one row with mean and spread.
        out: a folder; it is created, and files of an earlier report in it are replaced.
        title: heading of the page.
        examples: questions to list under their tasks, such as the worst ones.
        notes: what a reader should know besides what the runs themselves say.
        pages: further pages to write with it, by their paths relative to `out`.

    Returns:
        the path of the page.

    Raises:
        InputError: when a folder cannot be read as a run (see `read_run`).
        MissingExtraError: without matplotlib or Jinja.
        OSError: when a file cannot be written; then all are as they were.
    """
    runs = read_runs(folders)
    groups = group_runs(runs)
    figures = report_figures(groups)
    page = render_page(title, groups, figures, examples, notes)
    out = Path(out)
    sweep(out)
    path = out / "index.html"
    files = {out / name: content for name, content in (pages or {}).items()}
    write_together({**files, **{out / f"{figure.name}.svg": figure.svg for figure in figures}, path: page})
    return path


def render_page(
    title: str,
    groups: Sequence[Group],
    figures: Sequence[Figure],
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page as text."""
    runs = [run for group in groups for run in group.runs]
    tables = _language_tables(groups) if is_language(groups) else _task_tables(groups, examples)
    body = render(
        "reports/templates/report.html",
        groups=groups,
        runs=runs,
        language=is_language(groups),
        overview=_overview(groups),
        figures=[(figure, inline(figure.svg, figure.name, figure.description)) for figure in figures],
        curves={figure.name: _curves(figure, groups) for figure in figures},
        tables=[*tables, *_published(groups)],
        noun=noun(groups),
        inspected=any(example.page for example in examples),
        examples=_examples(examples, noun(groups)),
        facts=_facts(runs),
        notes=[*_notes(groups), *notes],
        configurations=[(group.label, _configuration(group)) for group in groups],
    )
    return document(title, body, scripts=SCRIPTS)


def _curves(figure: Figure, groups: Sequence[Group]) -> list[tuple[str, str]]:
    """The name and the model of every curve that figures.js makes come and go: where there are several models."""
    names = [(curve_name(number), group.label) for number, group in enumerate(groups) if len(groups) > 1]
    return [(f"{figure.name}-{name}", label) for name, label in names if f'id="{name}-' in figure.svg]


def _overview(groups: Sequence[Group]) -> Table:
    shares = {"mean_accuracy": "accuracy" if is_language(groups) else "mean accuracy"}
    for name, label in (("mean_beyond", "beyond training"), ("whole_accuracy", "whole answers")):
        if any(group.values(name) for group in groups):
            shares[name] = label
    columns: dict[str, Callable[[Group], str | Cell]] = {"model": lambda group: group.label}

    def add(name: str, label: str, form: str = "{:,.0f}", factor: float = 1) -> None:
        columns[label] = lambda group: measured(group.values(name), form, factor)

    add("parameters", "parameters")
    add("state_bytes", "state bytes")
    for name, (label, form) in MEASURES.items() if is_language(groups) else ():
        add(name, label, form)
    for name, label in shares.items():
        add(name, label, "{:.1f} %", 100)
    if noun(groups) == "task":
        columns["tasks above 95 %"] = lambda group: measured(
            group.values("tasks_above_95"), "{:g}" if len(group.results) == 1 else "{:.1f}"
        )
    add("train_seconds", "training seconds")
    columns["seeds"] = lambda group: Cell(", ".join(map(str, group.seeds)), len(group.seeds))
    return Table.of(columns, groups, "Results")


def _task_tables(groups: Sequence[Group], examples: Sequence[Example]) -> list[Table]:
    """Accuracies by task or group, which lead to the examples of each."""
    models = [(group.label, group.per_group()) for group in groups if group.per_group()]
    links = {example.group: f"#{_place(example.group)}" for example in examples}
    names = enumerate(all_names(found for _, found in models), start=1)
    first, what = {name: Cell(name, n, links.get(name)) for n, name in names}, noun(groups)
    return [side_by_side(what, first, models, "{:.1f}", 100, caption=f"Test accuracy per {what}, %")] if models else []


def _language_tables(groups: Sequence[Group]) -> list[Table]:
    """Perplexity by frequency, and what it costs to lose the past; nothing where no run was evaluated."""
    evaluated = [group for group in groups if group.results]
    if not evaluated:
        return []
    models = [(group.label, perplexity_by_frequency(group)) for group in evaluated]
    names = {name: Cell(name, n) for n, name in enumerate(all_names(found for _, found in models), start=1)}
    caption = "Perplexity by occurrences in the training text"
    tables = [side_by_side("occurrences", names, models, "{:,.2f}", caption=caption)]
    never = float("inf")
    for measure, (label, form) in MEASURES.items():
        models = [(group.label, {**resets(group, measure), never: group.values(measure)}) for group in evaluated]
        lengths = sorted({k for _, found in models for k in found})
        names = {k: Cell("never" if k == never else f"every {k:,} tokens", k) for k in lengths}
        caption = f"{label[0].upper()}{label[1:]}, with the memory reset"
        tables.append(side_by_side("memory reset", names, models, form, caption=caption))
    return tables


def _published(groups: Sequence[Group]) -> list[Table]:
    """What others have published for the settings of these runs."""
    figures = published_beside_all([group.runs[0] for group in groups])
    rows = [[f.model, Cell(f.shown, f.value), f.setting, f.source] for f in figures]
    return [Table(["model", figures[0].metric, "setting", "source"], rows, "Published by others")] if figures else []


def _place(group: str) -> str:
    """The address of a group's examples on the page."""
    return "examples-" + re.sub("[^a-z0-9]+", "-", group.lower()).strip("-")


def _examples(examples: Sequence[Example], noun: str) -> list[tuple[str, Table]]:
    """A place and a table of questions for every group that has some; each leads to its inspection, if it has one."""
    head = ["example", "run", "question", "right answer", "answered", "right one's probability"]
    found: dict[str, list[list[str | Cell]]] = {group: [] for group in all_names({e.group: e} for e in examples)}
    for e in examples:
        number = Cell(str(e.number), e.number, None if e.page is None else quote(e.page))
        chance = Cell(f"{e.right_probability:.1%}", e.right_probability)
        found[e.group].append([number, e.run, e.question, e.right, e.answer, chance])
    return [(_place(group), Table(head, rows, f"{noun.capitalize()} {group}")) for group, rows in found.items()]


def _facts(runs: Sequence[Run]) -> dict[str, str]:
    """Machine, commit and versions; a value that is not the same in all runs is listed with each of its runs."""
    facts = {}
    # The step at which a sitting began is no fact about the machine.
    for name in dict.fromkeys(name for run in runs for name in run.versions if name != "step"):
        found: dict[str, list[str]] = {}
        for run in runs:
            value = run.versions.get(name)
            found.setdefault("not recorded" if value is None else _plain(value), []).append(run.name)
        alone = len(found) == 1
        facts[name] = "; ".join(value if alone else f"{value} ({', '.join(where)})" for value, where in found.items())
    questions = {str(run.result["questions"]) for run in runs if run.result and "questions" in run.result}
    if questions:
        facts["test questions"] = ", ".join(sorted(questions))
    return facts | {"run folders": ", ".join(run.name for run in runs)}


def _notes(groups: Sequence[Group]) -> list[str]:
    """What readers must know about the data and the runs, with the models it is about where it is not about all."""
    about: dict[str, list[str]] = {}
    for group in groups:
        for note in group.notes:
            about.setdefault(note, []).append(group.label)
    return [note if len(who) == len(groups) else f"{', '.join(who)}: {note}" for note, who in about.items()]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return "; ".join(map(_plain, value))
    return str(value)


def _configuration(group: Group) -> str:
    config = {name: value for name, value in group.runs[0].config.items() if name != "seed"}
    return json.dumps(config, indent=2, ensure_ascii=False)
