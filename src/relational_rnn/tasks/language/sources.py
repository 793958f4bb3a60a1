"""The text files of a corpus: found in a folder or an archive, read in pieces, split into documents."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from relational_rnn._check import InputError, describe
from relational_rnn._reading.archives import is_archive, most_unpacked, read_members
from relational_rnn._reading.guard import damaged
from relational_rnn._reading.plain import open_file

SPLITS = ("train", "valid", "test")
NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What the files, or folders of files, of each part may be called: `train.txt`, `wiki.train.tokens`, `test/3.txt`."""
SUFFIXES = (".txt", ".text", ".tokens", ".raw")
EXPECTED = "one text file, or texts (or folders of texts) called train, valid and test"
BLOCK = 2**20
"""Bytes that are read at a time."""
UNREADABLE = "the file cannot be read"
WHITE_SPACE = re.compile(r"\s")
DocumentStarts = Literal["files", "blank-line", "heading"]
"""What starts a document besides a file: nothing; a line after a blank one; or a heading of the first level as in
WikiText, ` = Title = ` between blank lines."""
HEADING = re.compile(r" = [^=\s](?:.*[^=\s])? = \r?\n?")
LONGEST = 2**16
"""Characters of a line that are looked at together; a longer line comes in parts and is no heading."""
COLLECTED = 2**16
"""Characters of a document that are collected before they are handed on."""


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file of UTF-8 text, or its bytes from `begin` up to `end`."""

    path: Path
    shown: str
    """Its name in messages."""
    begin: int = 0
    end: int | None = None
    line: int = 1
    """The number of the line that `begin` is in."""

    def pieces(self, block: int = BLOCK, on_read: Callable[[int], None] | None = None) -> Iterator[str]:
        """The text in pieces of `block` bytes; line ends stay as they are, a byte order mark is dropped.

        `on_read` is called with the number of bytes after each piece.

        Raises:
            InputError: the file cannot be read, or is not UTF-8 (the line is named).
        """
        decoder = codecs.getincrementaldecoder("utf-8" if self.begin else "utf-8-sig")()
        line, left = self.line, self.size
        with open_file(self.path) as file:
            file.seek(self.begin)
            while left:
                with damaged(self.shown, UNREADABLE):
                    data = file.read(min(block, left))
                left = left - len(data) if data else 0  # the file has become shorter: somebody is writing to it
                try:
                    text = decoder.decode(data, final=not left)
                except UnicodeDecodeError as error:
                    line += error.object[: error.start].count(b"\n")
                    got = repr(bytes(error.object[error.start : error.end]))
                    raise InputError(
                        describe(f"{self.shown}, line {line:,}", "this is not UTF-8 text", got=got)
                    ) from error
                line += text.count("\n")
                if text:
                    yield text
                if on_read is not None:
                    on_read(len(data))

    @property
    def size(self) -> int:
        """In bytes."""
        with open_file(self.path) as file:
            return (os.fstat(file.fileno()).st_size if self.end is None else self.end) - self.begin

    def cut(self, shares: Sequence[float], *, words: bool, block: int = BLOCK) -> list[TextFile]:
        """The text in parts, cut after these shares of its characters; with `words`, after the next white space.

        Raises:
            InputError: the file is empty, or nothing is left for a part.
        """
        total = sum(map(len, self.pieces(block)))
        if not total:
            raise InputError(describe(self.shown, "the file is empty"))
        wanted = [int(share * total) for share in shares]
        marks = [(self.begin, self.line)]
        place, line = 0, self.line
        with open_file(self.path) as file:
            file.seek(self.begin)
            at = self.begin + 3 * (file.read(3) == codecs.BOM_UTF8)
        for piece in self.pieces(block):
            while len(marks) <= len(wanted):
                offset = max(wanted[len(marks) - 1] - place, 0)
                if words:  # the cut may follow white space that comes right before it
                    found = WHITE_SPACE.search(piece, max(offset - 1, 0))
                    offset = len(piece) + 1 if found is None else found.end()
                if offset > len(piece):
                    break
                marks.append((at + len(piece[:offset].encode()), line + piece.count("\n", 0, offset)))
            place, at, line = place + len(piece), at + len(piece.encode()), line + piece.count("\n")
        ends = [begin for begin, _ in marks[1:]]
        if len(marks) <= len(wanted) or len({*ends, at}) < len(marks) or ends[0] == self.begin:
            hint = "give three texts of your own, called train, valid and test."
            raise InputError(describe(self.shown, "the text is too short to be cut into parts", hint=hint))
        return [
            replace(self, begin=begin, end=end, line=first)
            for (begin, first), end in zip(marks, [*ends, None], strict=True)
        ]


def find_texts(path: Path, scratch: Path) -> dict[str, list[TextFile]]:
    """The files of each of SPLITS, or those of "all" if there is one text only, which is not split yet.

    Args:
        path: a file, a folder, or an archive (.tar, .tar.gz, .tar.xz, .tar.bz2, .zip).
        scratch: a new folder that an archive's texts are written to, under numbers: its names decide no path.

    Raises:
        InputError: an archive that cannot be read, or files of which it is not clear what they are.
    """
    if path.is_dir():
        return _sort_out(path, {name: TextFile(file, str(file)) for name, file in _texts_in(path).items()})
    if not is_archive(path):
        return {"all": [TextFile(path, str(path))]}
    texts: dict[str, TextFile] = {}
    scratch.mkdir(parents=True, exist_ok=True)
    for name, member in read_members(path, _is_text, most=most_unpacked(path)):
        target = scratch / f"{len(texts)}.text"
        with target.open("wb") as file:
            file.writelines(member.blocks())
        texts[name] = TextFile(target, f"{path.name}: {name}")
    return _sort_out(path, texts)


def digest(path: Path) -> str:
    """The sha256 of a file, or of the names and contents of all files that `find_texts` reads in a folder."""
    if not path.is_dir():
        with open_file(path) as file, damaged(path, UNREADABLE):
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for name, file in _texts_in(path).items():
        whole.update(f"{name}\0{digest(file)}\n".encode())
    return whole.hexdigest()


def _texts_in(folder: Path) -> dict[str, Path]:
    files = sorted(file for depth in ("*", "*/*", "*/*/*") for file in folder.glob(depth))
    names = {file.relative_to(folder).as_posix(): file for file in files}
    return {name: file for name, file in names.items() if _is_text(name) and file.is_file()}


def _is_text(name: str) -> bool:
    file = PurePosixPath(name)
    return (
        file.suffix.lower() in SUFFIXES
        and not any(part.startswith((".", "__")) for part in file.parts)
        and not re.match(r"(readme|licen[cs]e)\b", file.name.lower())
    )


def _sort_out(path: Path, texts: dict[str, TextFile]) -> dict[str, list[TextFile]]:
    """Which text belongs to which part."""

    def refuse(problem: str, got: str | None = None) -> InputError:
        return InputError(describe(str(path), problem, got=got, expected=EXPECTED))

    if not texts:
        raise refuse("it holds no text", f"no file that ends in {', '.join(SUFFIXES)}")
    homes: dict[str, dict[str, list[TextFile]]] = {split: {} for split in SPLITS}  # part -> its folder or file -> texts
    for name in sorted(texts, key=_natural):
        found = _part(name)
        if found is not None:
            split, home = found
            homes[split].setdefault(home, []).append(texts[name])
    missing = [split for split in SPLITS if not homes[split]]
    if len(missing) == len(SPLITS):
        if len(texts) == 1:
            return {"all": list(texts.values())}
        more = f" and {len(texts) - 3:,} more" if len(texts) > 3 else ""
        raise refuse("it is not clear which text is which", ", ".join(sorted(texts)[:3]) + more)
    if missing:
        raise refuse(f"it has no {' and no '.join(missing)} text")
    for split, of in homes.items():
        if len(of) > 1:
            raise refuse(f"it has more than one {split} text", ", ".join(sorted(of)[:3]))
    return {split: next(iter(of.values())) for split, of in homes.items()}


def _part(name: str) -> tuple[str, str] | None:
    """(part, the file or folder that makes it up) of a text: a folder's name decides before the file's own."""
    path = PurePosixPath(name)
    for folder in path.parents:
        if folder.name.lower() in NAMES:
            return NAMES[folder.name.lower()], str(folder)
    words = {NAMES[word] for word in re.split(r"[._-]", path.stem.lower()) if word in NAMES}
    return (words.pop(), name) if len(words) == 1 else None


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts numbers in names by their size."""
    return [
        (int(part), "") if part.isdecimal() and len(part) < 1000 else (-1, part) for part in re.split(r"([0-9]+)", name)
    ]


def split_documents(pieces: Iterable[str], starts: DocumentStarts) -> Iterator[tuple[bool, str]]:
    """The same text in pieces that each belong to one document: (whether it starts a new document, piece).

    The beginning of the text is not marked as a start, even after blank lines.

    >>> list(split_documents(["to be", "\\n\\n\\nor not\\n"], "blank-line"))
    [(False, 'to be\\n\\n\\n'), (True, 'or not\\n')]
    >>> list(split_documents(["\\n = A = \\n\\nto\\n\\n = B = \\n", "\\nbe"], "heading"))
    [(False, '\\n = A = \\n\\nto\\n\\n'), (True, ' = B = \\n\\nbe')]
    """
    if starts == "files":
        yield from ((False, piece) for piece in pieces if piece)
        return
    ready: list[str] = []
    size, new = 0, False
    for start, line in _marked(pieces, starts):
        if ready and (start or size >= COLLECTED):
            yield new, "".join(ready)
            ready, size, new = [], 0, start
        ready.append(line)
        size += len(line)
    if ready:
        yield new, "".join(ready)


def _marked(pieces: Iterable[str], starts: DocumentStarts) -> Iterator[tuple[bool, str]]:
    """(whether it starts a document, line or part of a line), for starts other than "files"."""
    begun, after_blank = False, True  # there was a line that is not blank; the line before is blank
    held = ""  # a line that is a heading if a blank line follows
    for line, whole in _lines(pieces):
        blank = not line.strip()
        if held:
            yield blank and begun, held
            held, begun = "", True
        if starts == "heading" and whole and after_blank and HEADING.fullmatch(line):
            held, after_blank = line, False
            continue
        yield starts == "blank-line" and begun and after_blank and not blank, line
        begun = begun or not blank
        after_blank = blank and (whole or after_blank)
    if held:
        yield False, held


def _lines(pieces: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """(line, True), or (part, False) of a line that is longer than LONGEST characters."""
    rest, cut = "", False
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        for line in lines:
            yield line + "\n", not cut
            cut = False
        while len(rest) > LONGEST:
            yield rest[:LONGEST], False
            rest, cut = rest[LONGEST:], True
    if rest:
        yield rest, not cut
