"""Tokens and the numbers that belong to them, as the page of a sequence shows them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from relational_rnn._check import InputError, describe


@dataclass(frozen=True, slots=True)
class TokenValues:
    """A number for every token, such as how much an answer depends on it."""

    name: str
    """The heading of its column, in a few words."""
    description: str
    """One sentence: what the number is."""
    values: Sequence[float | None]
    """One per token; None where there is none."""
    most: float | None = None
    """What a full bar stands for; None for the largest number of the column."""


def amounts(column: TokenValues) -> list[dict[str, str] | None]:
    """The bars of a column, with as many decimals as give the largest number three digits.

    >>> amounts(TokenValues(name="drop", description="", values=[-0.25, None, -1e-9], most=0.5))[:2]
    [{'key': '-0.25', 'text': '-0.250', 'sign': 'less', 'width': '50.0'}, None]
    """
    most = column.most or max((abs(v) for v in column.values if v is not None), default=0.0) or 1.0
    decimals = min(6, max(0, 2 - math.floor(math.log10(most))))
    return [
        None
        if v is None
        else {
            "key": f"{v:.6g}",
            "text": f"{round(v, decimals) + 0.0:.{decimals}f}",  # -0.0 + 0.0 has no sign
            "sign": "less" if v < 0 else "more",
            "width": f"{min(100, 100 * abs(v) / most):.1f}",
        }
        for v in column.values
    ]


def rounded(values: Sequence[float | None]) -> list[float | None]:
    """To six digits, for the page's script."""
    return [None if value is None else float(f"{value:.6g}") for value in values]


def check_values(where: str, name: str, values: Sequence[float | None], steps: int) -> None:
    """Refuse values unless there is a finite number, or None, for every step."""
    if len(values) != steps:
        raise InputError(describe(where, f"{name} must have a value for every step", got=len(values), expected=steps))
    if any(value is not None and not math.isfinite(value) for value in values):
        raise InputError(describe(where, f"{name} has a value that is not finite", hint="None means: no value"))


def check_tokens(where: str, tokens: Sequence[str], steps: int) -> list[str]:
    """The tokens as texts. Raises InputError unless there is one for every step, and a step."""
    if steps == 0:
        raise InputError(describe(where, "the sequence has no step"))
    if len(tokens) != steps:
        raise InputError(describe(where, "there must be a token for every step", got=len(tokens), expected=steps))
    return [str(token) for token in tokens]


def visible(token: str) -> str:
    """A token with visible blanks and control characters.

    >>> visible("a b\\n"), visible(" "), visible("")
    ('a b⏎', '␣', '(empty)')
    """
    if token == "":
        return "(empty)"
    shown = token.replace("\n", "⏎").replace("\t", "⇥")
    shown = "".join("�" if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in shown)
    return shown if shown.strip() else shown.replace(" ", "␣")
