"""Token files: made in bounded memory, whole or not at all, used again, made anew when broken."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from corpora import NAMES, PARTS, made, made_up_text, named, published, write_archive, write_folder

from relational_rnn.tasks.language import corpus as corpus_module
from relational_rnn.tasks.language import sources
from relational_rnn.tasks.language.corpus import Corpus, CorpusConfig, Tokens, default_cache, prepare


def texts(found: Corpus) -> dict[str, str]:
    return {split: found.vocabulary.decode(getattr(found, split).numbers) for split in PARTS}


@pytest.mark.parametrize("style", NAMES)
def test_a_folder_of_three_texts_is_read(tmp_path, cache, style):
    write_folder(tmp_path / "text", named(style) | {"README.txt": "no corpus", ".hidden.txt": "x", "train.csv": "x"})
    found = prepare(CorpusConfig(path=tmp_path / "text"), cache)
    assert texts(found) == PARTS
    assert made(cache) == [path.name for path in cache.iterdir()]


@pytest.mark.parametrize("style", NAMES)
@pytest.mark.parametrize("name", ["t.zip", "t.tar", "t.tar.gz", "t.tar.xz", "t.tar.bz2"])
def test_an_archive_is_read_like_the_folder_it_holds(tmp_path, cache, style, name):
    archive = write_archive(tmp_path / name, {"about.md": "x"} | named(style))
    assert texts(prepare(CorpusConfig(path=archive, vocabulary="character"), cache)) == PARTS
    assert len(made(cache)) == 1
    assert sorted(os.listdir(cache / made(cache)[0])) == [
        "corpus.json", "test.starts", "test.tokens", "train.starts", "train.tokens", "valid.starts", "valid.tokens",
        "vocabulary.json",
    ]  # fmt: skip


@pytest.mark.parametrize(("vocabulary", "size"), [("word", None), ("character", None), ("bpe", 268)])
@pytest.mark.parametrize("documents", ["files", "blank-line"])
def test_counts_are_those_of_the_text(folder, cache, vocabulary, size, documents):
    config = CorpusConfig(path=folder, vocabulary=vocabulary, vocabulary_size=size, documents=documents)
    found = prepare(config, cache, block=50)
    assert texts(found) == PARTS
    for split, text in PARTS.items():
        part: Tokens = getattr(found, split)
        np.testing.assert_array_equal(part.numbers, found.vocabulary.encode(text))
        assert part.characters == len(text)
        assert part.words == len(text.split()) + text.count("\n")
        assert part.numbers.dtype == (np.uint16 if vocabulary == "bpe" else np.uint8)
        assert isinstance(part.numbers, np.memmap)
        assert part.counts(found.vocabulary.size).sum() == len(part) == len(part.numbers)
        if vocabulary == "word":
            assert part.words == len(part)
        if documents == "files":
            assert part.starts.tolist() == [0]
            continue
        begins = [0, *(i + 2 for i in range(len(text) - 2) if text[i : i + 2] == "\n\n")]
        assert part.starts.tolist() == [len(found.vocabulary.encode(text[:begin])) for begin in begins]
    assert f"train: {len(found.train):,} tokens ({found.train.words:,} words" in found.report[1]


def test_many_files_make_one_part_and_each_is_a_document(tmp_path, cache):
    pieces = {
        "train/10.txt": "ten x",
        "train/2.txt": "two",
        "train/1.txt": "one\n",
        "valid/1.txt": "x",
        "test/1.txt": "x",
    }
    found = prepare(CorpusConfig(path=write_folder(tmp_path / "books", pieces)), cache)
    assert found.vocabulary.decode(found.train.numbers) == "one\ntwo\nten x\n"
    assert found.train.starts.tolist() == [0, 2, 4]
    plain = prepare(CorpusConfig(path=tmp_path / "books", line_ends=False), cache)
    assert plain.vocabulary.decode(plain.train.numbers) == "one two ten x"
    assert plain.train.words == 4
    assert sorted(plain.vocabulary.symbols) == ["one", "ten", "two", "x"]


@pytest.mark.parametrize("form", ["file", "folder", "archive"])
def test_a_single_text_is_cut_by_us(tmp_path, cache, form):
    text = "".join(chr(0x61 + i % 23) if i % 3 else "é" for i in range(997))
    write_folder(tmp_path / "one", {"input.txt": text})
    path = {
        "file": tmp_path / "one" / "input.txt",
        "folder": tmp_path / "one",
        "archive": write_archive(tmp_path / "one.tar.xz", {"one/input.txt": text}),
    }[form]
    found = prepare(CorpusConfig(path=path, vocabulary="character"), cache, block=64)
    assert [len(getattr(found, split)) for split in PARTS] == [797, 100, 100]
    assert "".join(texts(found).values()) == text


@pytest.mark.parametrize(("vocabulary", "size"), [("word", None), ("bpe", 268)])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("block", [3, 41, 10_000])
def test_no_word_of_a_single_text_is_cut(tmp_path, cache, vocabulary, size, mark, block):
    text = made_up_text(60).replace("cat", "cät").replace("\n\n", "\n")
    (tmp_path / "a.txt").write_text(mark + text, encoding="utf-8")
    config = CorpusConfig(path=tmp_path / "a.txt", vocabulary=vocabulary, vocabulary_size=size)
    found = prepare(config, cache, block=block)
    parts = list(texts(found).values())
    cuts = [len(parts[0]), len(parts[0] + parts[1])]
    if vocabulary == "bpe":
        assert "".join(parts) == text
    assert " ".join(parts).split() == text.split()
    assert [found.train.characters, found.train.characters + found.valid.characters] == [
        text.index(next(filter(str.isspace, text[int(share * len(text)) - 1 :])), int(share * len(text)) - 1) + 1
        for share in (0.8, 0.9)
    ], cuts
    assert sum(getattr(found, split).characters for split in PARTS) == len(text)


def test_files_are_used_again_for_the_same_text_and_settings_only(folder, tmp_path, cache, monkeypatch):
    config = CorpusConfig(path=folder)
    first = prepare(config, cache)
    monkeypatch.setattr(corpus_module, "_make", None)  # would be called to make it anew
    again = prepare(config, cache)
    assert texts(again) == texts(first)
    assert again.report == first.report
    copy = CorpusConfig(path=shutil.copytree(folder, tmp_path / "elsewhere"))
    assert texts(prepare(copy, cache)) == texts(first)
    for other in (
        CorpusConfig(path=folder, vocabulary="character"),
        CorpusConfig(path=folder, vocabulary_size=8),
        CorpusConfig(path=folder, line_ends=False),
        CorpusConfig(path=folder, documents="blank-line"),
    ):
        with pytest.raises(TypeError):
            prepare(other, cache)
    (folder / "valid.txt").write_text(PARTS["valid"] + "the cat\n")
    with pytest.raises(TypeError):
        prepare(config, cache)
    (folder / "valid.txt").write_text(PARTS["valid"])
    prepare(config, cache)
    monkeypatch.setattr(corpus_module, "VERSION", 999)
    with pytest.raises(TypeError):
        prepare(config, cache)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "train.tokens").write_bytes((path / "train.tokens").read_bytes()[:-1]),
        lambda path: (path / "train.tokens").write_bytes(b"\0" * (path / "train.tokens").stat().st_size),
        lambda path: (path / "test.starts").unlink(),
        lambda path: (path / "corpus.json").write_text("{"),
        lambda path: (path / "corpus.json").write_text('{"sha256": {}, "parts": {}}'),
        lambda path: (path / "vocabulary.json").write_text("[]"),
    ],
)
def test_broken_files_are_made_anew(folder, cache, damage):
    prepare(CorpusConfig(path=folder), cache)
    (name,) = made(cache)
    damage(cache / name)
    assert texts(prepare(CorpusConfig(path=folder), cache)) == PARTS
    assert made(cache) == [name]


def test_an_interruption_leaves_nothing_behind(folder, cache):
    def stop(what: str, done: int, total: int) -> None:
        if what == "valid":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(CorpusConfig(path=folder), cache, progress=stop)
    assert made(cache) == []


def test_two_that_make_the_same_at_once_both_get_it(folder, cache):
    inner = []

    def other(what: str, done: int, total: int) -> None:
        if what == "test" and not inner:
            inner.append(None)
            # The other process has another number, and therefore another name for its unfinished folder.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "getpid", lambda: 1)
                inner[0] = prepare(CorpusConfig(path=folder), cache)
            inner.append((cache / made(cache)[-1]).stat().st_ino)

    outer = prepare(CorpusConfig(path=folder), cache, progress=other)
    assert texts(outer) == texts(inner[0]) == PARTS
    (name,) = made(cache)
    assert (cache / name).stat().st_ino == inner[1]  # what was there first stays


def test_progress_counts_the_bytes_of_each_stage(folder, cache):
    seen: dict[str, list[tuple[int, int]]] = {}
    prepare(CorpusConfig(path=folder), cache, block=100, progress=lambda w, d, t: seen.setdefault(w, []).append((d, t)))
    assert list(seen) == ["vocabulary", "train", "valid", "test"]
    for what, calls in seen.items():
        size = len(PARTS["train" if what == "vocabulary" else what].encode())
        assert [done for done, _ in calls] == [*range(100, size, 100), size]
        assert {total for _, total in calls} == {size}


# Documents are told apart before anything is counted in tokens: one vocabulary meets both kinds.
@pytest.mark.parametrize(
    ("documents", "vocabulary", "size"),
    [
        ("files", "word", None),
        ("heading", "word", None),
        ("heading", "character", None),
        ("heading", "bpe", 270),
        pytest.param("files", "character", None, marks=pytest.mark.slow),
        pytest.param("files", "bpe", 270, marks=pytest.mark.slow),
    ],
)
def test_memory_does_not_grow_with_the_corpus(tmp_path, monkeypatch, vocabulary, size, documents):
    """What tracemalloc sees: Python and numpy. The library that learns byte pairs keeps a count of every word."""
    monkeypatch.setattr(sources, "COLLECTED", 4096)
    line, peaks = made_up_text(5) + "wörd " * 200 + "\n", []
    for repeats in (20, 200):
        path = tmp_path / str(repeats) / "text.txt"
        path.parent.mkdir()
        path.write_text(line * repeats, encoding="utf-8")
        config = CorpusConfig(path=path, vocabulary=vocabulary, vocabulary_size=size, documents=documents)
        tracemalloc.start()
        found = prepare(config, path.parent / "cache", block=4096)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.train.characters > 0.79 * len(line) * repeats
    assert peaks[1] < 1.2 * peaks[0] + 20_000, peaks


def test_the_cache_is_where_the_user_says(monkeypatch, folder, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("RELATIONAL_RNN_CACHE", raising=False)
    assert default_cache() == tmp_path / "xdg" / "relational-rnn"
    monkeypatch.setenv("RELATIONAL_RNN_CACHE", str(tmp_path / "mine"))
    prepare(CorpusConfig(path=folder))
    assert len(made(tmp_path / "mine")) == 1
    monkeypatch.delenv("RELATIONAL_RNN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache().expanduser() == Path.home() / ".cache" / "relational-rnn"


def test_the_vocabulary_that_is_kept_is_plain_json(folder, cache):
    found = prepare(CorpusConfig(path=folder), cache)
    kept = json.loads((cache / made(cache)[0] / "vocabulary.json").read_text(encoding="utf-8"))
    assert kept["symbols"] == list(found.vocabulary.symbols)


def test_wikitext_2_has_the_published_sizes(cache):
    path = published("RELATIONAL_RNN_WIKITEXT2")
    found = prepare(CorpusConfig(path=path, documents="heading"), cache)
    assert found.vocabulary.size == 33_278
    assert [len(part) for part in (found.train, found.valid, found.test)] == [2_088_628, 217_646, 245_569]
    assert [part.words for part in (found.train, found.valid, found.test)] == [2_088_628, 217_646, 245_569]
    assert [len(part.starts) for part in (found.train, found.valid, found.test)] == [600, 60, 60]
    unknown = found.vocabulary.unknown
    assert unknown is not None
    assert [int((part.numbers == unknown).sum()) for part in (found.train, found.valid, found.test)] == [
        54_625,
        11_718,
        15_218,
    ]
    counts = found.train.counts(found.vocabulary.size)
    assert (np.diff(counts) <= 0).all()
    assert found.vocabulary.symbol(0) == "the"
    # Its words are all in the vocabulary, so the text comes back but for spaces.
    assert found.vocabulary.decode(found.valid.numbers[:9]) == "\n= Homarus gammarus =\n\nHomarus gammarus"


def test_tiny_shakespeare_has_the_usual_parts(cache):
    found = prepare(CorpusConfig(path=published("RELATIONAL_RNN_SHAKESPEARE"), vocabulary="character"), cache)
    assert found.vocabulary.size == 65
    assert [len(part) for part in (found.train, found.valid, found.test)] == [892_315, 111_539, 111_540]
    assert found.vocabulary.decode(found.train.numbers[:14]) == "First Citizen:"
    pairs = CorpusConfig(path=published("RELATIONAL_RNN_SHAKESPEARE"), vocabulary="bpe", vocabulary_size=1024)
    learned = prepare(pairs, cache)
    assert [part.words for part in (learned.train, learned.valid, learned.test)] == [193_621, 24_404, 24_626]
    assert len(learned.train) < 0.45 * len(found.train)
    assert learned.vocabulary.decode(learned.test.numbers).endswith(found.vocabulary.decode(found.test.numbers[2:]))


def test_what_a_killed_process_left_goes_when_token_files_are_made(tmp_path, cache, folder):
    for number in (999_999_999, os.getpid()):  # dead, and a number that we have been given again
        (cache / f".word-1.{number}.part" / "unpacked").mkdir(parents=True)
    found = prepare(CorpusConfig(path=folder, vocabulary="character"), cache)
    (name,) = [name for name in made(cache) if not name.startswith(".")]
    left = cache / f".{name}.{os.getpid()}.part" / "unpacked"
    assert texts(found) == PARTS
    assert not (cache / ".word-1.999999999.part").exists()
    shutil.rmtree(cache / name)
    left.mkdir(parents=True)
    assert texts(prepare(CorpusConfig(path=folder, vocabulary="character"), cache)) == PARTS
    assert not left.exists()
