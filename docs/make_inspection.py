"""Makes the finding and the picture of docs/inspection.md from a trained run.

    python docs/make_inspection.py --farthest runs/nth-farthest-small/rmc-0

The run must have been evaluated. The picture is the figure of the page itself, saved by a click of the button "save as
SVG" in the system's Chromium; what was measured stands in docs/results/inspection.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relational_rnn import recipes
from relational_rnn._files import write_whole
from relational_rnn.cli.boundary import guarded
from relational_rnn.inspection import (
    Page,
    attention_statistics,
    farthest_page,
    follow,
)
from relational_rnn.inspection.farthest_page import read_sequences
from relational_rnn.nn import RelationalMemory
from relational_rnn.recipes.task_runs import split_batches
from relational_rnn.recipes.tasks import NthFarthestRun
from relational_rnn.reports.results import markdown_table
from relational_rnn.tasks.contract import TaskBatch
from relational_rnn.tasks.model import TaskModel

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "inspection.md"
RESULTS = ROOT / "docs" / "results" / "inspection.json"
FIGURES = ROOT / "docs" / "figures"
BLOCK = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.S)


def save_figure(shown: Page, name: str, path: Path) -> None:
    """One figure of a page as an SVG, as the page's own button saves it."""
    from playwright.sync_api import sync_playwright

    chromium = next(
        (found for n in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(n))), None
    )
    if chromium is None:
        raise SystemExit("there is no Chromium on this machine")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        tab = browser.new_page(viewport={"width": 760, "height": 900}, color_scheme="light")
        tab.goto(shown.save(Path(folder) / "page.html").as_uri())
        with tab.expect_download() as saved:
            tab.click(f"figure[data-name={name}] button.save")
        write_whole(path, Path(saved.value.path()).read_text(encoding="utf-8"))
        browser.close()


def about(run: Path) -> dict[str, Any]:
    """What a run is and scored, for the page."""
    if not (run / "result.json").exists():
        raise SystemExit(f"{run}: not measured yet; first `relational-rnn evaluate {run}`")
    config, versions, result = (json.loads((run / f"{n}.json").read_text()) for n in ("config", "versions", "result"))
    kept = ("commit", "date", "machine", "torch")
    return {
        "steps": config["loop"]["steps"],
        "memory": {name: config["memory"][name] for name in ("mem_slots", "num_heads", "head_size")},
        "seed": config["seed"],
        "accuracy": result["mean_accuracy"],
        **{name: versions[name] for name in kept if versions.get(name)},
    }


def farthest_of(run: Path) -> dict[str, Any]:
    loaded = recipes.load_task(run)
    if not isinstance(loaded.config, NthFarthestRun):
        raise SystemExit(f"{run}: not a run on N-th farthest")
    task, batch = loaded.config.data, split_batches(loaded.config, "test")[0]
    shown = farthest_page(loaded.model, task, batch, 1, title="A look inside")
    save_figure(shown, "reference", figure_path("farthest", "reference"))
    core = loaded.model.core
    assert isinstance(core, RelationalMemory)
    labels, reference = read_sequences(task, batch.inputs)
    with torch.inference_mode():
        traces = core.trace(batch.inputs)
    looks: dict[str, list[Tensor]] = {"after": [], "before": []}
    for i, place in enumerate(reference.tolist()):
        slot = follow(traces.map(lambda tensor, i=i: tensor[i]), place).slot
        by_head = traces.attention[i, :, :, :, : core.mem_slots, slot].mean((1, 3))  # [T, H]
        looks["before"] += by_head[:place]
        looks["after"] += by_head[place + 1 :]
    return {
        "farthest": about(run),
        "reference": {
            "objects": task.objects,
            "dimensions": task.dimensions,
            "sequences": len(batch.inputs),
            "uniform": 1 / (core.mem_slots + 1),
            "likeness": attention_statistics([(traces, None)]).likeness.mean().item(),
            "left out": leaving_out(loaded.model, batch, reference, labels),
            **{name: torch.stack(rows).mean(0).tolist() for name, rows in looks.items()},
        },
    }


def leaving_out(model: TaskModel, batch: TaskBatch, reference: Tensor, labels: Tensor) -> dict[str, float]:
    """By how much the probability of the model's answer falls, on average, without a vector of each kind."""
    steps = batch.inputs.shape[1]
    with torch.inference_mode():
        chances, answers = model(batch).softmax(-1).max(-1)
        falls = []
        for t in range(steps):
            shorter = torch.cat([batch.inputs[:, :t], batch.inputs[:, t + 1 :]], 1)
            without = model(dataclasses.replace(batch, inputs=shorter)).softmax(-1)
            falls.append(chances - without.gather(1, answers[:, None]).squeeze(1))
    drop = torch.stack(falls, 1)  # [B, T]
    is_reference = torch.arange(steps) == reference[:, None]
    is_answer = (labels == answers[:, None]) & ~is_reference
    kinds = {"reference": is_reference, "answer": is_answer, "other": ~is_reference & ~is_answer}
    return {name: drop[kind].mean().item() for name, kind in kinds.items()}


def figure_path(name: str, figure: str) -> Path:
    return FIGURES / f"inspection_{name}_{figure}.svg"


def render(page: str, made: Mapping[str, Any]) -> str:
    """The page with every block made from what was measured."""
    return BLOCK.sub(lambda match: f"{match[1]}{block(match[2], made)}\n{match[3]}", page)


def block(name: str, made: Mapping[str, Any]) -> str:
    return {"models": models, "farthest": farthest, "alike": alike}[name](made)


def models(made: Mapping[str, Any]) -> str:
    run, task = made["farthest"], made["reference"]
    memory = run["memory"]
    made_with = [f"commit {run['commit']}"] if "commit" in run else []
    made_with += [run["date"], f"torch {run['torch']}", run["machine"]]
    return (
        f"- N-th farthest with {task['objects']} vectors of {task['dimensions']} numbers: {memory['mem_slots']} slots, "
        f"{memory['num_heads']} heads of {memory['head_size']} numbers, {run['steps']:,} steps, seed {run['seed']}, "
        f"{100 * run['accuracy']:.1f} % of the test set right ({', '.join(made_with)})"
    )


def farthest(made: Mapping[str, Any]) -> str:
    found = made["reference"]
    falls = found["left out"]
    rows = [
        [f"head {h}", *(f"{found[name][h - 1]:.2f}" for name in ("before", "after"))]
        for h in range(1, len(found["after"]) + 1)
    ]
    return "\n\n".join(
        [
            "![Attention at every step, for a reference seen first, in the middle and last]"
            f"(figures/{figure_path('farthest', 'reference').name})",
            f"Attention of the slots to the slot that took most of the reference, mean over {found['sequences']} test "
            f"sequences, at the steps before the reference, when it cannot be there yet, and after it; attention that "
            f"prefers nothing gives {found['uniform']:.2f}:",
            markdown_table(["", "before", "after"], rows),
            "By how much the probability of the answer falls when a vector is left out, on average: "
            f"{falls['reference']:.2f} for the reference, {falls['answer']:.2f} for the vector that is the answer, "
            f"{falls['other']:.2f} for the others.",
        ]
    )


def alike(made: Mapping[str, Any]) -> str:
    slots = made["farthest"]["memory"]["mem_slots"]
    return (
        f"Mean cosine between two of the {slots} slots of the model of N-th farthest, "
        f"over the steps of {made['reference']['sequences']} test sequences: {made['reference']['likeness']:.3f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--farthest", type=Path, required=True, metavar="RUN", help="trained on N-th farthest")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    made = farthest_of(chosen.farthest)
    write_whole(RESULTS, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
