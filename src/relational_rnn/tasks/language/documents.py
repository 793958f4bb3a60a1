"""Where documents start in a text that comes in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

DocumentStarts = Literal["files", "blank-line", "heading"]
"""How a document's start is known: a file is a document; or also a line after a blank one is its start; or also a
heading of the first level as in WikiText, ` = Title = ` between blank lines."""

HEADING = re.compile(r" = [^=\s](?:.*[^=\s])? = \r?\n?")
LONGEST = 2**16
"""Characters of a line that are looked at together; a longer line comes in parts and is no heading."""
BLOCK = 2**16
"""Characters that are collected before they are handed on."""


def split_documents(pieces: Iterable[str], starts: DocumentStarts) -> Iterator[tuple[bool, str]]:
    """The same text in pieces of which each belongs to one document: (a new document starts with it, piece).

    The beginning of the text is not said to be a start, nor is the first start after blank lines alone.

    >>> list(split_documents(["to be", "\\n\\n\\nor not\\n"], "blank-line"))
    [(False, 'to be\\n\\n\\n'), (True, 'or not\\n')]
    >>> list(split_documents(["\\n = A = \\n\\nto\\n\\n = B = \\n", "\\nbe"], "heading"))
    [(False, '\\n = A = \\n\\nto\\n\\n'), (True, ' = B = \\n\\nbe')]
    """
    if starts == "files":
        yield from ((False, piece) for piece in pieces if piece)
        return
    ready: list[str] = []
    size = 0
    new = False  # what is ready starts a document
    begun = False  # the document has a line that is not blank
    after_blank = True
    held = ""  # a line that is a heading if a blank line follows
    for line, whole in _lines(pieces):
        blank = not line.strip()
        if held:
            if blank and begun:
                if ready:
                    yield new, "".join(ready)
                ready, size, new = [], 0, True
            ready.append(held)
            size += len(held)
            held, begun = "", True
        if starts == "heading" and whole and after_blank and HEADING.fullmatch(line):
            held = line
            after_blank = False
            continue
        if starts == "blank-line" and not blank and after_blank and begun:
            yield new, "".join(ready)
            ready, size, new = [], 0, True
        if ready and size >= BLOCK:
            yield new, "".join(ready)
            ready, size, new = [], 0, False
        ready.append(line)
        size += len(line)
        begun = begun or not blank
        after_blank = blank and (whole or after_blank)
    ready.append(held)
    if any(ready):
        yield new, "".join(ready)


def _lines(pieces: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """(line, True), or (part, False) of a line that is longer than LONGEST characters."""
    rest, cut = "", False
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        for line in lines:
            yield line + "\n", not cut
            cut = False
        while len(rest) > LONGEST:
            yield rest[:LONGEST], False
            rest, cut = rest[LONGEST:], True
    if rest:
        yield rest, not cut
