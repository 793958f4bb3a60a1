"""What a benchmark has measured so far, in a file that a stopped one goes on from; and the results that it ends in.

    <date>_<machine>.partial.json   every single time, while the benchmark runs
    <date>_<machine>.json           the results: one row per shape, pass and contender

Every file is whole or absent.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from relational_rnn._check import InputError, describe
from relational_rnn._files import write_json
from relational_rnn._reading.json_text import read_json_object
from relational_rnn._reading.structure import check_entries
from relational_rnn.benchmarks.shapes import Case
from relational_rnn.benchmarks.timing import statistics_of
from relational_rnn.training.config import differences

PARTIAL, FINISHED = ".partial.json", ".json"
MATMUL, QUICK_MATMUL = 2048, 256
"""Sizes of the matrices whose product is the yardstick."""


@dataclass(kw_only=True, slots=True)
class Measured:
    """What is known about one case; filled step by step."""

    done: bool = False
    """Whether nothing is left to measure."""
    seconds: float = 0.0
    """Spent on it, in sittings that came to its end."""
    matmul_gflops: float = 0.0
    """Just before the contenders were timed."""
    chosen: str = ""
    """What backend="auto" runs here."""
    facts: dict[str, dict[str, float]] = field(default_factory=dict)
    """Parameters, state and arithmetic of every contender."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why a backend cannot run here."""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of every timed call."""
    peaks: dict[str, list[float]] = field(default_factory=dict)
    """MiB of a pass at its worst moment, and those of its results among them."""


Object = Mapping[str, Any]
PARTIAL_ENTRIES = {"about": Object, "date": str, "seconds": float, "cases": Mapping[str, Object], "training": Object}
"""What the file of a stopped benchmark holds."""
MEASURED_ENTRIES = {
    "done": bool,
    "seconds": float,
    "matmul_gflops": float,
    "chosen": str,
    "facts": Mapping[str, Mapping[str, float]],
    "refused": Mapping[str, str],
    "samples": Mapping[str, tuple[float, ...]],
    "peaks": Mapping[str, tuple[float, ...]],
}
"""What it holds of a case."""


@dataclass(kw_only=True, slots=True)
class Record:
    """A benchmark under way."""

    about: dict[str, Any]
    """All that decides the figures: settings, machine, versions, commit."""
    date: str
    """ISO date of its beginning."""
    path: Path
    """The file of its results, not there yet."""
    seconds: float = 0.0
    """Spent so far, all sittings."""
    cases: dict[str, Measured] = field(default_factory=dict)
    training: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Whole training runs that were timed, by backend."""

    def save(self) -> None:
        """Replace the partial file."""
        cases = {key: asdict(measured) for key, measured in self.cases.items()}
        content: dict[str, Any] = {"about": self.about, "date": self.date, "seconds": self.seconds, "cases": cases}
        content["training"] = self.training
        write_json(partial_path(self.path), content)

    def finish(self, cases: list[Case], extra: Mapping[str, Any]) -> Path:
        """Write the results and remove the partial file."""
        write_json(self.path, self.results(cases, extra))
        partial_path(self.path).unlink(missing_ok=True)
        return self.path

    def results(self, cases: list[Case], extra: Mapping[str, Any]) -> dict[str, Any]:
        """The results as the file holds them."""
        rates = [self.cases[case.key].matmul_gflops for case in cases]
        return {
            "machine": self.about["machine"],
            "threads": self.about["threads"],
            "dtype": self.about["dtype"],
            "versions": self.about["versions"],
            "commit": self.about["commit"],
            "matmul_gflops": round(statistics.median(rates), 1) if rates else 0.0,
            # Nothing is timed at a shape where a check is red, and then nothing is written here.
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


def rows(case: Case, measured: Measured) -> list[dict[str, Any]]:
    """The rows of one case, one per contender."""
    found = []
    for name, samples in measured.samples.items():
        figures, facts = statistics_of(samples), measured.facts[name]
        peak, results = measured.peaks[name]
        seconds = figures.median_ms / 1e3
        found.append(
            {
                "shape": case.name,
                "pass": case.run,
                "contender": name,
                "median_ms": _digits(figures.median_ms),
                "min_ms": _digits(figures.min_ms),
                "max_ms": _digits(figures.max_ms),
                "runs": figures.runs,
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
    """Four digits that count.

    >>> _digits(1234.567), _digits(0.000123456)
    (1235.0, 0.0001235)
    """
    return float(f"{value:.4g}")


def partial_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(FINISHED) + PARTIAL)


def open_record(folder: Path, about: dict[str, Any], date: str) -> tuple[Record, bool]:
    """The record of a benchmark in a folder, and whether it is finished already.

    A stopped one of the same settings on the same machine goes on, whatever day it is.

    Raises:
        InputError: the folder holds one of other settings, stopped or of today.
    """
    name = slug(about["machine"])
    if folder.exists() and not folder.is_dir():
        raise InputError(describe("benchmark", "this is a file, not a folder for results", got=folder))
    begun = sorted(folder.glob(f"*_{name}{PARTIAL}"))
    if begun:
        content: dict[str, Any] = read_json_object(begun[0])
        hint = "finish that one with its own options, delete the file, or name another folder with --out"
        where = str(begun[0])
        check_entries(content, PARTIAL_ENTRIES, {}, where=where, hint="delete the file to begin again")
        _refuse_differences(begun[0], content["about"], about, "a stopped benchmark", hint)
        path = begun[0].with_name(begun[0].name.removesuffix(PARTIAL) + FINISHED)
        cases = {key: _measured(case, f"{where}, {key}") for key, case in content["cases"].items()}
        record = Record(about=about, date=content["date"], path=path, seconds=content["seconds"], cases=cases)
        record.training = content["training"]
        return record, False
    path = folder / f"{date}_{name}{FINISHED}"
    record = Record(about=about, date=date, path=path)
    if path.exists():
        content = read_json_object(path)
        hint = "name another folder with --out, or delete the file"
        _refuse_differences(path, content.get("settings"), about, "the benchmark of another setting", hint)
        return record, True
    return record, False


def _measured(entries: Any, where: str) -> Measured:
    check_entries(entries, MEASURED_ENTRIES, {}, where=where)
    return Measured(**{name: entries[name] for name in MEASURED_ENTRIES})


def _refuse_differences(path: Path, there: Any, here: Any, what: str, hint: str) -> None:
    lines = differences(there, here)
    if lines:
        raise InputError(describe(str(path), f"holds {what}: {'; '.join(lines)}", hint=hint))


def slug(machine: str) -> str:
    """
    >>> slug("2-core CPU (AMD EPYC, AVX512)")
    '2-core-cpu-amd-epyc-avx512'
    """
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
