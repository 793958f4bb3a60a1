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
GOALS = {"a": (1.5, 85), "b": (2.2, 75), "c": (6.0, 48), "e": (3.0, 60)}
"""For training passes on two cores: times as fast as the L0SG port, and per cent of the measured matmul rate."""
STEP_GOAL = 0.08
"""Milliseconds of one step at shape d."""
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
    """What was wanted and what was measured, a row per named shape that there are results of."""
    rows = []
    for shape, (times, share) in GOALS.items():
        found = {row["contender"]: row for row in results.of(shape, "train")}
        if "relational_rnn:cpu" not in found:
            continue
        ours, port = found["relational_rnn:cpu"], found.get("L0SG")
        ratio = None if port is None else port["median_ms"] / ours["median_ms"]
        reached = 100 * ours["share_of_matmul"]
        needed = "" if ratio is None else f"{reached * times / ratio:.0f} %"
        rows.append(
            [
                f"{shape}, training pass",
                f"{times:g} x the L0SG port",
                "not measured" if ratio is None else f"{ratio:.2f} x",
                "" if ratio is None else "met" if ratio >= times else "missed",
                needed,
            ]
        )
        met = "met" if reached >= share else "missed"
        rows.append([f"{shape}, training pass", f"{share} % of the matmul rate", f"{reached:.0f} %", met, f"{share} %"])
    for row in results.of("d", "step"):
        if row["contender"] == "relational_rnn:step":
            met = "met" if row["median_ms"] <= STEP_GOAL else "missed"
            rows.append(["d, one step", f"{STEP_GOAL} ms", f"{row['median_ms']:.3g} ms", met, ""])
    return Table(["shape", "goal", "measured", "", "share of the matmul rate at the goal"], rows).markdown()


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
