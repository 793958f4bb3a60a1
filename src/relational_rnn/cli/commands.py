"""The table of commands, and how one is found and loaded."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

from relational_rnn._check import InputError, describe, need_extra

TASKS = {
    "nth-farthest": "which vector is the n-th farthest from another",
    "programs": "what a short program prints",
    "memorize": "a sequence given back as it was, reversed, or twice",
    "relations": "who is older, greater, above or left, over chains of comparisons",
    "associative-recall": "the values that keys were paired with",
}
"""The generated tasks, each in a few words; `train` and `compare` have a command for every one of them."""
CORPORA = {
    "wikitext-2": "download WikiText-2, 2 million words",
    "wikitext-103": "download WikiText-103, 103 million words",
    "tiny-shakespeare": "download tiny-shakespeare, 1 million characters",
    "gutenberg": "download the books of PG-19, or some of them",
}
"""Published texts, each with its line; `data fetch` has a command for every one of them."""
COMMANDS = {
    "demo": "train six models on generated stories, compare them, and let them answer questions",
    "train babi": "train one model on the bAbI tasks",
    **{f"train {task}": f"train one model: {line}" for task, line in TASKS.items()},
    "train language": "train one model on a text, to predict its next character, word or byte pair",
    "compare babi": "train several models under several seeds and print one table",
    **{f"compare {task}": f"train several models: {line}" for task, line in TASKS.items()},
    "compare language": "train several models on a text under several seeds",
    "evaluate": "measure a trained run on its test set, group by group",
    "generate": "let a language model go on with a text",
    "ask": "type a story, ask questions about it, and see which sentences the answer rests on",
    "inspect": "make one HTML page that shows what the memory attends to, keeps and forgets along a story",
    "report": "make one HTML page and SVG figures from finished runs",
    "benchmark": "measure what the layer costs on this machine, beside PyTorch's LSTM and Transformer",
    "data generate babi": "write generated stories in the published file format",
    "data fetch babi": "download the published bAbI archive",
    **{f"data fetch {corpus}": line for corpus, line in CORPORA.items()},
    "data compare": "hold generated stories against published ones, task by task",
}
"""Every command with its one line; `train babi` lives in train_babi.py, those of generated tasks in *_task.py, those of
published texts in data_fetch_corpus.py."""


class Command(Protocol):
    """What the file of a command defines, or an object that stands for it."""

    EXAMPLES: tuple[str, ...]
    """Lines that can be pasted into a shell; the help ends with them."""

    def parse(self, args: Sequence[str]) -> Any:
        """The typed arguments; prints help or the mistake and exits where that is due."""
        ...

    def run(self, arguments: Any) -> None:
        """Do it and print what came of it; exit with 1 where that is an answer of "no" to what was asked."""
        ...


def find_command(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """The command that `words` begin with, and the words after it; None when they begin with none."""
    for size in (1, 2, 3):
        name = " ".join(words[:size])
        if name in COMMANDS:
            return name, list(words[size:])
    return None


def load_command(name: str) -> Command:
    """Import the file of a command."""
    need_extra("tyro", "train", f"relational-rnn {name}")
    verb, _, task = name.partition(" ")
    if task in TASKS:
        if verb == "train":
            return importlib.import_module("relational_rnn.cli.train_task").TrainTask(task)
        return importlib.import_module("relational_rnn.cli.compare_task").CompareTask(task)
    if name.removeprefix("data fetch ") in CORPORA:
        return importlib.import_module("relational_rnn.cli.data_fetch_corpus").FetchCorpus(name.split()[-1])
    return cast(Command, importlib.import_module(f"relational_rnn.cli.{name.replace(' ', '_')}"))


def unknown_command(words: Sequence[str]) -> InputError:
    """The mistake of words that name no command, with the nearest commands."""
    plain = [word for word in words if not word.startswith("-")][:3]
    given = " ".join(plain) or words[0]
    longer = [name for name in COMMANDS if plain and name.split()[: len(plain)] == plain]
    pool = [name for name in COMMANDS if plain and name.split()[0] == plain[0]] or list(COMMANDS)
    starts = {name: " ".join(name.split()[: max(1, len(plain))]) for name in pool}
    near = longer or [
        name for name, start in starts.items() if difflib.get_close_matches(given, [start, name], cutoff=0.6)
    ]
    return InputError(
        describe(
            "relational-rnn",
            f"{given!r} is {'only the beginning of' if longer else 'not'} a command",
            expected=", ".join(near or COMMANDS),
            hint="relational-rnn --help lists all commands",
        )
    )


def overview(start: Sequence[str] = ()) -> str:
    """The help of the whole program, or of the commands that begin with `start`.

    >>> print(overview(["data"]))
    usage: relational-rnn data COMMAND [OPTIONS]
    <BLANKLINE>
    commands:
      data generate babi           write generated stories in the published file format
      data fetch babi              download the published bAbI archive
      data fetch wikitext-2        download WikiText-2, 2 million words
      data fetch wikitext-103      download WikiText-103, 103 million words
      data fetch tiny-shakespeare  download tiny-shakespeare, 1 million characters
      data fetch gutenberg         download the books of PG-19, or some of them
      data compare                 hold generated stories against published ones, task by task
    <BLANKLINE>
    `relational-rnn COMMAND --help` lists the options of a command and ends with an example.
    """
    chosen = {name: line for name, line in COMMANDS.items() if name.split()[: len(start)] == list(start)}
    if not chosen:
        raise unknown_command(start)
    width = max(map(len, chosen))
    lines = [
        f"usage: {' '.join(['relational-rnn', *start])} COMMAND [OPTIONS]",
        "",
        *([] if start else ["Recurrent networks with a relational memory: train, compare, ask.", ""]),
        "commands:",
        *(f"  {name:<{width}}  {line}" for name, line in chosen.items()),
        "",
        "`relational-rnn COMMAND --help` lists the options of a command and ends with an example.",
        *([] if start else ["", "example:", "  relational-rnn demo"]),
    ]
    return "\n".join(lines)
