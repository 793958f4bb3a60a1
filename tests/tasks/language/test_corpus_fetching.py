"""Downloads of corpora, against servers on this machine: one that speaks as the Hugging Face hub, one for files."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpora import made_up_text, published
from local_server import Server, serving

from relational_rnn._check import InputError, MissingExtraError
from relational_rnn.tasks.language import fetching
from relational_rnn.tasks.language.corpus import CorpusConfig, prepare
from relational_rnn.tasks.language.fetching import WIKITEXT_FILES, Fetched, Published, Shards, fetch_corpus
from relational_rnn.tasks.language.sources import find_texts

WIKI = {
    split: made_up_text(lines, lines).replace("\n\n", "\n \n")
    for split, lines in (("train", 23), ("valid", 7), ("test", 9))
}
BOOKS = {"train": [12, 7, 103], "validation": [4], "test": [9, 8]}


def as_parquet(lines: list[str]) -> bytes:
    """Rows as the hub has them: line ends are kept, a blank line is an empty text."""
    arrow = pytest.importorskip("pyarrow", reason="the package pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    rows = ["" if line == " \n" else line for line in lines]
    parquet.write_table(arrow.table({"text": rows}), file, row_group_size=4)
    return file.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def table(known: bool) -> dict[str, Shards]:
    """What is published of WIKI; its training text comes in two files."""
    names = {
        "train": ("w/train-0.parquet", "w/train-1.parquet"),
        "valid": ("w/validation.parquet",),
        "test": ("w/test.parquet",),
    }
    return {
        split: Shards(
            names[split],
            Published(text.count("\n"), len(text.split()) + text.count("\n"), sha256(text.encode()) if known else None),
        )
        for split, text in WIKI.items()
    }


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Server]:
    """Speaks as the hub does, as far as its client asks; the client's cache is a new one."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setitem(WIKITEXT_FILES, "wikitext-2", table(known=True))
    monkeypatch.setitem(WIKITEXT_FILES, "wikitext-103", table(known=False))
    files = {"w/validation.parquet": WIKI["valid"], "w/test.parquet": WIKI["test"]}
    lines = WIKI["train"].splitlines(keepends=True)
    files |= {"w/train-0.parquet": "".join(lines[:15]), "w/train-1.parquet": "".join(lines[15:])}
    root = f"/datasets/{fetching.WIKITEXT}/resolve/{fetching.WIKITEXT_REVISION}/"
    with serving({root + name: as_parquet(text.splitlines(keepends=True)) for name, text in files.items()}) as server:
        server.headers = lambda path, content: {
            "ETag": f'"{sha256(content)}"', "X-Repo-Commit": fetching.WIKITEXT_REVISION
        }  # fmt: skip
        yield server


@pytest.mark.parametrize(
    ("name", "checked"),
    [
        ("wikitext-2", "sha256 of each is the published file's"),
        ("wikitext-103", "lines and words of each are as many as published"),
    ],
)
def test_wikitext_comes_from_the_hub_as_it_was_published(hub, tmp_path, name, checked):
    fetched = fetch_corpus(name, tmp_path / "data", url=hub.at(""))
    assert fetched == Fetched(tmp_path / "data" / name, 3, checked)
    assert {file: (fetched.path / file).read_text() for file in names(fetched.path)} == {
        f"{split}.txt": text for split, text in WIKI.items()
    }
    assert len(hub.paths) == 4
    found = prepare(CorpusConfig(path=fetched.path), tmp_path / "cache")
    assert found.train.words == len(WIKI["train"].split()) + 23
    hub.status = 500  # nothing is asked for again
    assert fetch_corpus(name, tmp_path / "data", url=hub.at("")) == fetched
    (fetched.path / "valid.txt").unlink()
    assert fetch_corpus(name, tmp_path / "data", url=hub.at("")) == fetched


def test_the_published_wikitext_2_passes_the_check(tmp_path):
    """Its hashes and numbers are those of the published text."""
    texts = find_texts(published("RELATIONAL_RNN_WIKITEXT2"), tmp_path / "scratch")
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    for split, (text,) in texts.items():
        os.replace(text.path, folder / f"{split}.txt")
    assert fetch_corpus("wikitext-2", tmp_path).files == 3
    with (folder / "test.txt").open("ab") as file:
        file.write(b"more \n")
    with pytest.raises(InputError) as error:
        fetch_corpus("wikitext-2", tmp_path)
    assert str(error.value).startswith(
        f"{folder / 'test.txt'}: it differs from the published text\n  got       4,359 lines, 245,571 words, sha256 "
    )


@pytest.mark.parametrize("name", ["wikitext-2", "wikitext-103"])
def test_a_text_that_is_not_the_published_one_is_not_installed(hub, tmp_path, name):
    path = next(path for path in hub.files if path.endswith("validation.parquet"))
    hub.files[path] = as_parquet([line.replace("the", "a the", 1) for line in WIKI["valid"].splitlines(keepends=True)])
    with pytest.raises(InputError, match=r"valid\.txt: it differs from the published text"):
        fetch_corpus(name, tmp_path / "data", url=hub.at(""))
    assert names(tmp_path / "data") == [f"{name}/train.txt"]


def test_a_file_whose_hash_is_not_the_hubs_is_thrown_away(hub, tmp_path):
    right = hub.headers
    hub.headers = lambda path, content: right(path, content + b"?")
    with pytest.raises(InputError, match="it was removed from the cache; run the command again"):
        fetch_corpus("wikitext-2", tmp_path / "data", url=hub.at(""))
    assert not (tmp_path / "data" / "wikitext-2").exists()
    hub.headers = right
    assert fetch_corpus("wikitext-2", tmp_path / "data", url=hub.at("")).files == 3


@pytest.mark.parametrize("name", ["wikitext-2", "gutenberg"])
def test_what_the_hubs_client_says_is_passed_on_in_one_sentence(tmp_path, monkeypatch, name):
    library = pytest.importorskip("huggingface_hub", reason="the package huggingface_hub is not installed")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no way to the hub\nand a long story")

    monkeypatch.setattr(library, "hf_hub_download", fail)
    with pytest.raises(InputError) as error:
        fetch_corpus(name, tmp_path / "data")
    assert str(error.value).endswith(
        ": it cannot be downloaded\n"
        "  got       no way to the hub\n"
        "  hint      check the network; run the command again to go on."
    )
    assert names(tmp_path / "data") == []


def test_a_missing_client_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r'pip install "relational-rnn\[language\]"'):
        fetch_corpus("wikitext-2", tmp_path)


@pytest.fixture
def play(monkeypatch) -> Iterator[Server]:
    content = made_up_text(30).encode()
    monkeypatch.setattr(fetching, "SHAKESPEARE_SHA256", sha256(content))
    with serving({"/input.txt": content}) as server:
        yield server


def test_tiny_shakespeare_is_downloaded_checked_and_read(play, tmp_path):
    play.cut_after = 100
    with pytest.raises(InputError, match="the download was cut off"):
        fetch_corpus("tiny-shakespeare", tmp_path, url=play.at("/input.txt"))
    assert names(tmp_path) == ["tiny-shakespeare/input.txt.partial"]
    play.cut_after = None
    seen = []
    fetched = fetch_corpus(
        "tiny-shakespeare", tmp_path, url=play.at("/input.txt"), progress=lambda done, total: seen.append((done, total))
    )
    size = len(play.files["/input.txt"])
    assert seen[-1] == (size, size)
    assert play.asked == [None, "bytes=100-"]
    assert fetched == Fetched(tmp_path / "tiny-shakespeare", 1, "its sha256 is the published file's")
    assert names(tmp_path) == ["tiny-shakespeare/input.txt"]
    assert prepare(CorpusConfig(path=fetched.path), tmp_path / "cache").train.words > 50
    assert fetch_corpus("tiny-shakespeare", tmp_path, url=play.at("/input.txt")) == fetched
    assert len(play.asked) == 2


def test_another_text_is_not_installed_and_one_that_is_there_not_touched(play, tmp_path):
    content = play.files["/input.txt"]
    play.files["/input.txt"] = content.replace(b"cat", b"dog")
    with pytest.raises(InputError, match=r"input\.txt: it differs from the published file\n  got       sha256 "):
        fetch_corpus("tiny-shakespeare", tmp_path / "a", url=play.at("/input.txt"))
    assert not (tmp_path / "a" / "tiny-shakespeare").exists()
    mine = tmp_path / "b" / "tiny-shakespeare" / "input.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("my own")
    with pytest.raises(InputError, match="remove it to download it again"):
        fetch_corpus("tiny-shakespeare", tmp_path / "b", url=play.at("/input.txt"))
    assert mine.read_text() == "my own"


def test_the_hash_of_tiny_shakespeare_is_that_of_the_published_text(tmp_path):
    ((text,),) = find_texts(published("RELATIONAL_RNN_SHAKESPEARE"), tmp_path).values()
    assert sha256(text.path.read_bytes()) == fetching.SHAKESPEARE_SHA256


@pytest.fixture
def library(tmp_path, monkeypatch) -> Iterator[Server]:
    """A server of books; the lists of them come as if from the hub."""
    monkeypatch.setattr(fetching, "GUTENBERG_BOOKS", {split: len(numbers) for split, numbers in BOOKS.items()})
    for split, numbers in BOOKS.items():
        (tmp_path / f"{split}_files.txt").write_text("".join(f"{split}/{number}.txt\n" for number in numbers))
    monkeypatch.setattr(
        fetching, "_from_hub", lambda repository, file, revision: tmp_path / Path(file).relative_to("data")
    )
    files = {
        f"/books/{split}/{number}.txt": f"book {number} of {split}\n".encode()
        for split, numbers in BOOKS.items()
        for number in numbers
    }
    with serving(files) as server:
        server.headers = lambda path, content: {
            "x-goog-hash": "crc32c=AAAAAA==,md5=" + base64.b64encode(hashlib.md5(content).digest()).decode()
        }
        yield server


def test_books_are_downloaded_checked_and_read(library, tmp_path):
    seen = []
    fetched = fetch_corpus(
        "gutenberg", tmp_path / "data", url=library.at("/books/"), books=2, progress=lambda *call: seen.append(call)
    )
    assert fetched.files == 5
    assert fetched.checked == "length and md5 of each are those that the server gave"
    assert names(fetched.path) == ["test/8.txt", "test/9.txt", "train/12.txt", "train/7.txt", "validation/4.txt"]
    assert seen == [(done, 5) for done in range(1, 6)]
    (fetched.path / "test" / "8.txt").unlink()
    again = fetch_corpus("gutenberg", tmp_path / "data", url=library.at("/books"))
    assert again.files == 6
    assert sorted(library.paths[5:]) == ["/books/test/8.txt", "/books/train/103.txt"]
    found = prepare(CorpusConfig(path=fetched.path, vocabulary="bpe", vocabulary_size=257), tmp_path / "cache")
    assert found.vocabulary.decode(found.train.numbers) == "book 7 of train\nbook 12 of train\nbook 103 of train\n"
    assert [len(part.starts) for part in (found.train, found.valid, found.test)] == [3, 1, 2]


def test_a_book_that_differs_or_is_cut_off_gets_no_name(library, tmp_path):
    right = library.headers
    library.headers = lambda path, content: right(path, content + b"?" * path.endswith("/4.txt"))
    with pytest.raises(InputError, match=r"4\.txt: it differs from what the server has\n  got       md5 "):
        fetch_corpus("gutenberg", tmp_path / "data", url=library.at("/books"))
    assert "gutenberg/validation/4.txt" not in names(tmp_path / "data")
    library.headers, library.cut_after = right, 3
    with pytest.raises(InputError, match="the download was cut off"):
        fetch_corpus("gutenberg", tmp_path / "data", url=library.at("/books"))
    library.cut_after = None
    library.headers = lambda path, content: {}
    fetched = fetch_corpus("gutenberg", tmp_path / "data", url=library.at("/books"))
    assert fetched.checked.endswith("came without md5")
    assert (fetched.path / "validation" / "4.txt").read_text() == "book 4 of validation\n"
    assert len(names(fetched.path)) == 6


@pytest.mark.parametrize("lines", ["train/1.txt\n", "train/../x.txt\ntrain/2.txt\ntrain/3.txt\n"])
def test_a_list_that_is_not_the_published_one_is_refused(library, tmp_path, lines):
    (tmp_path / "train_files.txt").write_text(lines)
    with pytest.raises(InputError, match="this is not the published list of books"):
        fetch_corpus("gutenberg", tmp_path / "data", url=library.at("/books"))
    assert not (tmp_path / "data" / "gutenberg").exists()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wikitext-3", {}, "name is not a known choice"),
        ("tiny-shakespeare", {"books": 3}, "tiny-shakespeare is not made of books"),
        ("gutenberg", {"books": 0}, "books must be a whole number of at least 1"),
        ("gutenberg", {"url": "gs://deepmind-gutenberg"}, "this is no web address"),
    ],
)
def test_settings_of_a_download_that_cannot_be_obeyed(tmp_path, name, settings, message):
    with pytest.raises(InputError, match=message):
        fetch_corpus(name, tmp_path / "data", **settings)
    assert not (tmp_path / "data").exists()
