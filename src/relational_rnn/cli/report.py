"""relational-rnn report"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from relational_rnn._check import InputError, describe, one_line
from relational_rnn.reports import group_runs, read_runs, records_of, results_figures, write_report, write_results
from relational_rnn.runs import load

EXAMPLES = (
    "relational-rnn report runs/demo/rmc-0 runs/demo/lstm-0 --out runs/demo/report",
    "relational-rnn report runs/babi/* --results docs/results/babi --task babi-en-10k",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Make one self-contained HTML page, with its figures as SVG files beside it, from finished runs.

    Runs that differ only in their seed become one row with mean and spread. Nothing is trained.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Run folders, as written by train, compare or demo."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = Path("report")
    """Folder for index.html and the figures; files of an earlier report in it are replaced."""
    title: str = "relational-rnn: report"
    """Heading of the page."""
    examples: Annotated[int, tyro.conf.arg(metavar="K")] = 0
    """List the K test questions of each task (or group of sequences) whose right answer each run finds least
    probable, where the task lists some (babi, nth-farthest); those of a memory that `inspect` shows lead to its page.
    Loads the models and their test sets."""
    results: Annotated[Path | None, tyro.conf.arg(metavar="STEM")] = None
    """Write STEM.md and STEM.json instead: the same figures for a documentation and for programs."""
    task: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """With --results: what the data are called there, e.g. babi-en-10k."""
    note: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """With --results: what a reader should know of these runs, in quotes; stands with every record. May be given again
    for another note."""


def run(arguments: Arguments) -> None:
    page = arguments.results is None
    for wrong, problem in (
        (page != (arguments.task is None), "--results and --task go together"),
        (bool(arguments.note) and page, "--note goes with --results"),
        (arguments.examples < 0, f"--examples must be at least 0, not {arguments.examples}"),
        (arguments.examples != 0 and not page, "--examples makes pages, and --results makes none"),
    ):
        if wrong:
            raise InputError(describe("report", problem))
    groups = group_runs(read_runs(arguments.runs))  # what cannot be read is refused before the models are loaded
    if arguments.results is None:
        examples = []
        for number, folder in enumerate(arguments.runs if arguments.examples else (), start=1):
            loaded, name = load(folder), folder.resolve().name
            for n, example in enumerate(loaded.workload.worst_examples(loaded, arguments.examples), start=1):
                page = f"inspect/{number}-{name}/{n}.html" if example.html is not None else None
                examples.append(replace(example, run=one_line(name), page=page))
        print(write_report(arguments.runs, arguments.out, title=arguments.title, examples=examples))
        return
    assert arguments.task is not None
    records = records_of(groups, task=arguments.task, notes=arguments.note)
    figures = results_figures(groups)
    for path in write_results(arguments.results, records, groups[0].workload, title=arguments.title, figures=figures):
        print(path)
