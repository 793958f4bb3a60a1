"""How time and memory grow with a size, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from relational_rnn._check import check_choice
from relational_rnn.reports.benchmark_results import SWEEPS, BenchmarkResults, memory_beside
from relational_rnn.reports.figures import STYLES, draw, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
RIVALS = {"nn.LSTM": "lstm", "nn.TransformerEncoder": "transformer", "nn.LSTM, equal state": "gru"}
AXES = {"T": "steps, T", "slots": "slots", "batch": "sequences in the batch", "recompute": "steps, T"}


def sweep_figure(results: BenchmarkResults, sweep: str) -> str:
    """Two panels over the sizes of a sweep, as SVG: the time of a training pass, and its peak memory.

    Over T, time is that of a step, so that a linear cost is a flat line; with recomputation, memory is what a pass
    takes beside its results, with the slopes of T and of its square root.
    """
    check_choice("sweep_figure", "sweep", sweep, SWEEPS)
    stepwise, recompute = sweep in ("T", "recompute"), sweep == "recompute"

    def milliseconds(size: int, row: Row) -> float:
        return row["median_ms"] / (size if stepwise else 1)

    def memory(size: int, row: Row) -> float:
        return memory_beside(row) if recompute else row["peak_mib"]

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        _panel(left, results, sweep, milliseconds, f"ms{' per step' if stepwise else ''}, training pass")
        beside = " beside its results" if recompute else ""
        _panel(right, results, sweep, memory, f"peak MiB of a pass{beside}")
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
    """Colour and line of a contender: those of PyTorch's layers are always the same, ours take the others in order."""
    if contender in RIVALS:
        return STYLES[RIVALS[contender]]
    free = [name for name in STYLES if name not in RIVALS.values()]
    ours = [name for name in contenders if name not in RIVALS]
    return STYLES[free[ours.index(contender) % len(free)]]


def _slopes(axes: Axes, results: BenchmarkResults) -> None:
    """Thin lines that grow with T and with its square root, from the first point of each contender."""
    points = results.sweep("recompute")
    first = min(points, default=0)
    for contender in results.sweep_contenders("recompute"):
        power = 0.5 if contender.endswith("recompute") else 1.0
        start = memory_beside(points[first][contender])
        heights = [start * (size / first) ** power for size in points]
        axes.plot(list(points), heights, color="#888888", linewidth=0.7, label="_nolegend_")
        text, end = "T" if power == 1 else "√T", (max(points), heights[-1])
        axes.annotate(text, end, xytext=(4, 4), textcoords="offset points", fontsize=8, color="#888888")
