"""relational-rnn train TASK"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from relational_rnn.cli.options import (
    SHARED,
    Common,
    arguments_of,
    check_typed,
    folder_of,
    print_configuration,
    starting,
)
from relational_rnn.console.parsing import parse_arguments, spell_out
from relational_rnn.console.tables import shown
from relational_rnn.runs import Workload, train, workload_of
from relational_rnn.training import Outcome, Terminated

DESCRIPTION = """Train one model on {task} and keep everything about it in a run folder.

{data}A recipe sets all options below at once (the defaults shown are those of the chosen one), and each can then be
changed.
"""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Options(Common):
    """What is no part of the run's configuration."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run folder; by default runs/RECIPE/CORE-SEED, on a text runs/TEXT/CORE-SEED."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run in --out, under the configuration it began with."""


class Train:
    """The command `train TASK` of one task."""

    def __init__(self, command: str) -> None:
        self.workload: Workload[Any] = workload_of(command.split()[-1])
        self.command = command
        examples = (*self.workload.train_examples, "--out runs/first --resume")
        self.EXAMPLES = tuple(f"relational-rnn {command} {words}" for words in examples)

    def parse(self, args: Sequence[str]) -> Any:
        words = spell_out(args, self.workload.short)
        recipe, config = starting(self.workload, words, self.command)
        data = f"{self.workload.data_help} " if self.workload.data_help else ""
        description = DESCRIPTION.format(task=self.workload.name, data=data)
        kind = arguments_of(self.workload, Options, description, self.workload.config)
        default = kind(recipe=recipe, run=config)
        arguments = parse_arguments(
            kind, words, command=self.command, examples=self.EXAMPLES, default=default, shared=SHARED
        )
        run = arguments.run
        check_typed(words, self.command, [run.core])
        out = arguments.out or folder_of(self.workload, run, words, recipe) / f"{run.core}-{run.seed}"
        return dataclasses.replace(arguments, out=out)

    def run(self, arguments: Any) -> None:
        config = arguments.run
        if arguments.print_config:
            print_configuration(config)
            return
        folder = arguments.out
        try:
            outcome = train(config, folder, resume=arguments.resume)
        except (KeyboardInterrupt, Terminated) as stop:
            where, *more = str(stop).splitlines() or ["nothing was begun"]
            again = shown("relational-rnn", *self.command.split(), "--out", folder, "--resume")
            raise type(stop)(where + (f"; go on with: {again}" if more else "")) from stop
        best = BEST[self.workload.best_by](outcome)
        print(f"{folder}: {outcome.steps:,} steps in {outcome.seconds:,.0f} s; {best} after step {outcome.best_step:,}")
        print(f"measure it with: {shown('relational-rnn', 'evaluate', folder)}")


def best_accuracy(outcome: Outcome) -> str:
    """The best weights of a run by their accuracy."""
    return f"best validation accuracy {outcome.valid_accuracy:.1%}"


def best_loss(outcome: Outcome) -> str:
    """The best weights of a run by their loss."""
    loss = outcome.valid_loss
    bits, perplexity = loss / math.log(2), math.exp(min(loss, 700))
    return f"best validation loss {loss:.3f} nats per token ({bits:.3f} bits, perplexity {perplexity:,.1f})"


BEST: dict[str, Callable[[Outcome], str]] = {"accuracy": best_accuracy, "loss": best_loss}
"""How the best weights are told, by what they were chosen by."""
