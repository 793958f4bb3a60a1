"""What the commands that train have in common: the configuration that the options start from, and how a run ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn.cli.tables import shown
from relational_rnn.training import Outcome, Terminated

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """The options that decide which configuration the others change."""

    recipe: str | None = None
    """A recipe."""
    out: Path | None = None
    """A run folder."""
    resume: bool = False
    """Take the configuration of the run folder."""


def starting_configuration(
    args: Sequence[str], command: str, recipes: Mapping[str, Callable[[], Config]], read: Callable[[Path], Config]
) -> tuple[str, Config]:
    """The name of the recipe, and the configuration that the other options start from: its own, or a resumed run's.

    Args:
        args: the words after the command.
        command: the command as it is typed, without the name of the program.
        recipes: by name; the first one is the default, and an unknown name is left to the command's own parser.
        read: the configuration of the run in a folder.

    Raises:
        InputError: `--resume` without `--out`, with `--recipe`, or where there is no such run.
    """
    start, _ = tyro.cli(
        Start, args=list(args), prog=f"relational-rnn {command}", return_unknown_args=True, add_help=False
    )
    first = next(iter(recipes))
    if start.resume and not {"-h", "--help"} & set(args):
        if start.out is None:
            raise InputError(describe(command, "--resume needs to know which run", hint="name its folder with --out"))
        if start.recipe is not None:
            problem = "--resume goes on with the configuration of the run, so --recipe has no place"
            raise InputError(describe(command, problem, got=f"--recipe {start.recipe}"))
        return first, read(start.out)
    name = start.recipe if start.recipe is not None and start.recipe in recipes else first
    return name, recipes[name]()


def best_accuracy(outcome: Outcome) -> str:
    """The best weights of a run by their accuracy."""
    return f"best validation accuracy {outcome.valid_accuracy:.1%}"


def train_and_say(
    command: str, folder: Path, train: Callable[[], Outcome], best: Callable[[Outcome], str] = best_accuracy
) -> None:
    """Train a run and print what came of it, with `best` for the best weights, or how to go on with it after Ctrl-C."""
    try:
        outcome = train()
    except (KeyboardInterrupt, Terminated) as stop:
        where, *more = str(stop).splitlines() or ["nothing was begun"]
        again = (
            f"; go on with: {shown('relational-rnn', *command.split(), '--out', folder, '--resume')}" if more else ""
        )
        raise type(stop)(where + again) from stop
    print(
        f"{folder}: {outcome.steps:,} steps in {outcome.seconds:,.0f} s; {best(outcome)} after step "
        f"{outcome.best_step:,}"
    )
    print(f"measure it with: {shown('relational-rnn', 'evaluate', folder)}")
