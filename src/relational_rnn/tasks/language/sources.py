"""The text files of a corpus: found in a folder or an archive, read in pieces."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from relational_rnn._check import InputError, describe
from relational_rnn._reading.archives import is_archive, most_unpacked, read_members
from relational_rnn._reading.plain import open_file

SPLITS = ("train", "valid", "test")
NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What the files, or folders of files, of each part may be called: `train.txt`, `wiki.train.tokens`, `test/3.txt`."""
SUFFIXES = (".txt", ".text", ".tokens", ".raw")
BLOCK = 2**20
"""Bytes that are read at a time."""
WHITE_SPACE = re.compile(r"\s")


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file of UTF-8 text, or its bytes from `begin` up to `end`."""

    path: Path
    shown: str
    """What it is called in messages."""
    begin: int = 0
    end: int | None = None
    line: int = 1
    """The number of the line that `begin` stands in."""

    def pieces(self, block: int = BLOCK, on_read: Callable[[int], None] | None = None) -> Iterator[str]:
        """The text in pieces; line ends are left as they are, a byte order mark is left out.

        Args:
            block: bytes that are read at a time.
            on_read: called with the number of bytes after each of them.

        Raises:
            InputError: the file is gone or cannot be read, or is not UTF-8 (the line is named).
        """
        decoder = codecs.getincrementaldecoder("utf-8" if self.begin else "utf-8-sig")()
        line, left = self.line, self.size
        try:
            with open_file(self.path) as file:
                file.seek(self.begin)
                while left:
                    data = file.read(min(block, left))
                    left = left - len(data) if data else 0  # less than there was: it is being written to
                    try:
                        text = decoder.decode(data, final=not left)
                    except UnicodeDecodeError as error:
                        line += error.object[: error.start].count(b"\n")
                        got = repr(bytes(error.object[error.start : error.end]))
                        problem = "this is not UTF-8 text"
                        raise InputError(describe(f"{self.shown}, line {line:,}", problem, got=got)) from error
                    line += text.count("\n")
                    if text:
                        yield text
                    if on_read is not None:
                        on_read(len(data))
        except OSError as error:
            raise unreadable(self.shown, error) from error

    @property
    def size(self) -> int:
        """In bytes."""
        try:
            return (self.path.stat().st_size if self.end is None else self.end) - self.begin
        except OSError as error:
            raise unreadable(self.shown, error) from error

    def cut(self, shares: Sequence[float], *, words: bool, block: int = BLOCK) -> list[TextFile]:
        """The text in parts, cut behind these shares of its characters; with `words`, behind the next white space.

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
                if words:  # the cut may stand behind white space that comes right before it
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


def unreadable(shown: str, error: OSError) -> InputError:
    """The mistake of a file that is gone, or may not be read."""
    gone = isinstance(error, FileNotFoundError)
    problem = "the file is gone" if gone else "the file cannot be read"
    return InputError(describe(shown, problem, got=None if gone else error.strerror or error))


def find_texts(path: Path, scratch: Path) -> dict[str, list[TextFile]]:
    """The files of each of SPLITS, or those of "all" where there is one text only, which is not split yet.

    Args:
        path: a file, a folder, or an archive (.tar, .tar.gz, .tar.xz, .tar.bz2, .zip).
        scratch: a folder that an archive's texts are written to.

    Raises:
        InputError: no such path, an archive that cannot be read, or files of which it is not clear what they are.
    """
    if path.is_dir():
        found = {
            file.relative_to(path).as_posix(): file for depth in ("*", "*/*", "*/*/*") for file in path.glob(depth)
        }
        found = {name: file for name, file in found.items() if file.is_file() and _is_text(name)}
        texts = {name: TextFile(file, str(file)) for name, file in found.items()}
    elif not path.exists():
        raise InputError(describe(str(path), "there is no such file or folder"))
    elif is_archive(path):
        texts = _unpack(path, scratch)
    else:
        return {"all": [TextFile(path, str(path))]}
    return _sort_out(path, texts)


def digest(path: Path) -> str:
    """The sha256 of a file, or of the names and contents of all files that `find_texts` looks at in a folder."""
    if not path.is_dir():
        return _file_digest(path)
    whole = hashlib.sha256()
    for file in sorted(file for depth in ("*", "*/*", "*/*/*") for file in path.glob(depth)):
        name = file.relative_to(path).as_posix()
        if file.is_file() and _is_text(name):
            whole.update(f"{name}\0{_file_digest(file)}\n".encode())
    return whole.hexdigest()


def _file_digest(path: Path) -> str:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(str(path), error) from error


def _is_text(name: str) -> bool:
    file = PurePosixPath(name)
    return (
        file.suffix.lower() in SUFFIXES
        and not any(part.startswith((".", "__")) for part in file.parts)
        and not re.match(r"(readme|licen[cs]e)\b", file.name.lower())
    )


def _unpack(path: Path, scratch: Path) -> dict[str, TextFile]:
    """The texts of an archive, written to `scratch` under numbers; names inside the archive decide no path."""
    texts: dict[str, TextFile] = {}
    scratch.mkdir(parents=True, exist_ok=True)
    for name, member in read_members(path, _is_text, most=most_unpacked(path)):
        target = scratch / f"{len(texts)}.text"
        with target.open("wb") as file:
            file.writelines(member.blocks())
        texts[name] = TextFile(target, f"{path.name}: {name}")
    return texts


def _sort_out(path: Path, texts: dict[str, TextFile]) -> dict[str, list[TextFile]]:
    """Which text belongs to which part."""
    expected = "one text file, or texts (or folders of texts) called train, valid and test"
    if not texts:
        got = f"no file that ends in {', '.join(SUFFIXES)}"
        raise InputError(describe(str(path), "it holds no text", got=got, expected=expected))
    parts: dict[str, list[TextFile]] = {split: [] for split in SPLITS}
    homes: dict[str, set[str]] = {split: set() for split in SPLITS}  # the folders, or the files, that hold a part
    for name, text in sorted(texts.items(), key=lambda item: _natural(item[0])):
        found = _part(name)
        if found is not None:
            split, home = found
            parts[split].append(text)
            homes[split].add(home)
    if not any(parts.values()):
        if len(texts) == 1:
            return {"all": list(texts.values())}
        got = ", ".join(sorted(texts)[:3]) + (f" and {len(texts) - 3:,} more" if len(texts) > 3 else "")
        raise InputError(describe(str(path), "it is not clear which text is which", got=got, expected=expected))
    missing = [split for split in SPLITS if not parts[split]]
    if missing:
        raise InputError(describe(str(path), f"it has no {' and no '.join(missing)} text", expected=expected))
    for split, names in homes.items():
        if len(names) > 1:
            got = ", ".join(sorted(names)[:3])
            raise InputError(describe(str(path), f"it has more than one {split} text", got=got, expected=expected))
    return parts


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
