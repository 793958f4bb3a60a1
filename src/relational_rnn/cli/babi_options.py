"""What train babi and compare babi have in common: the recipe that a run starts from, and the short `--data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn.recipes import RECIPES, BabiRun, read_config

RecipeName = Literal["babi", "demo"]
"""The names of `RECIPES`, for the help text."""


def spell_out(args: Sequence[str]) -> list[str]:
    """`--data PATH` is what people type; the option behind it is `--data.path`.

    >>> spell_out(["--data", "babi.tar.gz", "--data=x", "--data.language", "en"])
    ['--data.path', 'babi.tar.gz', '--data.path=x', '--data.language', 'en']
    """
    return ["--data.path" + word[6:] if word == "--data" or word.startswith("--data=") else word for word in args]


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """The options that decide which configuration the others change."""

    recipe: RecipeName | None = None
    """A recipe."""
    out: Path | None = None
    """A run folder."""
    resume: bool = False
    """Take the configuration of the run folder."""


def starting_configuration(args: Sequence[str], command: str) -> tuple[RecipeName, BabiRun]:
    """The name of the recipe, and the configuration that the other options start from: its own, or a resumed run's.

    Raises:
        InputError: `--resume` without `--out`, with `--recipe`, or where there is no run.
    """
    start, _ = tyro.cli(
        Start, args=list(args), prog=f"relational-rnn {command}", return_unknown_args=True, add_help=False
    )
    if start.resume and not {"-h", "--help"} & set(args):
        if start.out is None:
            raise InputError(describe(command, "--resume needs to know which run", hint="name its folder with --out"))
        if start.recipe is not None:
            problem = "--resume goes on with the configuration of the run, so --recipe has no place"
            raise InputError(describe(command, problem, got=f"--recipe {start.recipe}"))
        return "babi", read_config(start.out)
    name = start.recipe or "babi"
    return name, RECIPES[name]()
