"""A table, shown on a terminal, in Markdown, or on a page, where tables.js sorts it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from relational_rnn._check import one_line
from relational_rnn.pages.document import render

LONG = 24
"""A longer text in a column of words may wrap."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table."""

    text: str
    key: object = None
    """A number or a text to sort by; None sorts by `text`, and "" comes last."""
    link: str | None = None
    """The address of a place on the page (#...) or of a file beside it."""
    kind: Literal["text", "code", "markdown"] = "text"
    """In Markdown: plain text, a command, or Markdown as it stands."""


@dataclass(frozen=True, slots=True)
class Table:
    """Headings, and rows whose first cell names them.

    >>> table = Table(["core", "accuracy"], [["rmc", "97.1 %"], ["transformer", Cell("8.0 %", 0.08, "#why")]])
    >>> print(table.text())
    core         accuracy
    rmc            97.1 %
    transformer     8.0 %
    >>> print(table.markdown())
    | core | accuracy |
    | --- | --- |
    | rmc | 97.1 % |
    | transformer | [8.0 %](#why) |
    >>> print(table.html())
    <div class="scroll"><table class="sorts">...<td data-value="0.08"><a href="#why">8.0 %</a></td></tr>...
    """

    head: Sequence[str | Cell]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    """Above it, on a page."""
    notes: Sequence[str] = ()
    """Paragraphs below it."""

    @classmethod
    def of(cls, columns: Mapping[str, Callable[[Any], str | Cell]], things: Iterable[Any], caption: str = "") -> Table:
        """A row for each thing; under every heading is the function that makes its cell.

        >>> Table.of({"core": str, "letters": lambda core: str(len(core))}, ["rmc", "lstm"]).rows
        [['rmc', '3'], ['lstm', '4']]
        """
        return cls(list(columns), [[cell(thing) for cell in columns.values()] for thing in things], caption)

    def cells(self) -> list[list[Cell]]:
        """Headings and rows as cells."""
        lines = [[part if isinstance(part, Cell) else Cell(part) for part in line] for line in (self.head, *self.rows)]
        assert {len(line) for line in lines} == {len(self.head)}, "a cell for every heading"
        return lines

    def numbers(self) -> list[bool]:
        """Of every column, whether a cell of it sorts by a number; such columns are aligned to the right."""
        rows = self.cells()[1:]
        return [any(isinstance(row[i].key, int | float) for row in rows) for i in range(len(self.head))]

    def text(self) -> str:
        """For a terminal; the first column is aligned to the left, the others to the right."""
        lines = [[cell.text for cell in line] for line in self.cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
        ]
        return "\n".join([*shown, *self.notes])

    def markdown(self) -> str:
        """For a page in Markdown; the texts are escaped."""
        head, *rows = [[_in_markdown(cell) for cell in line] for line in self.cells()]
        lines = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)]
        return "\n\n".join(["\n".join(lines), *map(as_text, self.notes)])

    def html(self) -> str:
        """For a page."""
        head, *rows = self.cells()
        return render("pages/templates/table.html", table=self, head=head, rows=rows, numbers=self.numbers(), long=LONG)


def _in_markdown(cell: Cell) -> str:
    text = {"text": as_text, "code": as_code, "markdown": str}[cell.kind](cell.text)
    return (text if cell.link is None else f"[{text}]({cell.link})").replace("|", "\\|")


def as_text(text: str) -> str:
    """A text, escaped for Markdown.

    >>> as_text("a*b* <i>"), as_text("LSTM + attention, 4_096 & more")
    ('a\\\\*b\\\\* &lt;i&gt;', 'LSTM + attention, 4_096 & more')
    """
    text = re.sub(r"&(?=#?\w+;)", "&amp;", one_line(text)).replace("<", "&lt;").replace(">", "&gt;")
    # An underscore inside a word emphasizes nothing.
    return re.sub(r"([\\`*\[\]$~]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def as_code(command: str) -> str:
    """A command as Markdown, whatever backticks are in it.

    >>> as_code("echo `date`")
    '`` echo `date` ``'
    """
    command = one_line(command)
    longest = max((len(ticks) for ticks in re.findall("`+", command)), default=0)
    return f"{'`' * (longest + 1)} {command} {'`' * (longest + 1)}" if longest else f"`{command}`"
