"""Makes the findings and the pictures of docs/inspection.md from two trained runs.

    python docs/make_inspection.py --babi runs/babi/rmc-0 --farthest runs/nth-farthest-small/rmc-0

Runs must have been evaluated; of one that is not given the page keeps what it has. The pictures are the figures of the
pages themselves, saved by a click of the button "save as SVG" in the system's Chromium; what was measured stands in
docs/results/inspection.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relational_rnn import recipes
from relational_rnn._files import write_whole
from relational_rnn.cli.boundary import guarded
from relational_rnn.inspection import (
    Page,
    StoryReader,
    StoryTrace,
    attention_statistics,
    farthest_page,
    follow,
    story_page,
    trace_story,
)
from relational_rnn.inspection.farthest_page import read_sequences
from relational_rnn.inspection.story_page import numbered_question, story_statistics
from relational_rnn.nn import RelationalMemory
from relational_rnn.recipes.babi_problem import test_stories
from relational_rnn.recipes.task_runs import split_batches
from relational_rnn.recipes.tasks import NthFarthestRun
from relational_rnn.reports.results import markdown_table
from relational_rnn.tasks.babi.story import TASK_NAMES, Question, Story
from relational_rnn.tasks.contract import TaskBatch
from relational_rnn.tasks.model import TaskModel

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "inspection.md"
RESULTS = ROOT / "docs" / "results" / "inspection.json"
FIGURES = ROOT / "docs" / "figures"
BLOCK = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.S)
MEASURES = {
    "left out": "largest fall of the answer's probability when it is left out",
    "gradient": "largest gradient",
    "attention": "most attention of the slots while it is read",
    "input gate": "widest input gate while it is read",
    "change": "largest change of the memory",
    "last": "the last sentence (no measure of the model)",
}
"""Ways of pointing at a sentence, each with its words for the table."""
STORIES: dict[str, Any] = {"tasks": [1, 2, 6, 15], "questions": 200, "right_task": 15, "wrong_task": 2}
"""What the page shows of the run on bAbI, unless other is asked for."""


def measures(traced: StoryTrace) -> dict[str, list[float]]:
    """A number for every sentence of a story by each of `MEASURES`."""
    count, slots = len(traced.statements), traced.before.shape[0]
    trace = traced.trace.map(lambda tensor: tensor[:count])
    held = torch.cat([traced.before[None], trace.memory])
    found = {
        "left out": [effect.drop for effect in traced.influence.effects],
        "gradient": list(traced.gradient),
        "attention": trace.attention[..., :slots, slots:].sum(-1).mean((1, 2, 3)).tolist(),
        "change": held.diff(dim=0).flatten(1).norm(dim=1).tolist(),
        "last": [float(i) for i in range(count)],
    }
    update = trace.update()
    if update is not None:
        found["input gate"] = update[0].mean((1, 2)).tolist()
    return {name: found[name] for name in MEASURES if name in found}


def pointing(reader: StoryReader, stories: Sequence[Story], most: int) -> dict[str, Any]:
    """How often each measure's first sentence is one that the answer follows from, over questions answered right.

    Asks the first `most` questions with at least three sentences. "chance" is a sentence drawn at random.
    """
    asked = [(story.statements[: q.at], q) for story in stories for q in story.questions if q.at >= 3][:most]
    found: dict[str, list[float]] = {}
    for statements, question in asked:
        traced = trace_story(reader, statements, question.text)
        if traced.influence.answer != question.answer:
            continue
        skipped = len(statements) - len(traced.statements)
        for name, values in measures(traced).items():
            first = max(range(len(values)), key=lambda i: values[i])
            found.setdefault(name, []).append(float(first + skipped in question.supports))
        found.setdefault("chance", []).append(len(question.supports) / len(statements))
    shares = {name: sum(values) / len(values) for name, values in found.items()}
    return {"asked": len(asked), "right": len(found.get("chance", [])), "shares": shares}


def finding(traced: StoryTrace, question: Question, task: int, number: int) -> dict[str, Any]:
    """What the page says of one story, as numbers."""
    columns = measures(traced)
    columns.pop("last")
    return {
        "task": task,
        "number": number,
        "question": question.text,
        "right": question.answer,
        "answer": traced.influence.answer,
        "probability": traced.influence.probability,
        "sentences": [
            {
                "text": text,
                "supports": i in question.supports,
                "answer without": traced.influence.effects[i].answer_without,
                **{name: values[i] for name, values in columns.items()},
            }
            for i, text in enumerate(traced.statements)
        ],
    }


def first_question(reader: StoryReader, stories: Sequence[Story], right: bool) -> int:
    """The number of the first question after 6 to 10 sentences that is answered right, or wrong."""
    questions = [(story, question) for story in stories for question in story.questions]
    for number, (story, question) in enumerate(questions, start=1):
        if 6 <= question.at <= 10:
            chances = reader(story.statements[: question.at], question.text)
            if (max(chances, key=lambda name: chances[name]) == question.answer) == right:
                return number
    raise SystemExit(f"no question with 6 to 10 sentences is answered {'right' if right else 'wrong'}: another task?")


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
        "reads": config["model"].get("reads", 1),
        "accuracy": result["mean_accuracy"],
        "per task": result.get("per_task", {}),
        **{name: versions[name] for name in kept if versions.get(name)},
    }


def stories_of(run: Path, *, tasks: Sequence[int], questions: int, right_task: int, wrong_task: int) -> dict[str, Any]:
    loaded = recipes.load(run)
    reader = StoryReader(loaded.model, loaded.vocabulary, max_sentences=loaded.config.data.max_sentences)

    def told(task: int) -> list[Story]:
        return test_stories(dataclasses.replace(loaded.config.data, tasks=(task,)))[0][task]

    made: dict[str, Any] = {"babi": about(run)}
    for name, task in (("right", right_task), ("wrong", wrong_task)):
        stories = told(task)
        number = first_question(reader, stories, name == "right")
        statements, question = numbered_question(stories, number)
        traced = trace_story(reader, statements, question.text)
        made[name] = finding(traced, question, task, number)
        shown = story_page(traced, right=question.answer, title="A look inside")
        for figure in ("answers", "time"):
            save_figure(shown, figure, figure_path(name, figure))
    made["pointing"] = {str(task): pointing(reader, told(task), questions) for task in tasks}
    made["likeness"] = {str(task): story_statistics(reader, told(task)).likeness.mean().item() for task in tasks}
    return made


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
    makers = {
        "models": models,
        "right": story_block,
        "wrong": story_block,
        "farthest": farthest,
        "pointing": pointed,
        "alike": alike,
    }
    return makers[name](made, name)


def models(made: Mapping[str, Any], _: str) -> str:
    lines = []
    for name, words in (("babi", "all 20 bAbI tasks in one model"), ("farthest", "N-th farthest")):
        run = made[name]
        if name == "farthest":
            words += f" with {made['reference']['objects']} vectors of {made['reference']['dimensions']} numbers"
        memory = run["memory"]
        again = f"stories read {run['reads']} times (below: the last time), " if run["reads"] > 1 else ""
        made_with = [f"commit {run['commit']}"] if "commit" in run else []
        made_with += [run["date"], f"torch {run['torch']}", run["machine"]]
        lines.append(
            f"- {words}: {memory['mem_slots']} slots, {memory['num_heads']} heads of {memory['head_size']} numbers, "
            f"{run['steps']:,} steps, seed {run['seed']}, {again}{100 * run['accuracy']:.1f} % of the test set right "
            f"({', '.join(made_with)})"
        )
    return "\n".join(lines)


def story_block(made: Mapping[str, Any], name: str) -> str:
    story = made[name]
    sentences = story["sentences"]
    verdict = "which is right" if story["answer"] == story["right"] else f"and right would be *{story['right']}*"
    columns = [column for column in MEASURES if column in sentences[0]]
    rows = [
        [
            str(i),
            f"**{s['text']}**" if s["supports"] else s["text"],
            *(f"{s[column]:.3g}" for column in columns),
            s["answer without"],
        ]
        for i, s in enumerate(sentences, start=1)
    ]
    first = {
        column: max(range(len(sentences)), key=lambda i, column=column: sentences[i][column]) for column in columns
    }
    pointed_at = "; ".join(
        f"{column}: {i + 1} ({'one of them' if sentences[i]['supports'] else 'not one of them'})"
        for column, i in first.items()
    )
    task = f"task {story['task']}, {TASK_NAMES[story['task']]}, test question {story['number']}"
    return "\n\n".join(
        [
            f"*{story['question']}* ({task}). The model answers *{story['answer']}* with probability "
            f"{100 * story['probability']:.1f} %, {verdict}.",
            f"![Probability of the answers after each sentence](figures/{figure_path(name, 'answers').name})",
            f"![Attention to the input, gates and change of every slot](figures/{figure_path(name, 'time').name})",
            markdown_table(["step", "sentence", *columns, "answer without it"], rows),
            f"In bold: the sentences from which the right answer follows. First by each column: {pointed_at}.",
        ]
    )


def farthest(made: Mapping[str, Any], _: str) -> str:
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


def pointed(made: Mapping[str, Any], _: str) -> str:
    tasks = made["pointing"]
    head = ["the sentence with ...", *(f"task {task}, {TASK_NAMES[int(task)]}" for task in tasks)]
    names = {**MEASURES, "chance": "a sentence at random"}
    rows = [
        [words, *(f"{100 * tasks[task]['shares'][name]:.0f} %" for task in tasks)]
        for name, words in names.items()
        if all(name in tasks[task]["shares"] for task in tasks)
    ]
    rows.append(["questions: answered right / asked", *(f"{t['right']} / {t['asked']}" for t in tasks.values())])
    return markdown_table(head, rows)


def alike(made: Mapping[str, Any], _: str) -> str:
    slots = made["babi"]["memory"]["mem_slots"]
    tasks = "; ".join(f"task {task}: {value:.3f}" for task, value in made["likeness"].items())
    return (
        f"Mean cosine between two of the {slots} slots, over the steps of all test stories: {tasks}. In the model of "
        f"N-th farthest: {made['reference']['likeness']:.3f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--babi", type=Path, metavar="RUN", help="relational memory trained on bAbI")
    parser.add_argument("--farthest", type=Path, metavar="RUN", help="one trained on N-th farthest")
    told = parser.add_argument_group("of the run on bAbI")
    told.add_argument(
        "--right-task", type=int, metavar="K", help=f"task of the story answered right ({STORIES['right_task']})"
    )
    told.add_argument(
        "--wrong-task", type=int, metavar="K", help=f"task of the story answered wrong ({STORIES['wrong_task']})"
    )
    told.add_argument("--tasks", type=int, nargs="+", metavar="K", help=f"tasks of the table ({STORIES['tasks']})")
    told.add_argument("--questions", type=int, metavar="N", help=f"questions of each of them ({STORIES['questions']})")
    chosen = parser.parse_args()
    if chosen.babi is None and chosen.farthest is None:
        parser.error("at least one of --babi and --farthest must name a run")
    given = {name: value for name in STORIES if (value := getattr(chosen, name)) is not None}
    if given and chosen.babi is None:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        parser.error(f"{options}: of a run on bAbI, and --babi names none")
    torch.set_num_threads(1)
    made = json.loads(RESULTS.read_text(encoding="utf-8"))
    if chosen.babi is not None:
        made |= stories_of(chosen.babi, **(STORIES | given))
    if chosen.farthest is not None:
        made |= farthest_of(chosen.farthest)
    write_whole(RESULTS, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
