"""relational-rnn generate"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn.runs import load
from relational_rnn.tasks.language.generating import Sampling, continue_text

EXAMPLES = (
    'relational-rnn generate runs/tiny-shakespeare/rmc-0 --prompt "ROMEO:" --tokens 300 --temperature 0.8',
    'relational-rnn generate runs/wikitext-2-small/rmc-0 --prompt "The river" --top-k 40 --top-p 0.9 --seed 3',
)
LINE_END = "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Let a language model continue a text, and print it as it comes.

    Only the model's state is kept, so a token costs the same time and memory however long the text becomes.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run on language."""
    prompt: str = LINE_END
    """How the text begins; by default with a new line."""
    tokens: int = 500
    """How many characters, words or byte pairs (whatever the run reads) follow."""
    temperature: float = 1.0
    """Below 1 probable tokens become more probable; 0 always takes the most probable one."""
    top_k: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Draw only from the K most probable tokens."""
    top_p: Annotated[float | None, tyro.conf.arg(metavar="P")] = None
    """Draw only from the most probable tokens that have the probability P together."""
    seed: int = 0
    """A different seed gives a different text."""


def run(arguments: Arguments) -> None:
    sampling = Sampling(temperature=arguments.temperature, top_k=arguments.top_k, top_p=arguments.top_p)
    loaded = load(arguments.run, "language")
    if arguments.prompt == LINE_END and loaded.vocabulary.line_end is None:
        problem, hint = "the run knows no line end, with which a text begins by default", 'begin it with --prompt "..."'
        raise InputError(describe("generate", problem, got=str(loaded.vocabulary), hint=hint))
    choices = {"tokens": arguments.tokens, "sampling": sampling, "seed": arguments.seed}
    for piece in continue_text(loaded.model, loaded.vocabulary, arguments.prompt, **choices):
        print(piece, end="", flush=True)
    print()
