"""Runs that train at the same time, each in a process of its own."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning_fabric")

import language_runs
import little_runs
import playing
from playing import BASE, start, wait_for

from relational_rnn import InputError
from relational_rnn.runs import TuningConfig, compare, train
from relational_rnn.runs.comparing import train_side_by_side
from relational_rnn.training import DivergedError, read_metrics


def is_gone(pid: int) -> bool:
    """Whether a process ends within ten seconds; one that nobody has asked for its exit code (Z) has ended."""
    for _ in range(1000):
        shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
        if shown.strip()[:1] in ("", "Z"):
            return True
        time.sleep(0.01)
    return False


def test_as_many_as_there_are_jobs_run_at_a_time_each_with_its_share_of_the_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    ended = list(start(tmp_path, "first", "second", "third"))
    assert [(path.name, error) for path, error in ended[2:]] == [("third", None)]
    assert sorted(path.name for path, _ in ended[:2]) == ["first", "second"]
    assert [error for _, error in ended] == [None] * 3
    pids = {int((path / "pid").read_text()) for path, _ in ended}
    assert len(pids | {os.getpid()}) == 4
    assert (tmp_path / "first" / "threads").read_text() == "3 False 7"
    assert (tmp_path / "second" / "threads").read_text() == "3 True 7"


def test_an_error_that_is_a_sentence_comes_back_and_who_gives_up_ends_the_others(tmp_path):
    ended = start(tmp_path, "forever", "diverges", jobs=2)
    path, error = next(ended)
    assert path.name == "diverges"
    assert isinstance(error, DivergedError)
    wait_for(tmp_path / "forever" / "threads")
    ended.close()
    assert is_gone(int((tmp_path / "forever" / "pid").read_text()))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("killed", InputError, "killed: the process that trained this run has ended with code -9\n  hint "),
        ("mistaken", RuntimeError, "mistaken: the process that trained this run has failed"),
    ],
)
def test_a_process_that_ends_without_a_word_is_told_of(name, kind, message, tmp_path):
    with pytest.raises(kind, match=message):
        list(start(tmp_path, name))
    assert ("ZeroDivisionError" in (tmp_path / name / "said").read_text()) == (name == "mistaken")


@pytest.mark.parametrize(
    "ended_by",
    # the others end like one that gives up, whose test is above; each takes two processes that import everything
    [signal.SIGKILL, *(pytest.param(s, marks=pytest.mark.slow) for s in (signal.SIGINT, signal.SIGTERM))],
)
def test_no_process_outlives_the_one_that_started_it(ended_by, tmp_path):
    script = [sys.executable, playing.__file__, str(tmp_path)]
    with subprocess.Popen(script, stderr=subprocess.PIPE, text=True) as parent:
        wait_for(tmp_path / "forever" / "threads")
        parent.send_signal(ended_by)
        _, said = parent.communicate(timeout=60)
    assert parent.returncode == -ended_by
    assert ("KeyboardInterrupt" in said) == (ended_by == signal.SIGINT)
    assert is_gone(int((tmp_path / "forever" / "pid").read_text()))


def test_sigterm_has_every_process_of_a_comparison_save_a_checkpoint(tmp_path):
    script = [sys.executable, playing.__file__, str(tmp_path), "compare"]
    with subprocess.Popen(script, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stderr is not None
        waiting = {"gru-0", "rnn-0"}
        while waiting:
            line = parent.stderr.readline()
            assert line, "the comparison has ended by itself"
            waiting -= {line.split(" ")[0]}
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=60) == 143
    for name in ("gru-0", "rnn-0"):
        assert 0 < torch.load(tmp_path / name / "last.ckpt", weights_only=True)["relational_rnn"]["step"] < 10**6
        assert not list((tmp_path / name).glob(".*"))


def figures(folder: Path) -> list[dict[str, str]]:
    rows = read_metrics(folder / "metrics.csv")
    return [{name: cell for name, cell in row.items() if "seconds" not in name} for row in rows]


def test_a_comparison_of_several_jobs_ends_as_one_of_one_job(tmp_path):
    tuning = TuningConfig(learning_rates=(1e-2, 1e38), steps=6)  # the second one diverges
    trials, accuracies, done = {1: [], 2: []}, {}, []
    for jobs in (1, 2):
        found = compare(
            BASE,
            ["gru"],
            [3, 0],
            tmp_path / str(jobs),
            tuning=tuning,
            jobs=jobs,
            on_trials=trials[jobs].extend,
            on_run=lambda path, _: done.append(path.name),
        )
        assert [path.name for path in found] == ["gru-3", "gru-0"]
        accuracies[jobs] = [evaluation.mean_accuracy for evaluation in found.values()]
    assert trials[1] == trials[2]
    assert accuracies[1] == accuracies[2]
    assert trials[1][1].valid_loss is None
    assert sorted(done) == ["gru-0", "gru-0", "gru-3", "gru-3"]
    for name in ("gru-3", "gru-0", "trials/gru-0.01"):
        assert figures(tmp_path / "1" / name) == figures(tmp_path / "2" / name)
    done.clear()  # what is done is not done again
    again = compare(
        BASE, ["gru"], [3, 0], tmp_path / "2", tuning=tuning, jobs=2, on_run=lambda path, _: done.append(path.name)
    )
    assert done == ["gru-3", "gru-0"]
    assert again == found


def test_stories_and_texts_are_compared_side_by_side_too_and_told_of_once(tmp_path):
    said: list[str] = []
    data = little_runs.write_files(tmp_path / "stories")
    compare(
        little_runs.little_run(data, steps=4), ["gru", "rnn"], [0], tmp_path / "babi", jobs=2, on_report=said.append
    )
    assert [line.split(":")[0] for line in said] == ["task 1", "task 6"]  # not once for each run
    said.clear()
    one = tmp_path / "one"
    train(little_runs.little_run(data, steps=4), one, on_progress=little_runs.quiet, on_report=said.append)
    assert len(said) == 2
    assert (one / "vocabulary.json").read_bytes() == (tmp_path / "babi" / "gru-0" / "vocabulary.json").read_bytes()
    text = language_runs.write_text(tmp_path / "text.txt")
    config = language_runs.little_run(text)
    found = compare(config, ["gru", "rnn"], [0], tmp_path / "texts", jobs=2, on_report=said.append)
    alone = compare(config, ["gru"], [0], tmp_path / "alone", on_report=language_runs.silent)
    assert [e.loss for e in alone.values()] == [next(iter(found.values())).loss]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"jobs": 0}, "jobs must be a whole number of at least 1"),
        ({"jobs": 2, "on_progress": print}, "on_progress cannot be called from the processes"),
    ],
)
def test_jobs_that_cannot_be_are_refused(wrong, message, tmp_path):
    with pytest.raises(InputError, match=f"compare: {message}"):
        compare(BASE, ["gru"], [0], tmp_path / "x", **wrong)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("error", [EOFError("unexpected EOF"), ConnectionResetError()])
def test_that_the_process_is_gone_which_others_are_started_from_is_said(error, tmp_path, monkeypatch):
    class Context:
        Pipe = staticmethod(multiprocessing.Pipe)

        class Process:
            def __init__(self, **arguments):
                pass

            def start(self):
                raise error

    monkeypatch.setattr("relational_rnn.runs.comparing.process_context", lambda name: Context)
    runs = {tmp_path / "a": None}
    with pytest.raises(InputError, match="a: the process that trainings are started from was killed\n  hint "):
        list(train_side_by_side(runs, train=print, resumed={tmp_path / "a": False}, jobs=2))
