"""The table of commands, and how one is found and loaded."""

from __future__ import annotations

import difflib
import importlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from relational_rnn._check import InputError, describe, need_extra
from relational_rnn.tasks import asks, names

CORPORA = {
    "wikitext-2": "download WikiText-2, 2 million words",
    "wikitext-103": "download WikiText-103, 103 million words",
    "tiny-shakespeare": "download tiny-shakespeare, 1 million characters",
    "gutenberg": "download the books of PG-19, or some of them",
}
"""Published texts, each with its line; `data fetch` has a command for every one of them."""
GROUPS = {
    "train": {
        "demo": "train six models, compare them, and let them answer",
        **{f"train {task}": f"train one model: {asks(task)}" for task in names()},
        **{f"compare {task}": f"train several models: {asks(task)}" for task in names()},
    },
    "use a trained model": {
        "evaluate": "measure a trained run on its test set, group by group",
        "ask": "type a story and questions; see what answers rest on",
        "generate": "let a language model go on with a text",
        "inspect": "make a page of what a memory attends to and keeps",
        "report": "make one HTML page and SVG figures from finished runs",
    },
    "data and measurements": {
        "data generate babi": "write generated stories in the published format",
        "data fetch babi": "download the published bAbI archive",
        **{f"data fetch {corpus}": line for corpus, line in CORPORA.items()},
        "data compare": "hold generated stories against published ones",
        "benchmark": "time and memory of the layer, beside PyTorch's own",
    },
}
IN_SHORT = {
    "train": "train one model; WHAT: {words}",
    "compare": "train several under several seeds, print one table",
    "data fetch": "download WHAT: {words}",
}
"""What the help of the whole program says of commands that differ in their last word."""
COMMANDS = {name: line for group in GROUPS.values() for name, line in group.items()}
"""Every command with its one line; `train TASK` lives in train.py, `data fetch babi` in data_fetch_babi.py, those of
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
    if verb in ("train", "compare"):
        return getattr(importlib.import_module(f"relational_rnn.cli.{verb}"), verb.capitalize())(task)
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


def overview(start: Sequence[str] = (), width: int = 100) -> str:
    """The help of the whole program, or of the commands that begin with `start`.

    That of the whole program names commands that differ in a task or a corpus in one line, so that it fits a screen.

    >>> print(overview(["data"], width=70))
    usage: relational-rnn data COMMAND [OPTIONS]
    <BLANKLINE>
    data and measurements:
      data generate babi           write generated stories in the
                                   published format
      data fetch babi              download the published bAbI archive
      data fetch wikitext-2        download WikiText-2, 2 million words
      data fetch wikitext-103      download WikiText-103, 103 million
                                   words
      data fetch tiny-shakespeare  download tiny-shakespeare, 1 million
                                   characters
      data fetch gutenberg         download the books of PG-19, or some of
                                   them
      data compare                 hold generated stories against
                                   published ones
    <BLANKLINE>
    `relational-rnn COMMAND --help` lists the options of a command and
    ends with an example.
    """
    chosen = {
        title: {name: line for name, line in group.items() if name.split()[: len(start)] == list(start)}
        for title, group in GROUPS.items()
    }
    chosen = {title: group for title, group in chosen.items() if group}
    if not chosen:
        raise unknown_command(start)
    if not start:
        chosen = {title: _in_short(group) for title, group in chosen.items()}
    wide = max(len(name) for group in chosen.values() for name in group)
    lines = [f"usage: {' '.join(['relational-rnn', *start])} COMMAND [OPTIONS]", ""]
    for title, group in chosen.items():
        lines.append(f"{title}:")
        for name, line in group.items():
            lines += _fill(f"  {name:<{wide}}  {line}", width, " " * (wide + 4))
    closing = "`relational-rnn COMMAND --help` lists the options of a command and ends with an example."
    if not start:
        closing = "`relational-rnn COMMAND --help` says more, also of train, compare and data."
    lines += ["", *_fill(closing, width)]
    return "\n".join([*lines, *([] if start else ["", "example:", "  relational-rnn demo"])])


def _in_short(group: Mapping[str, str]) -> dict[str, str]:
    """The commands of a group; those that differ in their last word only are one, with all these words."""
    words: dict[str, list[str]] = {}
    for name in group:
        start, _, word = name.rpartition(" ")
        words.setdefault(start if start in IN_SHORT else name, []).append(word)
    return {
        f"{name} WHAT" if name in IN_SHORT else name: IN_SHORT[name].format(words=", ".join(these))
        if name in IN_SHORT
        else group[name]
        for name, these in words.items()
    }


def _fill(line: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
