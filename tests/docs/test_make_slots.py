"""docs/make_slots.py: how alike slots are and how evenly sentences spread over them."""

import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest
import torch
from scripts import load

from relational_rnn import InputError
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.babi.answering import StoryReader
from relational_rnn.tasks.babi.encoding import BABI
from relational_rnn.tasks.babi.model import ModelConfig, StoryModel
from relational_rnn.tasks.babi.story import Question, Story

STORIES = [
    Story(
        1,
        ("Mary went to the garden.", "John left.", "Mary went to the office."),
        (Question("Where is Mary?", "office", (2,), 3),),
    ),
    Story(1, ("Sandra is in the hallway.", "Mary left."), (Question("Where is Sandra?", "hallway", (0,), 2),)),
]


@pytest.fixture(scope="module")
def maker():
    return load(Path(__file__).parents[2] / "docs" / "make_slots.py")


def reader_of(core: str, slots: int = 3) -> StoryReader:
    torch.manual_seed(4)
    sizes = MemorySizes(mem_slots=slots, head_size=12, num_heads=2)
    return StoryReader(StoryModel.build(BABI, core, sizes, ModelConfig(embedding_size=24, head_size=12)), BABI)


@pytest.mark.parametrize("core", ["rmc", "competitive"])
def test_the_spread_is_that_of_every_sentence_read_alone(maker, core):
    reader = reader_of(core)
    found = maker.spread_of(reader, STORIES)
    most, largest, cosines = Counter(), [], []
    for story in STORIES:
        batch = reader.batch([story.statements], "Where is Mary?")
        with torch.no_grad():
            trace = reader.model.core.trace(reader.model.encoder.statements(batch.statements))
        of_story = []
        for t in range(len(story.statements)):
            taken = trace.update()[0][0, t].mean(-1).tolist()
            most[taken.index(max(taken))] += 1
            largest.append(max(taken) / sum(taken))
            a, b, c = torch.nn.functional.normalize(trace.memory[0, t], dim=-1)
            of_story.append(float(a @ b + a @ c + b @ c) / 3)
        cosines.append(sum(of_story) / len(of_story))
    entropy = -sum(n / 5 * math.log(n / 5) for n in most.values()) / math.log(3)
    assert (found.slots, found.sentences) == (3, 5)
    assert found.entropy == pytest.approx(entropy, abs=1e-9)
    assert found.largest == pytest.approx(sum(largest) / 5, abs=1e-6)
    assert found.likeness == pytest.approx(sum(cosines) / 2, abs=1e-6)


def test_what_has_no_slots_to_spread_over_is_refused(maker):
    for reader in (reader_of("lstm"), reader_of("rmc", slots=1)):
        with pytest.raises(InputError, match="only a relational memory of several slots"):
            maker.spread_of(reader, STORIES)


def test_runs_that_are_not_there_are_refused_in_one_sentence(maker, tmp_path, monkeypatch, capsys):
    words = ["make_slots", "--original", str(tmp_path / "a"), "--competitive", str(tmp_path / "b"), str(tmp_path / "c")]
    monkeypatch.setattr("sys.argv", words)
    assert maker.guarded(maker.main) == 2
    said = capsys.readouterr().err
    assert f"there is no run in {tmp_path / 'a'}, {tmp_path / 'b'}, {tmp_path / 'c'}" in said


def test_a_bar_for_each_kind_a_dot_for_each_run(maker):
    run = {"likeness": 0.5, "entropy": 0.75, "largest": 0.25, "slots": 8}
    made = {"original": [run, run | {"likeness": 0.9}], "competitive": [run | {"likeness": -0.1}]}
    root = ElementTree.fromstring(maker.drawing(made))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text in ("0.70", "-0.10", "0.75", "0.25")] == [
        "0.70", "-0.10", "0.75", "0.75", "0.25", "0.25",
    ]  # fmt: skip
    assert texts.count("original") == texts.count("competitive") == 3


def test_a_run_of_another_core_is_refused(maker, tmp_path, monkeypatch):
    monkeypatch.setattr(maker, "load", lambda folder: type("Run", (), {"config": type("C", (), {"core": "gru"})}))
    with pytest.raises(InputError, match="the run has another core"):
        maker.measure(tmp_path, "rmc")


@pytest.mark.parametrize("name", ["slots", "steps", "tasks"])
def test_runs_of_different_sizes_or_budgets_are_refused(maker, name):
    run = {"slots": 8, "steps": 100, "tasks": 20}
    maker.check_alike({"original": [run], "competitive": [run, run]})
    with pytest.raises(InputError, match=f"different numbers of {name}"):
        maker.check_alike({"original": [run], "competitive": [run, {**run, name: 7}]})
