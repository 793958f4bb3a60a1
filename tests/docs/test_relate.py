"""docs/relate.md says what the results files say."""

import json
import re
from pathlib import Path

import pytest
from scripts import load

from relational_rnn.nn.cores import CORES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def maker():
    return load(ROOT / "docs" / "make_relate.py")


def record(core: str, values: list[float], **entries: object) -> dict[str, object]:
    value, spread = sum(values) / len(values), 0.0 if len(values) == 1 else 0.125
    costs = {"parameters": 12_345, "state_bytes": 1_024, "train_seconds": 77.4}
    return {"core": core, "value": value, "spread": spread, "values": values, "details": {}, **costs, **entries}


@pytest.fixture
def results(maker, tmp_path):
    relations = [
        record("lstm", [0.5], details={"mean_beyond": 0.25}),
        record("rmc", [0.5, 1.0], processor_seconds=31.0, details={"mean_beyond": 0.625}),
        {"core": "STM", "published": "someone 2020", "value": 0.9, "values": [0.9], "spread": 0.0, "details": {}},
    ]
    (tmp_path / "relations.json").write_text(json.dumps(relations))
    (tmp_path / "babi.json").write_text(json.dumps([record("gru", [0.75]), record("ntm", [0.625])]))
    return maker.read(tmp_path)


def test_the_tables_have_every_core_and_task_once(maker, results):
    assert maker.accuracies(results).splitlines() == [
        "| core | [relations](results/relations.md) | [bAbI](results/babi.md) |",
        "| --- | --- | --- |",
        "| RMC | 75.0 ± 12.5 (2 seeds) |  |",
        "| GRU |  | 75.0 |",
        "| LSTM | 50.0 |  |",
        "| NTM |  | 62.5 |",
    ]
    assert maker.beyond(results).splitlines()[2:] == ["| RMC | 62.5 |", "| LSTM | 25.0 |"]
    assert maker.costs(results).splitlines()[2:] == [
        "| relations | RMC | 12,345 | 1,024 | 31 | 77 |",
        "| relations | LSTM | 12,345 | 1,024 |  | 77 |",
        "| bAbI | GRU | 12,345 | 1,024 |  | 77 |",
        "| bAbI | NTM | 12,345 | 1,024 |  | 77 |",
    ]


def test_the_figure_names_tasks_and_cores(maker, results):
    pytest.importorskip("matplotlib")
    svg = maker.drawing(results)
    assert all(f">{word}<" in svg for word in ("relations", "bAbI", "RMC", "GRU", "LSTM", "75", "50"))


def test_the_page_is_that_of_the_results(maker):
    page = maker.PAGE.read_text(encoding="utf-8")
    results = maker.read(ROOT / "docs" / "results")
    assert set(re.findall(r"<!-- made: (\w+) -->", page)) == set(maker.MADE)
    assert maker.render(page, results) == page, "run `python docs/make_relate.py`"


def test_the_table_of_the_readme_is_made_of_these_figures(maker):
    results = maker.read(ROOT / "docs" / "results")
    stems = ("nth-farthest", "nth-farthest-8x16", "relations", "associative-recall", "programs-program-small")
    lines = (
        (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Other tasks\n")[1].split("\n## ")[0].splitlines()
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    assert rows
    labels = {"relational memory": "RMC", "LSTM + attention over its states": "LSTM + attention"}
    cores = {core.label: name for name, core in CORES.items()}
    for label, *cells, state in rows:
        core = cores[labels.get(label, label)]
        table = maker.accuracies({stem: {core: results[stem].get(core)} for stem in stems}).splitlines()[2]
        shown = [cell.split(" (")[0].strip() for cell in table.strip("|").split("|")[1:]]
        assert cells == shown, label
        assert state == f"{results['nth-farthest'][core]['state_bytes']:,}"
