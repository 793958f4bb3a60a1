"""The table of commands: which there are, and how one is found and loaded."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any

from relational_rnn._check import InputError, describe, need_extra
from relational_rnn._reading.guard import damaged
from relational_rnn.tasks import BUILT_IN_COMMANDS, COMMANDS_GROUP, asks, names, other_commands

_TRAIN, _COMPARE = "relational_rnn.cli.train:Train", "relational_rnn.cli.compare:Compare"
OWN = {
    **{f"train {task}": (_TRAIN, f"train one model: {asks(task)}") for task in names()},
    **{f"compare {task}": (_COMPARE, f"train several models: {asks(task)}") for task in names()},
    "evaluate": ("relational_rnn.cli.evaluate", "measure a trained run on its test set, group by group"),
    "inspect": ("relational_rnn.cli.inspect", "make a page of what a memory attends to and keeps"),
    "report": ("relational_rnn.cli.report", "make one HTML page and SVG figures from finished runs"),
    "benchmark": ("relational_rnn.cli.benchmark", "time and memory of the layer, beside PyTorch's own"),
}
"""The commands of no task in particular: a module or a class (as in `tasks.BUILT_IN_COMMANDS`), and a line."""
GROUPS: dict[str, dict[str, tuple[str, str]]] = {"train": {}, "use a trained model": {}, "data and measurements": {}}
"""The headings of the help, and under each its commands: where one is defined, and a line about it."""
_OTHERS = {name: (where, f"a command of {where}") for name, where in other_commands().items()}
for _name, _command in {**_OTHERS, **BUILT_IN_COMMANDS, **OWN}.items():
    _kind = {"demo": 0, "train": 0, "compare": 0, "data": 2, "benchmark": 2}.get(_name.split()[0], 1)
    list(GROUPS.values())[_kind][_name] = _command
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
IN_SHORT = {
    "train": "train one model; WHAT: {words}",
    "compare": "train several under several seeds, print one table",
    "data fetch": "download WHAT: {words}",
}
"""What the help of the whole program says of commands that differ in their last word."""


def find_command(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """The longest command that `words` begin with, and the words after it, if there is one."""
    found = [size for size in range(len(words), 0, -1) if " ".join(words[:size]) in COMMANDS]
    return (" ".join(words[: found[0]]), list(words[found[0] :])) if found else None


def load_command(name: str) -> Any:
    """Import a command: an object with `EXAMPLES`, `parse(args)` and `run(arguments)`.

    Raises:
        MissingExtraError: tyro is not installed.
        InputError: another package's command cannot be imported, or has a name of this package's.
    """
    need_extra("tyro", "train", f"relational-rnn {name}")
    from relational_rnn.console.parsing import Command

    where, other = COMMANDS[name][0], other_commands().get(name)
    if other not in (None, where):
        problem, hint = f"another package has a command {name!r} too", "give that command another name"
        raise InputError(describe(COMMANDS_GROUP, problem, got=other, hint=hint))
    problem = f"the command {name!r} of another package cannot be loaded"
    with damaged(where, problem) if other is not None else contextlib.nullcontext():  # a fault of our own is a bug
        found = EntryPoint(name, where, COMMANDS_GROUP).load()
        if isinstance(found, type):
            return found(name)
        if not dataclasses.is_dataclass(found.Arguments):
            raise InputError(describe(where, problem, got="Arguments is no dataclass"))
        return Command(name, found)


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
    problem = f"{given!r} is {'only the beginning of' if longer else 'not'} a command"
    hint = "relational-rnn --help lists all commands"
    return InputError(describe("relational-rnn", problem, expected=", ".join(near or COMMANDS), hint=hint))


def overview(start: Sequence[str] = (), width: int = 100) -> str:
    """The help of the commands that begin with `start`; that of the whole program puts some in one line.

    >>> print(overview(["data", "generate"], width=70))
    usage: relational-rnn data generate COMMAND [OPTIONS]
    <BLANKLINE>
    data and measurements:
      data generate babi  write generated stories in the published format
    <BLANKLINE>
    `relational-rnn COMMAND --help` lists the options of a command and
    ends with an example.
    """
    chosen = {
        title: {name: line for name, (_, line) in group.items() if name.split()[: len(start)] == list(start)}
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
        words.setdefault(f"{start} WHAT" if start in IN_SHORT else name, []).append(word)
    short = {f"{start} WHAT": line for start, line in IN_SHORT.items()}
    return {name: short.get(name, group.get(name, "")).format(words=", ".join(these)) for name, these in words.items()}


def _fill(line: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
