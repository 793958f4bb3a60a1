"""relational-rnn data fetch babi"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from relational_rnn.console.boundary import stopped_with
from relational_rnn.console.tables import shown
from relational_rnn.tasks.babi.fetching import PUBLISHED_URL, fetch_babi

EXAMPLES = ("relational-rnn data fetch babi --out data",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Download the published bAbI archive (version 1.2), check every file of it, and say how to train on it.

    A download that was cut off goes on where it stopped. An archive that is already there is checked, not downloaded.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the archive; it is made if it is not there."""
    url: str = PUBLISHED_URL
    """Where to download from."""


def run(arguments: Arguments) -> None:
    columns = (TextColumn("bAbI"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    again = shown("relational-rnn", "data", "fetch", "babi", "--out", arguments.out)
    with (
        stopped_with(f"what has come is kept; go on with: {again}"),
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        bar = progress.add_task("", total=None)
        fetched = fetch_babi(
            arguments.out,
            url=arguments.url,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    print(f"{fetched.path}: {fetched.verified} files are the published ones")
    for name in fetched.unknown:
        print(f"not checked, its published hash is not known: {name}")
    print(f"train on it with: {shown('relational-rnn', 'train', 'babi', '--data', fetched.path)}")
