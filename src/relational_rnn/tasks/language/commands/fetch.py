"""relational-rnn data fetch CORPUS, for every published text"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from relational_rnn.console.parsing import parse_arguments
from relational_rnn.console.tables import download_bar, shown
from relational_rnn.tasks.language.fetching import fetch_corpus


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """Download a text for language models, and check it.

    A download that was cut off continues where it stopped. Files that are already there are checked, not downloaded.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the folder of the corpus; it is made if it is not there."""
    url: str | None = None
    """Another place to download from: the file, the folder of books, or (WikiText) a copy of the Hugging Face hub."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Books(Text):
    """Download the books of PG-19, 28,602 for training, 50 for validation and 100 for the test: 11 GB.

    A download that was cut off continues where it stopped. Books that are already there are not downloaded again.
    """

    books: int | None = None
    """Only so many training books, the first ones of the published list; None for all."""


class FetchCorpus:
    """The command `data fetch CORPUS` of one corpus."""

    def __init__(self, command: str) -> None:
        self.command, self.corpus = command, command.split()[-1]
        self.arguments = Books if self.corpus == "gutenberg" else Text
        more = ("--out data", "--out data --books 2500") if self.arguments is Books else ("--out data",)
        self.EXAMPLES = tuple(f"relational-rnn {command} {words}" for words in more)

    def parse(self, args: Sequence[str]) -> Any:
        return parse_arguments(self.arguments, args, command=self.command, examples=self.EXAMPLES)

    def run(self, arguments: Any) -> None:
        books = getattr(arguments, "books", None)
        more = ["--books", books] if books else []
        again = shown("relational-rnn", *self.command.split(), "--out", arguments.out, *more)
        # the client of the hub that WikiText comes by has bars of its own
        hidden, items = "wikitext" in self.corpus, self.arguments is Books
        with download_bar(self.corpus, again, items=items, hidden=hidden) as progress:
            fetched = fetch_corpus(self.corpus, arguments.out, url=arguments.url, books=books, progress=progress)
        noun = "file" if fetched.files == 1 else "files"
        print(f"{fetched.path}: {fetched.files:,} {noun}; {fetched.checked}")
