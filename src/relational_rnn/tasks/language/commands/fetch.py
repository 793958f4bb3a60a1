"""relational-rnn data fetch CORPUS, for every published text"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relational_rnn.console.boundary import stopped_with
from relational_rnn.console.parsing import parse_arguments
from relational_rnn.console.tables import shown
from relational_rnn.tasks.language.fetching import fetch_corpus


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """Download a text for language models, and check it.

    A download that was cut off goes on where it stopped. Files that are already there are checked, not downloaded.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the folder of the text; it is made if it is not there."""
    url: str | None = None
    """Another place to download from: the file, or (WikiText) a copy of the Hugging Face hub."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    """Download the books of PG-19, 28,602 for training, 50 for validation and 100 for the test: 11 GB.

    A download that was cut off goes on where it stopped. Books that are already there are not downloaded again.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the folder of books; it is made if it is not there."""
    url: str | None = None
    """Another folder to download the books from."""
    books: int | None = None
    """Only so many training books, the first ones of the published list; None for all."""


class FetchCorpus:
    """The command `data fetch CORPUS` of one corpus."""

    def __init__(self, command: str) -> None:
        self.corpus = command.split()[-1]
        self.command = command
        self.EXAMPLES = (f"relational-rnn {self.command} --out data",)
        if self.corpus == "gutenberg":
            self.EXAMPLES += (f"relational-rnn {self.command} --out data --books 2500",)

    def parse(self, args: Sequence[str]) -> Any:
        kind = Books if self.corpus == "gutenberg" else Text
        return parse_arguments(kind, args, command=self.command, examples=self.EXAMPLES)

    def run(self, arguments: Any) -> None:
        count = MofNCompleteColumn() if self.corpus == "gutenberg" else DownloadColumn()
        columns = (TextColumn(self.corpus), BarColumn(), count, TimeRemainingColumn())
        books = arguments.books if isinstance(arguments, Books) else None
        more = ["--books", books] if books else []
        again = shown("relational-rnn", *self.command.split(), "--out", arguments.out, *more)
        with (
            stopped_with(f"what has come is kept; go on with: {again}"),
            Progress(*columns, console=Console(stderr=True), disable="wikitext" in self.corpus) as progress,
        ):
            bar = progress.add_task("", total=None)
            fetched = fetch_corpus(
                self.corpus,
                arguments.out,
                url=arguments.url,
                books=books,
                progress=lambda done, total: progress.update(bar, completed=done, total=total),
            )
        noun = "file" if fetched.files == 1 else "files"
        print(f"{fetched.path}: {fetched.files:,} {noun}; {fetched.checked}")
