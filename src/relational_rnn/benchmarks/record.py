"""What a benchmark has measured so far, in <date>_<machine>.partial.json, which a stopped one goes on from; and its
results, in <date>_<machine>.json. Both files are whole or absent."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from relational_rnn._check import InputError, describe
from relational_rnn._files import write_json
from relational_rnn._reading.json_text import read_json_object
from relational_rnn._reading.structure import check_entries
from relational_rnn.benchmarks.shapes import Case
from relational_rnn.training.config import differences

PARTIAL, FINISHED = ".partial.json", ".json"
MATMUL, QUICK_MATMUL = 2048, 256
"""Sizes of the matrices whose product is the yardstick."""


@dataclass(kw_only=True, slots=True)
class Measured:
    """What is known about one case; filled step by step."""

    done: bool = False
    seconds: float = 0.0
    """Spent on it, in sittings that came to its end."""
    matmul_gflops: float = 0.0
    """Just before the contenders were timed."""
    chosen: str = ""
    """The backend that "auto" runs here."""
    facts: dict[str, dict[str, float]] = field(default_factory=dict)
    """By contender: parameters, bytes of its state, and arithmetic."""
    refused: dict[str, str] = field(default_factory=dict)
    """By backend: why it cannot run here."""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """By contender: seconds of every timed call."""
    peaks: dict[str, list[float]] = field(default_factory=dict)
    """By contender: peak MiB of a pass, and MiB of its results."""


Object = Mapping[str, Any]
ENTRIES = {"about": Object, "date": str, "seconds": float, "cases": Mapping[str, Object], "training": Object}
CASE_ENTRIES = {
    "done": bool,
    "seconds": float,
    "matmul_gflops": float,
    "chosen": str,
    "facts": Mapping[str, Mapping[str, float]],
    "refused": Mapping[str, str],
    "samples": Mapping[str, tuple[float, ...]],
    "peaks": Mapping[str, tuple[float, ...]],
}
"""What the file of a stopped benchmark holds, and what it holds of a case."""


@dataclass(kw_only=True, slots=True)
class Record:
    """A benchmark under way."""

    about: dict[str, Any]
    """All that decides the figures: settings, machine, versions, commit."""
    date: str
    """When it began, in ISO form."""
    path: Path
    """Where the results will be."""
    seconds: float = 0.0
    """Spent in all sittings."""
    cases: dict[str, Measured] = field(default_factory=dict)
    training: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Whole training runs that were timed, by backend."""

    def save(self) -> None:
        """Replace the partial file."""
        content = asdict(self)
        write_json(partial_path(self.path), {name: content[name] for name in ENTRIES})

    def finish(self, cases: list[Case], extra: Mapping[str, Any]) -> Path:
        """Write the results and remove the partial file."""
        rates = [self.cases[case.key].matmul_gflops for case in cases]
        results = {
            **{name: self.about[name] for name in ("machine", "threads", "dtype", "versions", "commit")},
            "matmul_gflops": round(statistics.median(rates), 1) if rates else 0.0,
            # Where a check is red, nothing is timed and no results are written.
            "tests_green": True,
            "rows": [row for case in cases for row in rows(case, self.cases[case.key])],
            "shapes": {case.name: asdict(case.shape) for case in cases},
            "chosen_by_auto": {case.key: self.cases[case.key].chosen for case in cases},
            "cannot_run": {case.key: measured.refused for case in cases if (measured := self.cases[case.key]).refused},
            "matmul_size": QUICK_MATMUL if self.about["quick"] else MATMUL,
            "training": list(self.training.values()),
            "date": self.date,
            "seconds": round(self.seconds),
            "settings": self.about,
            **extra,
        }
        write_json(self.path, results)
        partial_path(self.path).unlink(missing_ok=True)
        return self.path


def rows(case: Case, measured: Measured) -> list[dict[str, Any]]:
    """The rows of one case, one for each contender."""
    found = []
    for name, samples in measured.samples.items():
        facts, (peak, results) = measured.facts[name], measured.peaks[name]
        seconds = statistics.median(samples)
        found.append(
            {
                "shape": case.name,
                "pass": case.run,
                "contender": name,
                "median_ms": _digits(1e3 * seconds),
                "min_ms": _digits(1e3 * min(samples)),
                "max_ms": _digits(1e3 * max(samples)),
                "runs": len(samples),
                "share_of_matmul": _digits(facts["flop"] / seconds / 1e9 / measured.matmul_gflops),
                "peak_mib": round(peak, 2),
                "result_mib": round(results, 2),
                "samples_per_second": _digits(case.shape.batch / seconds),
                "parameters": int(facts["parameters"]),
                "state_bytes": int(facts["state_bytes"]),
                "gflop": _digits(facts["flop"] / 1e9),
                "matmul_gflops": round(measured.matmul_gflops, 1),
            }
        )
    return found


def _digits(value: float) -> float:
    """Rounded to four significant digits."""
    return float(f"{value:.4g}")


def partial_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(FINISHED) + PARTIAL)


def open_record(folder: Path, about: dict[str, Any], date: str) -> tuple[Record, bool]:
    """The record of a benchmark in a folder, and whether it is finished already.

    A stopped benchmark of the same settings on the same machine goes on, whatever day it is.

    Raises:
        InputError: the folder holds a benchmark of other settings that was stopped, or is of today.
    """
    name = slug(about["machine"])
    if folder.exists() and not folder.is_dir():
        raise InputError(describe("benchmark", "this is a file, not a folder for results", got=folder))
    begun = sorted(folder.glob(f"*_{name}{PARTIAL}"))
    if begun:
        where, content = str(begun[0]), cast("dict[str, Any]", read_json_object(begun[0]))
        check_entries(content, ENTRIES, {}, where=where, hint="delete the file to begin again")
        hint = "finish that one with its own options, delete the file, or name another folder with --out"
        _refuse_differences(begun[0], content["about"], about, "a stopped benchmark", hint)
        path = begun[0].with_name(begun[0].name.removesuffix(PARTIAL) + FINISHED)
        record = Record(about=about, path=path, **{name: content[name] for name in ("date", "seconds", "training")})
        for key, case in content["cases"].items():
            check_entries(case, CASE_ENTRIES, {}, where=f"{where}, {key}")
            record.cases[key] = Measured(**{name: case[name] for name in CASE_ENTRIES})
        return record, False
    path = folder / f"{date}_{name}{FINISHED}"
    if path.exists():
        hint = "name another folder with --out, or delete the file"
        settings = read_json_object(path).get("settings")
        _refuse_differences(path, settings, about, "the benchmark of another setting", hint)
    return Record(about=about, date=date, path=path), path.exists()


def _refuse_differences(path: Path, there: Any, here: Any, what: str, hint: str) -> None:
    lines = differences(there, here)
    if lines:
        raise InputError(describe(str(path), f"holds {what}: {'; '.join(lines)}", hint=hint))


def slug(machine: str) -> str:
    """The machine as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
