"""relational-rnn data fetch babi"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from relational_rnn.console.tables import download_bar, shown
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
    again = shown("relational-rnn", "data", "fetch", "babi", "--out", arguments.out)
    with download_bar("bAbI", again) as progress:
        fetched = fetch_babi(arguments.out, url=arguments.url, progress=progress)
    print(f"{fetched.path}: {fetched.verified} files are the published ones")
    for name in fetched.unknown:
        print(f"not checked, its published hash is not known: {name}")
    print(f"train on it with: {shown('relational-rnn', 'train', 'babi', '--data', fetched.path)}")
