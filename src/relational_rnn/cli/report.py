"""relational-rnn report"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn.cli.parsing import parse_arguments
from relational_rnn.reports import group_runs, read_runs, records_of, write_report, write_results

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
    results: Annotated[Path | None, tyro.conf.arg(metavar="STEM")] = None
    """Write STEM.md and STEM.json instead: the same figures for a documentation and for programs."""
    task: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """With --results: what the data are called there, e.g. babi-en-10k."""
    note: tuple[str, ...] = ()
    """With --results: what a reader should know of these runs, each in quotes; stands with every record."""


def parse(args: Sequence[str]) -> Arguments:
    arguments = parse_arguments(Arguments, args, command="report", examples=EXAMPLES)
    if (arguments.results is None) != (arguments.task is None):
        raise InputError(describe("report", "--results and --task go together"))
    if arguments.note and arguments.results is None:
        raise InputError(describe("report", "--note goes with --results"))
    return arguments


def run(arguments: Arguments) -> None:
    if arguments.results is None:
        print(write_report(arguments.runs, arguments.out, title=arguments.title))
        return
    assert arguments.task is not None
    records = records_of(group_runs(read_runs(arguments.runs)), task=arguments.task, notes=arguments.note)
    for path in write_results(arguments.results, records, title=arguments.title):
        print(path)
