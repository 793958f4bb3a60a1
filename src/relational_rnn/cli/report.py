"""relational-rnn report"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from relational_rnn import recipes
from relational_rnn._check import InputError, describe
from relational_rnn.cli.parsing import parse_arguments
from relational_rnn.inspection import (
    Page,
    StoryReader,
    farthest_page,
    story_page,
    trace_story,
    worst_questions,
    worst_sequences,
)
from relational_rnn.inspection.farthest_page import farthest_question
from relational_rnn.inspection.story_page import INSPECTED
from relational_rnn.nn import RelationalMemory
from relational_rnn.recipes.babi_problem import test_stories
from relational_rnn.recipes.task_runs import split_batches
from relational_rnn.recipes.tasks import NthFarthestRun
from relational_rnn.reports import (
    Example,
    group_runs,
    read_runs,
    records_of,
    results_figures,
    write_report,
    write_results,
)
from relational_rnn.reports.runs import one_line
from relational_rnn.tasks.babi.story import TASK_NAMES

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
    """List the K test questions of each task whose right answer each run finds least probable (of N-th farthest, the K
    sequences for each n); those of a memory that `inspect` shows lead to its page. Loads the models and their
    test sets."""
    results: Annotated[Path | None, tyro.conf.arg(metavar="STEM")] = None
    """Write STEM.md and STEM.json instead: the same figures for a documentation and for programs."""
    task: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """With --results: what the data are called there, e.g. babi-en-10k."""
    note: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """With --results: what a reader should know of these runs, in quotes; stands with every record. May be given again
    for another note."""


def parse(args: Sequence[str]) -> Arguments:
    arguments = parse_arguments(Arguments, args, command="report", examples=EXAMPLES)
    if (arguments.results is None) != (arguments.task is None):
        raise InputError(describe("report", "--results and --task go together"))
    if arguments.note and arguments.results is None:
        raise InputError(describe("report", "--note goes with --results"))
    if arguments.examples < 0:
        raise InputError(describe("report", "--examples must be at least 0", got=arguments.examples))
    if arguments.examples and arguments.results is not None:
        raise InputError(describe("report", "--examples makes pages, and --results makes none"))
    return arguments


def run(arguments: Arguments) -> None:
    if arguments.results is None:
        read_runs(arguments.runs)  # what cannot be read is refused before the models are loaded
        examples, pages = [], {}
        for number, folder in enumerate(arguments.runs if arguments.examples else (), start=1):
            place = f"inspect/{number}-{folder.resolve().name}"
            for example, page in worst_examples(folder, arguments.examples, place):
                examples.append(example)
                if example.page is not None and page is not None:
                    pages[example.page] = page.html
        print(write_report(arguments.runs, arguments.out, title=arguments.title, examples=examples, pages=pages))
        return
    assert arguments.task is not None
    groups = group_runs(read_runs(arguments.runs))
    records = records_of(groups, task=arguments.task, notes=arguments.note)
    for path in write_results(arguments.results, records, title=arguments.title, figures=results_figures(groups)):
        print(path)


def worst_examples(folder: Path, count: int, place: str) -> list[tuple[Example, Page | None]]:
    """The `count` worst questions of every group, and the pages, in the folder `place`, of memories that can be
    inspected.

    Raises:
        InputError: the run is on another task than bAbI or N-th farthest, cannot be loaded, or its test stories are not
            there.
    """
    kind = recipes.task_of(folder)
    if kind == "babi":
        return worst_stories(folder, count, place)
    if kind == "nth-farthest":
        return worst_farthest(folder, count, place)
    problem = "--examples lists questions of runs on babi and nth-farthest"
    raise InputError(describe("report", problem, got=f"{folder}, a run on {kind}", hint="report it without --examples"))


def worst_stories(folder: Path, count: int, place: str) -> list[tuple[Example, Page | None]]:
    """Of a run on bAbI, for every task."""
    loaded = recipes.load(folder)
    reader = StoryReader(loaded.model, loaded.vocabulary, max_sentences=loaded.config.data.max_sentences)
    name = one_line(folder.resolve().name)
    found = []
    for task, stories in test_stories(loaded.config.data)[0].items():
        for worst in worst_questions(reader, stories, count):
            address = page = None
            if isinstance(loaded.model.core, INSPECTED):
                address = f"{place}/task-{task}-{worst.number}.html"
                traced = trace_story(reader, worst.statements, worst.question.text)
                title = f"A look inside {name}: task {task}, {TASK_NAMES[task]}, example {worst.number}"
                page = story_page(traced, right=worst.question.answer, title=title)
            example = Example(
                run=name,
                group=f"{task} {TASK_NAMES[task]}",
                number=worst.number,
                question=worst.question.text,
                right=worst.question.answer,
                answer=worst.answer,
                right_probability=worst.right_probability,
                page=address,
            )
            found.append((example, page))
    return found


def worst_farthest(folder: Path, count: int, place: str) -> list[tuple[Example, Page | None]]:
    """Of a run on N-th farthest, for every n."""
    loaded = recipes.load_task(folder)
    assert isinstance(loaded.config, NthFarthestRun)
    task, batches, name = loaded.config.data, split_batches(loaded.config, "test"), one_line(folder.resolve().name)
    found = []
    for worst in worst_sequences(loaded.model, batches, count):
        batch = batches[worst.batch]
        before = worst.batch * loaded.config.batch_size
        number = before + worst.row + 1
        address = page = None
        if isinstance(loaded.model.core, RelationalMemory):
            address = f"{place}/sequence-{number}.html"
            title = f"A look inside {name}: nth-farthest, example {number}"
            page = farthest_page(loaded.model, task, batch, worst.row + 1, title=title, before=before)
        example = Example(
            run=name,
            group=task.shape.groups[worst.group],
            number=number,
            question=farthest_question(task, batch.inputs[worst.row]),
            right=f"vector {worst.right + 1}",
            answer=f"vector {worst.answer + 1}",
            right_probability=worst.right_probability,
            page=address,
        )
        found.append((example, page))
    return found
