"""relational-rnn train TASK, for every generated task"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relational_rnn.cli.parsing import parse_arguments
from relational_rnn.cli.task_options import starting_run, train_arguments
from relational_rnn.cli.training import train_and_say
from relational_rnn.recipes.task_runs import train_task
from relational_rnn.recipes.tasks import TASK_RECIPES

DESCRIPTION = """Train one model on the task {task} and keep everything about it in a run folder.

A recipe sets all options below at once (the defaults shown are those of the chosen one), and each can then be changed.
"""


class TrainTask:
    """The command `train TASK` of one task."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.command = f"train {task}"
        recipe = next(iter(TASK_RECIPES[task]))
        self.EXAMPLES = (
            f"relational-rnn train {task} --core lstm --loop.steps 100 --out runs/first",
            f"relational-rnn train {task} --recipe {recipe} --seed 1",
            f"relational-rnn train {task} --out runs/first --resume",
        )

    def parse(self, args: Sequence[str]) -> Any:
        recipe, config = starting_run(self.task, args, self.command)
        kind = train_arguments(self.task, DESCRIPTION.format(task=self.task))
        default = kind(recipe=recipe, config=config)
        return parse_arguments(kind, args, command=self.command, examples=self.EXAMPLES, default=default)

    def run(self, arguments: Any) -> None:
        config = arguments.config
        folder: Path = arguments.out or Path("runs") / arguments.recipe / f"{config.core}-{config.seed}"
        train_and_say(self.command, folder, lambda: train_task(config, folder, resume=arguments.resume))
