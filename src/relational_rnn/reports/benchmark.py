"""The results of a benchmark: read from their JSON file, and shown as a Markdown page with SVG figures beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relational_rnn._check import check_choice
from relational_rnn._files import write_together
from relational_rnn._reading.json_text import read_json_object
from relational_rnn._reading.structure import check_entries
from relational_rnn.pages import Table, render
from relational_rnn.reports.figures import STYLES, draw, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
NEEDED = {
    "machine": str,
    "threads": int,
    "dtype": str,
    "versions": Mapping[str, str],
    "commit": str | None,
    "matmul_gflops": float,
    "rows": tuple[Row, ...],
    "shapes": Mapping[str, Mapping[str, int]],
    "date": str,
    "settings": Mapping[str, Any],
}
EXTRAS = {
    "cannot_run": Mapping[str, Mapping[str, str]],
    "training": tuple[Row, ...],
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
TRAINING: dict[str, Any] = dict.fromkeys(
    ("steps_per_second", "median_ms", "min_ms", "max_ms", "core_share", "data_share", "seconds", "valid_accuracy"),
    float,
)
"""What a row must hold, and what a row on whole training must hold unless it says why there is none."""
SWEEPS = {"T": "T", "slots": "slots", "batch": "batch", "recompute": "recompute T"}
"""Every sweep, and what the names of its points begin with."""
AXES = {"T": "steps, T", "slots": "slots", "batch": "sequences in the batch", "recompute": "steps, T"}
TITLES = {
    "T": "Cost against the length T",
    "slots": "Cost against the number of slots",
    "batch": "Cost against the batch",
    "recompute": "Peak memory of storing and of recomputing",
}
PASSES = {"train": "training pass", "infer": "inference", "step": "one step"}
RIVALS = {"nn.LSTM": "lstm", "nn.TransformerEncoder": "transformer", "nn.LSTM, equal state": "gru"}
"""PyTorch's layers, and the cores whose colours they have."""


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

    def of(self, shape: str, run: str | None = None) -> list[Row]:
        """The rows of a shape, of one pass or of all."""
        return [row for row in self.facts["rows"] if row["shape"] == shape and run in (None, row["pass"])]

    def sweep(self, name: str) -> dict[int, dict[str, Row]]:
        """The points of a sweep: size -> contender -> row; empty if it was not measured."""
        start = SWEEPS[name] + "="
        sizes = [shape.removeprefix(start) for shape in self.facts["shapes"] if shape.startswith(start)]
        return {int(size): {row["contender"]: row for row in self.of(start + size)} for size in sizes}

    def sweep_contenders(self, name: str) -> list[str]:
        """The contenders of a sweep in order of first appearance."""
        return list(dict.fromkeys(contender for rows in self.sweep(name).values() for contender in rows))

    def per_step_growth(self) -> dict[str, tuple[int, int, float]]:
        """By contender: a short length (the first of at least 1,024 steps, or the shortest), the longest, and how many
        times as long a step takes there; 1 means a cost linear in T."""
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
        InputError: the file cannot be read, or holds something else.
    """
    path = Path(path)
    found: Any = read_json_object(path)
    hint = "name a <date>_<machine>.json of `relational-rnn benchmark`"
    check_entries(found, NEEDED, EXTRAS, where=f"{path}: no file of benchmark results", hint=hint)
    where = f"{path}, settings"
    check_entries(found["settings"], {"device": str}, {"recipe_steps": int | None}, where=where, hint=hint)
    for number, row in enumerate(found["rows"]):
        check_entries(row, ROW, {"result_mib": float}, where=f"{path}, rows[{number}]", hint=hint)
    for number, row in enumerate(found.get("training", ())):
        needed = {"recipe": str, "contender": str, **({"cannot_run": str} if "cannot_run" in row else TRAINING)}
        check_entries(row, needed, {}, where=f"{path}, training[{number}]", hint=hint)
    return BenchmarkResults(path=path, facts=found)


def write_benchmark_page(path: str | Path) -> list[Path]:
    """Write the page and the figures of a `<date>_<machine>.json` beside it; returns the paths, page first.

    Raises:
        InputError: see `read_benchmark`.
    """
    results = read_benchmark(path)
    page = results.path.with_suffix(".md")
    figures = {name: page.with_name(f"{page.stem}_{name}.svg") for name in SWEEPS if results.sweep(name)}
    drawn = {place: sweep_figure(results, name) for name, place in figures.items()}
    write_together({**drawn, page: render_benchmark(results, {name: place.name for name, place in figures.items()})})
    return [page, *figures.values()]


def render_benchmark(results: BenchmarkResults, figures: Mapping[str, str]) -> str:
    """The page; `figures` are the addresses of the figures by their sweeps."""
    facts = results.facts
    refused = [f"{case}: {why}" for case, reasons in facts.get("cannot_run", {}).items() for why in reasons.values()]
    return render(
        "reports/templates/benchmark.md",
        facts=facts,
        name=results.path.name,
        conditions=conditions(results),
        shapes={name: (facts["shapes"][name], Table.of(SHAPE_COLUMNS, results.of(name))) for name in results.shapes},
        sweeps={
            TITLES[name]: sweep_section(results, name, figures.get(name)) for name in SWEEPS if results.sweep(name)
        },
        training=training_table(facts["training"]) if facts.get("training") else "",
        cannot_run=list(dict.fromkeys(refused)),
    )


def conditions(results: BenchmarkResults) -> str:
    """On what and how the figures were measured, as a list."""
    text = render("reports/templates/conditions.md", facts=results.facts, settings=results.facts["settings"])
    return text.replace("\n  ", " ").strip()  # a line for every entry, however its template is wrapped


def sweep_section(results: BenchmarkResults, name: str, figure: str | None = None) -> str:
    """The figure at this address, what a sweep is over, its table, and for T how the time of a step grows."""
    points = results.sweep(name)
    return render(
        "reports/templates/sweep.md",
        name=name,
        shown=[] if figure is None else [f"![{TITLES[name]}]({figure})"],
        axis=SWEEPS[name].removeprefix("recompute "),
        shape=results.facts["shapes"][f"{SWEEPS[name]}={min(points)}"],
        whole=all("relational_rnn:reference" in rows for rows in points.values()),
        table=sweep_table(results, name),
        growth=results.per_step_growth(),
    ).rstrip("\n")


def memory_beside(row: Row) -> float:
    """Peak MiB of a pass without its results."""
    return row["peak_mib"] - row["result_mib"]


TIMES: dict[str, Callable[[Row], str]] = {
    "median ms": lambda row: milliseconds(row["median_ms"]),
    "min to max": lambda row: f"{milliseconds(row['min_ms'])} to {milliseconds(row['max_ms'])}",
}
SHAPE_COLUMNS: dict[str, Callable[[Row], str]] = {
    "pass": lambda row: PASSES[row["pass"]],
    "contender": lambda row: row["contender"],
    **TIMES,
    "runs": lambda row: f"{row['runs']}",
    "samples/s": lambda row: count(row["samples_per_second"]),
    "share": lambda row: f"{100 * row['share_of_matmul']:.1f} %",
    "peak MiB": lambda row: f"{row['peak_mib']:,.1f}",
    "parameters": lambda row: f"{row['parameters']:,}",
    "state bytes": lambda row: f"{row['state_bytes']:,}",
}
TRAINING_COLUMNS: dict[str, Callable[[Row], str]] = {
    "contender": lambda row: row["contender"],
    "steps/s": lambda row: f"{row['steps_per_second']:.2f}",
    **TIMES,
    "core": lambda row: f"{100 * row['core_share']:.1f} %",
    "data": lambda row: f"{100 * row['data_share']:.1f} %",
    "whole run, s": lambda row: f"{row['seconds']:.1f}",
    "validation accuracy": lambda row: f"{100 * row['valid_accuracy']:.1f} %",
}
"""Headings, and the cell of a row."""


def sweep_table(results: BenchmarkResults, name: str) -> Table:
    """A row for each size; the columns are figures of every contender, in the sweep `recompute` time and memory."""
    shown = ("median ms", "samples/s", "share", "peak MiB")
    many: dict[str, Callable[[Row], str]] = {
        "ms; samples/s; share; peak MiB": lambda row: "; ".join(SHAPE_COLUMNS[heading](row) for heading in shown)
    }
    if name == "recompute":
        many = {"ms": TIMES["median ms"], "MiB": lambda row: f"{memory_beside(row):,.1f}"}
    columns: dict[str, Callable[[Any], str]] = {SWEEPS[name].removeprefix("recompute "): lambda point: f"{point[0]:,}"}
    for who in results.sweep_contenders(name):
        for heading, cell in many.items():
            columns[f"{who}: {heading}"] = lambda point, who=who, cell=cell: (
                cell(point[1][who]) if who in point[1] else ""
            )
    return Table.of(columns, results.sweep(name).items())


def training_table(rows: Sequence[Row]) -> str:
    """A row for each backend; one that cannot run says why."""
    empty = [""] * (len(TRAINING_COLUMNS) - 2)
    cells = [
        [row["contender"], row["cannot_run"], *empty]
        if "cannot_run" in row
        else [cell(row) for cell in TRAINING_COLUMNS.values()]
        for row in rows
    ]
    return Table(list(TRAINING_COLUMNS), cells).markdown()


def milliseconds(value: float) -> str:
    """Three digits, or all before the point.

    >>> milliseconds(0.46123), milliseconds(33.61), milliseconds(4143.2)
    ('0.461', '33.6', '4,143')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def sweep_figure(results: BenchmarkResults, sweep: str) -> str:
    """Two panels over the sizes of a sweep, as SVG: the time of a training pass, and its peak memory.

    Over T the time is that of a step, so that a linear cost is a flat line. With recomputation the memory is that
    beside the results, with lines that grow as T and as its square root.
    """
    check_choice("sweep_figure", "sweep", sweep, SWEEPS)
    stepwise, recompute = sweep in ("T", "recompute"), sweep == "recompute"

    def time(size: int, row: Row) -> float:
        return row["median_ms"] / (size if stepwise else 1)

    def memory(size: int, row: Row) -> float:
        return memory_beside(row) if recompute else row["peak_mib"]

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        _panel(left, results, sweep, time, f"ms{' per step' if stepwise else ''}, training pass")
        _panel(right, results, sweep, memory, f"peak MiB of a pass{' beside its results' if recompute else ''}")
        if recompute:
            _slopes(right, results)
        legend(figure, columns=3)

    return draw(7.2, 3.4, paint)


def _panel(axes: Axes, results: BenchmarkResults, sweep: str, value: Callable[[int, Row], float], label: str) -> None:
    points = results.sweep(sweep)
    contenders = results.sweep_contenders(sweep)
    every: list[float] = []
    for contender in contenders:
        pairs = [(size, value(size, rows[contender])) for size, rows in points.items() if contender in rows]
        pairs = [(size, height) for size, height in pairs if height > 0]  # less than the resident set resolves
        colour, line = style(contender, contenders)
        look = {"color": colour, "linestyle": line, "marker": "o", "markersize": 3, "linewidth": 1.5}
        sizes, heights = [size for size, _ in pairs], [height for _, height in pairs]
        every += heights
        axes.plot(sizes, heights, **look, label=contender)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(points), [f"{size:,}" for size in points])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    if every:
        axes.set_yscale("log")
        # Whole decades, so that there is a number at both ends.
        axes.set_ylim(10 ** math.floor(math.log10(min(every))), 10 ** (math.floor(math.log10(max(every))) + 1))
    axes.set_xlabel(AXES[sweep])
    axes.set_ylabel(label)
    axes.grid(True)


def style(contender: str, contenders: Sequence[str]) -> tuple[str, Any]:
    """Colour and line of a contender: fixed for PyTorch's layers; ours take the others in order."""
    if contender in RIVALS:
        return STYLES[RIVALS[contender]]
    free = [name for name in STYLES if name not in RIVALS.values()]
    ours = [name for name in contenders if name not in RIVALS]
    return STYLES[free[ours.index(contender) % len(free)]]


def _slopes(axes: Axes, results: BenchmarkResults) -> None:
    """Thin lines that grow as T and as its square root, from the first point of each contender."""
    points = results.sweep("recompute")
    first = min(points, default=0)
    for contender in results.sweep_contenders("recompute"):
        power = 0.5 if contender.endswith("recompute") else 1.0
        start = memory_beside(points[first][contender])
        heights = [start * (size / first) ** power for size in points]
        axes.plot(list(points), heights, color="#888888", linewidth=0.7, label="_nolegend_")
        text, end = "T" if power == 1 else "√T", (max(points), heights[-1])
        axes.annotate(text, end, xytext=(4, 4), textcoords="offset points", fontsize=8, color="#888888")
