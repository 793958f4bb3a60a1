"""A report of finished runs: one self-contained HTML page, and its figures as SVG files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path

from relational_rnn._files import write_whole
from relational_rnn.reports.figures import inline, learning_curves, task_bars
from relational_rnn.reports.published import published_beside_all
from relational_rnn.reports.runs import Group, Run, all_names, group_runs, mean_and_spread, read_runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure of the page."""

    name: str
    """File name without its ending."""
    svg: str
    description: str
    """One sentence: caption, and what a screen reader says."""


def write_report(folders: Sequence[str | Path], out: str | Path, *, title: str = "relational-rnn: report") -> Path:
    """Read run folders and write `out/index.html` with everything in it, and each figure as `out/<name>.svg`.

    Args:
        folders: run folders; runs that differ only in their seed become one row with mean and spread.
        out: a folder; it is created, and files of an earlier report in it are replaced.
        title: heading of the page.

    Returns:
        the path of the page.

    Raises:
        InputError: when a folder cannot be read as a run (see `read_run`).
        MissingExtraError: without matplotlib.
        OSError: when a file cannot be written; each file is whole or absent.
    """
    runs = read_runs(folders)
    groups = group_runs(runs)
    figures = draw_figures(groups)
    page = render_page(title, groups, figures)
    out = Path(out)
    for figure in figures:
        write_whole(out / f"{figure.name}.svg", figure.svg)
    path = out / "index.html"
    write_whole(path, page)
    return path


def draw_figures(groups: Sequence[Group]) -> list[Figure]:
    """The figures for which the runs have numbers: learning curves, and bars per task."""
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


def render_page(title: str, groups: Sequence[Group], figures: Sequence[Figure]) -> str:
    """The page as text. Whatever comes from a run folder is escaped."""
    style = resources.files("relational_rnn.reports").joinpath("page.css").read_text(encoding="utf-8")
    runs = [run for group in groups for run in group.runs]
    sections = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(_summary(groups))}</p>",
        _overview(groups),
        *(
            f"<figure>{inline(figure.svg, figure.name, figure.description)}"
            f"<figcaption>{escape(figure.description)}</figcaption></figure>"
            for figure in figures
        ),
        _task_table(groups),
        _published(groups),
        "<h2>What was measured</h2>",
        _facts(runs),
        _notes(groups),
        "<h2>Configurations</h2>",
        *(_configuration(group) for group in groups),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _summary(groups: Sequence[Group]) -> str:
    runs = sum(len(group.runs) for group in groups)
    evaluated = sum(len(group.results) for group in groups)
    sentence = f"{runs} {'run' if runs == 1 else 'runs'} of {len(groups)} {'model' if len(groups) == 1 else 'models'}"
    if evaluated < runs:
        sentence += f", {runs - evaluated} of them not evaluated yet"
    what = "test questions answered exactly" if _noun(groups) == "task" else "right answers on new sequences"
    return f"{sentence}. Accuracies are shares of {what}; ± is the spread over seeds."


def _noun(groups: Sequence[Group]) -> str:
    """What accuracies are listed by."""
    return "task" if all(run.task == "babi" for group in groups for run in group.runs) else "group"


def _overview(groups: Sequence[Group]) -> str:
    names = {"mean_accuracy": "mean accuracy"}
    for name, label in (("mean_beyond", "beyond training"), ("whole_accuracy", "whole answers")):
        if any(group.values(name) for group in groups):
            names[name] = label
    above = _noun(groups) == "task"
    head = ["model", "parameters", "state bytes", *names.values(), *(["tasks above 95 %"] if above else [])]
    head += ["training seconds", "seeds"]
    rows = [
        [
            (group.label, group.label),
            _cell(group.values("parameters"), "{:,.0f}"),
            _cell(group.values("state_bytes"), "{:,.0f}"),
            *(_cell([100 * value for value in group.values(name)], "{:.1f} %") for name in names),
            *(
                [_cell(group.values("tasks_above_95"), "{:g}" if len(group.results) == 1 else "{:.1f}")]
                if above
                else []
            ),
            _cell(group.values("train_seconds"), "{:,.0f}"),
            (", ".join(map(str, group.seeds)), len(group.seeds)),
        ]
        for group in groups
    ]
    return _table("Results", head, rows)


def _task_table(groups: Sequence[Group]) -> str:
    per_group = [(group, group.per_group()) for group in groups if group.per_group()]
    if not per_group:
        return ""
    names = all_names(accuracies for _, accuracies in per_group)
    head = [_noun(groups), *(group.label for group, _ in per_group)]
    rows = [
        [
            (name, number),
            *(_cell([100 * value for value in accuracies.get(name, [])], "{:.1f}") for _, accuracies in per_group),
        ]
        for number, name in enumerate(names, start=1)
    ]
    return _table(f"Test accuracy per {_noun(groups)}, %", head, rows)


def _published(groups: Sequence[Group]) -> str:
    """What others have published for the settings of these runs."""
    figures = published_beside_all([group.runs[0].config for group in groups])
    if not figures:
        return ""
    rows = [[(f.model, f.model), (f.shown, f.accuracy), (f.setting, f.setting), (f.source, f.source)] for f in figures]
    return _table("Published by others", ["model", "accuracy", "setting", "source"], rows)


def _cell(values: Sequence[float], form: str) -> tuple[str, object]:
    """A mean, with its spread where there are several different values: (what to show, what to sort by)."""
    if not values:
        return "not evaluated", ""
    value, spread = mean_and_spread(values)
    text = form.format(value)
    return (f"{text} ± {form.format(spread)}" if spread else text), value


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[tuple[str, object]]]) -> str:
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = []
    for (first, first_key), *cells in rows:
        row = f'<th scope="row" data-value="{escape(str(first_key))}">{escape(first)}</th>'
        row += "".join(f'<td data-value="{escape(str(key))}">{escape(text)}</td>' for text, key in cells)
        body.append(f"<tr>{row}</tr>")
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>{header}</tr></thead>\n<tbody>'
        + "\n".join(body)
        + "</tbody></table></div>"
    )


def _facts(runs: Sequence[Run]) -> str:
    """Machine, commit and versions; a value that is not the same in all runs is listed with each of its runs."""
    # The step at which a sitting began is no fact about the machine.
    names = dict.fromkeys(name for run in runs for name in run.versions if name != "step")
    entries = []
    for name in names:
        found: dict[str, list[str]] = {}
        for run in runs:
            found.setdefault(_plain(run.versions.get(name, "not recorded")), []).append(run.folder.name)
        if len(found) == 1:
            entries.append((name, next(iter(found))))
        else:
            entries.append((name, "; ".join(f"{value} ({', '.join(where)})" for value, where in found.items())))
    questions = {str(run.result["questions"]) for run in runs if run.result and "questions" in run.result}
    if questions:
        entries.append(("test questions", ", ".join(sorted(questions))))
    entries.append(("run folders", ", ".join(run.folder.name for run in runs)))
    return "<dl>" + "\n".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in entries) + "</dl>"


def _notes(groups: Sequence[Group]) -> str:
    """What readers must know about the data and the runs, with the models it is about where it is not about all."""
    about: dict[str, list[str]] = {}
    for group in groups:
        for note in group.notes:
            about.setdefault(note, []).append(group.label)
    if not about:
        return ""
    lines = [note if len(who) == len(groups) else f"{', '.join(who)}: {note}" for note, who in about.items()]
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
