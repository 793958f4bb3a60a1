"""The loop refuses what it cannot do in one sentence, and leaves the process and the folder as they should be."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("lightning_fabric")

import training_toy as toy
from training_toy import Stop, metrics, stop_at

from relational_rnn import InputError, _files
from relational_rnn.training import DivergedError, LoopConfig, RunFolder, Terminated, fit, loop, to_json
from relational_rnn.training.loop import step_seed

SHORT = LoopConfig(steps=10, validate_every=4, checkpoint_every=3, log_every=1)


def test_it_learns(tmp_path):
    easy = dataclasses.replace(toy.LOOP, steps=400, validate_every=200, checkpoint_every=200, log_every=100)
    outcome = toy.run(tmp_path / "run", loop=easy)
    assert outcome.valid_accuracy > 0.8
    first, last = metrics(tmp_path / "run")
    assert float(last["train_loss"]) < float(first["train_loss"])


def test_checkpoints_are_saved_now_and_then_with_validations_and_at_the_end(tmp_path, monkeypatch):
    save, steps = RunFolder.write_checkpoint, []

    def seen(folder, checkpoint):
        steps.append(checkpoint["relational_rnn"]["step"])
        save(folder, checkpoint)

    monkeypatch.setattr(RunFolder, "write_checkpoint", seen)
    toy.run(tmp_path / "run", loop=dataclasses.replace(SHORT, checkpoint_seconds=None))
    assert steps == [3, 4, 6, 8, 9, 10]


def test_every_step_has_a_seed_of_its_own():
    assert len({step_seed(seed, step) for seed in range(20) for step in range(50)}) == 1000


def test_the_folder_holds_what_it_should(tmp_path):
    toy.run(tmp_path / "run", loop=SHORT)
    found = {path.relative_to(tmp_path / "run").parts[0] for path in (tmp_path / "run").rglob("*")}
    assert found == {
        "config.json", "versions.json", "metrics.csv", "tensorboard", "model.safetensors", "last.ckpt", "labels.json",
        "summary.json",
    }  # fmt: skip
    assert [row["step"] for row in metrics(tmp_path / "run")] == ["4", "8", "10"]
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert versions["torch"] == torch.__version__
    assert versions["threads"] == 1
    assert "CPU" in versions["machine"]


def test_waiting_for_data_is_counted_in_every_sitting(tmp_path, monkeypatch):
    make, served = toy.Toy.train_batch, []

    def slow(self, step):
        served.append(step)
        time.sleep(0.02)
        return make(self, step)

    monkeypatch.setattr(toy.Toy, "train_batch", slow)
    with pytest.raises(Stop):
        toy.run(tmp_path / "run", loop=SHORT, on_progress=stop_at(7))
    kept = [step for step in served if step < 6]  # up to the checkpoint
    served.clear()
    outcome = toy.run(tmp_path / "run", loop=SHORT, resume=True)
    assert served[0] == len(kept) == 6
    assert 0.02 * (len(kept) + len(served)) <= outcome.data_seconds < outcome.seconds
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["data_seconds"] == outcome.data_seconds
    assert toy.run(tmp_path / "run", loop=SHORT, resume=True).data_seconds == pytest.approx(outcome.data_seconds)


def test_validation_batches_are_waited_for_too(tmp_path, monkeypatch):
    make = toy.Toy.valid_batches

    def slow(self):
        time.sleep(0.3)
        return make(self)

    monkeypatch.setattr(toy.Toy, "valid_batches", slow)
    assert toy.run(tmp_path / "run", loop=SHORT).data_seconds >= 3 * 0.3


def test_the_best_weights_are_kept_and_not_the_last(tmp_path, monkeypatch):
    # the validation gets worse after step 4: the accuracies are dictated, the losses break the tie at step 8
    dictated = iter([(0.75, 1.0), (0.75, 0.9), (0.5, 0.1)])
    seen = []

    def dictate(problem, batches, around):
        seen.append({name: tensor.clone() for name, tensor in problem.model.state_dict().items()})
        return toy.dictated(*next(dictated))

    monkeypatch.setattr(loop, "evaluate", dictate)
    outcome = toy.run(tmp_path / "run", loop=SHORT)
    assert (outcome.best_step, outcome.valid_accuracy, outcome.valid_loss) == (8, 0.75, 0.9)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert len(seen) == 3
    assert all(torch.equal(saved[name], tensor) for name, tensor in seen[1].items())
    assert saved.keys() == seen[1].keys()


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    toy.run(tmp_path / "run", loop=SHORT)
    with pytest.raises(InputError) as error:
        toy.run(tmp_path / "run", loop=SHORT)
    assert str(error.value) == (
        f"{tmp_path / 'run'}: there is a run in this folder already\n"
        "  hint      continue it with resume (--resume), or name another folder"
    )


def test_resuming_with_other_settings_is_refused_with_the_settings(tmp_path):
    toy.run(tmp_path / "run", loop=SHORT)
    other = dataclasses.replace(SHORT, validate_every=5, log_every=2)
    problem = r"loop.validate_every is 4 there and 5 here; loop.log_every is 1 there and 2 here"
    with pytest.raises(InputError, match=problem):
        toy.run(tmp_path / "run", loop=other, resume=True)


def test_resuming_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no run to resume here"):
        toy.run(tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear all")
    with pytest.raises(InputError, match="not empty and not a run"):
        toy.run(tmp_path)
    for place in (tmp_path / "letter.txt", tmp_path / "letter.txt" / "run"):
        with pytest.raises(InputError, match=r"letter\.txt: is a file, not a folder"):
            toy.run(place)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_absent_accelerator_is_refused_before_anything_is_written(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has what the test needs to be absent")
    with pytest.raises(InputError, match=r"this machine cannot train like that.*CUDA"):
        toy.run(tmp_path / "run", loop=dataclasses.replace(SHORT, accelerator="cuda"))
    assert not (tmp_path / "run").exists()


def test_batches_are_made_outside_of_the_precision(tmp_path, monkeypatch):
    draw, seen = toy.Toy._batch, []

    def drawn(self, number, size):
        seen.append((number >= 90_000, torch.get_default_dtype()))
        return draw(self, number, size)

    class Lazy:
        def __init__(self, problem):
            self.problem = problem

        def __len__(self):
            return 3

        def __getitem__(self, number):
            return self.problem._batch(90_000 + number, 11)

    monkeypatch.setattr(toy.Toy, "_batch", drawn)
    double = dataclasses.replace(SHORT, precision="64-true")
    toy.run(tmp_path / "eager", loop=double)
    monkeypatch.setattr(toy.Toy, "valid_batches", lambda self: Lazy(self))
    toy.run(tmp_path / "lazy", loop=double)
    assert set(seen) == {(False, torch.float32), (True, torch.float32)}
    assert metrics(tmp_path / "lazy") == metrics(tmp_path / "eager")


def test_a_precision_that_the_processor_lacks_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"precision 16-mixed is not for the CPU"):
        toy.run(tmp_path / "run", loop=dataclasses.replace(SHORT, precision="16-mixed"))
    assert not (tmp_path / "run").exists()


def test_divergence_is_reported_and_the_last_good_checkpoint_kept(tmp_path):
    problem = toy.Toy(11, broken_at=7)
    with pytest.raises(InputError, match=r"training diverged: the loss is nan by step 8\n.*checkpoint of step 6"):
        fit(problem, tmp_path / "run", optimizer=toy.OPTIMIZER, loop=SHORT, seed=11, configuration={},
            on_progress=lambda progress: None)  # fmt: skip
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["relational_rnn"]["step"] == 6


class BlownUp(toy.Toy):
    """Its validation is broken from the fourth update on: the training losses say nothing of it."""

    def valid_batches(self):
        batches = super().valid_batches()
        return [batch | {"x": batch["x"] * float("nan")} for batch in batches] if len(self.asked) > 3 else batches


def test_a_validation_that_diverges_ends_the_run_and_leaves_the_checkpoint_and_the_weights_before(tmp_path):
    every_two = dataclasses.replace(SHORT, steps=4, validate_every=2, checkpoint_every=2)

    def go_on(resume: bool) -> None:
        problem = BlownUp(11)
        problem.asked += [0, 1] * resume
        with pytest.raises(DivergedError, match=r"the validation loss is nan after step 4\n.*checkpoint of step 2"):
            fit(problem, tmp_path / "run", optimizer=toy.OPTIMIZER, loop=every_two, seed=11, configuration={},
                resume=resume, on_progress=lambda progress: None)  # fmt: skip

    for resume in (False, True):
        go_on(resume)
        assert [row["step"] for row in metrics(tmp_path / "run")] == ["2"]
        assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["relational_rnn"]["step"] == 2
        assert not (tmp_path / "run" / "summary.json").exists()


def test_a_full_disk_is_one_sentence_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(InputError) as error:
        toy.run(tmp_path / "run")
    monkeypatch.undo()
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["relational_rnn"]["step"]
    assert kept > 0
    assert str(error.value) == (
        f"{tmp_path / 'run'}: cannot be written: No space left on device; the checkpoint of step {kept} is kept\n"
        "  hint      make room, then continue with resume (--resume)"
    )
    assert not list((tmp_path / "run").glob(".*"))  # nothing half-written stays behind
    assert toy.run(tmp_path / "run", resume=True).steps == 60


def press_ctrl_c_at(step: int):
    def listen(progress):
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return listen


def test_ctrl_c_keeps_the_checkpoint_says_how_to_go_on_and_can_be_pressed_again(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as stop:
        toy.run(tmp_path / "run", on_progress=press_ctrl_c_at(24))
    assert str(stop.value) == (
        f"{tmp_path / 'run'}: stopped; the checkpoint of step 21 of 60 is kept\n"
        "  hint      continue with resume (--resume)"
    )
    assert signal.getsignal(signal.SIGINT) is before
    assert toy.run(tmp_path / "run", resume=True).steps == 60


def test_ctrl_c_before_the_first_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="stopped before the first checkpoint"):
        toy.run(tmp_path / "run", on_progress=press_ctrl_c_at(3))
    assert toy.run(tmp_path / "run", resume=True).steps == 60


def ask_to_end_at(step: int):
    def listen(progress):
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return listen


def test_sigterm_saves_the_update_at_hand_and_says_so(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as stop:
        toy.run(tmp_path / "run", on_progress=ask_to_end_at(24))
    assert stop.value.code == 143
    assert str(stop.value) == (
        f"{tmp_path / 'run'}: stopped; the checkpoint of step 24 of 60 is kept\n"
        "  hint      continue with resume (--resume)"
    )
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["relational_rnn"]["step"] == 24
    assert signal.getsignal(signal.SIGTERM) is before
    assert toy.run(tmp_path / "run", resume=True).steps == 60


def test_sigterm_at_the_very_end_leaves_a_finished_run(tmp_path):
    with pytest.raises(Terminated, match="the run of 10 steps is finished"):
        toy.run(tmp_path / "run", loop=SHORT, on_progress=ask_to_end_at(10))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 10


def test_a_scheduler_around_the_process_changes_nothing(tmp_path, monkeypatch):
    for name, value in {"SLURM_NTASKS": "3", "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Terminated, match="the checkpoint of step 5 of 10"):
        toy.run(tmp_path / "run", loop=SHORT, on_progress=ask_to_end_at(5))
    toy.run(tmp_path / "run", loop=SHORT, resume=True)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    def again(progress):
        with pytest.raises(InputError, match="another process trains in this folder"):
            toy.run(tmp_path / "run", loop=SHORT, resume=True)

    toy.run(tmp_path / "run", loop=SHORT, on_progress=again)
    toy.run(tmp_path / "run", loop=SHORT, resume=True)


@pytest.mark.parametrize(
    ("number", "said", "hint"),
    [
        (errno.EROFS, "Read-only file system", "name a folder that can be written"),
        (errno.EACCES, "Permission denied", "name a folder that can be written"),
        (errno.ENOSPC, "No space left on device", "make room, then start it again"),
        (errno.EIO, "Input/output error", None),
    ],
)
@pytest.mark.parametrize("call", ["mkdir", "fsync"])
def test_a_folder_that_cannot_be_written_is_told_as_what_it_is(call, number, said, hint, tmp_path, monkeypatch):
    def refuse(*given, **more):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "mkdir" else os, call, refuse)
        with pytest.raises(InputError) as error:
            toy.run(tmp_path / "new" / "run", loop=SHORT)
    assert str(error.value) == f"{tmp_path / 'new' / 'run'}: cannot be written: {said}" + (
        f"\n  hint      {hint}" if hint else ""
    )
    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_process_are_put_back(tmp_path):
    threaded = dataclasses.replace(SHORT, threads=2)
    seen = []
    toy.run(tmp_path / "run", loop=threaded, on_progress=lambda p: seen.append(
        (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.is_autocast_cache_enabled())
    ))  # fmt: skip
    assert set(seen) == {(2, True, False)}
    assert torch.is_autocast_cache_enabled()
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    with pytest.raises(Stop):
        toy.run(tmp_path / "broken", loop=threaded, on_progress=stop_at(2))
    assert torch.get_num_threads() == 1


def test_nothing_is_said_behind_the_users_back(tmp_path, capsys, caplog):
    toy.run(tmp_path / "run", loop=SHORT)
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == []


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(loop.need_extra.__globals__, "importlib", _WithoutTensorboard)
    with pytest.raises(ImportError, match=r"training needs the package 'tensorboard'.*relational-rnn\[train\]"):
        toy.run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


class _WithoutTensorboard:
    @staticmethod
    def import_module(name: str):
        if name == "tensorboard":
            raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")


def test_a_precision_is_obeyed(tmp_path):
    toy.run(tmp_path / "run", loop=dataclasses.replace(SHORT, precision="bf16-mixed"))
    toy.run(tmp_path / "plain", loop=SHORT)
    assert metrics(tmp_path / "run") != metrics(tmp_path / "plain")
    assert to_json(SHORT) != json.loads((tmp_path / "run" / "config.json").read_text())["loop"]
