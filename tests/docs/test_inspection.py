"""The findings of docs/inspection.md are what was measured, and what measures them does what it says."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from scripts import load

from relational_rnn.nn.cores import FastWeightSizes, MemorySizes
from relational_rnn.tasks.babi.encoding import BABI
from relational_rnn.tasks.babi.model import ModelConfig, StoryModel
from relational_rnn.tasks.contract import draw_batch
from relational_rnn.tasks.model import TaskModel, TaskModelConfig
from relational_rnn.tasks.nth_farthest import NthFarthest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def maker():
    return load(ROOT / "docs" / "make_inspection.py")


def test_the_page_is_made_from_what_was_measured(maker):
    made = maker.read_measured()
    page = maker.PAGE.read_text(encoding="utf-8")
    assert page == maker.render(page, made), "run `python docs/make_inspection.py`"


def test_the_pictures_are_there_small_and_nothing_but_pictures(maker):
    page = maker.PAGE.read_text(encoding="utf-8")
    paths = sorted(maker.FIGURES.glob("inspection_*.svg"))
    assert paths
    for path in paths:
        assert f"(figures/{path.name})" in page
        assert path.stat().st_size < 100_000
        tags = {element.tag.split("}")[1] for element in ElementTree.parse(path).getroot().iter()}
        assert tags <= {"svg", "title", "g", "path", "rect", "line", "circle", "text"}


def test_what_the_looks_read_is_counted_by_sentences_that_are_needed(maker):
    story = ("Mary went to the garden.", "John got the apple there.", "Mary went to the office.")
    for core in ("fastweights", "competitive"):
        torch.manual_seed(2)
        sizes = MemorySizes(mem_slots=3, head_size=12, num_heads=2)
        config = ModelConfig(embedding_size=24, head_size=12, read_heads=3)
        fast = FastWeightSizes(num_heads=2, key_size=7, value_size=7).of(core)
        model = StoryModel.build(BABI, core, sizes, config, fast=fast)
        traced = maker.trace_story(maker.StoryReader(model, BABI), story, "Where is Mary?")
        parts = [maker.read_from(traced, (i,)) for i in range(3)]
        assert sum(parts) == pytest.approx(1)
        assert maker.read_from(traced, (0, 2)) == pytest.approx(parts[0] + parts[2])
        if core == "competitive":
            holds = maker.what_is_left(*traced.trace.update())[-1].argmax(0)
            expected = [holds[look.argmax()].item() for look in traced.looks[-1]]
            assert parts == [pytest.approx(expected.count(i) / len(expected)) for i in range(3)]
        else:
            share = maker.shares_read(traced.trace, maker.held_writes(traced.trace), traced.looks)[-1]
            assert parts == pytest.approx(share.abs().mean(1).tolist())


def test_what_was_not_measured_says_so_and_the_rest_is_told(maker):
    page = "<!-- made: story -->\nold\n<!-- end -->\n<!-- made: slots -->\nold\n<!-- end -->\n"
    assert maker.render(page, {}).count("Not measured yet.") == 2
    runs = [
        {"core": "rmc", "steps": 600, "slots": 8, "sentences": 1234, "likeness": 0.5, "entropy": 0.25, "largest": 0.125}
    ]
    shown = maker.render(page, {"slots": {"original": runs * 2}})
    assert "RMC (2 seeds, 600 steps): cosine 0.50, entropy 0.25, largest share 0.12." in shown
    run = {
        "core": "fastweights",
        "memory": {"num_heads": 4, "key_size": 16},
        "steps": 700,
        "seed": 3,
        "accuracy": 0.875,
    }
    run |= {"date": "2026-01-02", "torch": "2", "machine": "M"}
    story = {"task": 2, "questions": 9, "question": "Where?", "answer": "there", "read": 0.5, "by chance": 0.25}
    shown = maker.render(page, {"babi": run, "story": story | {"supporting": 0.75, "other": 0.0625}})
    assert "Fast weights (4 heads, keys of 16 numbers), 700 steps, seed 3, 87.5 % of its test questions right" in shown
    assert "of task 2: 0.50; looks at sentences drawn by lot would have 0.25." in shown
    assert "falls by 0.75 on average, without another by 0.06." in shown


def test_leaving_out_tells_the_kinds_of_vectors_apart(maker):
    torch.manual_seed(5)
    task = NthFarthest(objects=4, dimensions=2)
    sizes = MemorySizes(mem_slots=3, head_size=4, num_heads=2)
    model = TaskModel.build(task.shape, "rmc", sizes, TaskModelConfig(head_size=8, head_layers=1)).eval()
    batch = draw_batch(task, "test", 0, seed=1, size=9)
    labels, reference = maker.read_sequences(task, batch.inputs)
    found = maker.leaving_out(model, batch, reference, labels)
    kinds: dict[str, list[float]] = {"reference": [], "answer": [], "other": []}
    with torch.no_grad():
        for i in range(9):
            row = maker.dataclasses.replace(batch, inputs=batch.inputs[i : i + 1])
            chances = model(row).softmax(-1)[0]
            for t in range(4):
                kept = torch.cat([row.inputs[:, :t], row.inputs[:, t + 1 :]], 1)
                without = model(maker.dataclasses.replace(row, inputs=kept)).softmax(-1)[0]
                drop = (chances.max() - without[chances.argmax()]).item()
                kind = "reference" if t == reference[i] else "answer" if labels[i, t] == chances.argmax() else "other"
                kinds[kind].append(drop)
    for kind, drops in kinds.items():
        assert found[kind] == pytest.approx(sum(drops) / len(drops), abs=1e-6)
