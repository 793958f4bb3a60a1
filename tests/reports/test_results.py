"""Results that stand twice: the Markdown page and the JSON file say the same."""

import json

import pytest

from relational_rnn import InputError
from relational_rnn.reports import Record, group_runs, read_runs, records_of, write_results
from relational_rnn.runs import Run, workload_of

BABI = workload_of("babi")


@pytest.fixture
def records(make_run):
    facts = {
        "torch": "2.13.0",
        "machine": "2-core CPU (test)",
        "commit": "0123abc",
        "command": "relational-rnn train --out /home/me/r",
    }
    folders = [
        make_run("r0", per_task={1: 1.0, 2: 0.5}, train_seconds=100, versions=facts | {"date": "2026-01-31"}),
        make_run("r1", seed=1, per_task={1: 0.8, 2: 0.3}, train_seconds=120, versions=facts | {"date": "2025-12-09"}),
        make_run("l0", core="lstm", seed=7, per_task={1: 0.25, 2: 0.75}),
    ]
    return records_of(group_runs(read_runs(folders)), task="babi-en-10k", notes=["a busy machine"])


def test_the_json_has_the_entries_of_the_format(records, tmp_path):
    _, data = write_results(tmp_path / "docs" / "babi", records, BABI, title="bAbI")
    rmc, lstm = json.loads(data.read_text(encoding="utf-8"))
    assert rmc["value"] == pytest.approx(0.65)
    assert rmc["spread"] == pytest.approx(0.2 / 2**0.5)
    assert rmc["values"] == pytest.approx([0.75, 0.55])
    assert rmc["details"]["per_task"] == pytest.approx({"1": 0.9, "2": 0.4})
    assert rmc["details"]["notes"] == ["task 3: 385 of 2,000 stories", "a busy machine"]
    rest = {name: value for name, value in rmc.items() if name not in ("value", "spread", "values", "details")}
    assert rest == {
        "task": "babi-en-10k",
        "core": "rmc",
        "metric": "test_accuracy",
        "seeds": [0, 1],
        "parameters": 1234,
        "state_bytes": 4096,
        "train_seconds": 110.0,
        "machine": "2-core CPU (test)",
        "torch": "2.13.0",
        "commit": "0123abc",
        "date": "2026-01-31",
        "command": "relational-rnn train",
    }
    assert (lstm["values"], lstm["spread"], lstm["seeds"]) == ([0.5], 0.0, [7])


def test_the_page_has_mean_spread_seeds_and_the_link_to_its_json(records, tmp_path):
    page, data = write_results(tmp_path / "babi", records, BABI, title="bAbI")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# bAbI\n\n| task |")
    assert "| babi-en-10k | RMC | 65.0 ± 14.1 | 0.5 | 0, 1 | 1,234 | 4,096 | 110 |" in text
    assert "| babi-en-10k | LSTM | 50.0 | 0 | 7 | 1,234 | 4,096 | 12 |" in text
    assert "| 1 single-supporting-fact | 90.0 | 25.0 |" in text
    assert "| RMC | 2-core CPU (test) | 2.13.0 | 0123abc | 2026-01-31 | `relational-rnn train` |" in text
    assert "## Notes\n\n- task 3: 385 of 2,000 stories\n- a busy machine\n\n##" in text
    assert f"({data.name})" in text


def test_runs_on_a_known_corpus_have_published_perplexities_beside_them(tmp_path):
    result = {
        "split": "test",
        "perplexity": 150.25,
        "bits_per_character": 1.5,
        "mean_accuracy": 0.25,
        "tokens_seen": 700,
        "per_group_perplexity": {"10 to 99": 900.0},
        "resets": {"10": {"perplexity": 200.5, "bits_per_character": 1.75}},
        "parameters": 1234,
        "state_bytes": 1024,
        "train_seconds": 60.0,
    }
    config = {"task": "language", "core": "rmc", "seed": 3, "data": {"vocabulary": "word"}}
    run = Run(
        folder=tmp_path,
        config=config,
        versions={},
        metrics={},
        result=result,
        groups={},
        data={"text": {"train": {"words": 2_088_628}}},
        notes=(),
    )
    records = records_of(group_runs([run]), task="wikitext-2-small")
    text = write_results(tmp_path / "wikitext", records, workload_of("language"), title="Words")[0].read_text(
        encoding="utf-8"
    )
    assert "| wikitext-2-small | RMC | 150.25 | 1.5000 | 25.0 | 700 | 3 | 1,234 |" in text
    others = [record for record in records if record.published]
    assert [(r.core, r.metric, r.values) for r in others] == [
        ("RMC", "test_perplexity", (107.21,)),
        ("LSTM", "test_perplexity", (105.56,)),
    ]
    assert (
        f"| wikitext-2-small | LSTM | 105.56 |  |  |  | published: {others[1].published} (11 million parameters) |"
        in text
    )


def test_published_accuracies_of_tasks_stand_beside_ours(records, tmp_path):
    published = Record(
        task="babi-en-10k",
        core="SDNC",
        metric="test_accuracy",
        values=(0.936,),
        groups={"2 two-supporting-facts": 0.929},
        published="Rae et al. 2016",
    )
    text = write_results(tmp_path / "babi", [*records, published], BABI, title="bAbI")[0].read_text(encoding="utf-8")
    assert "| task | RMC | LSTM | SDNC (published) |" in text
    assert "| 1 single-supporting-fact | 90.0 | 25.0 |  |" in text
    assert "| 2 two-supporting-facts | 40.0 | 75.0 | 92.9 |" in text


def test_both_formulations_of_the_memory_stand_in_one_table(make_run, tmp_path):
    folders = [make_run("sonnet"), make_run("chapter", per_task={1: 0.25})]
    config = json.loads((folders[1] / "config.json").read_text())
    (folders[1] / "config.json").write_text(json.dumps({**config, "memory": {"formulation": "chapter"}}))
    records = records_of(group_runs(read_runs(folders)), task="babi-en-10k")
    assert [record.core for record in records] == ["rmc", "rmc-chapter"]
    text = write_results(tmp_path / "babi", records, BABI, title="bAbI")[0].read_text(encoding="utf-8")
    assert "| task | RMC | RMC, chapter's formulation |" in text


def test_a_memory_whose_slots_compete_counts_as_that_core(make_run):
    folder = make_run("competing")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "memory": {"gate_style": "competitive"}}))
    assert [(run.core, run.title) for run in read_runs([folder])] == [("competitive", "RMC, competing slots")]


def test_a_published_figure_stands_beside_ours_without_seeds(records, tmp_path):
    published = Record(
        task="babi-en-10k", core="stm", metric="test_accuracy", values=(0.9961,), published="Le et al. 2020"
    )
    page, data = write_results(tmp_path / "babi", [*records, published], BABI, title="bAbI")
    last = json.loads(data.read_text(encoding="utf-8"))[-1]
    assert last["published"] == "Le et al. 2020"
    assert "seeds" not in last
    assert "| babi-en-10k | stm | 99.6 |  | published: Le et al. 2020 |  |  |  |" in page.read_text(encoding="utf-8")


def test_a_run_without_evaluation_is_refused_with_the_command_that_makes_one(make_run):
    runs = read_runs([make_run("a", evaluated=False)])
    with pytest.raises(InputError, match="relational-rnn evaluate"):
        records_of(group_runs(runs), task="babi")


def test_validation_figures_do_not_pass_as_test_figures(make_run):
    folder = make_run("a")
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"split": "valid"}))
    with pytest.raises(InputError, match="only test results are reported"):
        records_of(group_runs(read_runs([folder])), task="babi")


def test_two_configurations_of_one_core_are_refused(make_run):
    runs = read_runs([make_run("a", learning_rate=1e-4), make_run("b", learning_rate=1e-2)])
    with pytest.raises(InputError, match="two configurations of one core"):
        records_of(group_runs(runs), task="babi")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"values": ()}, "at least one value"),
        ({"values": (0.5, 0.6), "seeds": (0,)}, "every value needs its seed"),
        ({"values": (0.5,), "seeds": (0,), "published": "someone 2018"}, "no seeds of ours"),
    ],
)
def test_a_record_that_cannot_be_right_is_refused(entries, message):
    with pytest.raises(InputError, match=message):
        Record(task="babi", core="rmc", metric="test_accuracy", **entries)


def test_no_record_writes_no_file(tmp_path):
    with pytest.raises(InputError, match="nothing to write"):
        write_results(tmp_path / "babi", [], BABI, title="bAbI")
    assert list(tmp_path.iterdir()) == []
