"""results holds what the pages of results are made from."""

import json
from pathlib import Path

import pytest
from scripts import load

from relational_rnn.runs import read_run

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "results"
PAGES = sorted({path.parent.parent.name for path in KEPT.glob("*/*/config.json")})


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_its_runs_say(page):
    records = json.loads((ROOT / "docs" / "results" / f"{page}.json").read_text(encoding="utf-8"))
    ours = {
        (record["core"], seed): value
        for record in records
        if "published" not in record
        for seed, value in zip(record["seeds"], record["values"], strict=True)
    }
    runs = [read_run(folder) for folder in sorted((KEPT / page).iterdir())]
    assert {(run.core, run.seed): (run.result or {})["mean_accuracy"] for run in runs} == ours


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_a_heading_of_its_own(page):
    heading = (ROOT / "docs" / "results" / f"{page}.md").read_text(encoding="utf-8").splitlines()[0]
    assert heading.startswith("# ")
    assert not heading.endswith("relational-rnn: report"), "the one that report gives unasked: --title"


def test_runs_are_kept_without_weights_and_folder_names(tmp_path):
    keep_runs = load(ROOT / "experiments" / "keep_runs.py")
    run = tmp_path / "rmc-0"
    run.mkdir()
    for name in ("metrics.csv", "result.json", "model.safetensors"):
        (run / name).write_text(name)
    (run / "config.json").write_text(json.dumps({"data": {"path": "/home/someone/stories.tar.xz"}, "seed": 0}))
    where = "--out '/home/someone/my runs/rmc-0' --data=/home/someone/set.tar.xz --extra ~someone"
    command = {"command": f"relational-rnn train relations --seed 0 {where} --data.form objects"}
    resumed = {"command": "relational-rnn train --resume /home/someone/rmc-0"}
    (run / "versions.json").write_text(json.dumps({**command, "resumed": [resumed]}))
    (copy,) = keep_runs.keep("relations", [run], tmp_path / "kept")
    assert copy == tmp_path / "kept" / "relations" / "rmc-0"
    assert {path.name for path in copy.iterdir()} == {"config.json", "metrics.csv", "result.json", "versions.json"}
    assert (copy / "metrics.csv").read_text() == "metrics.csv"
    assert json.loads((copy / "config.json").read_text()) == {"data": {"path": "stories.tar.xz"}, "seed": 0}
    kept = "relational-rnn train relations --seed 0 --data PATH --extra PATH --data.form objects"
    assert "someone" not in (copy / "versions.json").read_text()
    assert json.loads((copy / "versions.json").read_text())["command"] == kept


def test_of_a_run_that_is_not_evaluated_nothing_is_kept(tmp_path):
    keep_runs = load(ROOT / "experiments" / "keep_runs.py")
    run = tmp_path / "rmc-0"
    run.mkdir()
    for name in ("metrics.csv", "config.json", "versions.json"):
        (run / name).write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"result\.json"):
        keep_runs.keep("relations", [run], tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
