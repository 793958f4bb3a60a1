"""CSV of others."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from relational_rnn._check import InputError, describe
from relational_rnn._reading.guard import damaged, shown
from relational_rnn._reading.plain import read_text


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The first row, and the others, which have as many cells; an empty file has an empty first row.

    Raises:
        InputError: the file cannot be read, or a row has another number of cells; the message names the line.
    """
    text = read_text(path)
    with damaged(path, "is not readable CSV"):
        header, *rows = list(csv.reader(text.splitlines(keepends=True), strict=True)) or [[]]
    if len(set(header)) < len(header):
        raise InputError(describe(str(path), "two columns have one name", got=shown(header)))
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            problem = f"line {number} has the wrong number of cells"
            raise InputError(describe(str(path), problem, got=len(row), expected=len(header)))
    return header, rows


def number_in(path: Path, line: int, column: str, cell: str) -> float:
    """The number in a cell, which may be an infinity or NaN.

    Raises:
        InputError: there is no number; the message names the line and the column.
    """
    try:
        return float(cell)
    except ValueError as error:
        raise InputError(describe(str(path), f"line {line} has no number under {column!r}", got=shown(cell))) from error


def whole_number_in(path: Path, line: int, column: str, cell: str) -> int:
    """The whole number, 0 or more, in a cell; as `number_in`."""
    value = number_in(path, line, column, cell)
    if not (math.isfinite(value) and value >= 0 and value == int(value)):
        raise InputError(describe(str(path), f"line {line} has no whole number under {column!r}", got=shown(cell)))
    return int(value)
