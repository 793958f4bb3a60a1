"""Fills in docs/cost.md from results of `relational-rnn benchmark`, and draws its figures.

    python docs/make_cost.py [benchmarks/results/<date>_<machine>.json]

Without a file it takes the one that the page was made from.
"""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path

from blocks import fill

from relational_rnn.pages import Table
from relational_rnn.reports.benchmark import (
    SWEEPS,
    BenchmarkResults,
    conditions,
    memory_beside,
    read_benchmark,
    sweep_figure,
    sweep_section,
)

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "cost.md"
FASTER = {
    "train": {"a": 1.6, "b": 3.0, "c": 6.0, "e": 3.0},
    "infer": {"a": 1.7, "b": 2.5, "c": 6.0, "e": 2.5},
}
"""On two cores, times as fast as the L0SG port."""
SHARES = {"train": {"a": 85, "b": 100, "c": 60, "e": 75, "g": 40}, "infer": {"a": 85, "c": 55, "e": 80}}
"""Per cent of the measured matmul rate."""
COMPETING, FAST = 1.15, 6.0
"""Slots that compete, at most so many times the original's time; fast weights, so many times the plain loop's speed."""
STEP_GOALS = {"d": 0.08, "h": 0.04}
"""Milliseconds of one step."""
RECIPE, WAITING = 1.7, 5.0
"""Whole training: times the plain loop's steps per second, and at most so many per cent spent waiting for data."""
SOURCE = re.compile(r"Results: `([^`]+)`")


def source(page: str) -> Path | None:
    """The file of results that a page says it was made from."""
    found = SOURCE.search(page)
    return ROOT / found[1] if found else None


def render(page: str, results: BenchmarkResults | None) -> str:
    """The page with every block made from the results, or saying that there are none."""
    return fill(page, lambda name: "Not measured yet." if results is None else block(name, results))


def block(name: str, results: BenchmarkResults) -> str:
    if name == "conditions":
        return f"{conditions(results)}\n- Results: `{results.path.resolve().relative_to(ROOT).as_posix()}`."
    if name == "goals":
        return goals(results)
    more = {"T": [counted], "recompute": [memory_growth]}.get(name, [])
    return "\n\n".join(
        [sweep_section(results, name, f"figures/{figure(name).name}"), *(make(results) for make in more)]
    )


def figure(sweep: str) -> Path:
    return ROOT / "docs" / "figures" / f"cost_{sweep}.svg"


def goals(results: BenchmarkResults) -> str:
    """What was wanted and what was measured, a row for every goal that there are results of."""
    rows: list[list[str]] = []

    def add(what: str, goal: str, measured: str, met: bool, needed: str = "") -> None:
        rows.append([what, goal, measured, "met" if met else "missed", needed])

    for run, named in (("train", "training pass"), ("infer", "inference")):
        for shape in dict.fromkeys([*FASTER[run], *SHARES[run]]):
            found = {row["contender"]: row for row in results.of(shape, run)}
            ours, port = found.get("relational_rnn:cpu"), found.get("L0SG")
            what, share = f"{shape}, {named}", SHARES[run].get(shape)
            if ours is None:
                continue
            reached = 100 * ours["share_of_matmul"]
            if port is not None and shape in FASTER[run]:
                ratio, times = port["median_ms"] / ours["median_ms"], FASTER[run][shape]
                needed = f"{reached * times / ratio:.0f} %"
                add(what, f"{times:g} x the L0SG port", f"{ratio:.2f} x", ratio >= times, needed)
            if share is not None:
                add(what, f"{share} % of the matmul rate", f"{reached:.0f} %", reached >= share, f"{share} %")
            if run == "infer" and port is not None:
                peak, most = ours["peak_mib"], port["peak_mib"]
                add(what, "at most the port's peak memory", f"{peak:.1f} MiB, the port {most:.1f}", peak <= most)
            slots = found.get("relational_rnn:competing slots")
            if slots is not None and shape in ("c", "e"):
                ratio = slots["median_ms"] / ours["median_ms"]
                add(
                    f"{what}, competing slots",
                    f"{COMPETING} x the original's time",
                    f"{ratio:.2f} x",
                    ratio <= COMPETING,
                )
            if shape == "g":
                ratio = found["relational_rnn:reference"]["median_ms"] / ours["median_ms"]
                add(what, f"{FAST:g} x the plain loop", f"{ratio:.1f} x", ratio >= FAST)
    for shape, most in STEP_GOALS.items():
        for row in results.of(shape, "step"):
            if row["contender"] == "relational_rnn:step":
                add(f"{shape}, one step", f"{most} ms", f"{row['median_ms']:.3g} ms", row["median_ms"] <= most)
    trained = {row["contender"]: row for row in results.facts.get("training", ()) if "cannot_run" not in row}
    if {"relational_rnn:cpu", "relational_rnn:reference"} <= trained.keys():
        ours, plain = (trained[f"relational_rnn:{backend}"] for backend in ("cpu", "reference"))
        ratio, waiting = ours["steps_per_second"] / plain["steps_per_second"], 100 * ours["data_share"]
        add("a whole training", f"{RECIPE} x the plain loop's steps per second", f"{ratio:.2f} x", ratio >= RECIPE)
        add("a whole training", f"{WAITING:g} % of the time waiting for data", f"{waiting:.1f} %", waiting < WAITING)
    return Table(["what", "goal", "measured", "", "share of the matmul rate at the goal"], rows).markdown()


def counted(results: BenchmarkResults) -> str:
    """Theory beside measurement: how pass and arithmetic grow over the sweep over T, by contender."""
    points = results.sweep("T")
    head = ["contender", "from T to T", "T", "arithmetic, counted", "time, measured", "peak memory"]
    rows = []
    for contender in results.sweep_contenders("T"):
        sizes = [size for size, found in points.items() if contender in found]
        for short, long in pairwise(sizes):
            a, b = points[short][contender], points[long][contender]
            rows.append(
                [
                    contender,
                    f"{short:,} to {long:,}",
                    f"x {long / short:.3g}",
                    f"x {b['gflop'] / a['gflop']:.3g}",
                    f"x {b['median_ms'] / a['median_ms']:.3g}",
                    f"x {b['peak_mib'] / a['peak_mib']:.3g}",
                ]
            )
    return Table(head, rows).markdown()


def memory_growth(results: BenchmarkResults) -> str:
    """How the memory beside the results grows over the sweep, by contender, beside T and its square root."""
    points = results.sweep("recompute")
    sizes = list(points)
    rows = []
    for contender in results.sweep_contenders("recompute"):
        for short, long in pairwise(sizes):
            before, after = (memory_beside(points[size][contender]) for size in (short, long))
            ratio, growth = long / short, after / before
            rows.append(
                [contender, f"{short:,} to {long:,}", f"x {ratio:.3g}", f"x {ratio**0.5:.3g}", f"x {growth:.3g}"]
            )
    return Table(["contender", "from T to T", "T", "√T", "memory beside the results"], rows).markdown()


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    path = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else source(page)
    if path is None:
        raise SystemExit("the page names no results yet: give a file of benchmarks/results")
    results = read_benchmark(path)
    for sweep in SWEEPS:
        if not results.sweep(sweep):
            raise SystemExit(f"{path}: the sweep {sweep!r} was not measured")
    for sweep in SWEEPS:
        figure(sweep).parent.mkdir(exist_ok=True)
        figure(sweep).write_text(sweep_figure(results, sweep), encoding="utf-8")
    PAGE.write_text(render(page, results), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
