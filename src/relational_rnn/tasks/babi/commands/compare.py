"""relational-rnn data compare"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn._files import write_whole
from relational_rnn.console.tables import text_table
from relational_rnn.tasks.babi.generation import generate
from relational_rnn.tasks.babi.likeness import RESAMPLES, SETS, SHARES, Verdict, compare_stories
from relational_rnn.tasks.babi.reading import LANGUAGES, read_babi
from relational_rnn.tasks.babi.story import TASK_NAMES, Story

EXAMPLES = (
    "relational-rnn data compare data/tasks_1-20_v1-2.tar.gz",
    "relational-rnn data compare data/tasks_1-20_v1-2.tar.gz --language en --tasks 1 17 --json compared.json",
)
DIFFERENT = 1
"""The exit code where a quantity is out of bounds."""
HEAD = ("task", *SETS, *SHARES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Hold generated stories against the training files of the published ones, task by task.

    Words and answers must be the same. Each answer, each number of sentences before a question, each number of
    supporting facts and each of their positions (counted back from the question), and of numbers also "at most so
    many", must come up as often, within the larger of 2 percentage points and 3 standard errors of the published share.
    The standard error is bootstrapped over stories. The exit code is 0 if all of this holds and 1 if some does not.
    """

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """A folder or an archive in the published format."""
    language: str = "en-10k"
    """Which of the published folders, e.g. en."""
    tasks: tuple[int, ...] = tuple(TASK_NAMES)
    """Which of the 20 tasks."""
    partial: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take a set that is not complete, and say what is missing; fewer stories have wider bounds."""
    seed: int = 0
    """Of the generated stories."""
    questions: int = 40_000
    """Generated questions of each task; with few of them, their own chance makes differences."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the verdicts to this file too."""


def run(arguments: Arguments) -> None:
    check_positive("data compare", questions=arguments.questions)
    check_choice("data compare", "language", arguments.language, LANGUAGES)
    read = read_babi(arguments.path, language=arguments.language, partial=arguments.partial, tasks=arguments.tasks)
    if not read.train:
        problem = "there is no training file of the tasks asked for"
        raise InputError(describe(str(arguments.path), problem, got=arguments.tasks))
    # Of the report, what is missing; that test stories are repeated plays no part here.
    notes = [line for line in read.report if " stand in the training file" not in line]
    for line in notes:
        print(f"note: {line}")
    print(
        f"{arguments.questions:,} generated questions of each task (seed {arguments.seed}), {arguments.language} "
        "training files; largest deviation / its bound in percentage points\n",
        flush=True,
    )
    verdicts = {
        task: compare_stories(stories, generate(task, arguments.seed, questions=arguments.questions))
        for task, stories in sorted(read.train.items())
    }
    print(text_table(HEAD, table_rows(verdicts)))
    wrong = failures(verdicts)
    total = sum(map(len, verdicts.values()))
    print(f"\n{total - len(wrong)} of {total} verdicts hold")
    for line in wrong:
        print(f"out of bounds: {line}")
    if arguments.json is not None:
        content = as_json(arguments, notes, read.train, verdicts)
        write_whole(arguments.json, json.dumps(content, indent=1) + "\n")
        print(arguments.json)
    if wrong:
        sys.stdout.flush()
        raise SystemExit(DIFFERENT)


def table_rows(verdicts: Mapping[int, Sequence[Verdict]]) -> list[list[str]]:
    """One row for each task, under `HEAD`."""
    return [[f"{task} {TASK_NAMES[task]}", *map(_cell, of_task)] for task, of_task in verdicts.items()]


def _cell(verdict: Verdict) -> str:
    if verdict.quantity in SETS:
        text = "equal" if verdict.holds else f"{verdict.deviation:.0f} differ"
    else:
        text = f"{100 * verdict.deviation:.2f} / {100 * verdict.bound:.2f}"
    return text if verdict.holds else f"{text} OUT"


def failures(verdicts: Mapping[int, Sequence[Verdict]]) -> list[str]:
    """A line for each verdict that does not hold."""
    lines = []
    for task, verdict in ((task, v) for task, of_task in verdicts.items() for v in of_task if not v.holds):
        found = verdict.where
        if verdict.quantity in SHARES:
            found += f": published {100 * verdict.published:.2f} %, generated {100 * verdict.generated:.2f} %"
        lines.append(f"task {task}, {verdict.quantity}, {found}")
    return lines


def as_json(
    arguments: Arguments,
    notes: Sequence[str],
    published: Mapping[int, Sequence[Story]],
    verdicts: Mapping[int, Sequence[Verdict]],
) -> dict[str, Any]:
    """What `--json` writes; shares, deviations and bounds are fractions of 1."""
    return {
        "language": arguments.language,
        "generated": {"seed": arguments.seed, "questions": arguments.questions},
        "bootstrap_resamples": RESAMPLES,
        "notes": list(notes),
        "tasks": [
            {
                "task": task,
                "name": TASK_NAMES[task],
                "published_stories": len(published[task]),
                "published_questions": sum(len(story.questions) for story in published[task]),
                "verdicts": [asdict(verdict) | {"holds": verdict.holds} for verdict in of_task],
            }
            for task, of_task in verdicts.items()
        ],
    }
