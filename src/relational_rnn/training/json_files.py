"""JSON files that are whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

from relational_rnn._files import write_whole
from relational_rnn._reading.json_text import Json, read_json, read_json_object

__all__ = ["Json", "read_json", "read_json_object", "write_json"]


def write_json(path: Path, content: Json) -> None:
    """Replace `path` by `content` as indented JSON."""
    write_whole(path, as_text(content))


def as_text(content: Json) -> str:
    """`content` as the indented JSON of a file."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
