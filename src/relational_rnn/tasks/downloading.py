"""Downloads that go on where they were cut off."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from relational_rnn._check import InputError, describe
from relational_rnn._reading.guard import shown

TIMEOUT = 30.0
"""Seconds without a byte after which the server counts as silent."""
BLOCK = 2**16
T = TypeVar("T")


def check_address(where: str, url: str) -> None:
    """Refuse what is no web address."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")  # as the connection will spell it
        usable = parts.scheme in ("http", "https") and host and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number, a name that no host can have
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise InputError(
            describe(where, "this is no web address", got=shown(url), expected="http://... or https://...")
        )


def install(
    url: str,
    target: Path,
    check: Callable[[Path, Message], T],
    progress: Callable[[int, int | None], None] | None = None,
) -> T:
    """Download a file that gets its name only after `check` has accepted it.

    What has come so far is in `<name>.partial`; the next call goes on from there. A refused file is removed.

    Args:
        url: where to download from, http or https.
        target: the file; its folder must be there.
        check: called with the downloaded file and the headers of the server's answer; raises InputError to refuse it.
        progress: called with (bytes so far, bytes in all or None if the server does not say).

    Returns:
        what `check` returned.

    Raises:
        InputError: no connection, an error of the server, a download cut off, or what `check` raises.
        OSError: what goes wrong on this machine's disk, and nothing else.
    """
    partial = target.with_name(f"{target.name}.partial")
    headers = download(url, partial, progress)
    try:
        found = check(partial, headers)
    except InputError:
        partial.unlink()
        raise
    os.replace(partial, target)
    return found


def download(url: str, partial: Path, progress: Callable[[int, int | None], None] | None = None) -> Message:
    """Bring `partial` to its full length: what it holds already is not asked for again; see `install`.

    Returns:
        the headers of the server's answer.
    """
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and done and error.headers.get("Content-Range") == f"bytes */{done}":
                return error.headers  # all bytes had come, and the last run ended before it could check them
            if error.code == 416 and done:  # the server's file is shorter than what came: start again
                partial.unlink()
                return download(url, partial, progress)
            raise InputError(
                describe(url, "the server refused", got=f"{error.code} {error.reason}", hint="give another url.")
            ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that cannot be sent
        reason = getattr(error, "reason", None) or error
        hint = "check the network, or bring the file from a machine that has one."
        raise InputError(describe(url, "no connection to the server", got=reason, hint=hint)) from error
    with response:
        start, total = _extent(response, done)
        with partial.open("ab" if start else "wb") as file:
            done = start
            while True:
                try:
                    block = response.read(BLOCK)
                except (OSError, http.client.HTTPException) as error:
                    raise _cut_off(url, done, total, error) from error
                if not block:
                    break
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
    if total is not None and done != total:
        raise _cut_off(url, done, total, None)
    return response.headers


def _extent(response: http.client.HTTPResponse, done: int) -> tuple[int, int | None]:
    """(the byte that the answer starts at, the length of the whole file or None)."""
    length = response.headers.get("Content-Length")
    if response.status == 206 and done:
        unit_range, _, total = response.headers.get("Content-Range", "").partition("/")
        if unit_range.startswith(f"bytes {done}-"):
            return done, _length(total)
        raise InputError(
            describe(response.url, "the server sent another part than asked", got=unit_range or "no range")
        )
    return 0, _length(length)


def _length(text: str | None) -> int | None:
    """A number of bytes in a header; None where there is none, or one that no file has."""
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text) else None


def _cut_off(url: str, done: int, total: int | None, error: Exception | None) -> InputError:
    size = f"{done:,} of {total:,} bytes" if total is not None else f"{done:,} bytes"
    got = f"{size} ({error})" if error else size
    return InputError(describe(url, "the download was cut off", got=got, hint="run the command again to go on."))
