"""The tasks: each a file or a folder with its data, its model where it needs its own, its recipes, and a WORKLOAD.

This file is read by every command, so it imports none of them.
"""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from relational_rnn._check import InputError, describe

BUILT_IN = {
    "babi": "relational_rnn.tasks.babi.workload",
    "nth-farthest": "relational_rnn.tasks.nth_farthest",
    "programs": "relational_rnn.tasks.programs",
    "memorize": "relational_rnn.tasks.memorize",
    "relations": "relational_rnn.tasks.relations",
    "associative-recall": "relational_rnn.tasks.associative_recall",
    "language": "relational_rnn.tasks.language.workload",
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
GROUP = "relational_rnn.workloads"
"""Where other packages name their tasks: an entry point `name = "module"` in this group."""


@functools.cache
def _entries() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


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
    try:
        return point.load().WORKLOAD
    except (ImportError, AttributeError) as error:
        problem = f"the task {name!r} of another package cannot be loaded: {error}"
        raise InputError(describe(point.value, problem)) from error
