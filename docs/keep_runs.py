"""Keeps what a page of results is made from: `python docs/keep_runs.py PAGE RUN ...`.

Copies configuration, versions, metrics and evaluation of every run folder to docs/results/raw/PAGE/, weights and
checkpoints left out, so that later runs can be put beside them: `relational-rnn report docs/results/raw/PAGE/* ...`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from relational_rnn._files import write_whole
from relational_rnn.reports.records import without_folder

KEPT = Path(__file__).parent / "results" / "raw"
COPIED = ("metrics.csv", "result.json")


def keep(page: str, runs: list[Path], kept: Path = KEPT) -> list[Path]:
    """Copy the runs of a page; the folder names of the machine they ran on are left out. Returns the copies."""
    copies = []
    for run in runs:
        copy = kept / page / run.name
        for name in COPIED:
            write_whole(copy / name, (run / name).read_text(encoding="utf-8"))
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        if (data := config.get("data", {})).get("path"):
            data["path"] = Path(data["path"]).name
        write_whole(copy / "config.json", json.dumps(config, indent=2) + "\n")
        versions = json.loads((run / "versions.json").read_text(encoding="utf-8"))
        if "resumed" in versions:
            versions["resumed"] = [without_folder(entry) for entry in versions["resumed"]]
        write_whole(copy / "versions.json", json.dumps(without_folder(versions), indent=2) + "\n")
        copies.append(copy)
    return copies


if __name__ == "__main__":
    for path in keep(sys.argv[1], [Path(name) for name in sys.argv[2:]]):
        print(path)
