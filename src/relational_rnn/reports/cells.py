"""Cells and tables of measurements that several pages have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from relational_rnn.pages import Cell, Table
from relational_rnn.reports.runs import mean_and_spread

Name = TypeVar("Name")


def measured(values: Sequence[float], form: str, factor: float = 1, missing: str = "not evaluated") -> Cell:
    """A mean, with its spread where there are several different values.

    >>> measured([0.5, 0.7], "{:.1f} %", 100).text, measured([], "{:g}").text
    ('60.0 % ± 14.1 %', 'not evaluated')
    """
    if not values:
        return Cell(missing, "")
    value, spread = mean_and_spread([factor * value for value in values])
    return Cell(f"{form.format(value)} ± {form.format(spread)}" if spread else form.format(value), value)


def side_by_side(
    what: str,
    names: Mapping[Name, Cell],
    models: Sequence[tuple[str, Mapping[Name, Sequence[float]]]],
    form: str,
    factor: float = 1,
    *,
    missing: str = "not evaluated",
    caption: str = "",
) -> Table:
    """A column for each of several models, and a row for every name, whose first cell `names` has."""
    rows = [
        [cell, *(measured(found.get(name, ()), form, factor, missing) for _, found in models)]
        for name, cell in names.items()
    ]
    return Table([what, *(label for label, _ in models)], rows, caption)
