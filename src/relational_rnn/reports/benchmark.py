"""The page of a benchmark: Markdown and SVG figures beside the JSON file that they are made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relational_rnn._files import write_together
from relational_rnn.reports.benchmark_figures import sweep_figure
from relational_rnn.reports.benchmark_results import SWEEPS, BenchmarkResults, read_benchmark
from relational_rnn.reports.results import markdown_table

PASSES = {"train": "training pass", "infer": "inference", "step": "one step"}
TITLES = {
    "T": "Cost against the length T",
    "slots": "Cost against the number of slots",
    "batch": "Cost against the batch",
    "recompute": "Peak memory of storing and of recomputing",
}


def write_benchmark_page(path: str | Path) -> list[Path]:
    """Write the page and the figures of a file of results beside it.

    Args:
        path: a `<date>_<machine>.json` of `relational-rnn benchmark`.

    Returns:
        the paths, page first.

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
    """Where the figure of a sweep stands: beside the results at `path`."""
    return path.with_name(f"{path.stem}_{sweep}.svg")


def render_benchmark(results: BenchmarkResults, figures: Mapping[str, str]) -> str:
    """The page.

    Args:
        results: what was measured.
        figures: the figure of every sweep that has one, as the page links to it.
    """
    facts = results.facts
    parts = [f"# Benchmark: {facts['machine']}", conditions(results)]
    parts += [
        part for name in results.shapes for part in (f"## {shape_title(results, name)}", shape_table(results, name))
    ]
    for name in SWEEPS:
        if results.sweep(name):
            parts += [f"## {TITLES[name]}", sweep_text(results, name)]
            parts += [f"![{TITLES[name]}]({figures[name]})"] if name in figures else []
            parts.append(recompute_table(results) if name == "recompute" else sweep_table(results, name))
            parts += [linearity(results)] if name == "T" else []
    if facts.get("training"):
        parts += [
            f"## Whole training, recipe {facts['training'][0]['recipe']}",
            training_text(facts),
            training_table(facts),
        ]
    if facts.get("cannot_run"):
        lines = [f"- {case}: {why}" for case, reasons in facts["cannot_run"].items() for why in reasons.values()]
        parts += ["## What cannot run here", "\n".join(dict.fromkeys(lines))]
    parts.append("What was tried to be faster, and what stands in the way: docs/cost.md.")
    parts.append(f"The same figures for programs: [{results.path.name}]({results.path.name}).")
    return "\n\n".join(part for part in parts if part) + "\n"


def conditions(results: BenchmarkResults) -> str:
    """What the figures were measured on and how, as a list."""
    facts, settings = results.facts, results.facts["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        f"Machine: {facts['machine']}, {facts['threads']} threads, device {settings['device']}, {facts['dtype']}. "
        f"{versions}; commit {facts['commit']}; {facts['date']}.",
        f"Measured by: `{facts.get('command', 'not recorded')}`, in {facts.get('seconds', 0) / 60:.1f} minutes.",
        "The clock covers one call from tensors in memory to results in memory: a training pass is forward and "
        "backward to the input and to every parameter, without an optimizer; inference and single steps are without "
        "gradients. Medians, with the smallest and the largest of the runs; all contenders of a table took turns in "
        "one process, after one untimed call each.",
        "Before it was timed, every backend of the layer was compared at that shape, in that process, with the "
        "definition: output and all gradients, judged by `relational_rnn.testing`.",
        "share: the arithmetic that the contender cannot avoid, divided by its time and by the rate of a "
        f"{facts.get('matmul_size', 2048)} x {facts.get('matmul_size', 2048)} matrix product just before "
        f"({facts['matmul_gflops']:,.0f} GFLOP/s in the median).",
        "peak: how far memory rises during one pass, in a fresh process, above where it is with weights and inputs in "
        "place; it includes the results. On the CPU that is the resident set, which resolves about a MiB.",
        "nn.LSTM has as many parameters as the relational memory; the one of equal state has as many numbers in h and "
        "c as the memory has. nn.TransformerEncoder is causal, has 3 layers, 4 heads, no dropout and as many "
        "parameters; its state is the keys and values that it would keep for one more step.",
    ]
    if settings.get("waiting"):
        lines.append(f"Threads that wait for work: {settings['waiting']}.")
    if settings.get("steps_per_turn"):
        lines.append(
            f"One step is the time of {settings['steps_per_turn']} steps in a row divided by their number, the state "
            "of each handed to the next, as a stream is read; contenders take turns after every such row."
        )
    if settings.get("l0sg"):
        lines.append(
            f"L0SG: github.com/L0SG/relational-rnn-pytorch at {settings['l0sg']}, same sizes. As it stands it cannot "
            "be trained on current torch: it multiplies a view (the queries) in place. That one statement was replaced "
            "in memory by the same product out of place. Its layer norms run over all slots together, so it computes "
            "another function than the definition and was not compared with it."
        )
    if settings.get("quick"):
        lines.insert(0, "**A quick run on tiny sizes: it shows that everything works; the figures mean nothing.**")
    return "\n".join(f"- {line}" for line in lines)


def shape_title(results: BenchmarkResults, name: str) -> str:
    s = results.facts["shapes"][name]
    slots = f"{s['mem_slots']} slot{'s' if s['mem_slots'] > 1 else ''}"
    return (
        f"Shape {name}: {s['batch']:,} x {s['steps']:,} x {s['input_size']}, {slots}, {s['num_heads']} heads x "
        f"{s['head_size']}, key {s['key_size']}, {s['mlp_layers']} MLP layers"
    )


def shape_table(results: BenchmarkResults, name: str) -> str:
    """All passes of a shape."""
    head = ["pass", "contender", "median ms", "min to max", "runs", "samples/s", "share", "peak MiB"]
    rows = [
        [
            PASSES[row["pass"]],
            row["contender"],
            milliseconds(row["median_ms"]),
            f"{milliseconds(row['min_ms'])} to {milliseconds(row['max_ms'])}",
            f"{row['runs']}",
            count(row["samples_per_second"]),
            f"{100 * row['share_of_matmul']:.1f} %",
            f"{row['peak_mib']:,.1f}",
            f"{row['parameters']:,}",
            f"{row['state_bytes']:,}",
        ]
        for row in results.of(name)
    ]
    return markdown_table([*head, "parameters", "state bytes"], rows)


def sweep_text(results: BenchmarkResults, name: str) -> str:
    points = results.sweep(name)
    s = dict(results.facts["shapes"][f"{SWEEPS[name]}={min(points)}"])
    size = {"T": "steps", "slots": "mem_slots", "batch": "batch", "recompute": "steps"}[name]
    fixed = {
        "batch": f"{s['batch']} sequences",
        "steps": f"{s['steps']} steps",
        "input_size": f"{s['input_size']} numbers per step",
        "mem_slots": f"{s['mem_slots']} slots",
    }
    fixed.pop(size)
    more = ""
    if name == "T" and any("relational_rnn:reference" not in rows for rows in points.values()):
        more = " The plain definition is timed up to T = 1,024: it takes the same time for every step."
    if name == "recompute":
        more = " MiB: peak of a pass without its results (outputs and gradients), which grow with T whatever is done."
    heads = f"{s['num_heads']} heads x {s['head_size']}"
    return f"Training pass; {', '.join(fixed.values())}, {heads}.{more}"


def sweep_table(results: BenchmarkResults, name: str) -> str:
    """A row per size: milliseconds (share of the matmul rate; peak MiB) of every contender."""
    contenders = results.sweep_contenders(name)
    rows = []
    for size, found in results.sweep(name).items():
        cells = [found.get(contender) for contender in contenders]
        rows.append([f"{size:,}", *("" if cell is None else sweep_cell(cell) for cell in cells)])
    head = [name, *(f"{contender}: ms; samples/s; share; peak MiB" for contender in contenders)]
    return markdown_table(head, rows)


def sweep_cell(row: Mapping[str, Any]) -> str:
    share = f"{100 * row['share_of_matmul']:.1f} %"
    rate = count(row["samples_per_second"])
    return f"{milliseconds(row['median_ms'])}; {rate}; {share}; {row['peak_mib']:,.1f}"


def recompute_table(results: BenchmarkResults) -> str:
    """A row per length: time, and memory beside the results, of storing and of recomputing."""
    contenders = results.sweep_contenders("recompute")
    rows = []
    for size, found in results.sweep("recompute").items():
        cells = [found[contender] for contender in contenders]
        times = [milliseconds(cell["median_ms"]) for cell in cells]
        memory = [f"{cell['peak_mib'] - cell['result_mib']:,.1f}" for cell in cells]
        rows.append([f"{size:,}", *(cell for pair in zip(times, memory, strict=True) for cell in pair)])
    head = ["T", *(f"{contender}: {what}" for contender in contenders for what in ("ms", "MiB"))]
    return markdown_table(head, rows)


def linearity(results: BenchmarkResults) -> str:
    """How the time of a step grows with T, one line per contender."""
    lines = [
        f"- {contender}: {ratio:.2f} times from T = {short:,} to T = {long:,}"
        for contender, (short, long, ratio) in results.per_step_growth().items()
    ]
    return "Time per step (1 means that the cost is linear in T):\n\n" + "\n".join(lines) if lines else ""


def training_text(facts: Mapping[str, Any]) -> str:
    stories = "published" if facts["settings"].get("data") else "generated"
    return (
        f"{facts['settings']['recipe_steps']:,} updates on {stories} stories and one validation, from the same "
        "configuration and seed, one backend after the other. A step is from one batch asked for to the next: data, "
        "forward, backward, optimizer and the loop's own work. The core's share is the time from the input to the "
        "state and back; data is the share of the run that was spent waiting for batches. Backends round differently, "
        "so that the accuracies differ by noise."
    )


def training_table(facts: Mapping[str, Any]) -> str:
    head = ["contender", "steps/s", "median ms", "min to max", "core", "data", "whole run, s", "validation accuracy"]
    rows = []
    for row in facts["training"]:
        if "cannot_run" in row:
            rows.append([row["contender"], row["cannot_run"], *[""] * 6])
            continue
        rows.append(
            [
                row["contender"],
                f"{row['steps_per_second']:.2f}",
                milliseconds(row["median_ms"]),
                f"{milliseconds(row['min_ms'])} to {milliseconds(row['max_ms'])}",
                f"{100 * row['core_share']:.1f} %",
                f"{100 * row['data_share']:.1f} %",
                f"{row['seconds']:.1f}",
                f"{100 * row['valid_accuracy']:.1f} %",
            ]
        )
    return markdown_table(head, rows)


def milliseconds(value: float) -> str:
    """Three digits, or all before the point.

    >>> milliseconds(0.46123), milliseconds(33.61), milliseconds(4143.2)
    ('0.461', '33.6', '4,143')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
