"""The file that a stopped benchmark goes on from, and the results that it ends in."""

import dataclasses
import json
from pathlib import Path

import pytest

from relational_rnn import InputError
from relational_rnn.benchmarks.record import Measured, Record, open_record, partial_path
from relational_rnn.benchmarks.running import describe_all
from relational_rnn.benchmarks.shapes import QUICK, Benchmark, Case

ABOUT = {
    "machine": "2-core CPU (Test, AVX2)",
    "threads": 2,
    "dtype": "float32",
    "versions": {"torch": "2.13.0"},
    "commit": "0123abc",
    "quick": False,
}
CASE = Case(name="c", shape=QUICK, run="train")


def measured(**changes) -> Measured:
    entries = {
        "done": True,
        "matmul_gflops": 100.0,
        "chosen": "cpu",
        "facts": {"nn.LSTM": {"parameters": 7, "state_bytes": 16, "flop": 2e9}},
        "samples": {"nn.LSTM": [0.05, 0.04, 0.09]},
        "peaks": {"nn.LSTM": [3.25, 1.5]},
    }
    return Measured(**{**entries, **changes})


def test_a_row_is_in_the_published_format(tmp_path):
    record, finished = open_record(tmp_path, ABOUT, "2026-01-31")
    assert not finished
    record.cases[CASE.key] = measured()
    path = record.finish([CASE], {"command": "relational-rnn benchmark"})
    assert path.name == "2026-01-31_2-core-cpu-test-avx2.json"
    results = json.loads(path.read_text())
    assert results["tests_green"] is True
    assert (results["machine"], results["threads"], results["dtype"]) == ("2-core CPU (Test, AVX2)", 2, "float32")
    assert (results["versions"], results["commit"], results["matmul_gflops"]) == ({"torch": "2.13.0"}, "0123abc", 100.0)
    (row,) = results["rows"]
    expected = {
        "shape": "c",
        "pass": "train",
        "contender": "nn.LSTM",
        "median_ms": 50.0,
        "min_ms": 40.0,
        "max_ms": 90.0,
        "runs": 3,
        "share_of_matmul": 0.4,  # 2 GFLOP in 50 ms are 40 of 100 GFLOP/s
        "peak_mib": 3.25,
    }
    assert {name: row[name] for name in expected} == expected
    assert row["samples_per_second"] == QUICK.batch / 0.05


def test_a_stopped_benchmark_goes_on_from_its_file_on_another_day(tmp_path):
    record, _ = open_record(tmp_path, ABOUT, "2026-01-31")
    record.cases[CASE.key] = measured(done=False)
    record.seconds = 12.5
    record.save()
    again, finished = open_record(tmp_path, ABOUT, "2026-02-01")
    assert not finished
    assert (again.date, again.seconds, again.cases) == ("2026-01-31", 12.5, record.cases)
    again.cases[CASE.key].done = True
    again.finish([CASE], {})
    assert [path.name for path in tmp_path.iterdir()] == ["2026-01-31_2-core-cpu-test-avx2.json"]
    assert open_record(tmp_path, ABOUT, "2026-01-31")[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.clear(), "lacks about, date, seconds, cases, training"),
        (lambda content: content.update(cases=[]), "cases has the wrong type"),
        (lambda content: content["cases"].update({CASE.key: {"done": True}}), "lacks seconds, matmul_gflops"),
        (lambda content: content["cases"][CASE.key].update(samples={"nn.LSTM": "x"}), "samples.nn.LSTM has the wrong"),
    ],
)
def test_a_damaged_file_of_a_stopped_benchmark_is_refused(change, said, tmp_path):
    record, _ = open_record(tmp_path, ABOUT, "2026-01-31")
    record.cases[CASE.key] = measured(done=False)
    record.save()
    content = json.loads(partial_path(record.path).read_text())
    change(content)
    partial_path(record.path).write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        open_record(tmp_path, ABOUT, "2026-02-01")


def test_other_settings_are_refused_with_what_differs(tmp_path):
    record, _ = open_record(tmp_path, ABOUT, "2026-01-31")
    record.save()
    with pytest.raises(InputError, match="holds a stopped benchmark: threads is 2 there and 1 here") as error:
        open_record(tmp_path, {**ABOUT, "threads": 1}, "2026-01-31")
    assert str(partial_path(record.path)) in str(error.value)
    record.cases[CASE.key] = measured()
    finished = Record(about={**ABOUT}, date="2026-01-31", path=record.path, cases=record.cases)
    finished.finish([CASE], {})
    settings = json.loads(record.path.read_text())
    assert settings["settings"] == ABOUT
    with pytest.raises(InputError, match="commit is '0123abc' there and '4567def' here"):
        open_record(tmp_path, {**ABOUT, "commit": "4567def"}, "2026-01-31")


@pytest.mark.parametrize(
    "change",
    [
        {"shapes": ("c",)},
        {"sweeps": ("T",)},
        {"threads": 1},
        {"dtype": "bfloat16", "recipe": None, "data": None},
        {"budget_seconds": 5.0},
        {"runs": 3},
        {"quick": True},
        {"recipe": "babi"},
        {"recipe_steps": 7},
        {"data": Path("other")},
        {"partial": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_option_that_decides_figures_is_among_the_settings(change):
    base = Benchmark(threads=2, recipe="demo", data=Path("stories"))
    other = dataclasses.replace(base, **change)
    settings = [describe_all(given) for given in (base, other)]
    assert settings[0] != settings[1]


def test_another_machine_has_a_file_of_its_own(tmp_path):
    record, _ = open_record(tmp_path, ABOUT, "2026-01-31")
    record.save()
    other, finished = open_record(tmp_path, {**ABOUT, "machine": "8-core CPU"}, "2026-01-31")
    assert not finished
    assert other.path.name == "2026-01-31_8-core-cpu.json"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    place = tmp_path / "results"
    place.write_text("mine")
    with pytest.raises(InputError, match="this is a file, not a folder for results"):
        open_record(place, ABOUT, "2026-01-31")
