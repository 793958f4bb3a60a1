"""The download of the published bAbI archive: resumable, and checked file by file before it is installed."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from relational_rnn._check import InputError, describe
from relational_rnn._reading.archives import read_members
from relational_rnn.tasks.babi.reading import MAX_BYTES, MOST_UNPACKED
from relational_rnn.tasks.babi.story import TASK_NAMES
from relational_rnn.tasks.downloading import check_address, install

PUBLISHED_URL = "https://s3.amazonaws.com/text-datasets/babi_tasks_1-20_v1-2.tar.gz"
"""A public copy of the archive that the authors published as `tasks_1-20_v1-2.tar.gz`."""
ARCHIVE_NAME = "tasks_1-20_v1-2.tar.gz"


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
    check_address("fetch_babi", url)
    target = Path(destination) / ARCHIVE_NAME
    partial = target.with_name(ARCHIVE_NAME + ".partial")
    if target.exists():
        return _verify(target, target, "remove it to download it again.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        hint = "it was not installed; run the command again, or give another url."
        return install(url, target, lambda came, _: _verify(came, target, hint), progress)
    except OSError as error:  # the network's own errors were turned into InputError below
        if error.errno == errno.ENOSPC:
            partial.unlink(missing_ok=True)
        raise InputError(describe(str(target), "it cannot be written", got=error.strerror or error)) from error


def _verify(archive: Path, shown: Path, hint: str) -> Fetched:
    """Compares every known file in the archive with its sha256."""
    known = published_hashes()
    expected = {f"{language}/{name}" for language in {name.split("/")[0] for name in known} for name in _file_names()}
    verified: set[str] = set()
    unknown: set[str] = set()
    for path, member in read_members(
        archive, lambda path: _short(path) in expected, most=MOST_UNPACKED, most_each=MAX_BYTES, shown=shown, hint=hint
    ):
        name = _short(path)
        if name not in known:
            unknown.add(name)
            continue
        if hashlib.sha256(member.read()).hexdigest() != known[name]:
            problem = f"{name} differs from the published file"
            raise InputError(describe(str(shown), problem, expected=f"sha256 {known[name]}", hint=hint))
        verified.add(name)
    missing = sorted(known.keys() - verified)
    if missing:
        got = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise InputError(describe(str(shown), "published files are missing in the archive", got=got, hint=hint))
    return Fetched(shown, len(verified), tuple(sorted(unknown)))


def _short(name: str) -> str:
    """The folder and the name of a file in the archive."""
    return "/".join(name.split("/")[-2:])


def _file_names() -> list[str]:
    """The names of the 40 files of a published set."""
    return [f"qa{task}_{name}_{split}.txt" for task, name in TASK_NAMES.items() for split in ("train", "test")]
