"""Keeps what a page of results is made from: `python experiments/keep_runs.py PAGE RUN ...`.

Copies configuration, versions, metrics and evaluation of every run folder to results/PAGE/, weights and
checkpoints left out, so that later runs can be put beside them: `relational-rnn report results/PAGE/* ...`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from relational_rnn._files import write_whole
from relational_rnn.console.boundary import guarded
from relational_rnn.reports.results import without_folder

KEPT = Path(__file__).parents[1] / "results"
COPIED = ("metrics.csv", "result.json")


def keep(page: str, runs: list[Path], kept: Path = KEPT) -> list[Path]:
    """Copy the runs of a page; the folder names of the machine they ran on are left out. Returns the copies."""
    copies = []
    for run in runs:
        copy = kept / page / run.name
        read = {name: (run / name).read_text(encoding="utf-8") for name in (*COPIED, "config.json", "versions.json")}
        config, versions = json.loads(read["config.json"]), json.loads(read["versions.json"])
        if (data := config.get("data", {})).get("path"):
            data["path"] = Path(data["path"]).name
        if "resumed" in versions:
            versions["resumed"] = [without_folder(entry) for entry in versions["resumed"]]
        for name in COPIED:
            write_whole(copy / name, read[name])
        write_whole(copy / "config.json", json.dumps(config, indent=2) + "\n")
        write_whole(copy / "versions.json", json.dumps(without_folder(versions), indent=2) + "\n")
        copies.append(copy)
    return copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", metavar="PAGE", help="name of the page, without .md")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of an evaluated run")
    arguments = parser.parse_args()
    for path in keep(arguments.page, arguments.runs):
        print(path)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
