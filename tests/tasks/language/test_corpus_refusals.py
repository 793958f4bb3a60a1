"""What makes no corpus is refused by one sentence that says where and why, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil

import pytest
from corpora import made, named, write_archive, write_folder

from relational_rnn._check import InputError
from relational_rnn.tasks.language.corpus import CorpusConfig, prepare


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.txt": "a\n", "valid.txt": "", "test.txt": "a\n"}, "valid.txt: the file is empty"),
        ({"train.txt": "", "valid.txt": "a\n", "test.txt": "a\n"}, "train.txt: the file is empty"),
        ({"train.txt": "a\n", "valid.txt": "a\nb\n", "test.txt": "a\n"}, "valid.txt: the vocabulary lacks words"),
        ({"train.txt": "a\n", "test.txt": "a\n"}, "it has no valid text\n  expected  one text file, or texts"),
        ({"train.txt": "a\n"}, "it has no valid and no test text"),
        ({"a.txt": "a\n", "b.txt": "b\n"}, "it is not clear which text is which\n  got       a.txt, b.txt"),
        ({"data.csv": "a\n"}, "it holds no text\n  got       no file that ends in .txt, .text, .tokens, .raw"),
        (
            {"a/train.txt": "a\n", "b/train.txt": "a\n", "valid.txt": "a\n", "test.txt": "a\n"},
            "it has more than one train text\n  got       a/train.txt, b/train.txt",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("archived", [False, True])
def test_files_that_make_no_corpus_are_refused(tmp_path, cache, files, message, archived):
    path = write_archive(tmp_path / "t.tar.gz", files) if archived else write_folder(tmp_path / "t", files)
    with pytest.raises(InputError) as error:
        prepare(CorpusConfig(path=path), cache)
    assert message in str(error.value)
    assert made(cache) == []


@pytest.mark.parametrize(
    ("content", "vocabulary", "message"),
    [
        (b"", "word", "a.txt: the file is empty"),
        (b"", "character", "a.txt: the file is empty"),
        (b"\xef\xbb\xbf", "word", "a.txt: the file is empty"),
        (b"abc", "character", "the text is too short to be cut into parts\n  hint      give three texts"),
        (b"one two", "word", "the text is too short to be cut into parts"),
        (b"ok\nb\xffd and more\n" * 4, "word", "a.txt, line 2: this is not UTF-8 text\n  got       b'\\xff'"),
        (b"abc\n" * 9 + b"\xe6\x97", "word", "a.txt, line 10: this is not UTF-8 text\n  got       b'\\xe6\\x97'"),
        (b"abcdefgh\n" + "é\nü".encode(), "character", "a.txt (valid part): the vocabulary lacks characters"),
        (b" \n" * 30, "word", None),
    ],
)
def test_a_file_that_makes_no_corpus_is_refused(tmp_path, cache, content, vocabulary, message):
    (tmp_path / "a.txt").write_bytes(content)
    config = CorpusConfig(path=tmp_path / "a.txt", vocabulary=vocabulary)
    if message is None:
        assert prepare(config, cache).vocabulary.size == 1
        config = CorpusConfig(path=tmp_path / "a.txt", vocabulary=vocabulary, line_ends=False)
        message = "a.txt (train part): the text holds no word"
        shutil.rmtree(cache)
    with pytest.raises(InputError) as error:
        prepare(config, cache)
    assert message in str(error.value)
    assert made(cache) == []


def test_the_line_of_an_unknown_character_is_that_of_the_file(tmp_path, cache):
    (tmp_path / "a.txt").write_text("ab\n" * 30 + "aü\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.txt \(test part\): .*\n  got       'ü' \(line 31\)"):
        prepare(CorpusConfig(path=tmp_path / "a.txt", vocabulary="character"), cache)


def test_no_path_and_a_path_that_is_not_there(tmp_path, cache):
    with pytest.raises(InputError, match="prepare: no text is named"):
        prepare(CorpusConfig(), cache)
    with pytest.raises(InputError, match=r"nowhere: there is no such file or folder"):
        prepare(CorpusConfig(path=tmp_path / "nowhere"), cache)
    assert made(cache) == []


@pytest.mark.parametrize("stage", ["vocabulary", "train"])
def test_a_file_that_vanishes_is_said_in_one_sentence(folder, cache, stage):
    def vanish(what: str, done: int, total: int) -> None:
        if what == stage:
            (folder / "valid.txt").unlink(missing_ok=True)

    with pytest.raises(InputError) as error:
        prepare(CorpusConfig(path=folder), cache, progress=vanish)
    assert str(error.value) == f"{folder / 'valid.txt'}: cannot be read: No such file or directory"
    assert made(cache) == []


@pytest.mark.parametrize("after", ["longer\n", ""])
def test_a_file_that_changes_meanwhile_is_noticed(folder, cache, after):
    def change(what: str, done: int, total: int) -> None:
        if what == "test":
            (folder / "train.txt").write_text(after)

    with pytest.raises(InputError, match="the text changed while it was read"):
        prepare(CorpusConfig(path=folder), cache, progress=change)
    assert made(cache) == []


@pytest.mark.parametrize("name", ["t.zip", "t.tar", "t.tar.gz", "t.tar.xz", "t.tar.bz2"])
def test_an_archive_that_is_cut_off_is_refused(tmp_path, cache, name):
    big = {file: text * 40 for file, text in named("plain").items()}
    archive = write_archive(tmp_path / name, big)
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * 0.6)])
    with pytest.raises(
        InputError,
        match=r"t\.[a-z.0-9]+(: (this archive cannot be read to its end|this is not an archive)|, line 1: this is not)",
    ):
        prepare(CorpusConfig(path=archive), cache)
    assert made(cache) == []


@pytest.mark.parametrize(("name", "place"), [("t.zip", 60), ("t.tar.gz", -8), ("t.tar.xz", -12)])
def test_an_archive_with_altered_bytes_is_refused(tmp_path, cache, name, place):
    """In a compressed text, in the checksum of a whole archive (gz), in the footer (xz)."""
    archive = write_archive(tmp_path / name, named("plain"))
    data = bytearray(archive.read_bytes())
    data[place] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(InputError, match="this archive cannot be read to its end"):
        prepare(CorpusConfig(path=archive), cache)
    assert made(cache) == []


def test_names_in_an_archive_decide_no_path(tmp_path, cache):
    outside = write_archive(tmp_path / "t.tar", {f"../../{name}": text for name, text in named("plain").items()})
    with pytest.raises(InputError, match="it holds no text"):
        prepare(CorpusConfig(path=outside), cache)
    assert sorted(os.listdir(tmp_path)) == ["cache", "t.tar"]
    assert made(cache) == []


def test_settings_that_cannot_be_obeyed_are_refused_at_once():
    with pytest.raises(InputError, match="CorpusConfig: documents is not a known choice"):
        CorpusConfig(documents="chapters")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="CorpusConfig: vocabulary is not a known choice"):
        CorpusConfig(vocabulary="letters")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="CorpusConfig: byte pairs need a vocabulary_size"):
        CorpusConfig(vocabulary="bpe")
