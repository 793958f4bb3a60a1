"""Does generating cost the same per token however long the text becomes? Run from the root of the repository:

    python benchmarks/generation.py runs/shakespeare-char/rmc-0 runs/shakespeare-char/lstm-0 --tokens 100000 \
        --out docs/results/generation

Generates so many tokens with each run, one thread, and notes along the way the processor time of each thousand tokens
and the resident memory of the process. Writes OUT.json and OUT.svg; needs Linux for the memory.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from relational_rnn._files import write_whole
from relational_rnn.nn.cores import CORES
from relational_rnn.reports.figures import STYLES, draw
from relational_rnn.runs import load
from relational_rnn.tasks.language.generating import generate_tokens
from relational_rnn.training.run_folder import describe_machine, describe_software

BLOCK = 1000
"""Tokens between two notes."""


def resident_mib() -> float:
    """Memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(folder: Path, tokens: int) -> dict[str, Any]:
    """One run: microseconds of processor time per token and MiB, block by block."""
    run = load(folder)
    generated = generate_tokens(run.model, run.vocabulary.encode("\n").tolist())
    next(generated)
    gc.collect()
    start = resident_mib()
    microseconds, memory = [], []
    for _ in range(tokens // BLOCK):
        before = time.process_time()
        for _ in itertools.islice(generated, BLOCK):
            pass
        microseconds.append(1e6 * (time.process_time() - before) / BLOCK)
        memory.append(resident_mib())
    fifth = max(1, len(memory) // 5)
    return {
        "core": run.config.core,
        "tokens": len(memory) * BLOCK,
        "microseconds_per_token": microseconds,
        "resident_mib": memory,
        "resident_mib_at_the_start": start,
        "median_first_fifth": median(microseconds[:fifth]),
        "median_last_fifth": median(microseconds[-fifth:]),
    }


def figure(rows: list[dict[str, Any]]) -> str:
    """Time and memory against the number of tokens so far."""

    def paint(figure: Any) -> None:
        panels = figure.subplots(1, 2)
        for axes, name, label in zip(
            panels,
            ("microseconds_per_token", "resident_mib"),
            ("processor time per token, microseconds", "resident memory, MiB"),
            strict=True,
        ):
            for row in rows:
                colour, line = STYLES[row["core"]]
                across = [BLOCK * (number + 1) for number in range(len(row[name]))]
                axes.plot(across, row[name], color=colour, linestyle=line, label=CORES[row["core"]].label)
            axes.set_ylim(bottom=0)
            axes.set_xlabel("tokens generated so far")
            axes.set_ylabel(label)
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=4)

    return draw(7.2, 3.2, paint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for folder in arguments.runs:
        rows.append(measure(folder, arguments.tokens))
        row = rows[-1]
        print(
            f"{folder}: {row['median_first_fifth']:.0f} microseconds per token in the first fifth, "
            f"{row['median_last_fifth']:.0f} in the last; {row['resident_mib'][0]:.1f} MiB after {BLOCK:,} tokens, "
            f"{row['resident_mib'][-1]:.1f} after {row['tokens']:,}",
            flush=True,
        )
        software = {name: value for name, value in describe_software().items() if name != "command"}
        record = {**describe_machine("cpu"), **software, "threads": 1, "block": BLOCK, "rows": rows}
        write_whole(arguments.out.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
        write_whole(arguments.out.with_suffix(".svg"), figure(rows))


if __name__ == "__main__":
    main()
