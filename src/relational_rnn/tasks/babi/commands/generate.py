"""relational-rnn data generate babi"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn.console.tables import shown
from relational_rnn.tasks.babi.problem import test_stories, training_stories
from relational_rnn.tasks.babi.recipes import DataConfig
from relational_rnn.tasks.babi.story import TASK_NAMES
from relational_rnn.tasks.babi.writing import write_babi

EXAMPLES = (
    "relational-rnn data generate babi --out data/generated --questions 1000 --seed 0",
    "relational-rnn data generate babi --out data/two --questions 200 --tasks 1 17",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Write generated bAbI stories in the published file format: a training and a test file for each task.

    The same seed gives the same files. They can be read wherever the published ones can.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """A new or empty folder for the files."""
    questions: int = 1000
    """Training questions of each task."""
    test_questions: int = 1000
    """Test questions of each task."""
    seed: int = 0
    """Another seed gives other stories."""
    tasks: tuple[int, ...] = tuple(TASK_NAMES)
    """Which of the 20 tasks."""


def run(arguments: Arguments) -> None:
    where, out, tasks = "data generate babi", arguments.out, arguments.tasks
    if out.is_dir() and any(out.iterdir()):
        raise InputError(describe(where, "this folder is not empty", got=out, hint="name a new one"))
    # The same stories as a run learns from, and is measured on, that generates its own.
    data = DataConfig(
        tasks=tasks, train_questions=arguments.questions, test_questions=arguments.test_questions, seed=arguments.seed
    )
    write_babi(out, training_stories(data).train, test_stories(data)[0])
    counts = f"{arguments.questions:,} training and {arguments.test_questions:,} test questions"
    print(f"{out}: {2 * len(tasks)} files, {counts} of each task")
    chosen = [] if tasks == tuple(TASK_NAMES) else ["--data.tasks", *tasks]
    print(f"train on it with: {shown('relational-rnn', 'train', 'babi', '--data', out, *chosen)}")
