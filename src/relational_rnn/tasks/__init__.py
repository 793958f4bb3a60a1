"""The tasks: each a file or a folder with its data, its model where it needs its own, its recipes, and a WORKLOAD.

This file is read by every command, so it imports none of them.
"""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from relational_rnn._check import InputError, describe
from relational_rnn._reading.guard import damaged

_HERE = "relational_rnn.tasks"
BUILT_IN = {
    "babi": f"{_HERE}.babi.workload",
    "nth-farthest": f"{_HERE}.nth_farthest",
    "programs": f"{_HERE}.programs",
    "memorize": f"{_HERE}.memorize",
    "relations": f"{_HERE}.relations",
    "associative-recall": f"{_HERE}.associative_recall",
    "language": f"{_HERE}.language.workload",
}
"""The module of every task of this package."""
LINES = {
    "babi": "questions about short stories, 20 tasks",
    "nth-farthest": "which vector is the n-th farthest from another",
    "programs": "what a short program prints",
    "memorize": "a sequence given back as it was, reversed, or twice",
    "relations": "who is older, greater, above or left, over chains of comparisons",
    "associative-recall": "the values that keys were paired with",
    "language": "the next character, word or byte pair of a text",
}
"""What each of them asks, in a few words."""
EARLY = "babi"
"""The task of run folders that name none: early versions had no other."""
PRETRAINED = Path(__file__).with_name("babi") / "pretrained"
"""The run folder of the trained model that comes with the package."""
_FETCH = f"{_HERE}.language.commands.fetch:FetchCorpus"
BUILT_IN_COMMANDS = {
    "demo": (f"{_HERE}.babi.commands.demo", "train six models, compare them, and let them answer"),
    "ask": (f"{_HERE}.babi.commands.ask", "type a story and questions; see what answers rest on"),
    "generate": (f"{_HERE}.language.commands.generate", "let a language model go on with a text"),
    "data generate babi": (f"{_HERE}.babi.commands.generate", "write generated stories in the published format"),
    "data fetch babi": (f"{_HERE}.babi.commands.fetch", "download the published bAbI archive"),
    "data fetch wikitext-2": (_FETCH, "download WikiText-2, 2 million words"),
    "data fetch wikitext-103": (_FETCH, "download WikiText-103, 103 million words"),
    "data fetch tiny-shakespeare": (_FETCH, "download tiny-shakespeare, 1 million characters"),
    "data fetch gutenberg": (_FETCH, "download the books of PG-19, or some of them"),
    "data compare": (f"{_HERE}.babi.commands.compare", "hold generated stories against published ones"),
}
"""Commands that only one task has: a module, or a class in it that is called with the command's name; and a line."""
GROUP = "relational_rnn.workloads"
"""Where other packages name their tasks: an entry point `name = "module"` in this group."""
COMMANDS_GROUP = "relational_rnn.commands"
"""Where other packages name their commands: an entry point `"words" = "module"` (see `console.parsing.Command`)."""


@functools.cache
def _entries(group: str = GROUP) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def other_commands() -> dict[str, str]:
    """The commands of other packages, and where each is defined."""
    return {name: point.value for name, point in _entries(COMMANDS_GROUP).items()}


def _others() -> dict[str, EntryPoint]:
    return {name: point for name, point in _entries().items() if name not in BUILT_IN}


def names() -> tuple[str, ...]:
    """Every task, those of other packages last."""
    return (*BUILT_IN, *_others())


def asks(name: str) -> str:
    """What a task asks, in a few words."""
    return LINES[name] if name in LINES else f"a task of {_others()[name].value}"


def find(name: str) -> Any:
    """The WORKLOAD of a task; a `relational_rnn.runs.Workload`.

    Raises:
        InputError: there is no such task, another package's cannot be imported, or has a name of this package's.
    """
    if name in BUILT_IN:
        if name in _entries():
            problem, got = f"another package has a task {name!r} too", _entries()[name].value
            raise InputError(describe(GROUP, problem, got=got, hint="give that task another name"))
        return importlib.import_module(BUILT_IN[name]).WORKLOAD
    if name not in _others():
        raise InputError(describe("relational-rnn", f"there is no task {name!r}", expected=", ".join(names())))
    point = _others()[name]
    with damaged(point.value, f"the task {name!r} of another package cannot be loaded"):
        return point.load().WORKLOAD
