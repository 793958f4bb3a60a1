"""The figures of docs/cost.md are those of the results that it was made from."""

import json
from pathlib import Path

import pytest
from scripts import load

from relational_rnn.benchmarks.record import Measured, Record
from relational_rnn.benchmarks.shapes import SWEEP_NAMES, cases, memory_flop
from relational_rnn.reports import read_benchmark
from relational_rnn.reports.benchmark import TRAINING

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def maker():
    return load(ROOT / "docs" / "make_cost.py")


def made_up(folder: Path) -> Path:
    """Results whose figures are easy to tell: a pass takes T^power milliseconds."""
    names = {"relational_rnn:cpu": 1.0, "nn.LSTM": 1.0, "nn.TransformerEncoder": 2.0}
    plan = cases((), SWEEP_NAMES, quick=True)
    record = Record(
        about={"machine": "M", "threads": 1, "dtype": "float32", "versions": {}, "commit": "0", "quick": True,
               "device": "cpu"},
        date="2026-01-31", path=folder / "2026-01-31_m.json",
    )  # fmt: skip
    for case in plan:
        found = ("relational_rnn:cpu", "relational_rnn:cpu, recompute") if case.sweep == "recompute" else tuple(names)
        flop = memory_flop(case.shape)
        record.cases[case.key] = Measured(
            done=True,
            matmul_gflops=50.0,
            facts={name: {"parameters": 5, "state_bytes": 8, "flop": flop} for name in found},
            samples={name: [1e-3 * case.shape.steps ** names.get(name, 1.0)] for name in found},
            peaks={name: [2.0 + case.shape.steps ** (0.5 if "recompute" in name else 1.0), 2.0] for name in found},
        )
    return record.finish(plan, {})


def test_the_page_is_made_from_the_results_that_it_names(maker):
    page = maker.PAGE.read_text(encoding="utf-8")
    path = maker.source(page)
    results = None if path is None else read_benchmark(path)
    assert page == maker.render(page, results), "run `python docs/make_cost.py`"
    for sweep in SWEEP_NAMES:
        assert maker.figure(sweep).exists() == (results is not None)


def test_growth_stands_beside_what_was_counted(maker, tmp_path):
    results = read_benchmark(made_up(tmp_path))
    assert results.per_step_growth() == {
        "relational_rnn:cpu": (4, 16, 1.0), "nn.LSTM": (4, 16, 1.0), "nn.TransformerEncoder": (4, 16, 4.0),
    }  # fmt: skip
    assert "| nn.TransformerEncoder | 4 to 16 | x 4 | x 4 | x 16 | x 3 |" in maker.counted(results)
    growth = maker.memory_growth(results)
    assert "| relational_rnn:cpu | 8 to 32 | x 4 | x 2 | x 4 |" in growth
    assert "| relational_rnn:cpu, recompute | 8 to 32 | x 4 | x 2 | x 2 |" in growth


def test_every_block_is_filled_and_filling_twice_changes_nothing(maker, tmp_path, monkeypatch):
    results = read_benchmark(made_up(tmp_path))
    monkeypatch.setattr(maker, "ROOT", tmp_path)
    page = maker.render(maker.PAGE.read_text(encoding="utf-8"), results)
    assert "Not measured yet." not in page
    assert maker.render(page, results) == page
    assert maker.source(page) == tmp_path / "2026-01-31_m.json"
    assert page.count(".svg)") == len(SWEEP_NAMES)
    for row in json.loads((tmp_path / "2026-01-31_m.json").read_text())["rows"]:
        assert f"{row['median_ms']:.3g}" in page


def test_goals_are_judged_by_the_figures(maker, tmp_path):
    """Three times as fast as the port, two thirds of the matmul rate: c misses the first goal and meets the second."""

    others = ("runs", "parameters", "state_bytes", "min_ms", "max_ms", "samples_per_second", "peak_mib")
    rest = dict.fromkeys(others, 1)

    def row(shape, run, contender, ms, share=0.1):
        return {"shape": shape, "pass": run, "contender": contender, "median_ms": ms, "share_of_matmul": share, **rest}

    rows = [
        row("c", "train", "relational_rnn:cpu", 10.0, 0.65),
        row("c", "train", "relational_rnn:competing slots", 12.0, 0.65),
        row("c", "train", "L0SG", 30.0),
        row("c", "infer", "relational_rnn:cpu", 1.0),
        row("a", "train", "relational_rnn:cpu", 10.0, 0.8),
        row("g", "train", "relational_rnn:cpu", 10.0, 0.5),
        row("g", "train", "relational_rnn:reference", 70.0),
        row("d", "step", "relational_rnn:step", 0.0712),
        row("d", "step", "nn.LSTM", 0.2),
        row("h", "step", "relational_rnn:step", 0.05),
    ]
    trained = [
        {
            **dict.fromkeys(TRAINING, 1.0),
            "recipe": "babi",
            "contender": f"relational_rnn:{name}",
            "steps_per_second": speed,
        }
        for name, speed in (("reference", 10.0), ("cpu", 18.0))
    ]
    path = made_up(tmp_path)
    path.write_text(
        json.dumps(
            json.loads(path.read_text()) | {"rows": rows, "shapes": {name: {} for name in "acdgh"}, "training": trained}
        )
    )
    lines = [line for line in maker.goals(read_benchmark(path)).splitlines() if not line.startswith("| ---")]
    assert lines[1:] == [
        "| a, training pass | 85 % of the matmul rate | 80 % | missed | 85 % |",
        "| c, training pass | 6 x the L0SG port | 3.00 x | missed | 130 % |",
        "| c, training pass | 60 % of the matmul rate | 65 % | met | 60 % |",
        "| c, training pass, competing slots | 1.15 x the original's time | 1.20 x | missed |  |",
        "| g, training pass | 40 % of the matmul rate | 50 % | met | 40 % |",
        "| g, training pass | 6 x the plain loop | 7.0 x | met |  |",
        "| c, inference | 55 % of the matmul rate | 10 % | missed | 55 % |",
        "| d, one step | 0.08 ms | 0.0712 ms | met |  |",
        "| h, one step | 0.04 ms | 0.05 ms | missed |  |",
        "| a whole training | 1.7 x the plain loop's steps per second | 1.80 x | met |  |",
        "| a whole training | 5 % of the time waiting for data | 100.0 % | missed |  |",
    ]
