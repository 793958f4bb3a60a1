"""The page of a benchmark: Markdown and SVG figures beside the JSON file that they are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relational_rnn._files import write_together
from relational_rnn.pages import Table, render
from relational_rnn.reports.benchmark_figures import sweep_figure
from relational_rnn.reports.benchmark_results import SWEEPS, BenchmarkResults, memory_beside, read_benchmark

PASSES = {"train": "training pass", "infer": "inference", "step": "one step"}
TITLES = {
    "T": "Cost against the length T",
    "slots": "Cost against the number of slots",
    "batch": "Cost against the batch",
    "recompute": "Peak memory of storing and of recomputing",
}


def write_benchmark_page(path: str | Path) -> list[Path]:
    """Write the page and the figures of a `<date>_<machine>.json` beside it; returns the paths, page first.

    Raises:
        InputError: the file cannot be read, or is not one.
    """
    results = read_benchmark(path)
    page = results.path.with_suffix(".md")
    figures = {name: figure_path(results.path, name) for name in SWEEPS if results.sweep(name)}
    drawn = {place: sweep_figure(results, name) for name, place in figures.items()}
    write_together({**drawn, page: render_benchmark(results, {name: place.name for name, place in figures.items()})})
    return [page, *figures.values()]


def figure_path(path: Path, sweep: str) -> Path:
    """Where the figure of a sweep stands, beside the results at `path`."""
    return path.with_name(f"{path.stem}_{sweep}.svg")


def render_benchmark(results: BenchmarkResults, figures: Mapping[str, str]) -> str:
    """The page, which links to `figures`, those of sweeps by their names."""
    facts = results.facts
    sections = {
        shape_title(results, name): [Table.of(SHAPE_COLUMNS, results.of(name)).markdown()] for name in results.shapes
    }
    for name in (name for name in SWEEPS if results.sweep(name)):
        text, rest = sweep_section(results, name).split("\n\n", 1)
        shown = [f"![{TITLES[name]}]({figures[name]})"] if name in figures else []
        sections[TITLES[name]] = [text, *shown, rest]
    refused = [f"{case}: {why}" for case, reasons in facts.get("cannot_run", {}).items() for why in reasons.values()]
    return render(
        "reports/templates/benchmark.md",
        facts=facts,
        name=results.path.name,
        conditions=conditions(results),
        sections=sections,
        training=training_table(facts) if facts.get("training") else "",
        cannot_run=list(dict.fromkeys(refused)),
    )


def conditions(results: BenchmarkResults) -> str:
    """What the figures were measured on and how, as a list."""
    text = render("reports/templates/conditions.md", facts=results.facts, settings=results.facts["settings"])
    return text.replace("\n  ", " ").strip()  # a line for every entry, however its template is wrapped


def sweep_section(results: BenchmarkResults, name: str) -> str:
    """What a sweep is over, its table, and in the one over T how the time of a step grows."""
    points = results.sweep(name)
    s = results.facts["shapes"][f"{SWEEPS[name]}={min(points)}"]
    fixed = {
        "batch": f"{s['batch']} sequences",
        "steps": f"{s['steps']} steps",
        "input_size": f"{s['input_size']} numbers per step",
        "mem_slots": f"{s['mem_slots']} slots",
        "heads": f"{s['num_heads']} heads x {s['head_size']}",
    }
    del fixed[{"T": "steps", "slots": "mem_slots", "batch": "batch", "recompute": "steps"}[name]]
    return render(
        "reports/templates/sweep.md",
        name=name,
        fixed=fixed.values(),
        whole=all("relational_rnn:reference" in rows for rows in points.values()),
        table=recompute_table(results) if name == "recompute" else sweep_table(results, name),
        growth=results.per_step_growth(),
    ).rstrip("\n")


def shape_title(results: BenchmarkResults, name: str) -> str:
    s = results.facts["shapes"][name]
    slots = f"{s['mem_slots']} slot{'s' if s['mem_slots'] > 1 else ''}"
    return (
        f"Shape {name}: {s['batch']:,} x {s['steps']:,} x {s['input_size']}, {slots}, {s['num_heads']} heads x "
        f"{s['head_size']}, key {s['key_size']}, {s['mlp_layers']} MLP layers"
    )


SHAPE_COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "pass": lambda row: PASSES[row["pass"]],
    "contender": lambda row: row["contender"],
    "median ms": lambda row: milliseconds(row["median_ms"]),
    "min to max": lambda row: f"{milliseconds(row['min_ms'])} to {milliseconds(row['max_ms'])}",
    "runs": lambda row: f"{row['runs']}",
    "samples/s": lambda row: count(row["samples_per_second"]),
    "share": lambda row: f"{100 * row['share_of_matmul']:.1f} %",
    "peak MiB": lambda row: f"{row['peak_mib']:,.1f}",
    "parameters": lambda row: f"{row['parameters']:,}",
    "state bytes": lambda row: f"{row['state_bytes']:,}",
}
TRAINING_COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "contender": lambda row: row["contender"],
    "steps/s": lambda row: f"{row['steps_per_second']:.2f}",
    "median ms": lambda row: milliseconds(row["median_ms"]),
    "min to max": lambda row: f"{milliseconds(row['min_ms'])} to {milliseconds(row['max_ms'])}",
    "core": lambda row: f"{100 * row['core_share']:.1f} %",
    "data": lambda row: f"{100 * row['data_share']:.1f} %",
    "whole run, s": lambda row: f"{row['seconds']:.1f}",
    "validation accuracy": lambda row: f"{100 * row['valid_accuracy']:.1f} %",
}
"""Headings, and the cell of a row."""


def sweep_table(results: BenchmarkResults, name: str) -> Table:
    """A row per size: milliseconds, samples per second, share of the matmul rate and peak MiB of every contender."""
    shown = [SHAPE_COLUMNS[heading] for heading in ("median ms", "samples/s", "share", "peak MiB")]
    columns: dict[str, Callable[[Any], str]] = {name: lambda point: f"{point[0]:,}"}
    for contender in results.sweep_contenders(name):
        columns[f"{contender}: ms; samples/s; share; peak MiB"] = lambda point, contender=contender: (
            "; ".join(cell(point[1][contender]) for cell in shown) if contender in point[1] else ""
        )
    return Table.of(columns, results.sweep(name).items())


def recompute_table(results: BenchmarkResults) -> Table:
    """A row per length: time, and memory beside the results, of storing and of recomputing."""
    columns: dict[str, Callable[[Any], str]] = {"T": lambda point: f"{point[0]:,}"}
    for who in results.sweep_contenders("recompute"):
        columns[f"{who}: ms"] = lambda point, who=who: milliseconds(point[1][who]["median_ms"])
        columns[f"{who}: MiB"] = lambda point, who=who: f"{memory_beside(point[1][who]):,.1f}"
    return Table.of(columns, results.sweep("recompute").items())


def training_table(facts: Mapping[str, Any]) -> str:
    rows = [
        [row["contender"], row["cannot_run"], *[""] * (len(TRAINING_COLUMNS) - 2)]
        if "cannot_run" in row
        else [cell(row) for cell in TRAINING_COLUMNS.values()]
        for row in facts["training"]
    ]
    return Table(list(TRAINING_COLUMNS), rows).markdown()


def milliseconds(value: float) -> str:
    """Three digits, or all before the point.

    >>> milliseconds(0.46123), milliseconds(33.61), milliseconds(4143.2)
    ('0.461', '33.6', '4,143')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
