"""Reading the results of a benchmark, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relational_rnn._check import InputError, describe

NEEDED = ("machine", "threads", "dtype", "versions", "commit", "matmul_gflops", "rows", "shapes", "date", "settings")
"""What a file of results must hold."""
SWEEPS = {"T": "T", "slots": "slots", "batch": "batch", "recompute": "recompute T"}
"""Every sweep, and what the names of its points begin with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkResults:
    """One file of results."""

    path: Path
    facts: Mapping[str, Any]
    """Everything in it."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.facts["rows"]

    @property
    def shapes(self) -> list[str]:
        """Names of the shapes that are no point of a sweep, in order."""
        return [name for name in self.facts["shapes"] if "=" not in name]

    def of(self, shape: str, run: str | None = None) -> list[dict[str, Any]]:
        """The rows of a shape, of one pass or of all."""
        return [row for row in self.rows if row["shape"] == shape and run in (None, row["pass"])]

    def sweep(self, name: str) -> dict[int, dict[str, dict[str, Any]]]:
        """The points of a sweep: size -> contender -> row; empty where it was not measured."""
        start = SWEEPS[name] + "="
        sizes = [shape.removeprefix(start) for shape in self.facts["shapes"] if shape.startswith(start)]
        return {int(size): {row["contender"]: row for row in self.of(start + size)} for size in sizes}

    def sweep_contenders(self, name: str) -> list[str]:
        """The contenders of a sweep in order of first appearance."""
        return list(dict.fromkeys(contender for rows in self.sweep(name).values() for contender in rows))

    def per_step_growth(self) -> dict[str, tuple[int, int, float]]:
        """By contender: two lengths of the sweep over T, and how many times as long a step takes at the second.

        The lengths are the first of at least 1,024 steps (or the shortest) and the longest; 1 means a cost linear in T.
        """
        found = {}
        points = self.sweep("T")
        for contender in self.sweep_contenders("T"):
            times = {size: rows[contender]["median_ms"] for size, rows in points.items() if contender in rows}
            long = max(times)
            short = min((size for size in times if size >= 1024), default=min(times))
            if short < long:
                found[contender] = (short, long, times[long] / long / (times[short] / short))
        return found


def read_benchmark(path: str | Path) -> BenchmarkResults:
    """Read a file of results.

    Raises:
        InputError: it cannot be read, or is not one.
    """
    path = Path(path)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(describe(str(path), f"cannot be read: {error.strerror}")) from error
    except ValueError as error:  # bad JSON, or bytes that are not text
        raise InputError(describe(str(path), f"is not readable JSON: {error}")) from error
    missing = [name for name in NEEDED if not isinstance(facts, dict) or name not in facts]
    if missing:
        problem = f"is not a file of benchmark results: {', '.join(missing)} missing"
        raise InputError(
            describe(str(path), problem, hint="name a <date>_<machine>.json of `relational-rnn benchmark`")
        )
    return BenchmarkResults(path=path, facts=facts)
