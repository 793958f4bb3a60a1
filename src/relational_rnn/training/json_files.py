"""JSON files that are whole or absent, and refused by name when they cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

from relational_rnn._check import InputError, describe
from relational_rnn._files import write_whole

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""What a JSON file can hold."""


def write_json(path: Path, content: Json) -> None:
    """Replace `path` by `content` as indented JSON."""
    write_whole(path, as_text(content))


def as_text(content: Json) -> str:
    """`content` as the indented JSON of a file."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Json:
    """The content of a JSON file.

    Raises:
        InputError: the file cannot be read or is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(describe(str(path), f"cannot be read: {error.strerror}")) from error
    except ValueError as error:  # bad JSON and bad UTF-8 are both ValueErrors
        raise InputError(describe(str(path), f"is not readable JSON: {error}")) from error


def read_json_object(path: Path) -> dict[str, Json]:
    """The content of a JSON file that holds an object; refuses anything else."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(describe(str(path), "must hold a JSON object", got=type(content).__name__))
    return content
