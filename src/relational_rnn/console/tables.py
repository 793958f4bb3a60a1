"""What a terminal shows: its width, tables, commands to paste, and the bar of a download."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence

from relational_rnn.console.boundary import stopped_with


def terminal_width() -> int:
    """Columns of the terminal, 40 at least, as tyro draws its boxes."""
    return max(40, shutil.get_terminal_size().columns)


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """See `Table.text`."""
    from relational_rnn.pages import Table  # here, so that `relational-rnn --help` need not wait for NumPy

    return Table(head, rows).text()


def shown(*words: object) -> str:
    """A command that can be pasted into a shell.

    >>> shown("relational-rnn", "ask", "runs/my run")
    "relational-rnn ask 'runs/my run'"
    """
    return shlex.join(map(str, words))


@contextlib.contextmanager
def download_bar(
    what: str, again: str, *, items: bool = False, hidden: bool = False
) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error, told how much has come and how much there is; `again` is the command that goes on after
    a stop."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = MofNCompleteColumn() if items else DownloadColumn()
    columns = (TextColumn(what), BarColumn(), count, TimeRemainingColumn())
    with (
        stopped_with(f"what has come is kept; go on with: {again}"),
        Progress(*columns, console=Console(stderr=True), disable=hidden) as progress,
    ):
        bar = progress.add_task("", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
