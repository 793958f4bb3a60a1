"""JSON of others: plain values, or an error that names the file."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from relational_rnn._check import InputError, describe
from relational_rnn._reading.guard import reason
from relational_rnn._reading.plain import read_text

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""What a JSON file can hold."""
LARGEST = 2**64
"""The largest whole number: seeds have 64 bits, everything else has fewer."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str, where: str) -> Json:
    """The value of a JSON text. NaN, infinities and whole numbers of more than 64 bits are refused.

    >>> parse_json('{"size": 1e999}', "config.json")
    Traceback (most recent call last):
    ...
    relational_rnn._check.InputError: config.json: is not readable JSON: 1e999 is out of range
    """
    try:
        value: Json = json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=_refuse)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # half a character could never be written again
    except Exception as error:
        raise InputError(describe(where, f"is not readable JSON: {reason(error)}")) from error
    return value


def read_json(path: Path) -> Json:
    """The content of a JSON file; an `InputError` names a file that cannot be read or is not JSON."""
    return parse_json(read_text(path), str(path))


def read_json_object(path: Path) -> dict[str, Json]:
    """The content of a JSON file that holds an object; refuses anything else."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(describe(path, "must hold a JSON object", got=type(content).__name__))
    return content


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) > LARGEST:
        return _refuse(digits)
    return int(digits)


def _real(digits: str) -> float:
    return value if math.isfinite(value := float(digits)) else _refuse(digits)


def _refuse(digits: str) -> int:
    raise ValueError(f"{digits[:40]}{'...' if len(digits) > 40 else ''} is out of range")
