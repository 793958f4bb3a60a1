"""Tables of a page; tables.js lets a reader sort them by a click on a heading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from relational_rnn.pages.document import Script

TABLES = Script("relational_rnn.pages", "tables.js")

LONG = 24
"""Letters above which a text in a column of words may wrap."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell shows, what it sorts by, and where it leads."""

    text: str
    key: object = None
    """A number or a text to sort by; None sorts by what is shown, and "" comes last."""
    link: str | None = None
    """An address: of a place on the page (#...) or of a file beside it."""


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table whose first column heads the rows; all texts are escaped here. Columns without any number stand to the
    left, and a text of more than `LONG` letters in them wraps.

    >>> print(table("Places", ["who", "where"], [[Cell("Mary"), Cell("the <garden>", 3, "#garden")]]))
    <div class="scroll"><table class="sorts"><caption>Places</caption>...
    <tbody><tr><th scope="row" data-value="Mary">Mary</th><td data-value="3"><a href="#garden">the &lt;garden&gt;</a>...
    """
    rows = [list(row) for row in rows]
    words = [not any(_is_number(row[i]) for row in rows) for i in range(len(head))]
    header = "".join(
        f'<th scope="col"{_classes(name, kind)}>{escape(name)}</th>' for name, kind in zip(head, words, strict=True)
    )
    body = []
    for first, *others in rows:
        row = f'<th scope="row" data-value="{_key(first)}">{_content(first)}</th>'
        row += "".join(
            f'<td{_classes(cell.text, kind)} data-value="{_key(cell)}">{_content(cell)}</td>'
            for cell, kind in zip(others, words[1:], strict=True)
        )
        body.append(f"<tr>{row}</tr>")
    return (
        f'<div class="scroll"><table class="sorts"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{header}</tr></thead>\n<tbody>" + "\n".join(body) + "</tbody></table></div>"
    )


def _classes(text: str, words: bool) -> str:
    return "" if not words else ' class="words long"' if len(text) > LONG else ' class="words"'


def _is_number(cell: Cell) -> bool:
    return isinstance(cell.key, int | float)


def _key(cell: Cell) -> str:
    return escape(cell.text if cell.key is None else str(cell.key))


def _content(cell: Cell) -> str:
    text = escape(cell.text)
    return text if cell.link is None else f'<a href="{escape(cell.link)}">{text}</a>'
