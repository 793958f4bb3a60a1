"""Figures as SVG: text stays text, the same input gives the same bytes, and no screen is needed."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from relational_rnn._check import check_choice, need_extra
from relational_rnn.pages import render
from relational_rnn.reports.runs import Group, all_names
from relational_rnn.runs import mean_and_spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

INK, PAPER = "#1b1b1f", "#fefefe"
"""The colours of text and of the background; `inline` leaves both to the page."""
# Okabe and Ito's colours, then Tol's, which stay apart with every common colour blindness; line styles differ too.
STYLES: dict[str, tuple[str, Any]] = {
    "rmc": ("#0072b2", "-"),
    "rmc-chapter": ("#332288", (0, (5, 1))),
    "competitive": ("#117733", "-"),
    "lstm": ("#d55e00", "--"),
    "attention": ("#009e73", "-."),
    "transformer": ("#cc79a7", ":"),
    "gru": ("#e69f00", (0, (5, 1))),
    "rnn": ("#56b4e9", (0, (1, 1))),
    "ntm": ("#999933", "--"),
    "dnc": ("#882255", "-."),
    "universal": ("#44aa99", ":"),
    "deltanet": ("#777777", (0, (5, 1))),
    "fastweights": ("#aa4499", "-"),
}
SETTINGS = {
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "relational-rnn",
    "font.family": "sans-serif",
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.5,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
}
CURVES = {"valid_accuracy": ("validation accuracy, %", 100.0), "valid_loss": ("validation loss, nats per token", 1.0)}
"""What can be drawn: its label and a factor."""
AXIS_LABELS = {
    "step": "steps",
    "samples": "training samples",
    "seconds": "seconds of training",
    "processor_seconds": "processor seconds of training",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure of a page."""

    name: str
    """File name without its ending."""
    svg: str
    description: str
    """One sentence, for the caption and for screen readers."""


def learning_curves(groups: Sequence[Group], x: str, y: str = "valid_accuracy") -> str:
    """`y` (one of `CURVES`) against `x` (one of `AXIS_LABELS`) as SVG: a line for each run, a colour for each group."""
    check_choice("learning_curves", "x", x, AXIS_LABELS)
    check_choice("learning_curves", "y", y, CURVES)
    label_y, scale = CURVES[y]

    def paint(figure: Canvas) -> None:
        axes = figure.subplots()
        for number, group in enumerate(groups):
            colour, line = group_style(groups, number)
            look = {"color": colour, "linestyle": line, "linewidth": 1.6, "marker": "o", "markersize": 2.5}
            label = group.label
            for place, run in enumerate(group.runs):
                across, values = run.curve(x, y)
                if across:
                    heights = [scale * value for value in values]
                    axes.plot(across, heights, **look, label=label, gid=f"{curve_name(number)}-{place}")
                    label = "_nolegend_"  # one entry for all seeds
        if y == "valid_accuracy":
            axes.set_ylim(0, 102)
        axes.set_xlim(left=0)
        axes.set_ylabel(label_y)
        axes.set_xlabel(AXIS_LABELS[x])
        axes.grid(True)
        legend(figure)

    return draw(7.2, 3.6, paint)


def task_bars(groups: Sequence[Group]) -> str:
    """Test accuracy by group of questions as SVG: a panel for each evaluated group of runs, with spread over seeds."""
    panels = [(number, group, group.per_group()) for number, group in enumerate(groups) if group.per_group()]
    tasks = all_names((panel[2] for panel in panels), groups[0].workload.group_names)

    def paint(figure: Canvas) -> None:
        all_axes = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)[0]
        for axes, (number, group, accuracies) in zip(all_axes, panels, strict=False):
            values = [mean_and_spread(accuracies[task]) for task in accuracies]
            axes.barh(
                [tasks.index(task) for task in accuracies],
                [100 * value for value, _ in values],
                xerr=[100 * spread for _, spread in values] if len(group.results) > 1 else None,
                color=group_style(groups, number)[0],
                error_kw={"elinewidth": 0.8, "ecolor": INK},
                height=0.72,
            )
            overall = mean(value for value, _ in values)
            axes.set_title(f"{group.label}\nmean {100 * overall:.1f} %", fontsize=9)
            axes.axvline(95, color=INK, linewidth=0.7, linestyle=":")
        for axes in all_axes:
            axes.set_xlim(0, 100)
            axes.set_xticks([0, 50, 95])
            axes.tick_params(length=0, labelsize=8)
        all_axes[0].set_yticks(range(len(tasks)), tasks)
        all_axes[0].set_ylim(len(tasks) - 0.4, -0.6)  # the first task on top
        figure.supxlabel("test accuracy, % (dotted line: 95)", fontsize=9)

    return draw(2.2 + 1.6 * max(1, len(panels)), 1.1 + 0.24 * max(1, len(tasks)), paint)


def report_figures(groups: Sequence[Group]) -> list[Figure]:
    """The figures of a report: learning curves, bars if runs are judged by accuracy, and the task's own figures."""
    workload = groups[0].workload
    first, word = workload.curves_over, workload.best_by
    figures = _curves(groups, {f"{word}-by-{first}": first, f"{word}-by-seconds": "seconds"})
    if word == "accuracy" and any(group.per_group() for group in groups):
        description = f"Test accuracy of every {workload.group_noun}, one panel per model."
        figures.append(Figure(name="accuracy-by-task", svg=task_bars(groups), description=description))
    return [*figures, *workload.figures(groups)]


def results_figures(groups: Sequence[Group]) -> list[Figure]:
    """The figures of a page of results: accuracy against training samples and processor seconds (or seconds by the
    clock, if a run lacks those); if runs are judged by their loss, the figures of a report."""
    if groups[0].workload.best_by != "accuracy":
        return report_figures(groups)
    runs = [run for group in groups for run in group.runs]
    by_processor = all(run.curve("processor_seconds", "valid_accuracy")[0] for run in runs)
    return _curves(groups, {"samples": "samples", "seconds": "processor_seconds" if by_processor else "seconds"})


def _curves(groups: Sequence[Group], names: Mapping[str, str]) -> list[Figure]:
    """Learning curves of the measure that chooses the best weights; `names` gives figures their horizontal axes."""
    y = f"valid_{groups[0].workload.best_by}"
    what = CURVES[y][0].split(",")[0].capitalize()
    return [
        Figure(
            name=name,
            svg=learning_curves(groups, x, y),
            description=f"{what} against {'steps of training' if x == 'step' else AXIS_LABELS[x]}, one line per run.",
        )
        for name, x in names.items()
        if any(run.curve(x, y)[0] for group in groups for run in group.runs)
    ]


def curve_name(number: int) -> str:
    """How the ids of the curves of group `number` begin; "-" and the place of the run follow."""
    return f"curve-{number}"


def inline(svg: str, name: str, description: str) -> str:
    """An SVG document as an element of an HTML page, with ids that begin with `name` and the page's colours."""
    body = svg[svg.index("<svg") + 4 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    # Without a fixed size the figure takes the width of the page, until its letters have the common size.
    head, rest = body.split(">", 1)
    wide = re.search(r' width="([\d.]+)pt"', head)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    drawn = f"{head}>{rest}".replace(INK, "currentColor").replace(PAPER, "none").rstrip()
    width = None if wide is None else round(1.7 * float(wide[1]))
    return render("reports/templates/inline.html", drawn=drawn, description=description, width=width)


def group_style(groups: Sequence[Group], number: int) -> tuple[str, Any]:
    """Colour and line of a group: those of its core, if no other group has the same core."""
    core = groups[number].core
    if core in STYLES and [group.core for group in groups].count(core) == 1:
        return STYLES[core]
    return list(STYLES.values())[number % len(STYLES)]


def legend(figure: Canvas, columns: int = 4) -> None:
    """The legend of the first panel, above the figure; none if that panel names nothing."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def draw(width: float, height: float, paint: Callable[[Canvas], None]) -> str:
    """The SVG of a figure of `width` x `height` inches, drawn by `paint`."""
    matplotlib = need_extra("matplotlib", "report", "drawing figures")
    # Not pyplot's figure: no window system is asked, no state is shared.
    figure_class = need_extra("matplotlib.figure", "report", "drawing figures").Figure
    with matplotlib.rc_context(SETTINGS):
        figure = figure_class(figsize=(width, height), layout="constrained")
        paint(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
