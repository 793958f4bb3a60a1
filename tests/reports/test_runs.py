"""Reading run folders and grouping them by everything but the seed."""

import json
from pathlib import Path

import pytest

from relational_rnn import InputError
from relational_rnn.reports import group_runs, read_runs
from relational_rnn.reports.runs import all_names
from relational_rnn.runs import read_run, workload_of


def test_a_run_folder_is_read_with_its_blanks_and_its_runaway_loss(make_run):
    run = read_run(make_run("a", core="lstm", seed=3))
    assert (run.core, run.seed, run.title) == ("lstm", 3, "LSTM")
    assert run.metrics["valid_accuracy"] == (None, 0.28, 0.5)
    assert run.metrics["train_loss"] == (3.0, 2.0, None)
    assert run.curve("seconds", "valid_accuracy") == ([3.0, 4.5], [0.28, 0.5])
    assert run.curve("step", "no_such_column") == ([], [])
    assert run.result is not None
    assert run.result["parameters"] == 1234


def test_a_folder_of_a_run_that_has_just_begun_is_readable(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"core": "rmc", "seed": 0}))
    run = read_run(tmp_path)
    assert (run.metrics, run.versions, run.result) == ({}, {}, None)


def test_runs_that_differ_only_in_the_seed_are_one_group_in_order_of_seed(make_run):
    folders = [
        make_run("r2", seed=2, per_task={1: 0.8, 2: 0.5}),
        make_run("l0", core="lstm"),
        make_run("r0", seed=0, per_task={1: 0.6, 2: 0.3}),
        make_run("r1", seed=1, evaluated=False),
    ]
    rmc, lstm = group_runs(read_runs(folders))
    assert (rmc.label, rmc.seeds, lstm.label, lstm.seeds) == ("RMC", [0, 1, 2], "LSTM", [0])
    assert rmc.values("mean_accuracy") == pytest.approx([0.45, 0.65])
    assert list(rmc.per_group().values()) == [[0.6, 0.8], [0.3, 0.5]]


def test_another_learning_rate_is_another_group_and_its_label_says_which_folder(make_run):
    runs = read_runs([make_run("slow", learning_rate=1e-4), make_run("fast", learning_rate=1e-2)])
    assert [group.label for group in group_runs(runs)] == ["RMC, slow", "RMC, fast"]


def test_one_configuration_twice_with_one_seed_is_refused(make_run):
    runs = read_runs([make_run("a", seed=4), make_run("b", seed=4)])
    with pytest.raises(InputError, match="two runs have the same configuration and the same seed"):
        group_runs(runs)


def test_the_same_folder_twice_is_refused(make_run):
    folder = make_run("a")
    with pytest.raises(InputError, match="given twice"):
        read_runs([folder, folder.parent / "." / "a"])


def test_no_run_is_refused():
    with pytest.raises(InputError, match="no run was given"):
        read_runs([])


def test_a_missing_folder_is_named():
    with pytest.raises(InputError) as error:
        read_run(Path("nowhere"))
    assert str(error.value) == (
        "nowhere: there is no run in this folder\n"
        "  expected  a folder with config.json, as `relational-rnn train ... --out DIR` writes it"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "there is no run in this folder"),
        ("config.json", '{"core": "rmc"}', r"config\.json: lacks seed"),
        ("config.json", "[1, 2]", "must hold a JSON object"),
        ("config.json", '{"core": ', "is not readable JSON"),
        ("versions.json", "\ufffd{", "is not readable JSON"),
        ("result.json", '{"split": "test"}', "result.json: lacks task, mean_accuracy, loss, "),
        ("metrics.csv", "step,seconds\n1,2\n3\n", "line 3 has the wrong number of cells"),
        ("metrics.csv", "step,seconds\n1,two\n", "line 2 has no number under 'seconds'"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(make_run, name, content, message):
    folder = make_run("damaged")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_run(folder)
    assert str(folder) in str(error.value)


def make_task_run(make_run, name: str, task: str, **arguments) -> Path:
    """The same folder as a run on a generated task has it."""
    folder = make_run(name, **arguments)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"task": task, "batch_size": 32, **config}))
    result = json.loads((folder / "result.json").read_text())
    for entry in ("per_task", "tasks_above_95", "questions"):
        del result[entry]
    accuracies = {"length 60": 0.9, "length 120": 0.4}
    result |= {"task": task, "per_group": accuracies, "per_group_whole": accuracies, "whole_accuracy": 0.9}
    result |= {"sequences": 100, "mean_beyond": 0.4, "match": "parameters"}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.mark.parametrize(("entry", "other"), [("task", "relations"), ("core", "gru"), ("seed", 5)])
def test_the_measurement_of_another_run_is_refused(make_run, entry, other):
    folder = make_task_run(make_run, "a", "memorize")
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {entry: other}))
    with pytest.raises(InputError, match=rf"another run's: {entry}\n  got       {other!r}\n.*\n  hint      run `rel"):
        read_run(folder)


def test_runs_on_generated_tasks_have_groups_and_samples(make_run):
    folders = [make_task_run(make_run, "a", "memorize"), make_task_run(make_run, "b", "memorize", seed=1)]
    (group,) = group_runs(read_runs(folders))
    assert group.per_group() == {"length 60": [0.9, 0.9], "length 120": [0.4, 0.4]}
    assert group.values("mean_beyond") == [0.4, 0.4]
    assert group.runs[0].curve("samples", "valid_accuracy") == ([20 * 32, 30 * 32], [0.25, 0.5])


def test_babi_tasks_are_groups_with_their_names(make_run):
    (group,) = group_runs(read_runs([make_run("a", per_task={2: 0.5, 19: 0.1})]))
    assert group.per_group() == {"2 two-supporting-facts": [0.5], "19 path-finding": [0.1]}


def test_runs_on_different_tasks_make_no_report(make_run):
    runs = read_runs([make_run("a"), make_task_run(make_run, "b", "memorize")])
    with pytest.raises(InputError, match=r"the runs are on different tasks\n  got       babi, memorize"):
        group_runs(runs)


def test_what_an_evaluation_must_hold_depends_on_the_task(make_run):
    folder = make_task_run(make_run, "a", "memorize")
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({n: v for n, v in result.items() if n not in ("loss", "per_group")}))
    with pytest.raises(InputError, match=r"lacks loss, per_group\n  hint      run `relational-rnn evaluate"):
        read_run(folder)


def test_bands_of_frequency_keep_their_order_and_tasks_have_that_of_their_numbers():
    bands = ["10,000 or more", "100 to 999", "10 to 99", "1 to 9", "never"]
    assert all_names([dict.fromkeys(bands[:3]), dict.fromkeys(bands)]) == bands
    tasks = {"10 indefinite-knowledge": 0, "9 simple-negation": 0}
    assert all_names([tasks], workload_of("babi").group_names) == ["9 simple-negation", "10 indefinite-knowledge"]
