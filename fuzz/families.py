"""Everything that is tried."""

from __future__ import annotations

from fuzz.engine import Family


def families() -> list[Family]:
    """All families, one file of this package after the other."""
    from fuzz import commands, layers, published, reports, runs, stories, texts, weights

    return [
        family
        for part in (weights, published, stories, texts, runs, reports, layers, commands)
        for family in part.FAMILIES
    ]
