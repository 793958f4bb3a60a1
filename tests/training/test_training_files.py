"""Files are whole or absent."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import resource
from pathlib import Path

import pytest
import torch

from relational_rnn import InputError
from relational_rnn._files import sweep, write_json, write_together, write_whole
from relational_rnn._reading.json_text import read_json, read_json_object
from relational_rnn.training import METRICS_COLUMNS, ConsoleProgress, Measure, Progress, Totals, read_metrics


def test_a_write_that_does_not_fit_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.bin"
    write_whole(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(path, b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_json_goes_there_and_back(tmp_path):
    content = {"a": [1, 2.5, None, True, "ü"]}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "y.json", float("nan"))
    assert not (tmp_path / "y.json").exists()


@pytest.mark.parametrize("content", [b"{", b"", b"NaN"])
def test_unreadable_json_is_refused_by_name(content, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: is not readable JSON"):
        read_json(tmp_path / "x.json")


def test_absent_and_unexpected_json_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"x\.json: cannot be read: No such file"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match=r"x\.json: must hold a JSON object"):
        read_json_object(tmp_path / "x.json")


def test_metrics_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"metrics\.csv: has other columns"):
        read_metrics(path)
    for columns in (METRICS_COLUMNS, METRICS_COLUMNS[:-1], METRICS_COLUMNS[:-2]):  # older files lack the last ones
        path.write_text(",".join(columns) + "\n" + ",".join("1234567890"[: len(columns)]) + "\n")
        assert read_metrics(path) == [dict(zip(columns, "1234567890", strict=False))]


@pytest.mark.parametrize(
    ("column", "cell", "kind"),
    [
        ("step", "4.0", "whole number"),
        ("step", "4e0", "whole number"),
        ("questions_seen", "-1", "whole number"),
        ("lesson", "1.5", "whole number"),
        ("seconds", "nan", "time"),
        ("seconds", "-1", "time"),
        ("processor_seconds", "inf", "time"),
    ],
)
def test_a_count_or_a_time_that_is_none_is_refused(column, cell, kind, tmp_path):
    path = tmp_path / "metrics.csv"
    row = dict.fromkeys(METRICS_COLUMNS, "2") | {"valid_loss": "inf"}
    for cells in (row, row | {"processor_seconds": "", "lesson": ""}):
        path.write_text(",".join(METRICS_COLUMNS) + "\n" + ",".join(cells.values()) + "\n")
        assert read_metrics(path) == [cells]
    path.write_text(",".join(METRICS_COLUMNS) + "\n" + ",".join((row | {column: cell}).values()) + "\n")
    with pytest.raises(InputError, match=rf"metrics\.csv: line 2 has no {kind} under '{column}'\n  got       '{cell}'"):
        read_metrics(path)


def test_totals_count_by_group_and_weigh_groups_alike():
    totals = Totals()
    totals.add(Measure(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, False, True]), torch.tensor([4, 4, 9])))
    totals.add(Measure(torch.tensor([6.0]), torch.tensor([False]), torch.tensor([9])))
    totals.add(Measure(torch.tensor([0.0, 0.0]), torch.tensor([False, False]), torch.tensor([4, 4])))
    assert totals.loss == 2.0
    assert totals.count == 6
    assert totals.group_accuracy == {4: 0.25, 9: 0.5}
    assert totals.accuracy == 0.375
    again = Totals()
    again.load_state_dict(totals.state_dict())
    assert (again.loss, again.count, again.group_accuracy) == (2.0, 6, {4: 0.25, 9: 0.5})


def progress(step: int) -> Progress:
    return Progress(step=step, steps=4000, seconds=61.0, steps_per_second=10.0, train_loss=1.5, train_accuracy=0.25,
                    valid_accuracy=None if step < 500 else 0.5)  # fmt: skip


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal():
    stream = io.StringIO()
    with ConsoleProgress("rmc", stream=stream, interval=1000.0) as show:
        for step in (10, 20, 4000):
            show(progress(step))
    assert stream.getvalue() == (
        "rmc  step 10/4,000  6:39 left  10.0/s  loss 1.500\n"
        "rmc  step 4,000/4,000  0:00 left  10.0/s  loss 1.500  valid 50.0%\n"
    )


def test_progress_is_a_bar_on_a_terminal():
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with ConsoleProgress("transformer", stream=stream) as show:
        show(progress(2000))
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    (line,) = {line for line in plain.splitlines() if "2000" in line}
    assert line.endswith("2000/4000 3:20 left 10.0/s  loss 1.500  valid 50.0%")
    assert len(line) <= 80


def test_a_name_is_no_markup_beside_the_bar():
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with ConsoleProgress("[/] [red]x", stream=stream) as show:
        show(progress(2000))
    assert "[/] [red]x" in stream.getvalue()


def test_files_that_belong_together_are_written_together_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_together({tmp_path / "a": "new", tmp_path / "deep" / "er" / "b": "new"})
    assert error.value.filename == str(tmp_path / "deep" / "er" / "b")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}
    write_together({tmp_path / "a": "new", tmp_path / "deep" / "er" / "b": b"new"})
    assert (tmp_path / "a").read_text() == (tmp_path / "deep" / "er" / "b").read_text() == "new"


def test_a_file_system_that_only_reads_is_told_of_the_file_that_was_asked_for(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)  # of a file that is not there, too
    with pytest.raises(OSError, match="Read-only") as error:
        write_whole(tmp_path / "page.html", "text")
    assert error.value.filename == str(tmp_path / "page.html")


def test_parts_of_living_processes_stay_unless_nobody_else_can_be_writing(tmp_path):
    dead, alive, own = (f".x.{number}.part" for number in (999_999_999, os.getppid(), os.getpid()))
    for name in (dead, alive, own, "x.5.part", ".x.part"):
        (tmp_path / name).write_text("half")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {alive, own, "x.5.part", ".x.part"}
    sweep(tmp_path, alone=True)
    assert {path.name for path in tmp_path.iterdir()} == {"x.5.part", ".x.part"}
