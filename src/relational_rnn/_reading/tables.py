"""CSV of others."""

from __future__ import annotations

import csv
from pathlib import Path

from relational_rnn._check import InputError, describe
from relational_rnn._reading.guard import damaged, shown
from relational_rnn._reading.plain import read_text


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The first row, and the others, which must have as many cells; an empty file has an empty first row."""
    text = read_text(path)
    with damaged(path, "is not readable CSV"):
        header, *rows = list(csv.reader(text.splitlines(keepends=True), strict=True)) or [[]]
    if len(set(header)) < len(header):
        raise InputError(describe(path, "two columns have one name", got=shown(header)))
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            problem = f"line {number} has the wrong number of cells"
            raise InputError(describe(path, problem, got=len(row), expected=len(header)))
    return header, rows


def number_in(path: Path, line: int, column: str, cell: str, *, whole: bool = False) -> float:
    """The number in a cell: any, infinities and NaN too; or, with `whole`, a whole number of at least 0."""
    try:
        value = float(int(cell) if whole else cell)  # callers take int of the cell, too
        if whole and value < 0:
            raise ValueError
    except (ValueError, OverflowError) as error:  # float of hundreds of digits
        kind = "whole number" if whole else "number"
        raise InputError(describe(path, f"line {line} has no {kind} under {column!r}", got=shown(cell))) from error
    return value
