"""What stands on a terminal: tables, commands to paste; and how wide it is."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence


def terminal_width() -> int:
    """Columns of the terminal, 40 at least, as tyro draws its boxes."""
    return max(40, shutil.get_terminal_size().columns)


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """See `Table.text`.

    >>> print(text_table(["core", "accuracy"], [["rmc", "97.1 %"], ["transformer", "8.0 %"]]))
    core         accuracy
    rmc            97.1 %
    transformer     8.0 %
    """
    from relational_rnn.pages import Table  # here, so that `relational-rnn --help` need not wait for NumPy

    return Table(head, rows).text()


def shown(*words: object) -> str:
    """A command that can be pasted into a shell.

    >>> shown("relational-rnn", "ask", "runs/my run")
    "relational-rnn ask 'runs/my run'"
    """
    return shlex.join(map(str, words))
