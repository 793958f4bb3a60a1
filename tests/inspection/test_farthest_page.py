"""A sequence of N-th farthest: the page says the question, the distances and the answer that the task has."""

import json
import re

import pytest
import torch

from relational_rnn import InputError
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.contract import TaskBatch, draw_batch
from relational_rnn.tasks.model import TaskModel, TaskModelConfig
from relational_rnn.tasks.nth_farthest import CONVENTIONS, NthFarthest
from relational_rnn.tasks.nth_farthest_page import farthest_page, worst_sequences

SIZES = MemorySizes(mem_slots=3, head_size=4, num_heads=2)


def model_of(task: NthFarthest, core: str = "rmc") -> TaskModel:
    torch.manual_seed(5)
    return TaskModel.build(task.shape, core, SIZES, TaskModelConfig(head_size=8, head_layers=1))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_page_is_about_the_task_s_own_question(convention):
    task = NthFarthest(objects=5, dimensions=2, convention=convention)
    batch = draw_batch(task, "test", 0, seed=1, size=40)
    model = model_of(task)
    number = 7
    html = farthest_page(model, task, batch, number, title="T").html
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])
    distances = data["tokenValues"][0]["values"]
    reference = next(t for t, token in enumerate(data["tokens"]) if "the reference" in token)
    right = next(t for t, token in enumerate(data["tokens"]) if "the right answer" in token)
    assert distances[reference] == 0
    # The question as it is written leads to the right answer by the distances alone.
    n = int(re.search(r"is number (\d+) in", html)[1])
    order = sorted(range(5), key=lambda t: distances[t], reverse=convention != "sonnet")
    assert order[n - (convention == "paper")] == right
    assert f"from {data['tokens'][reference].split(' (')[0]}" in html or f"to {data['tokens'][reference][:8]}" in html
    # The answer after the last step is the model's, and leaving a step out is reading the others.
    row = batch.inputs[number - 1 : number]
    target = torch.zeros(1, 1, dtype=torch.int64)
    chances = model(TaskBatch(row, None, target, target[0])).softmax(-1)[0]
    answer = f"vector {int(chances.argmax()) + 1}"
    assert data["answers"]["values"][data["answers"]["names"].index(answer)][-1] == pytest.approx(
        chances.max().item(), abs=1e-5
    )
    without = model(TaskBatch(torch.cat([row[:, :2], row[:, 3:]], 1), None, target, target[0])).softmax(-1)[0]
    drop = (chances.max() - without[chances.argmax()]).item()
    assert data["tokenValues"][1]["values"][2] == pytest.approx(drop, abs=1e-5)
    assert [f"Reference seen {place}" in html for place in ("first", "in the middle", "last")] == [True] * 3


def test_captions_count_from_the_start_of_the_set():
    task = NthFarthest(objects=3, dimensions=2)
    batch = draw_batch(task, "test", 0, seed=1, size=6)
    pages = [farthest_page(model_of(task), task, batch, 1, title="T", before=before).html for before in (0, 128)]
    first, later = ([int(n) for n in re.findall(r"\(sequence (\d+), answered", html)] for html in pages)
    assert later == [n + 128 for n in first]
    assert len(first) > 1


def test_statistics_are_added_when_asked_for():
    task = NthFarthest(objects=3, dimensions=2)
    batch = draw_batch(task, "test", 0, seed=1, size=6)
    html = farthest_page(model_of(task), task, batch, 1, title="T", statistics=True).html
    assert "mean over 6 sequences" in html


def test_what_cannot_be_inspected_is_refused():
    task = NthFarthest(objects=3, dimensions=2)
    batch = draw_batch(task, "test", 0, seed=1, size=6)
    with pytest.raises(InputError, match="only a relational memory has slots"):
        farthest_page(model_of(task, "lstm"), task, batch, 1, title="T")
    with pytest.raises(InputError, match="1 to 6"):
        farthest_page(model_of(task), task, batch, 7, title="T")


def test_the_worst_sequences_of_every_group_are_those_with_the_least_probable_right_answers():
    task = NthFarthest(objects=3, dimensions=2)
    model = model_of(task)
    batches = [draw_batch(task, "test", i, seed=1, size=size) for i, size in enumerate((7, 7, 4))]
    found = worst_sequences(model, batches, 2)
    assert [int(batches[batch].groups[row]) for batch, row, _, _ in found] == [0, 0, 1, 1, 2, 2]
    everything = []
    with torch.no_grad():
        for i, batch in enumerate(batches):
            for row, chances in enumerate(model(batch).softmax(-1)):
                right = int(batch.targets[row, 0])
                everything.append((int(batch.groups[row]), chances[right].item(), i, row, int(chances.argmax())))
    for group in range(3):
        expected = sorted(entry for entry in everything if entry[0] == group)[:2]
        for answered, entry in zip(found[2 * group : 2 * group + 2], expected, strict=True):
            assert answered[:3] == entry[2:]
            assert answered[3] == pytest.approx(entry[1], abs=1e-6)
    with pytest.raises(InputError, match="count must be a whole number"):
        worst_sequences(model, batches, 0)
