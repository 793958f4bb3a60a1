"""relational-rnn evaluate"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from relational_rnn import recipes
from relational_rnn._check import InputError, describe
from relational_rnn.cli.parsing import parse_arguments
from relational_rnn.cli.tables import text_table
from relational_rnn.nn.cores import CORES
from relational_rnn.tasks.babi.story import TASK_NAMES

EXAMPLES = ("relational-rnn evaluate runs/demo/rmc-0",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Measure a trained run on stories it has not learned from, task by task.

    The result on the run's own test stories is kept in its folder (result.json), where `report` finds it.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a trained run."""
    split: Literal["test", "valid"] = "test"
    """Test stories, or the validation stories that the best weights were chosen on."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Other test stories than the run's own: a folder or an archive in the published format."""
    partial: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """With --data: take a set that is not complete, and say what is missing."""


def parse(args: Sequence[str]) -> Arguments:
    arguments = parse_arguments(Arguments, args, command="evaluate", examples=EXAMPLES)
    if arguments.partial and arguments.data is None:
        raise InputError(describe("evaluate", "--partial has no effect without --data"))
    return arguments


def run(arguments: Arguments) -> None:
    data = None
    if arguments.data is not None:
        own = recipes.read_config(arguments.run).data
        data = recipes.DataConfig(
            path=arguments.data,
            partial=arguments.partial,
            language=own.language,
            tasks=own.tasks,
            max_sentences=own.max_sentences,
        )
    found = recipes.evaluate(arguments.run, split=arguments.split, data=data)
    for line in found.report:
        print(f"note: {line}")
    rows = [[f"{task} {TASK_NAMES[task]}", f"{100 * accuracy:.1f}"] for task, accuracy in found.per_task.items()]
    print(text_table(["task", "accuracy, %"], [*rows, ["mean", f"{100 * found.mean_accuracy:.1f}"]]))
    print(
        f"\n{CORES[found.core].label}, seed {found.seed}: {found.tasks_above_95} of {len(rows)} tasks above 95 % on "
        f"{found.questions:,} {found.split} questions; {found.parameters:,} parameters, {found.state_bytes:,} bytes of "
        f"state, {found.steps:,} steps in {found.train_seconds:,.0f} s"
    )
