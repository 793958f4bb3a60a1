"""Figures of runs on language: what it costs to lose the past, and how rare tokens fare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from relational_rnn.reports import Group
from relational_rnn.reports.figures import INK, Figure, curve_name, draw, group_style, legend
from relational_rnn.reports.runs import all_names, values_by_name
from relational_rnn.runs import mean_and_spread
from relational_rnn.tasks.language.workload import MEASURES, WORKLOAD, token_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def text_figures(groups: Sequence[Group]) -> list[Figure]:
    """Those that there are numbers for."""
    figures = []
    if any(result["resets"] for group in groups for result in group.results):
        description = "What it costs to lose the past: the memory is reset every so many tokens of the test text."
        figures.append(Figure(name="cost-of-forgetting", svg=forgetting_curves(groups), description=description))
    if any(result["per_group_perplexity"] for group in groups for result in group.results):
        description = "Perplexity on the test text by how often a token occurs in the training text."
        figures.append(Figure(name="perplexity-by-frequency", svg=frequency_bars(groups), description=description))
    return figures


def forgetting_curves(groups: Sequence[Group]) -> str:
    """The main measure against the tokens between two resets of the memory, as SVG; dotted lines: never reset."""
    config = groups[0].runs[0].config
    measure = WORKLOAD.main_measure(config)
    label = next(column.heading for column in MEASURES if column.name == measure)

    def paint(figure: Canvas) -> None:
        axes = figure.subplots()
        for number, group in enumerate(groups):
            colour, line = group_style(groups, number)
            resets = [result["resets"] for result in group.results]
            found = values_by_name({k: figures[measure] for k, figures in of.items()} for of in resets)
            carried = group.values(measure)
            if not found or not carried:
                continue
            lengths = sorted(found, key=int)
            means = [mean_and_spread(found[k])[0] for k in lengths]
            look = {"color": colour, "linestyle": line, "marker": "o", "markersize": 3}
            axes.plot([int(k) for k in lengths], means, **look, label=group.label, gid=f"{curve_name(number)}-0")
            never, place = mean_and_spread(carried)[0], f"{curve_name(number)}-1"
            axes.axhline(never, color=colour, linewidth=0.9, linestyle=":", gid=place)
        axes.set_xscale("log")
        tokens = f"{token_name(config)}s".replace("bpes", "tokens")
        axes.set_xlabel(f"{tokens} between two resets of the memory (dotted: never reset)")
        axes.set_ylabel(label)
        axes.grid(True)
        legend(figure)

    return draw(7.2, 3.6, paint)


def frequency_bars(groups: Sequence[Group]) -> str:
    """Perplexity per token by how often it occurs in the training text, as SVG; a bar per group of runs."""
    tables = [
        (number, group, values_by_name(result["per_group_perplexity"] for result in group.results))
        for number, group in enumerate(groups)
    ]
    tables = [entry for entry in tables if entry[2]]
    names = all_names(table for _, _, table in tables)

    def paint(figure: Canvas) -> None:
        axes = figure.subplots()
        width = 0.8 / max(1, len(tables))
        for place, (number, group, table) in enumerate(tables):
            values = {name: mean_and_spread(table[name])[0] for name in names if name in table}
            shown = {name: value for name, value in values.items() if math.isfinite(value)}
            axes.bar(
                [names.index(name) + (place - (len(tables) - 1) / 2) * width for name in shown],
                list(shown.values()),
                width=width,
                color=group_style(groups, number)[0],
                edgecolor=INK,
                linewidth=0.3,
                label=group.label,
            )
        axes.set_yscale("log")
        axes.set_xticks(range(len(names)), names)
        axes.set_xlabel("occurrences of the token in the training text")
        axes.set_ylabel("perplexity per token")
        legend(figure)

    return draw(7.2, 3.6, paint)
