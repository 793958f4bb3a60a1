"""relational-rnn inspect"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn.runs import Asked, load
from relational_rnn.tasks import PRETRAINED

EXAMPLES = (
    "relational-rnn inspect --pretrained --text 'Mary went to the garden. John left. Where is Mary?'",
    "relational-rnn inspect runs/demo/rmc-0 --task 2 --example 7 -o story.html",
    "relational-rnn inspect runs/demo/rmc-0 --text 'Mary went to the garden. John left. Where is Mary?'",
    "relational-rnn inspect runs/tiny-shakespeare/rmc-0 --example 5 --statistics",
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Make one HTML page that shows what the memory of a trained run takes, keeps and forgets along a story.

    The page needs no network and no other file. A story's page opens on which slot took which sentence and which slot
    the answer was read from; of fast weights, on what each sentence wrote and which one the answer was read from. Then
    it shows the answer's probability as the story goes on, how much the answer depends on each sentence, and of slots
    every step: attention, gates, the memory and its change; of a language model, every token with its surprise and the
    memory's reaction.
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """Folder of a trained run: on babi with the core rmc, competitive or fastweights, on nth-farthest or language with
    rmc or competitive."""
    pretrained: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Instead of a run, the memory that comes with the package, on bAbI; its examples are generated stories."""
    task: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """bAbI only: task of the example; by default the first one of the run."""
    example: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Which question of the task's test stories, which test sequence, or which piece of the test text (of 200 tokens),
    counted from 1; by default the first."""
    text: str | None = None
    """bAbI: a story and a question of your own, in quotes, instead of an example. Language: a text of your own."""
    statistics: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Add what the attention does over all test stories of the task, the batch of the test sequence, or the first 50
    pieces of the test text, beside this one; slots only."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = Path("inspect.html")
    """The page; an older one is replaced."""


def run(arguments: Arguments) -> None:
    asked = Asked(task=arguments.task, example=arguments.example, text=arguments.text, statistics=arguments.statistics)
    if asked.text is not None and asked.example is not None:
        raise InputError(describe("inspect", "--text and --example exclude each other"))
    if arguments.pretrained == (arguments.run is not None):
        problem = "name one thing to look into: the folder of a run, or --pretrained"
        raise InputError(describe("inspect", problem, got="both" if arguments.pretrained else "neither"))
    loaded = load(arguments.run or PRETRAINED)
    page = loaded.workload.inspect(loaded, asked)
    print(f"{page.save(arguments.out)}  ({len(page.html.encode()) / 1e6:.2f} MB)")
