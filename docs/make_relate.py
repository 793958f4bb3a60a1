"""Fills in docs/relate.md from the results in docs/results, and draws its figure: `python docs/make_relate.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocks import fill

from relational_rnn._files import write_whole
from relational_rnn.nn.cores import CORES
from relational_rnn.pages import Cell, Table
from relational_rnn.reports.figures import INK, STYLES, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOCS = Path(__file__).parent
PAGE = DOCS / "relate.md"
DRAWING = DOCS / "figures" / "relate.svg"
TASKS = {
    "relations": "relations",
    "nth-farthest": "N-th farthest",
    "nth-farthest-8x16": "N-th farthest, 8 x 16",
    "associative-recall": "associative recall",
    "memorize-copy": "copy",
    "memorize-reverse": "reverse",
    "memorize-double": "double",
    "programs-add-small": "add",
    "programs-control-small": "control",
    "programs-program-small": "program",
    "babi": "bAbI",
}
"""Names of results files without their endings, and what the page calls them."""

Results = dict[str, dict[str, dict[str, Any]]]
"""The record of every core by its name, by the file it stands in."""


def read(folder: Path) -> Results:
    """Our own records in a folder of results, published ones left out."""
    found: Results = {}
    for stem in TASKS:
        path = folder / f"{stem}.json"
        if path.exists():
            for record in json.loads(path.read_text(encoding="utf-8")):
                if "published" not in record:
                    found.setdefault(stem, {}).setdefault(record["core"], record)
    return found


def render(page: str, results: Results) -> str:
    """The page with every block made from the results."""
    return fill(page, lambda name: MADE[name](results))


def cores_of(results: Results) -> list[str]:
    """The cores that any results have, in the order of the table of cores."""
    return [core for core in CORES if any(core in records for records in results.values())]


def accuracies(results: Results) -> str:
    """A row per core, a column per task."""
    head = ["core", *(Cell(TASKS[stem], link=f"results/{stem}.md") for stem in results)]
    rows = []
    for core in cores_of(results):
        cells = [_accuracy(records.get(core)) for records in results.values()]
        rows.append([CORES[core].label, *cells])
    return Table(head, rows).markdown()


def _accuracy(record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    seeds = len(record["values"])
    spread = f" ± {100 * record['spread']:.1f} ({seeds} seeds)" if seeds > 1 else ""
    return f"{100 * record['value']:.1f}{spread}"


def beyond(results: Results) -> str:
    """Accuracy on what training never shows, where a task has that."""
    shown = {
        stem: records
        for stem, records in results.items()
        if any("mean_beyond" in r["details"] for r in records.values())
    }
    head = ["core", *(TASKS[stem] for stem in shown)]
    rows = []
    for core in cores_of(shown):
        found = [records[core]["details"].get("mean_beyond") if core in records else None for records in shown.values()]
        rows.append([CORES[core].label, *("" if value is None else f"{100 * value:.1f}" for value in found)])
    return Table(head, rows).markdown()


def costs(results: Results) -> str:
    """Parameters, state and time of every run of the tables."""
    head = ["task", "core", "parameters", "state bytes", "processor seconds", "seconds"]
    rows = []
    for stem, records in results.items():
        for core in cores_of({stem: records}):
            record = records[core]
            names = ("parameters", "state_bytes", "processor_seconds", "train_seconds")
            numbers = [record.get(name) for name in names]
            cells = ["" if number is None else f"{number:,.0f}" for number in numbers]
            rows.append([TASKS[stem], CORES[core].label, *cells])
    return Table(head, rows).markdown()


def picture(results: Results) -> str:
    """The link to the figure."""
    names = ", ".join(TASKS[stem] for stem in results)
    return f"![Test accuracy of every core: {names}.](figures/{DRAWING.name})"


def drawing(results: Results) -> str:
    """The figure: a panel per task, a bar per core, the spread over seeds where there are several."""
    cores = cores_of(results)
    columns = min(max(1, len(results)), 5)
    rows = -(-max(1, len(results)) // columns)

    def paint(figure: Figure) -> None:
        all_axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for axes in all_axes[len(results) :]:
            axes.set_axis_off()
        for axes, (stem, records) in zip(all_axes, results.items(), strict=False):
            for place, core in enumerate(cores):
                if core in records:
                    value, spread = 100 * records[core]["value"], 100 * records[core]["spread"]
                    axes.barh(place, value, xerr=spread or None, color=STYLES[core][0], height=0.72)
                    axes.text(min(value, 97) - 2, place, f"{value:.0f}", ha="right", va="center", fontsize=7, color="w")
            axes.set_title(TASKS[stem], fontsize=9)
            axes.set_xlim(0, 100)
            axes.set_xticks([0, 50, 100])
            axes.tick_params(length=0, labelsize=8)
            axes.axvline(100, color=INK, linewidth=0.4, alpha=0.5)
        all_axes[0].set_yticks(range(len(cores)), [CORES[core].label for core in cores])
        all_axes[0].set_ylim(len(cores) - 0.4, -0.6)  # the first core on top
        figure.supxlabel("test accuracy, %", fontsize=9)

    return draw(2.0 + 1.5 * columns, 1.0 + rows * (0.4 + 0.26 * max(1, len(cores))), paint)


MADE = {"accuracies": accuracies, "beyond": beyond, "costs": costs, "picture": picture}


def main() -> None:
    results = read(DOCS / "results")
    write_whole(DRAWING, drawing(results))
    write_whole(PAGE, render(PAGE.read_text(encoding="utf-8"), results))
    print(PAGE)


if __name__ == "__main__":
    main()
