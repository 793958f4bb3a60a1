"""What train babi and compare babi have in common: the recipe that a run starts from, and short options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from relational_rnn._check import InputError, describe
from relational_rnn.cli.training import starting_configuration
from relational_rnn.nn.cores import CORE_NAMES, READ_AS_MATRICES
from relational_rnn.nn.sizes import FAST_WEIGHTS
from relational_rnn.recipes import RECIPES, BabiRun, DataConfig, read_config
from relational_rnn.recipes.babi import RecipeName

SHORT = {"--data": "--data.path", "--partial": "--data.partial"}
"""Options that people type often, and the longer ones behind them."""

BY_ATTENTION = [core for core in CORE_NAMES if core not in READ_AS_MATRICES]
"""The cores whose state a question looks at by attention."""


def starting_run(args: Sequence[str], command: str) -> tuple[RecipeName, BabiRun]:
    """The name of the recipe, and the configuration that the other options start from; see `starting_configuration`."""
    name, config = starting_configuration(args, command, {"babi": RECIPES["babi"], **RECIPES}, read_config)
    if "--resume" not in args and any(word.split("=", 1)[0] == "--data.path" for word in args):
        # How many stories a recipe generates means nothing where they come from files.
        config = replace(config, data=DataConfig(tasks=config.data.tasks, max_sentences=config.data.max_sentences))
    return cast(RecipeName, name), config


def check_typed(args: Sequence[str], command: str, *cores: str) -> None:
    """Refuse sizes of the fast weights, and heads of looks by attention, that were typed where no core has them; those
    of a recipe are there for whoever wants them.

    Raises:
        InputError: names the option, and the cores that have it.
    """
    for option, having in (("--fast.", [FAST_WEIGHTS]), ("--model.read-heads", BY_ATTENTION)):
        typed = [word for word in args if word.replace("_", "-").startswith(option)]
        if typed and not set(having) & set(cores):
            problem = f"{typed[0].split('=')[0]} would have no effect on {', '.join(cores)}"
            noun = "core that has" if len(having) == 1 else "cores that have"
            raise InputError(describe(command, problem, hint=f"the {noun} it: {', '.join(having)}."))
