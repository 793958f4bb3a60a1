"""Blocks of a page that are made from results, each between `<!-- made: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Callable

BLOCK = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.S)


def fill(page: str, make: Callable[[str], str]) -> str:
    """The page with every block made anew; `make` turns its name into its text."""
    return BLOCK.sub(lambda match: f"{match[1]}{make(match[2])}\n{match[3]}", page)
