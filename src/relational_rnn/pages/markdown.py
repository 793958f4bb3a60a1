"""Texts on a page in Markdown."""

from __future__ import annotations

import re


def one_line(text: str) -> str:
    """The text without what is no letter, sign or blank: line ends, control characters, bytes that are no UTF-8.

    >>> one_line("run\\n1")
    'run\N{REPLACEMENT CHARACTER}1'
    """
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def as_text(text: str) -> str:
    """A text that means nothing in Markdown but itself.

    >>> as_text("a*b* <i>"), as_text("LSTM + attention, 4_096 & more")
    ('a\\\\*b\\\\* &lt;i&gt;', 'LSTM + attention, 4_096 & more')
    """
    text = re.sub(r"&(?=#?\w+;)", "&amp;", one_line(text)).replace("<", "&lt;").replace(">", "&gt;")
    # An underscore inside a word emphasizes nothing.
    return re.sub(r"([\\`*\[\]$~]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def as_code(command: str) -> str:
    """A command, however many backticks are in it.

    >>> as_code("echo `date`")
    '`` echo `date` ``'
    """
    command = one_line(command)
    longest = max((len(ticks) for ticks in re.findall("`+", command)), default=0)
    return f"{'`' * (longest + 1)} {command} {'`' * (longest + 1)}" if longest else f"`{command}`"
