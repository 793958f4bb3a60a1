"""This checkout beside another commit of it."""

import json
import subprocess

import pytest

from relational_rnn import InputError
from relational_rnn.benchmarks import Benchmark, against
from relational_rnn.benchmarks.against import ROOT, compare, figures, wanted
from relational_rnn.benchmarks.shapes import cases
from relational_rnn.benchmarks.side import build
from relational_rnn.cli import main

SETTING = Benchmark(shapes=("d", "h"), sweeps=(), quick=True, runs=3, threads=1)


def test_every_named_shape_can_be_asked_for():
    for case in cases(("c", "d", "g", "h"), (), quick=True):
        for _, call in wanted(case):
            first, *gradients = build(**call)()
            assert first.isfinite().all()
            assert bool(gradients) == (case.run == "train")


def test_ratios_are_of_pairs_and_results_are_compared():
    samples = {"here": [1.0, 2.0, 4.0], "base": [2.0, 4.0, 4.0]}
    found = figures(samples, {"here": {"squares": [1.0, 2.0]}, "base": {"squares": [1.0, 2.0001]}})
    assert found["times_as_fast"] == 2.0
    assert (found["base_ms"], found["here_ms"], found["runs"]) == (4000.0, 2000.0, 3)
    assert found["same_results"]
    other = {"here": {"squares": [1.0]}, "base": {"squares": [1.1]}}
    assert not figures(samples, other)["same_results"]


@pytest.mark.slow  # the other commit's kernels are compiled
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_the_commit_at_hand_computes_the_same(tmp_path, compiled):
    before = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    path, rows = compare(SETTING, "HEAD", tmp_path)
    assert [row["core"] for row in rows] == ["relational memory", "competing slots", "fast weights"]
    assert all(row["same_results"] and row["runs"] == 3 for row in rows)
    assert json.loads(path.read_text())["rows"] == rows
    after = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert after == before


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_an_unknown_commit_and_a_package_without_a_checkout_are_refused(tmp_path, monkeypatch, capsys):
    assert main(["benchmark", "--base", "no-such-commit"]) == 2
    assert "there is no such commit" in capsys.readouterr().err
    assert main(["benchmark", "--base", "HEAD", "--sweeps", "T"]) == 2
    assert "has no place beside --base" in capsys.readouterr().err
    monkeypatch.setattr(against, "ROOT", tmp_path)
    with pytest.raises(InputError, match="does not lie in a checkout"):
        compare(SETTING, "HEAD", tmp_path)
