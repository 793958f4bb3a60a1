"""The finding of docs/inspection.md is what was measured, and what measures it does what it says."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from scripts import load

from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.contract import draw_batch
from relational_rnn.tasks.model import TaskModel, TaskModelConfig
from relational_rnn.tasks.nth_farthest import NthFarthest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def maker():
    return load(ROOT / "docs" / "make_inspection.py")


def test_the_page_is_made_from_what_was_measured(maker):
    made = json.loads(maker.RESULTS.read_text(encoding="utf-8"))
    page = maker.PAGE.read_text(encoding="utf-8")
    assert page == maker.render(page, made), "run `python docs/make_inspection.py`"


def test_the_pictures_are_there_small_and_nothing_but_pictures(maker):
    page = maker.PAGE.read_text(encoding="utf-8")
    paths = sorted(maker.FIGURES.glob("inspection_*.svg"))
    assert len(paths) == 1
    for path in paths:
        assert f"(figures/{path.name})" in page
        assert path.stat().st_size < 100_000
        tags = {element.tag.split("}")[1] for element in ElementTree.parse(path).getroot().iter()}
        assert tags <= {"svg", "title", "g", "path", "rect", "line", "circle", "text"}


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
