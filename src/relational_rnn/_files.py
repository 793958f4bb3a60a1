"""Files that are either complete or not there."""

from __future__ import annotations

import os
from pathlib import Path


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
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # or the new name could reach the disk before the content does
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
