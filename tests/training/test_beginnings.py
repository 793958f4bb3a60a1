"""A run that was killed in its first moments: a start and a resume both go on with it, and leave nothing over."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
import torch
import training_toy as toy

pytest.importorskip("lightning_fabric")

from training_toy import Stop, metrics, stop_at

from relational_rnn import InputError
from relational_rnn.training import OptimizerConfig, loop, run_folder
from relational_rnn.training.config import learning_rate_at

SHORT = dataclasses.replace(toy.LOOP, steps=10, validate_every=5, checkpoint_every=5)


def break_off_at(number: int, monkeypatch, folder) -> None:
    """Begin a run that ends before file number `number` gets its name, as if killed there: its part stays behind."""
    renamed, replace, unlink = [], os.replace, run_folder.Path.unlink

    def dying(source, target):
        if len(renamed) == number:
            raise Stop
        renamed.append(target)
        replace(source, target)

    def leave_parts(path, **given):
        if not path.name.endswith(".part"):
            unlink(path, **given)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        patch.setattr(os, "rename", dying)
        patch.setattr(run_folder.Path, "unlink", leave_parts)
        with pytest.raises(Stop):
            toy.run(folder, loop=SHORT)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("number", [2, 3, 4])  # before labels.json, versions.json and the first weights
def test_a_start_and_a_resume_both_work_on_what_a_kill_left(number, resume, tmp_path, monkeypatch):
    toy.run(tmp_path / "whole", loop=SHORT)
    break_off_at(number, monkeypatch, tmp_path / "run")
    assert list((tmp_path / "run").glob(".*.part"))
    toy.run(tmp_path / "run", loop=SHORT, resume=resume)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }


def test_before_the_folder_is_a_run_it_is_not_there(tmp_path, monkeypatch):
    break_off_at(0, monkeypatch, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / ".run.1.part").mkdir()  # by a process that had no time to clear up
    toy.run(tmp_path / "run", loop=SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_an_earlier_version_without_its_configuration_is_begun_again(resume, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("versions.json", "vocabulary.json", "data.json", ".config.json.7.part"):
        (tmp_path / "run" / name).write_text("{}")
    assert toy.run(tmp_path / "run", loop=SHORT, resume=resume).steps == 10
    assert not (tmp_path / "run" / ".config.json.7.part").exists()


@pytest.mark.parametrize("names", [["data.json"], ["versions.json", "thesis.txt"]])
def test_files_that_are_not_of_a_run_are_left_alone(names, tmp_path):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="not empty and not a run"):
        toy.run(tmp_path, loop=SHORT)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "{}")


def test_a_configuration_of_another_kind_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"theirs": 1}')
    with pytest.raises(InputError, match="belongs to another configuration: theirs is only there"):
        toy.run(tmp_path, loop=SHORT)
    assert (tmp_path / "config.json").read_text() == '{"theirs": 1}'


def test_parts_of_files_go_when_a_run_goes_on_or_has_ended(tmp_path):
    toy.run(tmp_path / "run", loop=SHORT)
    for _ in range(2):
        (tmp_path / "run" / f".last.ckpt.{os.getppid()}.part").write_bytes(b"half")  # the number is in use again
        toy.run(tmp_path / "run", loop=SHORT, resume=True)
        assert not list((tmp_path / "run").glob(".*"))


def test_a_kill_before_the_first_checkpoint_leaves_no_points_twice(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(Stop):
        toy.run(tmp_path / "run", loop=SHORT, on_progress=stop_at(3))
    toy.run(tmp_path / "run", loop=SHORT, resume=True)
    points = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("train/batch_loss")
    assert [point.step for point in points] == [3, 6, 9]


def test_a_run_killed_before_its_summary_gets_one(tmp_path):
    toy.run(tmp_path / "run", loop=SHORT)
    before = (tmp_path / "run" / "summary.json").read_bytes()
    (tmp_path / "run" / "summary.json").unlink()
    toy.run(tmp_path / "run", loop=SHORT, resume=True)
    ours, theirs = (json.loads(text) for text in ((tmp_path / "run" / "summary.json").read_bytes(), before))
    assert {**ours, "seconds": 0, "data_seconds": 0} == {**theirs, "seconds": 0, "data_seconds": 0}


STEADY = OptimizerConfig(learning_rate=0.02, warmup_steps=5, decay="none")


def test_a_larger_budget_goes_on_where_a_finished_run_ended(tmp_path, capsys):
    longer = dataclasses.replace(SHORT, steps=20)
    toy.run(tmp_path / "whole", loop=longer, optimizer=STEADY)
    toy.run(tmp_path / "run", loop=SHORT, optimizer=STEADY)
    assert capsys.readouterr().err == ""
    assert toy.run(tmp_path / "run", loop=longer, optimizer=STEADY, resume=True).steps == 20
    assert capsys.readouterr().err == (
        f"{tmp_path / 'run'}: goes on from step 10 under a budget of 20 steps, before 10; the learning rate, "
        "last 0.02, follows the schedule of the new budget: 0.02 now, 0.02 at its end\n"
    )
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    a, b = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("run", "whole"))
    torch.testing.assert_close(a["model"], b["model"], rtol=0, atol=0)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["loop"]["steps"] == 20
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 20


def test_the_first_update_under_a_larger_budget_has_the_rate_of_the_new_schedule(tmp_path, monkeypatch, capsys):
    seen = []

    def watched(model, config):
        optimizer = build(model, config)
        optimizer.register_step_pre_hook(lambda self, *_: seen.append(self.param_groups[0]["lr"]))
        return optimizer

    toy.run(tmp_path / "run", loop=SHORT)
    build = loop.build_optimizer
    monkeypatch.setattr(loop, "build_optimizer", watched)
    toy.run(tmp_path / "run", loop=dataclasses.replace(SHORT, steps=20), resume=True)
    expected = [learning_rate_at(toy.OPTIMIZER, step, 20) for step in range(10, 20)]
    assert seen == pytest.approx(expected, rel=1e-12)
    assert f"{expected[0]:.3g} now, {expected[-1]:.3g} at its end" in capsys.readouterr().err


@pytest.mark.parametrize("steps", [9, 6])
def test_a_budget_that_is_used_up_is_refused(steps, tmp_path):
    toy.run(tmp_path / "run", loop=SHORT)
    with pytest.raises(InputError, match=rf"the budget is used up already\n.*loop.steps = {steps}\n.*more than 10"):
        toy.run(tmp_path / "run", loop=dataclasses.replace(SHORT, steps=steps), resume=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["loop"]["steps"] == 10
