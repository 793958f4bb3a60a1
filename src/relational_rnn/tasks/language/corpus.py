"""From a text to token files that are mapped into memory, made once and used again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from relational_rnn._check import InputError, check_choice, check_flags, describe
from relational_rnn._files import sweep
from relational_rnn._reading.guard import damaged
from relational_rnn._reading.json_text import read_json_object
from relational_rnn._reading.plain import read_text
from relational_rnn._reading.structure import check_entries
from relational_rnn.tasks.language.sources import (
    BLOCK,
    SPLITS,
    DocumentStarts,
    TextFile,
    digest,
    find_texts,
    split_documents,
)
from relational_rnn.tasks.language.vocabulary import Vocabulary, VocabularyKind, WordCarry, check_settings, split_words

VERSION = 1
"""Of the token files; another version's are made anew."""
SHARES = (0.8, 0.9)
"""Where a single text is cut into the parts train, valid and test."""
INDEX = "corpus.json"
INDEX_ENTRIES = {"sha256": Mapping[str, str], "parts": Mapping[str, Mapping[str, int]]}
"""What the index must hold."""
OnProgress = Callable[[str, int, int], None]
"""Called with (what is being made, bytes of text read so far, bytes in all)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusConfig:
    """A text, and how it becomes tokens."""

    path: Path | None = None
    """A text file in UTF-8, which is cut in order, 80 % for training and 10 % each for validation and test; or a folder
    or an archive (.tar.gz, .tar.xz, .zip) with texts, or folders of texts, that are called train, valid and test."""
    vocabulary: VocabularyKind = "word"
    """What a token is: a word, a character, or a byte pair (bpe)."""
    vocabulary_size: int | None = None
    """How many tokens at most; the rarest words or characters are then read as unknown. None takes all of the training
    text. Byte pairs need a size."""
    line_ends: bool = True
    """The end of a line is a token (words only: characters and byte pairs always keep it)."""
    documents: DocumentStarts = "files"
    """Where a document starts, besides at the beginning of a file: nowhere else (files), after a blank line, or at a
    heading of WikiText."""

    def __post_init__(self) -> None:
        check_choice("CorpusConfig", "vocabulary", self.vocabulary, get_args(VocabularyKind))
        check_choice("CorpusConfig", "documents", self.documents, get_args(DocumentStarts))
        check_flags("CorpusConfig", line_ends=self.line_ends)
        check_settings(self.vocabulary, self.vocabulary_size, self.line_ends, "CorpusConfig")


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """One part of a corpus as numbers, in memory or in a file that is mapped into it.

    Words and characters are those of the text, whatever the vocabulary, so that perplexity per word and bits per
    character can be compared across vocabularies. A line end counts as one word, as WikiText counts its `<eos>` (but
    not if the corpus has `line_ends=False`), and as one character. Characters are Unicode code points.
    """

    numbers: np.ndarray
    """[n] the tokens, in the smallest unsigned type that holds them all; a read-only map of a file, or an array."""
    starts: np.ndarray
    """[d] int64, ascending: where documents start. The first one starts at 0."""
    words: int
    """Words in the text, and its line ends."""
    characters: int

    def __len__(self) -> int:
        return len(self.numbers)

    def counts(self, size: int) -> np.ndarray:
        """int64 [size] how often every token of a vocabulary of this size occurs.

        >>> Tokens(np.array([0, 2, 2], np.uint8), np.array([0]), words=3, characters=9).counts(4).tolist()
        [1, 0, 2, 0]
        """
        blocks = (self.numbers[start : start + BLOCK] for start in range(0, len(self), BLOCK))
        return sum((np.bincount(block, minlength=size) for block in blocks), np.zeros(size, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """The three parts of a corpus as tokens."""

    vocabulary: Vocabulary
    """Of the training text."""
    train: Tokens
    valid: Tokens
    test: Tokens
    report: tuple[str, ...]
    """What a user should know, one line each, such as counts of each part."""


def prepare(
    config: CorpusConfig, cache: Path | None = None, *, progress: OnProgress | None = None, block: int = BLOCK
) -> Corpus:
    """Make the token files of a corpus, or map those that were made before from the same text with the same settings.

    The text is read in blocks, so it may be larger than memory. The files are in a folder of their own under `cache`,
    which appears when all of them are whole; broken ones are noticed by their hashes and made anew.

    Args:
        config: the text and the settings.
        cache: the folder for token files; by default `$RELATIONAL_RNN_CACHE`, or else `relational-rnn` in the user's
            folder for caches (`$XDG_CACHE_HOME`, or else `~/.cache`).
        progress: called now and then with (what is being made, bytes of text read so far, bytes in all).
        block: bytes of text that are read at a time.

    Raises:
        InputError: no text, an empty or a vanishing file, text that is not UTF-8, or words or characters that the
            training text lacks.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = Path(folder) / "notes.txt"
    ...     _ = text.write_text("to be or not to be\\n" * 10, encoding="utf-8")
    ...     corpus = prepare(CorpusConfig(path=text), cache=Path(folder) / "cache")
    ...     print(corpus.vocabulary.size, len(corpus.train), corpus.vocabulary.decode(corpus.test.numbers[:7]))
    5 56 to be or not to be
    <BLANKLINE>
    """
    if config.path is None:
        raise InputError(describe("prepare", "no text is named", expected="a file, a folder or an archive (path)"))
    path = config.path.expanduser()
    if not path.exists():
        raise InputError(describe(str(path), "there is no such file or folder"))
    content = digest(path)
    folder = (cache or default_cache()).expanduser() / _key(config, content)
    found = _load(folder)
    if found is None:
        _make(config, path, content, folder, progress, block)
        found = _load(folder)
        assert found is not None, "files that were just written cannot be read"
    return found


def default_cache() -> Path:
    """Where token files are kept by default."""
    named = os.environ.get("RELATIONAL_RNN_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "relational-rnn"


def _key(config: CorpusConfig, content: str) -> str:
    """The name of the folder: it depends on all that decides what the token files hold."""
    settings = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "path"}
    settings |= {"content": content, "version": VERSION}
    return f"{config.vocabulary}-{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:24]}"


def _make(
    config: CorpusConfig, path: Path, content: str, folder: Path, progress: OnProgress | None, block: int
) -> None:
    """Write `folder`, whole or not at all."""
    sweep(folder.parent)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    scratch = part / "unpacked"
    shutil.rmtree(part, ignore_errors=True)  # by a killed process that had our number
    try:
        scratch.mkdir(parents=True)
        parts = find_texts(path, scratch)
        if "all" in parts:
            (text,) = parts["all"]
            cut = text.cut(SHARES, words=config.vocabulary != "character", block=block)
            parts = {
                split: [replace(p, shown=f"{p.shown} ({split} part)")] for split, p in zip(SPLITS, cut, strict=True)
            }
        reading = _Reading(config, progress, block)
        vocabulary = Vocabulary.build(
            config.vocabulary,
            reading.joined(parts["train"]),
            size=config.vocabulary_size,
            line_ends=config.line_ends,
            where=_shown(parts["train"]),
        )
        (part / "vocabulary.json").write_text(vocabulary.to_json(), encoding="utf-8")
        about = {split: _write_tokens(reading, parts[split], vocabulary, part, split) for split in SPLITS}
        if digest(path) != content:
            raise InputError(describe(str(path), "the text changed while it was read", hint="run it again."))
        shutil.rmtree(scratch)
        hashes = {file.name: digest(file) for file in sorted(part.iterdir())}
        index = {"version": VERSION, "parts": about, "sha256": hashes}
        (part / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
        _install(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _install(part: Path, folder: Path) -> None:
    """Give the finished folder its name; a broken one of the same name makes way."""
    if folder.exists():
        if _load(folder) is not None:  # another process was faster, and made the same
            return
        broken = folder.with_name(f".{folder.name}.{os.getpid()}.broken")
        os.replace(folder, broken)
        shutil.rmtree(broken)
    os.replace(part, folder)


def _load(folder: Path) -> Corpus | None:
    """The corpus of a folder of token files; None if there is none, or it is broken."""
    try:
        with damaged(folder, "broken"):
            index: Any = read_json_object(folder / INDEX)
            check_entries(index, INDEX_ENTRIES, {}, where=str(folder / INDEX))
            if any(digest(folder / name) != known for name, known in index["sha256"].items()):
                return None
            vocabulary = Vocabulary.from_json(read_text(folder / "vocabulary.json"), str(folder))
            parts = {}
            for split in SPLITS:
                about, path = index["parts"][split], folder / f"{split}.tokens"
                numbers = np.memmap(path, _smallest_type(vocabulary), mode="r", shape=(about["tokens"],))
                starts = np.fromfile(path.with_suffix(".starts"), np.int64)
                parts[split] = Tokens(numbers, starts, words=about["words"], characters=about["characters"])
    except InputError:
        return None
    return Corpus(vocabulary, **parts, report=_report(vocabulary, index["parts"]))


def _smallest_type(vocabulary: Vocabulary) -> np.dtype:
    return np.min_scalar_type(vocabulary.size - 1)


def _shown(texts: list[TextFile]) -> str:
    return texts[0].shown if len(texts) == 1 else f"{texts[0].shown} and {len(texts) - 1:,} more"


@dataclass(frozen=True, slots=True)
class _Reading:
    """How texts are read."""

    config: CorpusConfig
    progress: OnProgress | None
    block: int

    def pieces(self, text: TextFile, on_read: Callable[[int], None]) -> Iterator[str]:
        """The pieces of a text; if line ends are words, a last line without one gets it."""
        piece = ""
        for piece in text.pieces(self.block, on_read):
            yield piece
        if not piece:
            raise InputError(describe(text.shown, "the file is empty"))
        if self.config.vocabulary == "word" and self.config.line_ends and text.end is None and piece[-1] != "\n":
            yield "\n"

    def joined(self, texts: list[TextFile]) -> Iterator[str]:
        """All texts; a word or a byte pair that is counted never reaches from one file into the next."""
        on_read = self.counter("vocabulary", texts)
        for number, text in enumerate(texts):
            if number and self.config.vocabulary != "character":
                yield "\n"
            yield from self.pieces(text, on_read)

    def counter(self, what: str, texts: list[TextFile]) -> Callable[[int], None]:
        """Adds up the bytes that were read of these texts, and reports them."""
        done, total = 0, sum(text.size for text in texts)

        def on_read(count: int) -> None:
            nonlocal done
            done += count
            if self.progress is not None:
                self.progress(what, done, total)

        return on_read


def _write_tokens(
    reading: _Reading, texts: list[TextFile], vocabulary: Vocabulary, folder: Path, split: str
) -> dict[str, int]:
    """Write `<split>.tokens` and `<split>.starts`; what the index says about them."""
    dtype, config = _smallest_type(vocabulary), reading.config
    about = {"tokens": 0, "words": 0, "characters": 0, "documents": 0, "unknown": 0}
    on_read = reading.counter(split, texts)
    with (folder / f"{split}.tokens").open("wb") as numbers, (folder / f"{split}.starts").open("wb") as starts:

        def write(tokens: np.ndarray, words: list[str]) -> None:
            numbers.write(tokens.astype(dtype).data)
            about["tokens"] += len(tokens)
            about["words"] += sum(len(split_words(part, config.line_ends)) for part in words)
            if vocabulary.unknown is not None:
                about["unknown"] += int((tokens == vocabulary.unknown).sum())

        for text in texts:
            encoder, carry = vocabulary.encoder(text.shown, text.line), WordCarry()
            pieces = split_documents(reading.pieces(text, on_read), config.documents)
            for number, (new, piece) in enumerate(pieces):
                if new or number == 0:
                    starts.write(np.int64(about["tokens"]).tobytes())
                    about["documents"] += 1
                write(encoder.feed(piece), carry.feed(piece))
                about["characters"] += len(piece)
            write(encoder.finish(), carry.finish())
    if not about["tokens"]:
        raise InputError(describe(_shown(texts), f"the text holds no {vocabulary.kind}"))
    return about


def _report(vocabulary: Vocabulary, parts: dict[str, dict[str, int]]) -> tuple[str, ...]:
    noun = {"word": "words", "character": "characters", "bpe": "byte pairs"}[vocabulary.kind]
    lines = [f"vocabulary: {vocabulary.size:,} {noun}"]
    for split, about in parts.items():
        line = f"{split}: {about['tokens']:,} tokens ({about['words']:,} words, {about['characters']:,} characters)"
        if about["documents"] > 1:
            line += f" in {about['documents']:,} documents"
        if about["unknown"]:
            line += f", {about['unknown'] / about['tokens']:.2%} unknown"
        lines.append(line)
    return tuple(lines)
