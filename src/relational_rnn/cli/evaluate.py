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


def parse(args: Sequence[str]) -> Arguments:
    arguments = parse_arguments(Arguments, args, command="evaluate", examples=EXAMPLES)
    if arguments.partial and arguments.data is None:
        raise InputError(describe("evaluate", "--partial has no effect without --data"))
    return arguments


def run(arguments: Arguments) -> None:
    task = recipes.task_of(arguments.run)
    if task == "language":
        if arguments.partial:
            raise InputError(describe("evaluate", "--partial has no effect on a text"))
        print(text_measurement(recipes.evaluate_language(arguments.run, split=arguments.split, text=arguments.data)))
        return
    if task != "babi":
        if arguments.data is not None:
            raise InputError(describe("evaluate", f"--data has no effect: the sequences of {task} are generated"))
        print(task_measurement(recipes.evaluate_task(arguments.run, split=arguments.split)))
        return
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


def task_measurement(found: recipes.TaskEvaluation) -> str:
    """What was measured of a run on a generated task: a row per group, then one line."""
    whole = found.per_group_whole != found.per_group
    rows = [
        [name, f"{100 * accuracy:.1f}", *([f"{100 * found.per_group_whole[name]:.1f}"] if whole else [])]
        for name, accuracy in found.per_group.items()
    ]
    rows.append(["mean", f"{100 * found.mean_accuracy:.1f}", *([f"{100 * found.whole_accuracy:.1f}"] if whole else [])])
    if found.mean_beyond is not None:
        rows[-1][0] = "mean of what was trained"
        rows.append(["mean beyond", f"{100 * found.mean_beyond:.1f}", *([""] if whole else [])])
    head = ["group", "accuracy, %", *(["whole answers, %"] if whole else [])]
    lines = [f"note: {line}" for line in found.report]
    lines.append(text_table(head, rows))
    lines.append(
        f"\n{CORES[found.core].label}, seed {found.seed}, {found.task}: {found.sequences:,} {found.split} sequences; "
        f"{found.parameters:,} parameters, {found.state_bytes:,} bytes of state, {found.steps:,} steps in "
        f"{found.train_seconds:,.0f} s"
    )
    return "\n".join(lines)


def text_measurement(found: recipes.LanguageEvaluation) -> str:
    """What was measured of a run on language: by frequency, by what is forgotten, then the whole."""
    lines = [f"note: {line}" for line in found.report]
    if found.per_group:
        rows = [
            [name, f"{found.per_group_tokens[name]:,}", f"{perplexity:,.2f}", f"{100 * found.per_group[name]:.1f}"]
            for name, perplexity in found.per_group_perplexity.items()
        ]
        lines += [text_table(["occurrences in training", "tokens", "perplexity", "accuracy, %"], rows), ""]
    rows = [
        [f"every {k:,} tokens", f"{figures['perplexity']:,.2f}", f"{figures['bits_per_character']:.4f}"]
        for k, figures in found.resets.items()
    ]
    rows.append(["never", f"{found.perplexity:,.2f}", f"{found.bits_per_character:.4f}"])
    lines.append(text_table(["memory reset", "perplexity per word", "bits per character"], rows))
    lines.append(
        f"\n{CORES[found.core].label}, seed {found.seed}: perplexity {found.perplexity:,.2f} per word, "
        f"{found.bits_per_character:.4f} bits per character, {100 * found.mean_accuracy:.1f} % of {found.tokens:,} "
        f"{found.split} tokens right; {found.parameters:,} parameters, {found.state_bytes:,} bytes of state, "
        f"{found.steps:,} steps in {found.train_seconds:,.0f} s"
    )
    return "\n".join(lines)
