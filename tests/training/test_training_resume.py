"""A killed run goes on as if nothing had happened; two runs with one seed are one run."""

from __future__ import annotations

import dataclasses
import random
import signal
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning_fabric")

import training_toy as toy
from training_toy import Stop, metrics, stop_at

from relational_rnn import InputError


def assert_same_run(got: Path, expected: Path) -> None:
    assert metrics(got) == metrics(expected)
    assert (got / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    a, b = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (got, expected))
    for name, tensor in b["model"].items():
        assert torch.equal(a["model"][name], tensor), name
    torch.testing.assert_close(a["optimizer"]["state"], b["optimizer"]["state"], rtol=0, atol=0)
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    assert a["relational_rnn"]["step"] == b["relational_rnn"]["step"] == toy.LOOP.steps


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    toy.run(folder)
    return folder


def test_a_run_validates_when_it_should(undisturbed):
    assert [row["step"] for row in metrics(undisturbed)] == ["20", "40", "60"]
    assert [row["questions_seen"] for row in metrics(undisturbed)] == ["260", "520", "780"]


def test_one_seed_gives_the_same_numbers_and_another_seed_others(undisturbed, tmp_path):
    toy.run(tmp_path / "again")
    assert_same_run(tmp_path / "again", undisturbed)
    toy.run(tmp_path / "other", seed=12)
    assert metrics(tmp_path / "other") != metrics(undisturbed)


def test_a_run_killed_at_a_random_moment_resumes_exactly(undisturbed, tmp_path, forked):
    folder = tmp_path / "killed"
    kill_after = random.SystemRandom().randrange(3, 54)
    delay = random.SystemRandom().uniform(0, 0.1)
    told, there = forked.Pipe(duplex=False)
    process = forked.Process(target=toy.run_and_tell, args=(folder, there))
    process.start()
    there.close()
    while told.recv() < kill_after:
        pass
    time.sleep(delay)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the run ended before it was killed"
    print(f"killed {delay:.3f} s after step {kill_after} was reported")  # shown if what follows fails
    toy.run(folder, resume=True)
    assert_same_run(folder, undisturbed)


def test_a_run_with_muon_resumes_exactly(tmp_path):
    toy.run(tmp_path / "undisturbed", optimizer=toy.MUON)
    with pytest.raises(Stop):
        toy.run(tmp_path / "broken", optimizer=toy.MUON, on_progress=stop_at(33))
    toy.run(tmp_path / "broken", optimizer=toy.MUON, resume=True)
    assert_same_run(tmp_path / "broken", tmp_path / "undisturbed")


# Before the first checkpoint and right after a validation; a random moment has a test above.
@pytest.mark.parametrize("step", [3, 21, *(pytest.param(s, marks=pytest.mark.slow) for s in (9, 57))])
def test_a_run_broken_off_anywhere_resumes_exactly(step, undisturbed, tmp_path):
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", on_progress=stop_at(step))
    steps = []
    toy.run(tmp_path / "run", resume=True, on_progress=lambda progress: steps.append(progress.step))
    checkpoint = max((stop for stop in (*range(0, 60, 7), 20, 40) if stop < step), default=0)
    assert steps[0] == checkpoint // 3 * 3 + 3  # it went on from there, and did not begin again
    assert_same_run(tmp_path / "run", undisturbed)


# As often as after every step; now and then, whatever the machine does; and by the steps alone.
@pytest.mark.parametrize(
    ("step", "seconds"), [pytest.param(9, 1e-9, marks=pytest.mark.slow), (33, 1e-9), (15, 0.03), (21, None)]
)
def test_checkpoints_by_the_clock_change_nothing(step, seconds, undisturbed, tmp_path):
    loop = dataclasses.replace(toy.LOOP, checkpoint_seconds=seconds)
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", loop=loop, on_progress=stop_at(step))
    if seconds == 1e-9:  # nothing is lost but the step that was broken off
        assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["relational_rnn"]["step"] == step - 1
    toy.run(tmp_path / "run", loop=loop, resume=True)
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_run_broken_off_twice_resumes_exactly(undisturbed, tmp_path):
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", on_progress=stop_at(24))
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", resume=True, on_progress=stop_at(45))
    toy.run(tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", undisturbed)


def test_rows_that_the_checkpoint_does_not_know_are_dropped(undisturbed, tmp_path):
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", on_progress=stop_at(27))
    path = tmp_path / "run" / "metrics.csv"
    path.write_text(path.read_text() + "40,1.0,9,9,9,9,9,9,9,\n")
    toy.run(tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", undisturbed)


def test_tensorboard_forgets_lost_work_and_keeps_the_rest(undisturbed, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(Stop):
        toy.run(tmp_path / "run", on_progress=stop_at(33))  # last checkpoint: step 28
    toy.run(tmp_path / "run", resume=True)
    curves = []
    for folder in (undisturbed, tmp_path / "run"):
        events = EventAccumulator(str(folder / "tensorboard")).Reload()
        curves.append([(point.step, point.value) for point in events.Scalars("train/batch_loss")])
        assert {"valid/accuracy", "valid_accuracy/3", "valid_accuracy/5"} <= set(events.Tags()["scalars"])
    assert curves[0] == curves[1]
    assert [step for step, _ in curves[0]] == list(range(3, 61, 3))


def test_a_finished_run_resumes_to_nothing(undisturbed):
    before = (undisturbed / "last.ckpt").read_bytes()
    again = toy.run(undisturbed, resume=True, on_progress=stop_at(0))
    assert again.steps == 60
    assert f"{again.valid_accuracy:.8g}" == max(row["valid_accuracy"] for row in metrics(undisturbed))
    assert (undisturbed / "last.ckpt").read_bytes() == before


def test_a_truncated_checkpoint_is_refused_and_named(tmp_path):
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", on_progress=stop_at(30))
    path = tmp_path / "run" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-1000])
    before = path.read_bytes()
    with pytest.raises(InputError) as error:
        toy.run(tmp_path / "run", resume=True)
    assert str(error.value).startswith(f"{path}: the checkpoint is damaged or incomplete\n")
    assert str(error.value).endswith(
        "\n  hint      restore the file from a copy, or delete it and resume to train again from the start"
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a checkpoint", b"\x80\x04cos\nsystem\n."])
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", on_progress=stop_at(9))
    (tmp_path / "run" / "last.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=r"last\.ckpt: the checkpoint is damaged"):
        toy.run(tmp_path / "run", resume=True)


@pytest.mark.parametrize("extras", ["adamw", "muon"])
def test_a_checkpoint_of_lightnings_trainer_is_gone_on_with(extras, tmp_path):
    optimizer = {"adamw": toy.OPTIMIZER, "muon": toy.MUON}[extras]
    toy.run(tmp_path / "undisturbed", optimizer=optimizer)
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", optimizer=optimizer, on_progress=stop_at(33))
    path = tmp_path / "run" / "last.ckpt"
    torch.save(as_lightning_had_it(torch.load(path, weights_only=True)), path)
    toy.run(tmp_path / "run", optimizer=optimizer, resume=True)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint.keys() == torch.load(tmp_path / "undisturbed" / "last.ckpt", weights_only=True).keys()
    for group in checkpoint["optimizer"]["param_groups"]:
        assert group.pop("initial_lr") == 1.0
    torch.save(checkpoint, path)
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")


def as_lightning_had_it(checkpoint):
    """The checkpoint of step 28 as it was written when Lightning's Trainer trained."""
    ours, groups = checkpoint["relational_rnn"], checkpoint["optimizer"]["param_groups"]
    assert ours["step"] == 28
    return {
        "epoch": 4,
        "global_step": 28,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {f"model.{name}": tensor for name, tensor in checkpoint["model"].items()},
        "loops": {"fit_loop": {"state_dict": {}}, "validate_loop": {}, "test_loop": {}, "predict_loop": {}},
        "callbacks": {},
        "optimizer_states": [
            {
                "state": checkpoint["optimizer"]["state"],
                "param_groups": [{**group, "lr": 0.0123, "initial_lr": 1.0} for group in groups],
            }
        ],
        "lr_schedulers": [{"base_lrs": [1.0], "last_epoch": 28, "_last_lr": [0.0123], "lr_lambdas": [None]}],
        "relational_rnn": {name: value for name, value in ours.items() if name not in ("valid_loss", "data_seconds")},
    }


@pytest.mark.parametrize("change", [
    lambda checkpoint: checkpoint.pop("optimizer"),
    lambda checkpoint: checkpoint["optimizer"]["param_groups"].pop(),
    lambda checkpoint: checkpoint["relational_rnn"].pop("train_totals"),
    lambda checkpoint: checkpoint.update({"pytorch-lightning_version": "2.6.6", "state_dict": [1]}),
])  # fmt: skip
def test_a_checkpoint_that_lacks_something_is_refused(change, tmp_path):
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", on_progress=stop_at(9))
    path = tmp_path / "run" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match=r"last\.ckpt: the checkpoint is damaged or incomplete"):
        toy.run(tmp_path / "run", resume=True)


def test_a_checkpoint_of_another_configuration_is_refused_with_the_difference(undisturbed, tmp_path):
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", seed=12, on_progress=stop_at(9))
    (tmp_path / "run" / "last.ckpt").write_bytes((undisturbed / "last.ckpt").read_bytes())
    with pytest.raises(InputError) as error:
        toy.run(tmp_path / "run", seed=12, resume=True)
    assert str(error.value) == (
        f"{tmp_path / 'run' / 'last.ckpt'}: belongs to another configuration: seed is 11 there and 12 here\n"
        "  hint      resume with the configuration of the run, or start a new run in another folder"
    )


def test_a_checkpoint_of_another_model_is_refused(tmp_path, monkeypatch):
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", on_progress=stop_at(9))
    monkeypatch.setattr(toy.Larger, "__init__", _wider)
    with pytest.raises(InputError, match="belongs to another model: 5 tensors differ") as error:
        toy.run(tmp_path / "run", resume=True)
    assert "core.bias_hh_l0" in str(error.value)


def _wider(self) -> None:
    torch.nn.Module.__init__(self)
    self.core = torch.nn.GRU(1, 8, batch_first=True)
    self.drop = torch.nn.Dropout(0.3)
    self.head = torch.nn.Linear(8, 2)
