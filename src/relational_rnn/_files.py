"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

_PART = re.compile(r"\..+\.(\d+)\.part", re.DOTALL)
"""The name of a file that is being written: its own name and the number of the process that writes it."""


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Write `content` to `path` at once, under a temporary name that is then renamed.

    After any interruption, `path` holds either what it held before or all of `content`. A missing folder is made.
    Raises OSError as the operating system does.
    """
    write_together({path: content})


def write_json(path: Path, content: object) -> None:
    """Replace `path` by `content` as indented JSON; see `write_whole`."""
    write_whole(path, json_text(content))


def json_text(content: object) -> str:
    """`content` as the indented JSON of a file."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_together(files: Mapping[Path, str | bytes | memoryview]) -> None:
    """Write several files that belong together: all neighbour files are written before the first one takes its name.

    A full disk leaves all files and folders as they were. Raises OSError as the operating system does.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_together({Path(folder) / "page.html": "<img src=a.svg>", Path(folder) / "a.svg": "<svg/>"})
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['a.svg', 'page.html']
    """
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    with contextlib.ExitStack() as undo:
        for folder in dict.fromkeys(path.parent for path in files):
            undo.enter_context(_made(folder))
        try:
            for path, content in files.items():
                with _named(path), parts[path].open("wb") as file:
                    file.write(content.encode() if isinstance(content, str) else content)
                    file.flush()
                    os.fsync(file.fileno())  # or the new name could reach the disk before the content does
            for path, part in parts.items():
                with _named(path):
                    os.replace(part, path)
        finally:
            for path, part in parts.items():
                with _named(path):  # a read-only file system refuses this even where there is no such file
                    part.unlink(missing_ok=True)


def make_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Make a new folder with these files in it, by their names, at once. Raises OSError as the system does."""
    with _made(folder.parent):
        for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.part"):  # by a process that was killed
            shutil.rmtree(left)
        part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        try:
            write_together({part / name: content for name, content in files.items()})
            os.rename(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def sweep(folder: Path, *, alone: bool = False) -> None:
    """Remove what killed processes have left half-written in `folder`; files of living ones stay, unless this one is
    `alone`."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        found = _PART.fullmatch(path.name)
        if found and (alone or not _may_be_alive(int(found[1]))):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)  # another process may be at it
            else:
                path.unlink(missing_ok=True)


def is_part(path: Path) -> bool:
    """Whether a process has left this half-written, or is about to rename it."""
    return _PART.fullmatch(path.name) is not None


def _may_be_alive(process: int) -> bool:
    if os.name != "posix":  # asking would end the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """An error is about the file that the caller knows."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder is there within; what had to be made for that goes again with an error, unless it holds something."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):  # another process has put something there
                path.rmdir()
        raise
