"""relational-rnn train TASK"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from relational_rnn.cli.options import Common, TrainingCommand, check_typed, print_configuration
from relational_rnn.console.tables import shown
from relational_rnn.runs import train
from relational_rnn.training import Terminated


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Options(Common):
    """What is no part of the run's configuration."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run folder; by default runs/RECIPE/CORE-SEED, on a text runs/TEXT/CORE-SEED."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run in --out, under the configuration it began with."""


class Train(TrainingCommand):
    """The command `train TASK` of one task."""

    options = Options
    description = """Train one model on {task} and keep everything about it in a run folder.

{data}A recipe sets all options below at once (the defaults shown are those of the chosen one), and each can then be
changed.
"""

    def parse(self, args: Sequence[str]) -> Any:
        arguments, words = self.typed(args, self.workload.config)
        run = arguments.run
        check_typed(words, self.command, [run.core])
        out = arguments.out or self.folder(arguments, words) / f"{run.core}-{run.seed}"
        return dataclasses.replace(arguments, out=out)

    def run(self, arguments: Any) -> None:
        config, folder = arguments.run, arguments.out
        if arguments.print_config:
            print_configuration(config)
            return
        try:
            outcome = train(config, folder, resume=arguments.resume)
        except (KeyboardInterrupt, Terminated) as stop:
            where, *more = str(stop).splitlines() or ["nothing was begun"]
            again = shown("relational-rnn", *self.command.split(), "--out", folder, "--resume")
            raise type(stop)(where + (f"; go on with: {again}" if more else "")) from stop
        best = self.workload.best(outcome)
        print(f"{folder}: {outcome.steps:,} steps in {outcome.seconds:,.0f} s; {best} after step {outcome.best_step:,}")
        print(f"measure it with: {shown('relational-rnn', 'evaluate', folder)}")
