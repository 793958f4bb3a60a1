"""The parts of a batch, one for each of several processes, have the items of the whole, in order, with their losses."""

from __future__ import annotations

import little_runs
import pytest
import torch

from relational_rnn import InputError
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.runs import build, workload_of
from relational_rnn.tasks.memorize import Memorize
from relational_rnn.tasks.model import TaskModelConfig
from relational_rnn.tasks.nth_farthest import NthFarthest
from relational_rnn.training import Divisible
from relational_rnn.training.problem import in_numbers_of


def stories(tmp_path):
    return build(little_runs.little_run(little_runs.write_files(tmp_path / "stories")))


def task(data):
    sizes = MemorySizes(mem_slots=3, head_size=6, num_heads=2)
    model = TaskModelConfig(embedding_size=8, head_size=16, head_layers=1)
    return build(workload_of(data.name).config(data=data, memory=sizes, model=model, batch_size=11, seed=3))


PROBLEMS = {
    "babi": stories,
    "one answer": lambda tmp_path: task(NthFarthest(objects=2, dimensions=1)),
    "several answers": lambda tmp_path: task(Memorize()),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_parts_have_the_items_of_the_whole(name, tmp_path):
    problem = PROBLEMS[name](tmp_path)
    assert isinstance(problem, Divisible)
    problem.model.double().eval()
    batch = in_numbers_of(torch.float64, problem.train_batch(4))
    whole = problem.measure(batch)
    parts = [problem.measure(problem.part(batch, index, 5)) for index in range(5)]
    assert len({len(part.losses) for part in parts}) > 1
    torch.testing.assert_close(torch.cat([part.losses for part in parts]), whole.losses)
    assert torch.equal(torch.cat([part.correct for part in parts]), whole.correct)
    assert torch.equal(torch.cat([part.groups for part in parts]), whole.groups)
    with pytest.raises(InputError, match="a batch has fewer rows"):
        problem.part(batch, 0, 1000)
