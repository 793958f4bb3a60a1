"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

_PART = re.compile(r"\..+\.(\d+)\.part", re.DOTALL)
"""The name of a file that is being written: its own name and the number of the process that writes it."""


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Write `content` to `path` at once: a neighbour file is written first and then takes the name.

    Whatever interrupts the write (a full disk, Ctrl-C, a power cut), `path` holds either what it held before or all of
    `content`.
    The folder is created when it is missing. Raises OSError as the operating system does.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(Path(folder) / "new" / "note.txt", "kept")
    ...     (Path(folder) / "new" / "note.txt").read_text(encoding="utf-8")
    'kept'
    """
    write_together({path: content})


def write_together(files: Mapping[Path, str | bytes | memoryview]) -> None:
    """Write several files that belong together: all neighbour files are written before the first one takes its name.

    A disk that gets full leaves everything as it was, folders too.
    Raises OSError as the operating system does.

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
                with _named(path):  # a read-only file system refuses this of a file that is not there, too
                    part.unlink(missing_ok=True)


def make_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Make `folder`, which must not be there, with these files in it, by their names, at once.

    Raises OSError as the operating system does.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     make_folder(Path(place) / "run", {"config.json": "{}"})
    ...     [str(path.relative_to(place)) for path in Path(place).rglob("*")]
    ['run', 'run/config.json']
    """
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
    """Remove what killed processes have left of files, and folders, that they were writing into `folder`.

    Args:
        folder: nothing happens where there is none.
        alone: no other process writes into it, which is known better than whether a process is alive.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     for file in (".note.txt.999999999.part", "note.txt"):
    ...         write_whole(Path(name) / file, "half")
    ...     sweep(Path(name))
    ...     [path.name for path in Path(name).iterdir()]
    ['note.txt']
    """
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        found = _PART.fullmatch(path.name)
        if found and (alone or not _may_be_alive(int(found[1]))):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)  # another process may be at it
            else:
                path.unlink(missing_ok=True)


def is_part(path: Path) -> bool:
    """Whether this is what a process has left, or is about to rename."""
    return _PART.fullmatch(path.name) is not None


def _may_be_alive(process: int) -> bool:
    """Whether there is a process of this number now, or may be."""
    if os.name != "posix":  # nobody can be asked without being ended
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
