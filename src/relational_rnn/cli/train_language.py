"""relational-rnn train language"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from relational_rnn import recipes
from relational_rnn.cli.parsing import parse_arguments, spell_out
from relational_rnn.cli.training import starting_configuration, train_and_say
from relational_rnn.tasks.language.corpus import CorpusConfig
from relational_rnn.training import Outcome

COMMAND = "train language"
EXAMPLES = (
    "relational-rnn train language --data data/tiny-shakespeare.txt --out runs/shakespeare/rmc-0",
    "relational-rnn train language --recipe wikitext-2-small --data data/wikitext-2 --core lstm",
    "relational-rnn train language --data my-notes.txt --data.vocabulary bpe --data.vocabulary-size 2000",
    "relational-rnn train language --out runs/shakespeare/rmc-0 --resume",
)
RecipeName = Literal["shakespeare-char", "wikitext-2", "wikitext-2-small", "wikitext-103"]
"""The names of `LANGUAGE_RECIPES`, for the help text."""
SHORT = {"--data": "--data.path"}
"""An option that people type often, and the longer one behind it."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Train one model to predict a text and keep everything about it in a run folder.

    With `--data PATH` (short for --data.path) it reads a text file, which is split into training, validation and test
    text, or a folder or an archive with these three. A recipe sets all options below at once (the defaults shown are
    those of the chosen one), and each can then be changed.
    """

    recipe: RecipeName = "shakespeare-char"
    """What the options start from."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run folder; by default runs/TEXT/CORE-SEED after the name of the text, or runs/RECIPE/CORE-SEED where a
    recipe is asked for."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run in --out, under the configuration it began with."""
    config: Annotated[recipes.LanguageRun, tyro.conf.arg(name="")]
    """The run."""


def starting_run(args: Sequence[str], command: str) -> tuple[str, recipes.LanguageRun]:
    """The name of the recipe, and the configuration that the other options start from."""
    return starting_configuration(args, command, recipes.LANGUAGE_RECIPES, recipes.read_language_config)


def parse(args: Sequence[str]) -> Arguments:
    words = spell_out(args, SHORT)
    recipe, config = starting_run(words, COMMAND)
    default = Arguments(recipe=recipe, config=config)  # type: ignore[arg-type]  # a name that is not known never comes back
    arguments = parse_arguments(Arguments, words, command=COMMAND, examples=EXAMPLES, default=default)
    run = arguments.config
    out = arguments.out or named_after(words, recipe, run.data) / f"{run.core}-{run.seed}"
    return dataclasses.replace(arguments, out=out)


def named_after(args: Sequence[str], recipe: str, data: CorpusConfig) -> Path:
    """Where runs go whose folder is not named: after the recipe that is asked for in the words, else after the text."""
    asked = any(word.split("=", 1)[0] == "--recipe" for word in args)
    if asked or data.path is None:
        return Path("runs") / recipe
    path = Path(data.path).absolute()
    name = path.name if path.is_dir() else path.stem.removesuffix(".tar")
    return Path("runs") / (name or recipe)


def run(arguments: Arguments) -> None:
    config, folder = arguments.config, arguments.out
    assert folder is not None
    train_and_say(
        COMMAND, folder, lambda: recipes.train_language(config, folder, resume=arguments.resume), best=best_loss
    )


def best_loss(outcome: Outcome) -> str:
    """The best weights of a run by what they were chosen by."""
    loss = outcome.valid_loss
    bits, perplexity = loss / math.log(2), math.exp(min(loss, 700))
    return f"best validation loss {loss:.3f} nats per token ({bits:.3f} bits, perplexity {perplexity:,.1f})"
