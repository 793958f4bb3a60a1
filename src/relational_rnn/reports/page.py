"""A report of finished runs: one self-contained HTML page, and its figures as SVG files beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from relational_rnn._files import sweep, write_together
from relational_rnn.pages import Cell, Script, document, table
from relational_rnn.reports.figures import Figure, curve_name, inline, learning_curves, task_bars
from relational_rnn.reports.language import (
    MEASURES,
    forgetting_curves,
    frequency_bars,
    is_language,
    perplexity_by_frequency,
    resets,
)
from relational_rnn.reports.published import published_beside_all
from relational_rnn.reports.runs import Group, Run, all_names, group_runs, mean_and_spread, read_runs

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
        MissingExtraError: without matplotlib.
        OSError: when a file cannot be written; then all are as they were.
    """
    runs = read_runs(folders)
    groups = group_runs(runs)
    figures = draw_figures(groups)
    page = render_page(title, groups, figures, examples, notes)
    out = Path(out)
    sweep(out)
    path = out / "index.html"
    files = {out / name: content for name, content in (pages or {}).items()}
    write_together({**files, **{out / f"{figure.name}.svg": figure.svg for figure in figures}, path: page})
    return path


def draw_figures(groups: Sequence[Group]) -> list[Figure]:
    """The figures for which the runs have numbers: learning curves, and bars per task or per frequency."""
    if is_language(groups):
        return draw_language_figures(groups)
    figures = []
    if any(run.curve("step", "valid_accuracy")[0] for group in groups for run in group.runs):
        figures += [
            Figure(
                name=name,
                svg=learning_curves(groups, x),
                description=f"Validation accuracy against {words}, one line per run.",
            )
            for name, x, words in [
                ("accuracy-by-step", "step", "steps of training")
                if _noun(groups) == "task"
                else ("accuracy-by-samples", "samples", "training samples"),
                ("accuracy-by-seconds", "seconds", "seconds of training"),
            ]
        ]
    if any(group.per_group() for group in groups):
        description = f"Test accuracy of every {_noun(groups)}, one panel per model."
        figures.append(Figure(name="accuracy-by-task", svg=task_bars(groups), description=description))
    return figures


def draw_language_figures(groups: Sequence[Group]) -> list[Figure]:
    """The figures of runs on language for which there are numbers."""
    figures = []
    if any(run.curve("step", "valid_loss")[0] for group in groups for run in group.runs):
        for x, words in (("step", "steps of training"), ("seconds", "seconds of training")):
            svg = learning_curves(groups, x, "valid_loss")
            figures.append(
                Figure(name=f"loss-by-{x}", svg=svg, description=f"Validation loss against {words}, one line per run.")
            )
    if any(resets(group, "perplexity") for group in groups):
        description = "What it costs to lose the past: the memory is reset every so many tokens of the test text."
        figures.append(Figure(name="cost-of-forgetting", svg=forgetting_curves(groups), description=description))
    if any(perplexity_by_frequency(group) for group in groups):
        description = "Perplexity on the test text by how often a token occurs in the training text."
        figures.append(Figure(name="perplexity-by-frequency", svg=frequency_bars(groups), description=description))
    return figures


def render_page(
    title: str,
    groups: Sequence[Group],
    figures: Sequence[Figure],
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page as text. Whatever comes from a run folder is escaped."""
    runs = [run for group in groups for run in group.runs]
    sections = [
        f"<p>{escape(_summary(groups))}</p>",
        _overview(groups),
        *(_figure(figure, groups) for figure in figures),
        _language_tables(groups) if is_language(groups) else _task_table(groups, examples),
        _published(groups),
        _examples(examples, _noun(groups)),
        "<h2>What was measured</h2>",
        _facts(runs),
        _notes(groups, notes),
        "<h2>Configurations</h2>",
        *(_configuration(group) for group in groups),
    ]
    return document(title, "\n".join(section for section in sections if section), scripts=SCRIPTS)


def _figure(figure: Figure, groups: Sequence[Group]) -> str:
    """The figure, and where it has curves of several models a button for each; figures.js makes them come and go."""
    buttons = "".join(
        f'<button type="button" data-curve="{figure.name}-{curve_name(number)}" aria-pressed="true">'
        f"{escape(group.label)}</button>"
        for number, group in enumerate(groups)
        if len(groups) > 1 and f'id="{curve_name(number)}-' in figure.svg
    )
    choice = f'<div class="choice" role="group" aria-label="curves">{buttons}</div>' if buttons else ""
    return (
        f'<figure data-name="{figure.name}">{choice}<div class="drawing">'
        f"{inline(figure.svg, figure.name, figure.description)}</div>"
        f"<figcaption>{escape(figure.description)}</figcaption></figure>"
    )


def _summary(groups: Sequence[Group]) -> str:
    runs = sum(len(group.runs) for group in groups)
    evaluated = sum(len(group.results) for group in groups)
    sentence = f"{runs} {'run' if runs == 1 else 'runs'} of {len(groups)} {'model' if len(groups) == 1 else 'models'}"
    if evaluated < runs:
        sentence += f", {runs - evaluated} of them not evaluated yet"
    if is_language(groups):
        return (
            f"{sentence}. The whole test text is read as one stream with the memory carried; perplexity is per word, "
            "accuracy the share of tokens that were the most probable one; ± is the spread over seeds."
        )
    what = "test questions answered exactly" if _noun(groups) == "task" else "right answers on new sequences"
    return f"{sentence}. Accuracies are shares of {what}; ± is the spread over seeds."


def _noun(groups: Sequence[Group]) -> str:
    """What accuracies are listed by."""
    return "task" if all(run.task == "babi" for group in groups for run in group.runs) else "group"


def _overview(groups: Sequence[Group]) -> str:
    names = {"mean_accuracy": "accuracy" if is_language(groups) else "mean accuracy"}
    for name, label in (("mean_beyond", "beyond training"), ("whole_accuracy", "whole answers")):
        if any(group.values(name) for group in groups):
            names[name] = label
    above = _noun(groups) == "task"
    measures = MEASURES if is_language(groups) else {}
    head = [
        "model",
        "parameters",
        "state bytes",
        *(label for label, _ in measures.values()),
        *names.values(),
        *(["tasks above 95 %"] if above else []),
    ]
    head += ["training seconds", "seeds"]
    rows = [
        [
            Cell(group.label),
            _cell(group.values("parameters"), "{:,.0f}"),
            _cell(group.values("state_bytes"), "{:,.0f}"),
            *(_cell(group.values(name), form) for name, (_, form) in measures.items()),
            *(_cell([100 * value for value in group.values(name)], "{:.1f} %") for name in names),
            *(
                [_cell(group.values("tasks_above_95"), "{:g}" if len(group.results) == 1 else "{:.1f}")]
                if above
                else []
            ),
            _cell(group.values("train_seconds"), "{:,.0f}"),
            Cell(", ".join(map(str, group.seeds)), len(group.seeds)),
        ]
        for group in groups
    ]
    return table("Results", head, rows)


def _task_table(groups: Sequence[Group], examples: Sequence[Example]) -> str:
    per_group = [(group, group.per_group()) for group in groups if group.per_group()]
    if not per_group:
        return ""
    names = all_names(accuracies for _, accuracies in per_group)
    linked = {example.group: f"#{_place(example.group)}" for example in examples}
    head = [_noun(groups), *(group.label for group, _ in per_group)]
    rows = [
        [
            Cell(name, number, linked.get(name)),
            *(_cell([100 * value for value in accuracies.get(name, [])], "{:.1f}") for _, accuracies in per_group),
        ]
        for number, name in enumerate(names, start=1)
    ]
    return table(f"Test accuracy per {_noun(groups)}, %", head, rows)


def _language_tables(groups: Sequence[Group]) -> str:
    """Perplexity by frequency, and what it costs to lose the past; nothing where no run was evaluated."""
    evaluated = [group for group in groups if group.results]
    if not evaluated:
        return ""
    by_frequency = [perplexity_by_frequency(group) for group in evaluated]
    rows = [
        [Cell(name, number), *(_cell(found.get(name, []), "{:,.2f}") for found in by_frequency)]
        for number, name in enumerate(all_names(by_frequency), start=1)
    ]
    head = [group.label for group in evaluated]
    parts = [table("Perplexity by occurrences in the training text", ["occurrences", *head], rows)]
    for measure, (label, form) in MEASURES.items():
        found = [resets(group, measure) for group in evaluated]
        rows = [
            [Cell(f"every {k:,} tokens", k), *(_cell(each.get(k, []), form) for each in found)]
            for k in sorted({k for each in found for k in each})
        ]
        carried = [_cell(group.values(measure), form) for group in evaluated]
        rows.append([Cell("never", float("inf")), *carried])
        parts.append(table(f"{label[0].upper()}{label[1:]}, with the memory reset", ["memory reset", *head], rows))
    return "\n".join(parts)


def _published(groups: Sequence[Group]) -> str:
    """What others have published for the settings of these runs."""
    figures = published_beside_all([group.runs[0] for group in groups])
    if not figures:
        return ""
    rows = [[Cell(f.model), Cell(f.shown, f.value), Cell(f.setting), Cell(f.source)] for f in figures]
    return table("Published by others", ["model", figures[0].metric, "setting", "source"], rows)


def _place(group: str) -> str:
    """The address of a group's examples on the page."""
    return "examples-" + re.sub("[^a-z0-9]+", "-", group.lower()).strip("-")


def _examples(examples: Sequence[Example], noun: str) -> str:
    """A table of questions for every group that has some; each leads to its inspection where there is one."""
    head = ["example", "run", "question", "right answer", "answered", "right one's probability"]
    parts = []
    if examples:
        words = f"Questions of each {noun} to whose right answer a run gives the least probability."
        if any(example.page for example in examples):
            words += " The number of a question leads to a page that looks inside the memory while it reads."
        parts = [f"<h2>Examples</h2><p>{words}</p>"]
    for group in all_names({example.group: example} for example in examples):
        rows = [
            [
                Cell(str(e.number), e.number, None if e.page is None else quote(e.page)),
                Cell(e.run),
                Cell(e.question),
                Cell(e.right),
                Cell(e.answer),
                Cell(f"{e.right_probability:.1%}", e.right_probability),
            ]
            for e in examples
            if e.group == group
        ]
        parts.append(f'<div id="{_place(group)}">{table(f"{noun.capitalize()} {group}", head, rows)}</div>')
    return "\n".join(parts)


def _cell(values: Sequence[float], form: str) -> Cell:
    """A mean, with its spread where there are several different values."""
    if not values:
        return Cell("not evaluated", "")
    value, spread = mean_and_spread(values)
    text = form.format(value)
    return Cell(f"{text} ± {form.format(spread)}" if spread else text, value)


def _facts(runs: Sequence[Run]) -> str:
    """Machine, commit and versions; a value that is not the same in all runs is listed with each of its runs."""
    # The step at which a sitting began is no fact about the machine.
    names = dict.fromkeys(name for run in runs for name in run.versions if name != "step")
    entries = []
    for name in names:
        found: dict[str, list[str]] = {}
        for run in runs:
            value = run.versions.get(name)
            found.setdefault("not recorded" if value is None else _plain(value), []).append(run.name)
        if len(found) == 1:
            entries.append((name, next(iter(found))))
        else:
            entries.append((name, "; ".join(f"{value} ({', '.join(where)})" for value, where in found.items())))
    questions = {str(run.result["questions"]) for run in runs if run.result and "questions" in run.result}
    if questions:
        entries.append(("test questions", ", ".join(sorted(questions))))
    entries.append(("run folders", ", ".join(run.name for run in runs)))
    return "<dl>" + "\n".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in entries) + "</dl>"


def _notes(groups: Sequence[Group], more: Sequence[str]) -> str:
    """What readers must know about the data and the runs, with the models it is about where it is not about all."""
    about: dict[str, list[str]] = {}
    for group in groups:
        for note in group.notes:
            about.setdefault(note, []).append(group.label)
    lines = [note if len(who) == len(groups) else f"{', '.join(who)}: {note}" for note, who in about.items()]
    lines += more
    if not lines:
        return ""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return "; ".join(map(_plain, value))
    return str(value)


def _configuration(group: Group) -> str:
    config = {name: value for name, value in group.runs[0].config.items() if name != "seed"}
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return f"<details><summary>{escape(group.label)}</summary><pre>{escape(text)}</pre></details>"
