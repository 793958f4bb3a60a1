"""Several processes train what one would: each works on its part of every batch, and all items weigh the same."""

from __future__ import annotations

import dataclasses
import os
import signal

import pytest
import torch

pytest.importorskip("lightning_fabric")

import training_toy as toy
from torch import nn
from training_toy import Stop, metrics, stop_at

from relational_rnn import InputError
from relational_rnn.training import LoopConfig, fit, rows_of_part
from relational_rnn.training.loop import step_seed

LOOP = LoopConfig(steps=12, validate_every=5, checkpoint_every=4, log_every=1, precision="64-true", threads=1)


class Divided(toy.Toy):
    """Batches of 13 rows, the parts of which have other numbers of items: only rows of group 5 count twice."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.model.drop.p = 0.0
        self.model.idle = nn.Linear(3, 2)  # never used: it has no gradient, so that no weight decay touches it
        self.process = os.getpid()

    def part(self, batch, index: int, of: int):
        return {name: values[rows_of_part(len(values), index, of)] for name, values in batch.items()}

    def measure(self, batch):
        measure = super().measure(batch)
        rows = torch.arange(len(measure.losses)).repeat_interleave((measure.groups == 5) + 1)
        return dataclasses.replace(
            measure, losses=measure.losses[rows], correct=measure.correct[rows], groups=measure.groups[rows]
        )


def run(folder, processes: int, problem=None, **given):
    loop = dataclasses.replace(LOOP, processes=processes)
    given = {"on_progress": lambda progress: None, "loop": loop, "accumulate": 2, **given}
    return fit(problem or Divided(7), folder, optimizer=toy.OPTIMIZER, seed=7, configuration={}, **given)


def test_two_processes_make_the_updates_of_one(tmp_path):
    run(tmp_path / "one", 1)
    with pytest.raises(Stop):
        run(tmp_path / "two", 2, on_progress=stop_at(6))
    problem = Divided(7)
    run(tmp_path / "two", 2, problem, resume=True)
    one, two = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("one", "two"))
    torch.testing.assert_close(two["model"], one["model"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(two["optimizer"]["state"], one["optimizer"]["state"], rtol=1e-7, atol=1e-9)
    for ours, theirs in zip(metrics(tmp_path / "two"), metrics(tmp_path / "one"), strict=True):
        assert {n: float(v or 0) for n, v in ours.items()} == pytest.approx(
            {n: float(v or 0) for n, v in theirs.items()}
        )
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    assert torch.equal(problem.model.core.weight_hh_l0, two["model"]["core.weight_hh_l0"])
    assert not torch.distributed.is_initialized()


class Doomed(Divided):
    """Its second process ends in the middle."""

    def train_batch(self, step: int):
        if os.getpid() != self.process and step == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train_batch(step)


def test_a_process_that_ends_by_itself_is_told_of(tmp_path):
    with pytest.raises(InputError, match=r"a process of this training has ended with code -9\n"):
        run(tmp_path / "run", 2, Doomed(7))
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["relational_rnn"]["step"] == 4


def test_parts_are_of_nearly_one_size_and_have_all_rows():
    for count, of in ((13, 2), (7, 7), (11, 4)):
        rows = [list(range(count))[rows_of_part(count, index, of)] for index in range(of)]
        assert [row for part in rows for row in part] == list(range(count))
        assert {len(part) for part in rows} <= {count // of, count // of + 1}
    with pytest.raises(InputError, match=r"a batch has fewer rows\n.*got +2\n.*expected +>= 3"):
        rows_of_part(2, 0, 3)


def test_every_process_draws_for_itself():
    assert len({step_seed(3, step, rank) for step in range(20) for rank in range(4)}) == 80
    assert step_seed(3, 5, 0) == step_seed(3, 5)


class Carrying(Divided):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Lessons(Divided):
    lesson = (1, 3)


@pytest.mark.parametrize(
    ("problem", "changes", "said"),
    [
        (Carrying, {}, "it carries a state from batch to batch"),
        (Lessons, {}, "it has lessons"),
        (toy.Toy, {}, "it does not say how a batch is divided"),
        (Divided, {"accelerator": "auto"}, "accelerator auto is not cpu or cuda"),
        (Divided, {"accelerator": "cuda", "processes": 1000}, "GPUs"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_anything_is_written(problem, changes, said, tmp_path):
    loop = dataclasses.replace(LOOP, **{"processes": 2, **changes})
    with pytest.raises(InputError, match=f"this cannot be trained in several processes: .*{said}"):
        run(tmp_path / "run", 2, problem(7), loop=loop)
    assert not (tmp_path / "run").exists()
