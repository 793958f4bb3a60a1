"""Which operations are learned? `python experiments/programs_by_operation.py runs/programs-control-small/* ...`.

Reads runs on programs of one operation each and the test set of their seeds; prints, for every run and operation, how
many programs there are, the share of their characters, and the share of whole answers, that the model gives right.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch

from relational_rnn.console.boundary import guarded
from relational_rnn.pages import Table
from relational_rnn.runs import load
from relational_rnn.tasks.generated import split_batches
from relational_rnn.tasks.model import whole_answers
from relational_rnn.tasks.programs import CHARACTERS, ProgramsRun

NAMES = {"for": "loops", "if": "choices", "+": "sums", "-": "differences", "*": "products"}
"""What stands in a program of one operation, and what it is then; a loop holds a "+" as well, and comes first."""


def operation_of(program: str) -> str:
    """The operation of a program that has one.

    >>> operation_of("print(384+907)"), operation_of("print((301 if 124<385 else 924))")
    ('sums', 'choices')
    """
    return next(name for part, name in NAMES.items() if part in program)


def by_operation(run: Path) -> dict[str, Counter[str]]:
    """How many of each operation in the test set of a run: programs, characters, right characters, whole answers."""
    loaded = load(run)
    if not isinstance(loaded.config, ProgramsRun) or loaded.config.data.nesting > 1:
        raise SystemExit(f"{run}: not a run on programs of one operation")
    counts = {name: Counter[str]() for name in NAMES.values()}
    for batch in (drawn.to("cpu") for drawn in split_batches(loaded.config, "test")):
        with torch.inference_mode():
            correct = loaded.model(batch).argmax(-1) == batch.targets[batch.asked]
        whole, placed = whole_answers(correct, batch), torch.zeros_like(batch.asked)
        placed[batch.asked] = correct
        for i, program in enumerate(batch.inputs):
            count = counts[operation_of(CHARACTERS.decode(program))]
            count["programs"] += 1
            count["whole"] += int(whole[i])
            count["right"] += int(placed[i].sum())
            count["characters"] += int(batch.asked[i].sum())
    return {name: count for name, count in counts.items() if count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    rows = []
    for run in parser.parse_args().runs:
        for name, count in by_operation(run).items():
            right, whole = count["right"] / count["characters"], count["whole"] / count["programs"]
            rows.append([run.name, name, str(count["programs"]), f"{100 * right:.1f}", f"{100 * whole:.1f}"])
    print(Table(["run", "operation", "programs", "characters, %", "whole answers, %"], rows).markdown())


if __name__ == "__main__":
    raise SystemExit(guarded(main))
