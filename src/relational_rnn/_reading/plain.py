"""Bytes and text of a regular file."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from relational_rnn._check import InputError, describe
from relational_rnn._reading.guard import reason

MOST_BYTES = 2**28
"""No text that is read at once is anywhere near as large."""


def open_file(path: Path) -> io.BufferedReader:
    """Open a regular file, nothing else: a pipe or a device could make us wait for ever, and a folder has no bytes."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(describe(path, f"cannot be read: {reason(error)}")) from error
    kind = os.fstat(handle).st_mode
    if not stat.S_ISREG(kind):
        os.close(handle)
        what = "a folder" if stat.S_ISDIR(kind) else "a pipe or a device"
        raise InputError(describe(path, f"cannot be read: this is {what}", expected="a file"))
    return os.fdopen(handle, "rb")


def check_file(path: Path) -> None:
    """Refuse what `open_file` refuses, for libraries that open files by themselves."""
    open_file(path).close()


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file of at most `most` bytes; a larger one is refused, and what `open_file` refuses."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            got, expected = f"{size:,} bytes", f"at most {most:,} bytes"
            raise InputError(describe(path, "the file is too large", got=got, expected=expected))
        try:
            return file.read()
        except OSError as error:
            raise InputError(describe(path, f"cannot be read: {reason(error)}")) from error


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without a byte order mark; refuses as `read_bytes` and `decode_text` do."""
    return decode_text(read_bytes(path), str(path))


def decode_text(data: bytes, where: str, encoding: str = "utf-8") -> str:
    """Bytes as text.

    >>> decode_text(b"to be\\nor n\\xf6t", "notes.txt")
    Traceback (most recent call last):
    ...
    relational_rnn._check.InputError: notes.txt, line 2: this is not UTF-8 text
      got       b'\\xf6'
    """
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem, got = f"this is not {encoding.upper()} text", repr(data[error.start : error.end])
        raise InputError(describe(f"{where}, line {line:,}", problem, got=got)) from error
