"""Reading the results of a benchmark, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relational_rnn._reading.json_text import read_json_object
from relational_rnn._reading.structure import check_entries

NEEDED = {
    "machine": str,
    "threads": int,
    "dtype": str,
    "versions": Mapping[str, str],
    "commit": str | None,
    "matmul_gflops": float,
    "rows": tuple[Mapping[str, Any], ...],
    "shapes": Mapping[str, Mapping[str, int]],
    "date": str,
    "settings": Mapping[str, Any],
}
EXTRAS = {
    "cannot_run": Mapping[str, Mapping[str, str]],
    "training": tuple[Mapping[str, Any], ...],
    "seconds": float,
    "command": str,
    "matmul_size": int,
}
"""What a file of results must hold, and what it may hold."""
ROW = {
    **dict.fromkeys(("shape", "pass", "contender"), str),
    **dict.fromkeys(("runs", "parameters", "state_bytes"), int),
    **dict.fromkeys(("median_ms", "min_ms", "max_ms", "samples_per_second", "share_of_matmul", "peak_mib"), float),
}
"""What every row must hold."""
TRAINING = {
    **dict.fromkeys(("steps_per_second", "median_ms", "min_ms", "max_ms", "core_share", "data_share"), float),
    **dict.fromkeys(("seconds", "valid_accuracy"), float),
}
"""What a row on whole training must hold, unless it says why there is none."""
SWEEPS = {"T": "T", "slots": "slots", "batch": "batch", "recompute": "recompute T"}
"""Every sweep, and what the names of its points begin with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkResults:
    """One file of results."""

    path: Path
    facts: Mapping[str, Any]
    """Everything in it."""

    @property
    def shapes(self) -> list[str]:
        """Names of the shapes that are no point of a sweep, in order."""
        return [name for name in self.facts["shapes"] if "=" not in name]

    def of(self, shape: str, run: str | None = None) -> list[dict[str, Any]]:
        """The rows of a shape, of one pass or of all."""
        return [row for row in self.facts["rows"] if row["shape"] == shape and run in (None, row["pass"])]

    def sweep(self, name: str) -> dict[int, dict[str, dict[str, Any]]]:
        """The points of a sweep: size -> contender -> row; empty where it was not measured."""
        start = SWEEPS[name] + "="
        sizes = [shape.removeprefix(start) for shape in self.facts["shapes"] if shape.startswith(start)]
        return {int(size): {row["contender"]: row for row in self.of(start + size)} for size in sizes}

    def sweep_contenders(self, name: str) -> list[str]:
        """The contenders of a sweep in order of first appearance."""
        return list(dict.fromkeys(contender for rows in self.sweep(name).values() for contender in rows))

    def per_step_growth(self) -> dict[str, tuple[int, int, float]]:
        """By contender: the first length of at least 1,024 steps (or the shortest), the longest, and how many times as
        long a step takes there; 1 means a cost linear in T."""
        found = {}
        points = self.sweep("T")
        for contender in self.sweep_contenders("T"):
            times = {size: rows[contender]["median_ms"] for size, rows in points.items() if contender in rows}
            long = max(times)
            short = min((size for size in times if size >= 1024), default=min(times))
            if short < long:
                found[contender] = (short, long, times[long] / long / (times[short] / short))
        return found


def memory_beside(row: Mapping[str, Any]) -> float:
    """MiB of a pass at its worst moment, beside its results."""
    return row["peak_mib"] - row["result_mib"]


def read_benchmark(path: str | Path) -> BenchmarkResults:
    """Read a file of results; refused if it cannot be read or is not one."""
    path = Path(path)
    facts = read_json_object(path)
    hint = "name a <date>_<machine>.json of `relational-rnn benchmark`"
    check_entries(facts, NEEDED, EXTRAS, where=f"{path}: no file of benchmark results", hint=hint)
    found: Any = facts
    check_entries(
        found["settings"], {"device": str}, {"recipe_steps": int | None}, where=f"{path}, settings", hint=hint
    )
    for number, row in enumerate(found["rows"]):
        check_entries(row, ROW, {"result_mib": float}, where=f"{path}, rows[{number}]", hint=hint)
    for number, row in enumerate(found.get("training", ())):
        needed = {"recipe": str, "contender": str, **({"cannot_run": str} if "cannot_run" in row else TRAINING)}
        check_entries(row, needed, {}, where=f"{path}, training[{number}]", hint=hint)
    return BenchmarkResults(path=path, facts=facts)
