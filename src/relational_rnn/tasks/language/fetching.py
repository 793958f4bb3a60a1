"""The download of published corpora: resumable, and checked before a file gets its name."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from functools import partial
from pathlib import Path

from relational_rnn._check import InputError, check_choice, check_positive, describe, need_extra
from relational_rnn._reading.parquet import read_column
from relational_rnn._reading.plain import open_file, read_text
from relational_rnn.tasks.downloading import check_address, install
from relational_rnn.tasks.language.sources import digest

OnProgress = Callable[[int, int | None], None]
"""Called with (bytes or books so far, how many in all or None if that is not known)."""
NOT_INSTALLED = "it was not installed; run the command again, or give another url."
REMOVE = "remove it to download it again."


@dataclass(frozen=True, slots=True)
class Fetched:
    """What `fetch_corpus` installed."""

    path: Path
    """The folder, as `CorpusConfig(path=...)` takes it."""
    files: int
    """Text files in it."""
    checked: str
    """How they were checked, for people."""


@dataclass(frozen=True, slots=True)
class Published:
    """What is known of a published text."""

    lines: int
    tokens: int
    """Words, with one `<eos>` for each line."""
    sha256: str | None
    """None if we do not know it."""

    def __str__(self) -> str:
        sha256 = f", sha256 {self.sha256}" if self.sha256 else ""
        return f"{self.lines:,} lines, {self.tokens:,} words{sha256}"


@dataclass(frozen=True, slots=True)
class Shards:
    """A text of a data set of the Hugging Face hub."""

    files: tuple[str, ...]
    published: Published


SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
    "/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

WIKITEXT = "Salesforce/wikitext"
WIKITEXT_REVISION = "b08601e04326c79dfdd32d625aee71d232d685c3"
# Numbers of tokens: table 1 of Merity et al. 2016, arXiv 1609.07843; they count one token for each line end.
WIKITEXT_FILES = {
    "wikitext-2": {
        "train": Shards(
            ("wikitext-2-v1/train-00000-of-00001.parquet",),
            Published(36_718, 2_088_628, "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
        ),
        "valid": Shards(
            ("wikitext-2-v1/validation-00000-of-00001.parquet",),
            Published(3_760, 217_646, "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
        ),
        "test": Shards(
            ("wikitext-2-v1/test-00000-of-00001.parquet",),
            Published(4_358, 245_569, "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
        ),
    },
    "wikitext-103": {
        "train": Shards(
            ("wikitext-103-v1/train-00000-of-00002.parquet", "wikitext-103-v1/train-00001-of-00002.parquet"),
            Published(1_801_350, 103_227_021, None),
        ),
        "valid": Shards(("wikitext-103-v1/validation-00000-of-00001.parquet",), Published(3_760, 217_646, None)),
        "test": Shards(("wikitext-103-v1/test-00000-of-00001.parquet",), Published(4_358, 245_569, None)),
    },
}

GUTENBERG = "deepmind/pg19"
GUTENBERG_REVISION = "4d28bd77e66947ad3835cf78ed7aaeb4dd87ad8b"
GUTENBERG_URL = "https://storage.googleapis.com/deepmind-gutenberg/"
GUTENBERG_BOOKS = {"train": 28_602, "validation": 50, "test": 100}
CONNECTIONS = 8
"""Books that are downloaded at the same time."""

CORPORA = ("wikitext-2", "wikitext-103", "tiny-shakespeare", "gutenberg")


def fetch_corpus(
    name: str,
    destination: Path | str,
    *,
    url: str | None = None,
    books: int | None = None,
    progress: OnProgress | None = None,
) -> Fetched:
    """Download a corpus into the folder `destination / name`, or go on with a download that was cut off.

    A file gets its name only when it is whole and was checked. Files that are already there are checked again (books
    are not) and not downloaded.

    Args:
        name: "wikitext-2" or "wikitext-103" (Merity et al. 2016, arXiv 1609.07843), by the client of the Hugging Face
            hub, which shows its own progress and has its own cache; "tiny-shakespeare"; or "gutenberg": the books of
            PG-19 (Rae et al. 2019, arXiv 1911.05507), 11 GB.
        destination: the folder; it is made if it is not there.
        url: another place to download from: the file (tiny-shakespeare), the folder of books (gutenberg; the lists of
            books still come from the hub), or a copy of the hub (wikitext-2, wikitext-103).
        books: only the first so many training books of the published list; None for all (gutenberg only).
        progress: called with (bytes, bytes in all) or, for gutenberg, (books, books in all); not for WikiText.

    Raises:
        InputError: no connection, an error of the server, a download cut off, or a text that differs from the
            published one.
        MissingExtraError: WikiText and gutenberg need the extra `language`.
    """
    check_choice("fetch_corpus", "name", name, CORPORA)
    if url is not None:
        check_address("fetch_corpus", url)
    if books is not None:
        check_positive("fetch_corpus", books=books)
        if name != "gutenberg":
            raise InputError(describe("fetch_corpus", f"{name} is not made of books", got=f"books={books}"))
    folder = Path(destination) / name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if name == "tiny-shakespeare":
            return _fetch_shakespeare(folder, url or SHAKESPEARE_URL, progress)
        if name == "gutenberg":
            return _fetch_gutenberg(folder, url or GUTENBERG_URL, books, progress)
        return _fetch_wikitext(name, folder, url)
    finally:
        with contextlib.suppress(OSError):  # it is not empty, unless nothing came
            folder.rmdir()


def _fetch_shakespeare(folder: Path, url: str, progress: OnProgress | None) -> Fetched:
    target = folder / "input.txt"
    if target.exists():
        _compare(target, target, SHAKESPEARE_SHA256, REMOVE)
    else:
        install(url, target, lambda came, _: _compare(came, target, SHAKESPEARE_SHA256, NOT_INSTALLED), progress)
    return Fetched(folder, 1, "its sha256 is the published file's")


def _compare(path: Path, shown: Path, sha256: str, hint: str) -> None:
    found = digest(path)
    if found != sha256:
        problem = "it differs from the published file"
        raise InputError(describe(str(shown), problem, got=f"sha256 {found}", expected=f"sha256 {sha256}", hint=hint))


def _fetch_wikitext(name: str, folder: Path, endpoint: str | None) -> Fetched:
    texts = WIKITEXT_FILES[name]
    for split, text in texts.items():
        target = folder / f"{split}.txt"
        if target.exists():
            _check_published(target, target, text.published, REMOVE)
            continue
        shards = [_from_hub(WIKITEXT, file, WIKITEXT_REVISION, endpoint) for file in text.files]
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.writelines(rows_of(shards))
            hint = "it was not installed; the file at the hub is another one than it was."
            _check_published(part, target, text.published, hint)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    known = all(text.published.sha256 for text in texts.values())
    checked = "sha256 of each is the published file's" if known else "lines and words of each are as many as published"
    return Fetched(folder, len(texts), checked)


def _from_hub(repository: str, file: str, revision: str, endpoint: str | None = None) -> Path:
    """A file of a data set, from the hub or its client's cache, compared with the hub's sha256 if it has one."""
    hub = need_extra("huggingface_hub", "language", f"fetching {repository}")
    try:
        path = Path(hub.hf_hub_download(repository, file, repo_type="dataset", revision=revision, endpoint=endpoint))
    except Exception as error:  # the client's own errors, and those of the library it connects by
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        hint = "check the network; run the command again to go on."
        raise InputError(describe(f"{repository}/{file}", "it cannot be downloaded", got=reason, hint=hint)) from error
    stored = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", stored.name):  # the cache names a large file by the hash that the hub states
        try:
            _compare(stored, path, stored.name, "it was removed from the cache; run the command again.")
        except InputError:
            stored.unlink()
            raise
    return path


def rows_of(shards: Iterable[Path]) -> Iterator[bytes]:
    """The lines of a text in Parquet files; a blank line is a space there, as in the original."""
    for shard in shards:
        for row in read_column(shard, "text", extra="language", hint=REMOVE):
            yield (row or " \n").encode()


def _check_published(path: Path, shown: Path, published: Published, hint: str) -> None:
    """Refuse a file that is not the text that was published."""
    lines, tokens = 0, 0
    with open_file(path) as file:
        for line in file:
            lines += 1
            tokens += len(line.decode(errors="replace").split()) + 1
    found = Published(lines, tokens, digest(path) if published.sha256 else None)
    if found != published:
        raise InputError(
            describe(str(shown), "it differs from the published text", got=found, expected=published, hint=hint)
        )


def _fetch_gutenberg(folder: Path, url: str, books: int | None, progress: OnProgress | None) -> Fetched:
    names: list[str] = []
    for split, count in GUTENBERG_BOOKS.items():
        path = _from_hub(GUTENBERG, f"data/{split}_files.txt", GUTENBERG_REVISION)
        listed = read_text(path).split()
        if len(listed) != count or not all(re.fullmatch(rf"{split}/[0-9]+\.txt", name) for name in listed):
            problem = "this is not the published list of books"
            raise InputError(describe(str(path), problem, got=f"{len(listed):,} lines", expected=f"{count:,} books"))
        names += listed[:books] if split == "train" else listed
        (folder / split).mkdir(exist_ok=True)
    missing = [name for name in names if not (folder / name).exists()]
    done, unchecked = len(names) - len(missing), 0
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            for checked in pool.map(partial(_fetch_book, folder, url.rstrip("/")), missing):
                done, unchecked = done + 1, unchecked + (not checked)
                if progress is not None:
                    progress(done, len(names))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    how = "length and md5 of each are those that the server gave"
    return Fetched(folder, len(names), f"{how}, but {unchecked:,} came without md5" if unchecked else how)


def _fetch_book(folder: Path, url: str, name: str) -> bool:
    """Download one book; whether there was a hash to check it by."""
    target = folder / name

    def check(came: Path, headers: Message) -> bool:
        given = re.search(r"md5=([\w+/=]+)", ",".join(headers.get_all("x-goog-hash") or []))
        found = base64.b64encode(hashlib.md5(came.read_bytes(), usedforsecurity=False).digest()).decode()
        if given is not None and found != given[1]:
            problem, hint = "it differs from what the server has", "run the command again."
            raise InputError(describe(str(target), problem, got=f"md5 {found}", expected=f"md5 {given[1]}", hint=hint))
        return given is not None

    return install(f"{url}/{name}", target, check)
