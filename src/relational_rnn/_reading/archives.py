"""Archives of others: zip, and tar with its compressions, read member by member, never unpacked by their names."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any, cast

from relational_rnn._check import InputError, describe
from relational_rnn._reading.guard import damaged
from relational_rnn._reading.plain import check_file, open_file

UNREADABLE = "this archive cannot be read to its end"
CUT_OFF = "it may be cut off: fetch it again."
BLOCK = 2**20
LARGEST_READ = 2**26
"""Bytes that tarfile may ask for at once: more is a header that lies."""
COMPRESSIONS: tuple[tuple[re.Pattern[bytes], Callable[[Any], Any]], ...] = (
    (re.compile(rb"\x1f\x8b\x08"), lambda file: gzip.GzipFile(fileobj=file, mode="rb")),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.BZ2File),
    (re.compile(rb"\xfd7zXZ\x00|\x5d\x00\x00"), lzma.LZMAFile),
)
"""How a compressed file begins, and what unpacks it."""


def most_unpacked(path: Path) -> int:
    """Bytes that an archive may unpack to if nothing more is known: text and weights do not compress a hundredfold."""
    with open_file(path) as file:
        return max(2**30, 100 * os.fstat(file.fileno()).st_size)


def is_archive(path: Path) -> bool:
    """Whether a file begins, or for zip ends, as an archive does; it may still be damaged."""
    check_file(path)
    if is_zip(path):
        return True
    with open_file(path) as file:
        if _compression(file) is not None:
            return True
    try:
        with tarfile.open(path, "r:"):
            return True
    except Exception:  # other files trip the reader in any way; the caller has another use for them
        return False


def is_zip(path: Path) -> bool:
    """Whether a file ends as a zip archive does."""
    try:
        return zipfile.is_zipfile(path)
    except Exception:  # a damaged end; see `is_archive`
        return False


def read_members(
    path: Path,
    wanted: Callable[[str], bool],
    *,
    most: int,
    most_each: int | None = None,
    shown: Path | None = None,
    expected: str | None = None,
    hint: str = CUT_OFF,
) -> Iterator[tuple[str, Member]]:
    """Name and content of the wanted files in an archive, in one pass in their stored order.

    Read each content before asking for the next. The whole archive is read, checksums included. Messages call it
    `shown` and say what was `expected`.

    Raises:
        InputError: the file is not an archive, is damaged, or unpacks to more than `most` bytes, or one wanted file to
            more than `most_each`.
    """
    shown = shown or path
    check_file(path)
    room = _Room(shown, most, most_each)
    members = _zipped(path, wanted, room) if is_zip(path) else _tarred(path, wanted, room, expected)
    with contextlib.closing(members):
        while True:
            with damaged(shown, UNREADABLE, expected=expected, hint=hint):  # not what the caller does with a member
                found = next(members, None)
            if found is None:
                return
            name, stream = found
            yield name, Member(stream, shown, hint)


class _Room:
    """What an archive may unpack to."""

    def __init__(self, shown: Path, most: int, most_each: int | None) -> None:
        self.shown = shown
        self._most, self._left, self._most_each = most, most, most_each

    def take(self, name: str, size: int) -> None:
        """Count a wanted file."""
        if self._most_each is not None and size > self._most_each:
            got, expected = f"{size:,} bytes", f"at most {self._most_each:,} bytes"
            raise InputError(
                describe(f"{self.shown.name}: {name}", "the file is too large", got=got, expected=expected)
            )
        self._left -= size
        self.check(self._most - self._left)

    def check(self, size: int) -> None:
        if size > self._most:
            expected = f"at most {self._most:,} bytes"
            raise InputError(describe(self.shown, "the archive unpacks to too much", expected=expected))


Members = Generator[tuple[str, IO[bytes]], None, None]


def _zipped(path: Path, wanted: Callable[[str], bool], room: _Room) -> Members:
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir() and wanted(info.filename)]
        for info in infos:
            room.take(info.filename, info.file_size)  # zipfile reads no more of a member than its header says
        for info in infos:
            with archive.open(info) as stream:
                yield info.filename, stream


def _tarred(path: Path, wanted: Callable[[str], bool], room: _Room, expected: str | None) -> Members:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_file(path))
        unpack = _compression(file)
        bounded = _Forward(file if unpack is None else stack.enter_context(unpack(file)), room)
        with damaged(room.shown, "this is not an archive that can be read", expected=expected):
            archive = stack.enter_context(tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:"))
        for member in archive:
            if not (member.isfile() and wanted(member.name)):
                continue
            room.take(member.name, member.size)  # a sparse file is larger than what is stored of it
            stream = archive.extractfile(member)
            assert stream is not None
            yield member.name, stream
        if bounded.last.strip(b"\0"):  # tarfile takes a header that it cannot read for the end
            raise tarfile.ReadError("a header is damaged")
        while bounded.read(BLOCK):  # to the end, where a compressed file has its checksum
            pass


def _compression(file: IO[bytes]) -> Callable[[Any], Any] | None:
    start = file.read(16)
    file.seek(0)
    return next((unpack for magic, unpack in COMPRESSIONS if magic.match(start)), None)


class _Forward:
    """A file for tarfile that is read once, in order: headers that lie would have it go back for ever, or read all."""

    def __init__(self, file: IO[bytes], room: _Room) -> None:
        self._file, self._room = file, room
        self.last = b""  # what was read last

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST_READ:
            raise tarfile.ReadError("a header is damaged")
        self.last = self._file.read(size)
        self._room.check(self._file.tell())
        return self.last

    def seek(self, place: int) -> int:
        if place < self._file.tell():
            raise tarfile.ReadError("a header is damaged")
        self._room.check(place)
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()


class Member:
    """The content of a file in an archive."""

    def __init__(self, stream: IO[bytes], shown: Path, hint: str) -> None:
        self._stream, self._shown, self._hint = stream, shown, hint

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes; by default all that are left."""
        with damaged(self._shown, UNREADABLE, hint=self._hint):
            return self._stream.read(size)

    def blocks(self) -> Iterator[bytes]:
        """All of it, a block at a time."""
        while block := self.read(BLOCK):
            yield block
