"""What train babi and compare babi have in common: the recipe that a run starts from, and short options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn.recipes import RECIPES, BabiRun, DataConfig, read_config

RecipeName = Literal["babi", "demo"]
"""The names of `RECIPES`, for the help text."""


SHORT = {"--data": "--data.path", "--partial": "--data.partial"}
"""Options that people type often, and the longer ones behind them."""


def spell_out(args: Sequence[str]) -> list[str]:
    """Words with the short options replaced by the ones behind them.

    >>> spell_out(["--data", "babi.tar.gz", "--data=x", "--partial", "--data.language", "en"])
    ['--data.path', 'babi.tar.gz', '--data.path=x', '--data.partial', '--data.language', 'en']
    """
    names = [word.split("=", 1)[0] for word in args]
    return [SHORT.get(name, name) + word[len(name) :] for name, word in zip(names, args, strict=True)]


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
    config = RECIPES[name]()
    if any(word.split("=", 1)[0] == "--data.path" for word in args):
        # How many stories a recipe generates means nothing where they come from files.
        config = replace(config, data=DataConfig(tasks=config.data.tasks, max_sentences=config.data.max_sentences))
    return name, config
