"""The download of the published bAbI archive: resumable, and checked file by file before it is installed."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from relational_rnn._check import InputError, describe
from relational_rnn.tasks.babi.reading import BROKEN_ARCHIVE
from relational_rnn.tasks.babi.story import TASK_NAMES

PUBLISHED_URL = "https://s3.amazonaws.com/text-datasets/babi_tasks_1-20_v1-2.tar.gz"
"""A public copy of the archive that the authors published as `tasks_1-20_v1-2.tar.gz`."""
ARCHIVE_NAME = "tasks_1-20_v1-2.tar.gz"
TIMEOUT = 30.0
"""Seconds without a byte after which the server counts as silent."""
BLOCK = 2**16


@dataclass(frozen=True, slots=True)
class Fetched:
    """What `fetch_babi` installed."""

    path: Path
    """The archive."""
    verified: int
    """Files in it whose sha256 is the known one."""
    unknown: tuple[str, ...]
    """Files in it that belong to the sets we know, but whose sha256 is not known; they were not checked."""


def published_hashes() -> dict[str, str]:
    """`language/file` -> sha256 of the files of `en` and `en-10k`, all but the training file of task 3 in en-10k."""
    text = resources.files("relational_rnn.tasks.babi").joinpath("published_sha256.json").read_text(encoding="utf-8")
    return json.loads(text)


def fetch_babi(
    destination: Path | str,
    *,
    url: str = PUBLISHED_URL,
    progress: Callable[[int, int | None], None] | None = None,
) -> Fetched:
    """Downloads the published archive into a folder, or goes on with a download that was cut off.

    What has come so far stands in `<name>.partial` and never under the archive's own name: that is given only after
    every file in it was compared with its known sha256. An archive that is already there is checked, not downloaded.

    Args:
        destination: the folder; it is made if it is not there.
        url: where to download from, http or https.
        progress: called with (bytes so far, bytes in all or None where the server does not say).

    Raises:
        InputError: no connection, an error of the server, a download cut off, a full disk, or a file that differs from
            the published one.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(
            describe("fetch_babi", "this is no web address", got=url, expected="http://... or https://...")
        )
    target = Path(destination) / ARCHIVE_NAME
    partial = target.with_name(ARCHIVE_NAME + ".partial")
    if target.exists():
        return _verify(target, target, "remove it to download it again.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, partial, progress)
    except OSError as error:  # the network's own errors were turned into InputError below
        if error.errno == errno.ENOSPC:
            partial.unlink(missing_ok=True)
        raise InputError(describe(str(target), "it cannot be written", got=error.strerror or error)) from error
    try:
        fetched = _verify(partial, target, "it was not installed; run the command again, or give another url.")
    except InputError:
        partial.unlink()
        raise
    os.replace(partial, target)
    return fetched


def _download(url: str, partial: Path, progress: Callable[[int, int | None], None] | None) -> None:
    """Brings `partial` to its full length; raises OSError only for what goes wrong on this machine's disk."""
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and done and error.headers.get("Content-Range") == f"bytes */{done}":
                return  # all bytes had come, and the last run ended before it could check them
            if error.code == 416 and done:  # the server's file is shorter than what came: start again
                partial.unlink()
                _download(url, partial, progress)
                return
            raise InputError(
                describe(url, "the server refused", got=f"{error.code} {error.reason}", hint="give another url.")
            ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        hint = "check the network, or bring the archive from a machine that has one."
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


def _extent(response: http.client.HTTPResponse, done: int) -> tuple[int, int | None]:
    """(the byte that the answer starts at, the length of the whole file or None)."""
    length = response.headers.get("Content-Length")
    if response.status == 206 and done:
        unit_range, _, total = response.headers.get("Content-Range", "").partition("/")
        if unit_range.startswith(f"bytes {done}-"):
            return done, int(total) if total.isdecimal() else None
        raise InputError(
            describe(response.url, "the server sent another part than asked", got=unit_range or "no range")
        )
    return 0, int(length) if length and length.isdecimal() else None


def _cut_off(url: str, done: int, total: int | None, error: Exception | None) -> InputError:
    size = f"{done:,} of {total:,} bytes" if total is not None else f"{done:,} bytes"
    got = f"{size} ({error})" if error else size
    return InputError(describe(url, "the download was cut off", got=got, hint="run the command again to go on."))


def _verify(archive: Path, shown: Path, hint: str) -> Fetched:
    """Compares every known file in the archive with its sha256."""
    known = published_hashes()
    expected = {f"{language}/{name}" for language in {name.split("/")[0] for name in known} for name in _file_names()}
    verified: set[str] = set()
    unknown: set[str] = set()
    try:
        with tarfile.open(archive, "r:*") as members:
            for member in members:
                name = "/".join(member.name.split("/")[-2:])
                if not member.isfile() or name not in expected:
                    continue
                if name not in known:
                    unknown.add(name)
                    continue
                stream = members.extractfile(member)
                assert stream is not None
                if hashlib.sha256(stream.read()).hexdigest() != known[name]:
                    problem = f"{name} differs from the published file"
                    raise InputError(describe(str(shown), problem, expected=f"sha256 {known[name]}", hint=hint))
                verified.add(name)
    except BROKEN_ARCHIVE as error:
        raise InputError(describe(str(shown), "this is no archive that can be read", got=error, hint=hint)) from error
    missing = sorted(known.keys() - verified)
    if missing:
        got = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise InputError(describe(str(shown), "published files are missing in the archive", got=got, hint=hint))
    return Fetched(shown, len(verified), tuple(sorted(unknown)))


def _file_names() -> list[str]:
    """The names of the 40 files of a published set."""
    return [f"qa{task}_{name}_{split}.txt" for task, name in TASK_NAMES.items() for split in ("train", "test")]
