"""Makes the findings and the pictures of docs/inspection.md from trained runs.

    python docs/make_inspection.py --babi runs/babi/fastweights-0 --nth runs/nth-farthest-small/rmc-0

Either may be left out; what was measured before then stays. Without both, the page is only made again, for example
after `python docs/make_slots.py`. The runs must have been evaluated. The pictures are figures of the pages themselves,
saved by a click of the button "save as SVG" in the system's Chromium; what was measured stands in
docs/results/inspection.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from blocks import fill
from torch import Tensor

from relational_rnn._files import write_whole
from relational_rnn.console.boundary import guarded
from relational_rnn.inspection import Page, attention_statistics, follow
from relational_rnn.inspection.fast_page import held_writes, shares_read
from relational_rnn.inspection.opening import what_is_left
from relational_rnn.nn import RelationalMemory
from relational_rnn.nn.cores import CORES, MemorySizes
from relational_rnn.nn.fast_weight_trace import FastWeightTrace
from relational_rnn.nn.sizes import FAST_WEIGHTS, FastWeightSizes
from relational_rnn.pages import Table
from relational_rnn.runs import load
from relational_rnn.tasks.babi.answering import StoryReader
from relational_rnn.tasks.babi.problem import test_stories
from relational_rnn.tasks.babi.story_page import StoryTrace, story_page, trace_story
from relational_rnn.tasks.contract import TaskBatch
from relational_rnn.tasks.generated import split_batches
from relational_rnn.tasks.model import TaskModel
from relational_rnn.tasks.nth_farthest import NthFarthestRun
from relational_rnn.tasks.nth_farthest_page import farthest_page, read_sequences

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "inspection.md"
RESULTS = ROOT / "docs" / "results" / "inspection.json"
SLOTS = ROOT / "docs" / "results" / "slots.json"
"""What docs/make_slots.py measured."""
FIGURES = ROOT / "docs" / "figures"
SIZES = {
    "mem_slots": "{} slots",
    "num_heads": "{} heads",
    "head_size": "{} numbers a head",
    "key_size": "keys of {} numbers",
    "value_size": "values of {} numbers",
}
"""Sizes of a memory, as the page says them."""
QUESTIONS = 100
"""Test questions of a task that the finding about stories is measured on."""


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


def about(run: Path, sizes: MemorySizes | FastWeightSizes) -> dict[str, Any]:
    """What a run is and scored, for the page; `sizes` are those of its memory."""
    if not (run / "result.json").exists():
        raise SystemExit(f"{run}: not measured yet; first `relational-rnn evaluate {run}`")
    config, versions, result = (json.loads((run / f"{n}.json").read_text()) for n in ("config", "versions", "result"))
    kept = ("commit", "date", "machine", "torch")
    return {
        "core": config["core"],
        "steps": config["loop"]["steps"],
        "memory": {name: value for name in SIZES if (value := getattr(sizes, name, None))},
        "seed": config["seed"],
        "accuracy": result["mean_accuracy"],
        **{name: versions[name] for name in kept if versions.get(name)},
    }


def story_of(run: Path) -> dict[str, Any]:
    """What a run on bAbI reads from and rests on, on questions that need two sentences (or its first task)."""
    loaded = load(run)
    data = loaded.config.data
    task = 2 if 2 in data.tasks else data.tasks[0]
    reader = StoryReader(loaded.model, loaded.vocabulary, max_sentences=data.max_sentences)
    stories = test_stories(dataclasses.replace(data, tasks=(task,)))[0][task]
    asked = [(story.statements[: question.at], question) for story in stories for question in story.questions]
    found: dict[str, list[float]] = {"read": [], "by chance": [], "supporting": [], "other": []}
    shown: tuple[StoryTrace, str] | None = None
    for statements, question in asked[:QUESTIONS]:
        traced = trace_story(reader, statements, question.text)
        if len(traced.statements) < len(statements):
            continue  # the run does not read all of it
        found["read"].append(read_from(traced, question.supports))
        found["by chance"].append(len(question.supports) / len(statements))
        for effect in traced.influence.effects:
            found["supporting" if effect.index in question.supports else "other"].append(effect.drop)
        if shown is None and traced.influence.answer == question.answer:
            shown = traced, question.answer
    if shown is None:
        raise SystemExit(f"{run}: no question of task {task} is answered right")
    save_figure(story_page(shown[0], right=shown[1], title="A story"), "opening", figure_path("story", "opening"))
    question, answer = shown[0].question, shown[1]
    measured = {name: mean(values) for name, values in found.items()}
    story = {"task": task, "questions": len(found["read"]), "question": question, "answer": answer, **measured}
    sizes = loaded.config.fast if loaded.config.core == FAST_WEIGHTS else loaded.config.memory
    return {"babi": about(run, sizes), "story": story}


def read_from(traced: StoryTrace, supports: tuple[int, ...]) -> float:
    """How much of what the looks read at the end is from the sentences that the question needs, 0 to 1: of fast weights
    their shares; of slots, how many looks go most to a slot that holds most of such a sentence."""
    if isinstance(traced.trace, FastWeightTrace):
        share = shares_read(traced.trace, held_writes(traced.trace), traced.looks)[-1]  # [T, L]
        return share[list(supports)].abs().sum(0).mean().item()
    update = traced.trace.update()
    assert update is not None
    holds = what_is_left(*update)[-1].argmax(0)
    return mean(float(holds[slot].item() in supports) for slot in traced.looks[-1].argmax(-1))


def farthest_of(run: Path) -> dict[str, Any]:
    loaded = load(run)
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
        "farthest": about(run, loaded.config.memory),
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
    """The page with every block made from what was measured; a block of what was not says so."""

    def text(name: str) -> str:
        part, make = BLOCKS[name]
        return make(made) if part in made else "Not measured yet."

    return fill(page, text)


def read_measured() -> dict[str, Any]:
    """All that was measured so far."""
    made = json.loads(RESULTS.read_text(encoding="utf-8"))
    return made | ({"slots": json.loads(SLOTS.read_text(encoding="utf-8"))} if SLOTS.exists() else {})


def made_with(run: Mapping[str, Any]) -> str:
    commit = [f"commit {run['commit']}"] if "commit" in run else []
    return ", ".join([*commit, run["date"], f"torch {run['torch']}", run["machine"]])


def story(made: Mapping[str, Any]) -> str:
    run, found = made["babi"], made["story"]
    sizes = ", ".join(SIZES[name].format(value) for name, value in run["memory"].items())
    if run["core"] == FAST_WEIGHTS:
        what = "Share of what the looks read that was written by sentences which the question needs"
    else:
        what = "Share of the looks that go most to a slot which holds most of a sentence that the question needs"
    return "\n\n".join(
        [
            f"{CORES[run['core']].label} ({sizes}), {run['steps']:,} steps, seed {run['seed']}, "
            f"{100 * run['accuracy']:.1f} % of its test questions right ({made_with(run)}). "
            f"A story of task {found['task']}, {found['question']!r}, answered {found['answer']!r}, which is right:",
            f"![What the sentences brought into the memory, and where the question looked](figures/"
            f"{figure_path('story', 'opening').name})",
            f"{what}, mean over {found['questions']} test questions of task {found['task']}: {found['read']:.2f}; "
            f"looks at sentences drawn by lot would have {found['by chance']:.2f}. Without such a sentence the "
            f"probability of the answer falls by {found['supporting']:.2f} on average, without another by "
            f"{found['other']:.2f}.",
        ]
    )


def slots(made: Mapping[str, Any]) -> str:
    kinds = made["slots"]
    words = []
    for runs in kinds.values():
        seeds = f"{len(runs)} {'seed' if len(runs) == 1 else 'seeds'}"
        values = ", ".join(
            f"{what} {mean(run[name] for run in runs):.2f}"
            for name, what in (("likeness", "cosine"), ("entropy", "entropy"), ("largest", "largest share"))
        )
        words.append(f"{CORES[runs[0]['core']].label} ({seeds}, {runs[0]['steps']:,} steps): {values}.")
    first = next(iter(kinds.values()))[0]
    return "\n\n".join(
        [
            "![Slots of the original memory beside slots that compete](figures/slots.svg)",
            f"{first['slots']} slots, {first['sentences']:,} sentences of the test stories; dots are runs, the broken "
            f"line is a sentence that all slots take alike. {' '.join(words)}",
        ]
    )


def models(made: Mapping[str, Any]) -> str:
    run, task = made["farthest"], made["reference"]
    memory = run["memory"]
    return (
        f"- N-th farthest with {task['objects']} vectors of {task['dimensions']} numbers: {memory['mem_slots']} slots, "
        f"{memory['num_heads']} heads of {memory['head_size']} numbers, {run['steps']:,} steps, seed {run['seed']}, "
        f"{100 * run['accuracy']:.1f} % of the test set right ({made_with(run)})"
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
            Table(["", "before", "after"], rows).markdown(),
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


BLOCKS = {
    "models": ("farthest", models),
    "farthest": ("farthest", farthest),
    "alike": ("farthest", alike),
    "story": ("story", story),
    "slots": ("slots", slots),
}
"""Of each block, what has to be measured and what makes it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--babi", type=Path, metavar="RUN", help="trained on bAbI, with a core that `inspect` shows")
    parser.add_argument("--nth", type=Path, metavar="RUN", help="trained on N-th farthest")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    made = json.loads(RESULTS.read_text(encoding="utf-8"))
    for folder, measure in ((chosen.babi, story_of), (chosen.nth, farthest_of)):
        made |= measure(folder) if folder is not None else {}
    write_whole(RESULTS, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    write_whole(PAGE, render(PAGE.read_text(encoding="utf-8"), read_measured()))
    print(PAGE)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
