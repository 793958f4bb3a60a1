"""relational-rnn train babi"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from relational_rnn import recipes
from relational_rnn.cli.babi_options import SHORT, RecipeName, check_typed, starting_run
from relational_rnn.cli.parsing import parse_arguments, spell_out
from relational_rnn.cli.training import train_and_say

COMMAND = "train babi"
EXAMPLES = (
    "relational-rnn train babi --data data/tasks_1-20_v1-2.tar.gz --core rmc --out runs/babi/rmc-0",
    "relational-rnn train babi --recipe demo --core lstm --data.tasks 1 4 --loop.steps 100 --out runs/first",
    "relational-rnn train babi --out runs/first --resume",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Train one model on the bAbI tasks and keep everything about it in a run folder.

    With `--data PATH` it reads the published files, from a folder or an archive, and with `--partial` also a set that
    is not complete (short for --data.path and --data.partial). Without them, stories are generated. A recipe sets all
    options below at once (the defaults shown are those of the chosen one), and each can then be changed.
    """

    recipe: RecipeName = "babi"
    """What the options start from."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run folder; by default runs/RECIPE/CORE-SEED."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run in --out, under the configuration it began with."""
    config: Annotated[recipes.BabiRun, tyro.conf.arg(name="")]
    """The run."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / self.recipe / f"{self.config.core}-{self.config.seed}"


def parse(args: Sequence[str]) -> Arguments:
    words = spell_out(args, SHORT)
    recipe, config = starting_run(words, COMMAND)
    default = Arguments(recipe=recipe, config=config)
    arguments = parse_arguments(Arguments, words, command=COMMAND, examples=EXAMPLES, default=default)
    check_typed(words, COMMAND, arguments.config.core)
    return arguments


def run(arguments: Arguments) -> None:
    folder = arguments.folder
    train_and_say(COMMAND, folder, lambda: recipes.train(arguments.config, folder, resume=arguments.resume))
