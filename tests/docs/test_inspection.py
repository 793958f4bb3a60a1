"""The findings of docs/inspection.md are those that were measured, and what measures them does what it says."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from scripts import load

from relational_rnn.inspection import StoryReader, influence, trace_story
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.babi.encoding import BABI
from relational_rnn.tasks.babi.model import ModelConfig, StoryModel
from relational_rnn.tasks.babi.story import Question, Story
from relational_rnn.tasks.contract import draw_batch
from relational_rnn.tasks.model import TaskModel, TaskModelConfig
from relational_rnn.tasks.nth_farthest import NthFarthest

ROOT = Path(__file__).parents[2]
TOLD = (
    "Mary went to the garden.",
    "John got the apple there.",
    "Mary travelled to the office.",
    "Sandra is in the hallway.",
    "John moved to the kitchen.",
)


@pytest.fixture(scope="module")
def maker():
    return load(ROOT / "docs" / "make_inspection.py")


@pytest.fixture(scope="module")
def reader() -> StoryReader:
    torch.manual_seed(3)
    sizes = MemorySizes(mem_slots=3, head_size=6, num_heads=2)
    model = StoryModel.build(BABI, "rmc", sizes, ModelConfig(embedding_size=24, head_size=12, read_heads=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.7)
    return StoryReader(model, BABI)


def test_the_page_is_made_from_what_was_measured(maker):
    made = json.loads(maker.RESULTS.read_text(encoding="utf-8"))
    page = maker.PAGE.read_text(encoding="utf-8")
    assert page == maker.render(page, made), "run `python docs/make_inspection.py`"
    assert made["right"]["answer"] == made["right"]["right"]
    assert made["wrong"]["answer"] != made["wrong"]["right"]


def test_the_pictures_are_there_small_and_nothing_but_pictures(maker):
    page = maker.PAGE.read_text(encoding="utf-8")
    paths = sorted(maker.FIGURES.glob("inspection_*.svg"))
    assert len(paths) == 5
    for path in paths:
        assert f"(figures/{path.name})" in page
        assert path.stat().st_size < 100_000
        tags = {element.tag.split("}")[1] for element in ElementTree.parse(path).getroot().iter()}
        assert tags <= {"svg", "title", "g", "path", "rect", "line", "circle", "text"}


def test_every_measure_points_where_its_numbers_are_largest(maker, reader):
    traced = trace_story(reader, TOLD, "Where is Mary?")
    found = maker.measures(traced)
    assert list(found) == list(maker.MEASURES)
    assert {len(values) for values in found.values()} == {len(TOLD)}
    looks = traced.trace.attention[2, :, :, :3, 3:].sum(-1).mean()
    assert found["attention"][2] == pytest.approx(looks.item())
    assert found["change"][0] == pytest.approx((traced.trace.memory[0] - traced.before).norm().item(), rel=1e-5)
    drops = [effect.drop for effect in influence(reader, TOLD, "Where is Mary?").effects]
    assert found["left out"] == pytest.approx(drops, abs=1e-6)


def test_pointing_counts_questions_answered_right(maker, reader):
    drops = [effect.drop for effect in influence(reader, TOLD, "Where is Mary?").effects]
    most, least = (pick(range(5), key=lambda i: drops[i]) for pick in (max, min))
    answer = trace_story(reader, TOLD, "Where is Mary?").influence.answer
    asked = [
        Question("Where is Mary?", answer, (most,), 5),
        Question("Where is Mary?", answer, (least, 4), 5),
        Question("Where is Mary?", "nowhere", (most,), 5),  # not answered right
        Question("Where is Mary?", answer, (most,), 2),  # after two sentences
        Question("Where is Mary?", answer, (most,), 5),  # one too many
    ]
    found = maker.pointing(reader, [Story(1, TOLD, tuple(asked))], 3)
    assert (found["asked"], found["right"]) == (3, 2)
    assert found["shares"]["left out"] == pytest.approx((1 + (most in (least, 4))) / 2)
    assert found["shares"]["last"] == pytest.approx(((most == 4) + 1) / 2)
    assert found["shares"]["chance"] == pytest.approx((1 / 5 + 2 / 5) / 2)


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
