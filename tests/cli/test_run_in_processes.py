"""A run in two processes is that in one, through the command."""

from __future__ import annotations

import csv

import pytest


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        table = [{name: cell for name, cell in row.items() if "seconds" not in name} for row in csv.DictReader(file)]
    return [{name: float(cell or 0) for name, cell in row.items()} for row in table]


def test_a_run_in_two_processes_has_the_numbers_of_one(call, tiny, tmp_path):
    given = ["--loop.steps", 4, "--loop.precision", "64-true", "--model.dropout", 0, "--loop.threads", 1]
    for processes in (1, 2):
        ending = call("train", "babi", *tiny, *given, "--loop.processes", processes, "--out", tmp_path / str(processes))
        assert ending.code == 0, ending.err
    one, two = (rows(tmp_path / name) for name in ("1", "2"))
    assert len(one) == len(two) >= 1
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert "processes" not in (tmp_path / "1" / "config.json").read_text()
