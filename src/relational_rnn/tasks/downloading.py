"""Downloads that go on where they were cut off."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

from relational_rnn._check import InputError, describe
from relational_rnn._reading.guard import shown

TIMEOUT = 30.0
"""Seconds without a byte after which the server counts as silent."""
BLOCK = 2**16


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


def download(url: str, partial: Path, progress: Callable[[int, int | None], None] | None = None) -> Message:
    """Brings `partial` to its full length: what it holds already is not asked for again.

    Args:
        url: where to download from, http or https.
        partial: the file; its folder must be there.
        progress: called with (bytes so far, bytes in all or None where the server does not say).

    Returns:
        the headers of the server's answer.

    Raises:
        InputError: no connection, an error of the server, a download cut off.
        OSError: what goes wrong on this machine's disk, and nothing else.
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
