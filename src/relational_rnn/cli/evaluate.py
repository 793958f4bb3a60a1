"""relational-rnn evaluate"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn.console.tables import text_table
from relational_rnn.nn.cores import CORES
from relational_rnn.runs import RunEvaluation, evaluate, read_config, workload_of

EXAMPLES = ("relational-rnn evaluate runs/demo/rmc-0",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Measure a trained run on what it has not learned from: stories, task by task, new sequences, group by group, or a
    whole text, read as one stream with the memory carried from its beginning to its end.

    The result on the run's own test set is kept in its folder (result.json), where `report` finds it.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a trained run."""
    split: Literal["test", "valid"] = "test"
    """The test set, or the validation set that the best weights were chosen on."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """bAbI: other test stories than the run's own, a folder or an archive in the published format. Language: another
    text, a file."""
    partial: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """bAbI, with --data: take a set that is not complete, and say what is missing."""


def run(arguments: Arguments) -> None:
    if arguments.partial and arguments.data is None:
        raise InputError(describe("evaluate", "--partial has no effect without --data"))
    data = None
    if arguments.data is not None:
        config = read_config(arguments.run)
        data = workload_of(config.task_name).other_data(config, arguments.data, partial=arguments.partial)
    print(measurement(evaluate(arguments.run, split=arguments.split, data=data)))


def measurement(found: RunEvaluation) -> str:
    """What was measured of a run: notes, tables, then one line about the whole."""
    blocks = [text_table(*table) for table in found.tables()]
    blocks[0] = "\n".join([*(f"note: {line}" for line in found.report), blocks[0]])
    blocks.append(
        f"{CORES[found.core].label}, seed {found.seed}, {found.task}: {found.summary()}; {found.parameters:,} "
        f"parameters, {found.state_bytes:,} bytes of state, {found.steps:,} steps in {found.train_seconds:,.0f} s"
    )
    return "\n\n".join(blocks)
