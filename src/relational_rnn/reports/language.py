"""What runs on language are shown by: perplexity and bits, by how rare a token is and how much of the past is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from relational_rnn.reports.figures import INK, curve_name, draw, group_style, legend
from relational_rnn.reports.runs import Group, all_names, mean_and_spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = {"perplexity": ("perplexity per word", "{:,.2f}"), "bits_per_character": ("bits per character", "{:.4f}")}
"""What a text is judged by: the name of an entry of result.json, its label and how it is written."""


def is_language(groups: Sequence[Group]) -> bool:
    """Whether the runs are on language; runs of several tasks make no report."""
    return bool(groups) and groups[0].runs[0].task == "language"


def main_measure(groups: Sequence[Group]) -> str:
    """The measure that is usual for the tokens of these runs: bits where they are characters, else perplexity."""
    return "bits_per_character" if _tokens(groups) == "character" else "perplexity"


def _tokens(groups: Sequence[Group]) -> str:
    return str(groups[0].runs[0].config.get("data", {}).get("vocabulary", "word"))


def resets(group: Group, measure: str) -> dict[int, list[float]]:
    """The measure with the memory reset every k tokens, by k: the values of all evaluated seeds."""
    lengths = sorted({int(k) for result in group.results for k in result.get("resets", {})})
    return {
        k: [float(r["resets"][str(k)][measure]) for r in group.results if str(k) in r.get("resets", {})]
        for k in lengths
    }


def perplexity_by_frequency(group: Group) -> dict[str, list[float]]:
    """Perplexity per token by how often the token occurs in the training text: the values of all evaluated seeds."""
    tables = [result.get("per_group_perplexity", {}) for result in group.results]
    return {name: [float(found[name]) for found in tables if name in found] for name in all_names(tables)}


def forgetting_curves(groups: Sequence[Group]) -> str:
    """What it costs to lose the past: the measure against how many tokens are read between two resets of the memory, a
    line per group of runs, and a dotted one where the memory is never reset.

    Returns:
        a whole SVG document. Groups without an evaluation have no line.
    """
    measure = main_measure(groups)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for number, group in enumerate(groups):
            colour, line = group_style(groups, number)
            found = resets(group, measure)
            carried = group.values(measure)
            if not found or not carried:
                continue
            means = [mean_and_spread(values)[0] for values in found.values()]
            look = {"color": colour, "linestyle": line, "marker": "o", "markersize": 3}
            axes.plot(list(found), means, **look, label=group.label, gid=f"{curve_name(number)}-0")
            never, place = mean_and_spread(carried)[0], f"{curve_name(number)}-1"
            axes.axhline(never, color=colour, linewidth=0.9, linestyle=":", gid=place)
        axes.set_xscale("log")
        tokens = f"{_tokens(groups)}s".replace("bpes", "tokens")
        axes.set_xlabel(f"{tokens} between two resets of the memory (dotted: never reset)")
        axes.set_ylabel(MEASURES[measure][0])
        axes.grid(True)
        legend(figure)

    return draw(7.2, 3.6, paint)


def frequency_bars(groups: Sequence[Group]) -> str:
    """Perplexity per token, on a logarithmic scale, by how often the token occurs in the training text; a bar per group
    of runs.

    Returns:
        a whole SVG document. Groups without an evaluation have no bars.
    """
    tables = [(number, group, perplexity_by_frequency(group)) for number, group in enumerate(groups)]
    tables = [entry for entry in tables if entry[2]]
    names = all_names(table for _, _, table in tables)

    def paint(figure: Figure) -> None:
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
