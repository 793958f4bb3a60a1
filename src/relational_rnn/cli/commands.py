"""The table of commands, and how one is found and loaded."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

from relational_rnn._check import InputError, describe, need_extra

COMMANDS = {
    "demo": "train four models on generated stories, compare them, and let them answer questions",
    "train babi": "train one model on the bAbI tasks",
    "compare babi": "train several models under several seeds and print one table",
    "evaluate": "measure a trained run on its test stories, task by task",
    "ask": "type a story, ask questions about it, and see which sentences the answer rests on",
    "inspect": "make one HTML page that shows what the memory attends to, keeps and forgets along a story",
    "report": "make one HTML page and SVG figures from finished runs",
    "data generate babi": "write generated stories in the published file format",
    "data fetch babi": "download the published bAbI archive",
}
"""Every command with its one line; `train babi` lives in train_babi.py."""


class Command(Protocol):
    """What the file of a command defines."""

    EXAMPLES: tuple[str, ...]
    """Lines that can be pasted into a shell; the help ends with them."""

    def parse(self, args: Sequence[str]) -> Any:
        """The typed arguments; prints help or the mistake and exits where that is due."""
        ...

    def run(self, arguments: Any) -> None:
        """Do it and print what came of it."""
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
    return cast(Command, importlib.import_module(f"relational_rnn.cli.{name.replace(' ', '_')}"))


def unknown_command(words: Sequence[str]) -> InputError:
    """The mistake of words that name no command, with the nearest commands."""
    plain = [word for word in words if not word.startswith("-")][:3]
    given = " ".join(plain) or words[0]
    longer = [name for name in COMMANDS if plain and name.split()[: len(plain)] == plain]
    starts = {name: " ".join(name.split()[: max(1, len(plain))]) for name in COMMANDS}
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
      data generate babi  write generated stories in the published file format
      data fetch babi     download the published bAbI archive
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
