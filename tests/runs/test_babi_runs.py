"""Runs on bAbI train, resume, are measured and compared."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import signal
from pathlib import Path

import little_runs
import pytest
import torch
from little_runs import TASKS, little_run, quiet, silent, train_quietly, with_data, write_files
from safetensors.torch import load_file

pytest.importorskip("lightning_fabric")

from relational_rnn import InputError
from relational_rnn.runs import compare, evaluate, load, read_config, train
from relational_rnn.tasks.babi.generation import generate
from relational_rnn.tasks.babi.problem import training_stories
from relational_rnn.tasks.babi.recipes import DataConfig
from relational_rnn.tasks.babi.workload import BabiEvaluation


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned something."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    config = little_run(data)
    loop = dataclasses.replace(config.loop, steps=120, validate_every=40, checkpoint_every=60)  # each takes a while
    train_quietly(dataclasses.replace(config, loop=loop), folder)
    return folder


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: cell for name, cell in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


def test_a_generated_run_trains_and_is_measured_on_its_own_test_stories(tmp_path):
    config = dataclasses.replace(
        little_run(tmp_path, steps=2), data=DataConfig(tasks=(1, 17), train_questions=40, test_questions=15)
    )
    train_quietly(config, tmp_path / "run")
    evaluation = evaluate(tmp_path / "run")
    assert evaluation.questions == 30
    assert evaluation.per_task.keys() == {1, 17}


def test_a_run_in_double_precision_is_one(data, tmp_path):
    config = little_run(data, steps=2)
    config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, precision="64-true"))
    train_quietly(config, tmp_path / "run")
    assert {tensor.dtype for tensor in load_file(tmp_path / "run" / "model.safetensors").values()} == {torch.float64}


def test_a_run_folder_holds_what_others_read(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {"config.json", "versions.json", "metrics.csv", "tensorboard", "model.safetensors", "last.ckpt",
                     "vocabulary.json", "data.json"}  # fmt: skip
    counts = json.loads((trained / "data.json").read_text())["questions"]
    assert counts["train"].keys() == counts["valid"].keys() == {"1", "6"}
    config = read_config(trained)
    assert config.data.path is not None
    assert config.data.path.is_absolute()


@pytest.mark.parametrize(
    "content", ["{}", '{"questions": []}', '{"questions": {}}', '{"questions": {"train": {"x": 1}}}']
)
def test_damaged_counts_of_questions_are_refused(content, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "data.json").write_text(content)
    with pytest.raises(InputError, match=r"data\.json"):
        evaluate(folder)


def test_it_learns_and_the_measurement_is_kept(trained):
    evaluation = evaluate(trained)
    assert evaluation.per_task.keys() == {1, 6}
    assert evaluation.per_task[1] > 0.6  # three places: chance is 1/3
    assert evaluation.mean_accuracy == pytest.approx(sum(evaluation.per_task.values()) / 2)
    assert evaluation.questions == 60
    assert (evaluation.core, evaluation.seed, evaluation.steps) == ("rmc", 3, 120)
    assert evaluation.state_bytes == 3 * 4 * 2 * 4
    assert evaluation.train_seconds > 0
    assert evaluation.processor_seconds is not None
    assert evaluation.processor_seconds > 0
    kept = json.loads((trained / "result.json").read_text())
    assert kept == evaluation.to_json()
    assert BabiEvaluation.from_json(kept) == evaluation


def test_the_validation_split_is_the_one_of_training(trained):
    evaluation = evaluate(trained, split="valid")
    best = max(float(row["valid_accuracy"]) for row in metrics(trained))
    assert f"{evaluation.mean_accuracy:.8g}" == f"{best:.8g}"
    assert json.loads((trained / "result.json").read_text())["split"] == "test"  # not overwritten


def test_other_stories_can_be_measured_and_are_not_kept(trained, tmp_path):
    evaluate(trained)
    kept = (trained / "result.json").read_text()
    other = write_files(tmp_path / "other", train=2, test=11, seed=8)
    assert evaluate(trained, data=other).questions == 22
    assert evaluate(trained, data=DataConfig(path=other, tasks=(6,))).per_task.keys() == {6}
    assert (trained / "result.json").read_text() == kept


def test_an_answer_never_seen_is_counted_wrong_and_reported(trained, tmp_path):
    other = write_files(tmp_path / "other", train=2, test=4)
    path = other / "qa1_single-supporting-fact_test.txt"
    path.write_text("1 Mary went to the garden.\n2 Where is Mary? \tmoon\t1\n")
    evaluation = evaluate(trained, data=other)
    assert evaluation.per_task[1] == 0
    assert any("'moon', which is not among the" in line for line in evaluation.report)


def test_an_unknown_word_is_named(trained, tmp_path):
    other = write_files(tmp_path / "other", train=2, test=4)
    path = other / "qa1_single-supporting-fact_test.txt"
    path.write_text("1 Mary went to the gardn.\n2 Where is Mary? \tgarden\t1\n")
    with pytest.raises(InputError, match=r"unknown word: gardn(.|\n)*for 'gardn' try 'garden'"):
        evaluate(trained, data=other)


def test_a_wrong_archive_leaves_no_folder_behind(tmp_path):
    (tmp_path / "set").mkdir()
    config = with_data(little_run(tmp_path), path=tmp_path / "set")
    with pytest.raises(InputError, match="it holds no bAbI files"):
        train_quietly(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_file_is_refused_unless_asked_and_then_reported(tmp_path):
    folder = write_files(tmp_path / "set", train=20, test=3)
    (folder / "qa6_yes-no-questions_train.txt").unlink()
    config = little_run(folder, steps=1)
    with pytest.raises(InputError, match="the set is not complete"):
        train_quietly(config, tmp_path / "run")
    lines: list[str] = []
    train(with_data(config, partial=True), tmp_path / "run", on_progress=quiet, on_report=lines.append)
    assert any(line.startswith("task 6: no train file") for line in lines)
    assert json.loads((tmp_path / "run" / "data.json").read_text())["report"] == lines
    evaluation = evaluate(tmp_path / "run")
    assert evaluation.per_task.keys() == {1}
    assert evaluation.report[-1] == "task 6: not measured, the run had no training stories of it"


def test_a_task_that_lacks_questions_is_filled_up_and_reported(tmp_path):
    folder = write_files(tmp_path / "set", train=1000, test=3)
    short = folder / "qa6_yes-no-questions_train.txt"
    short.write_text("".join(short.read_text().splitlines(keepends=True)[: 3 * 40]))
    plain = training_stories(DataConfig(path=folder, language="en", tasks=TASKS))
    filled = training_stories(DataConfig(path=folder, language="en", tasks=TASKS, fill_up=True))
    assert filled.train[1] == plain.train[1]
    assert filled.train[6] == [*plain.train[6], *generate(6, 0, questions=960)]
    assert len(plain.train[6]) == 40
    assert filled.report == (*plain.report, "task 6: 40 published training questions and 960 generated ones")


def test_shortened_stories_are_reported(data, tmp_path, capsys):
    config = with_data(little_run(data, steps=1), max_sentences=1)
    train(config, tmp_path / "run", on_progress=quiet)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "questions" in printed.err
    assert json.loads((tmp_path / "run" / "data.json").read_text())["report"]


def test_an_unfinished_run_says_so(data, tmp_path):
    class Stop(Exception):
        pass

    def stop(progress):
        if progress.step == 6:
            raise Stop

    with pytest.raises(Stop):
        train(little_run(data), tmp_path / "run", on_progress=stop, on_report=silent)
    evaluation = evaluate(tmp_path / "run")
    assert evaluation.steps == 4
    assert evaluation.report[-1] == "the run is not finished: 4 of 8 steps"


@pytest.mark.parametrize(
    ("wreck", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "there is no run in this folder"),
        (lambda run: (run / "config.json").write_text("{"), r"config\.json: is not readable JSON"),
        (lambda run: (run / "config.json").write_text('{"lr": 1}'), "unknown in the configuration: lr"),
        (lambda run: (run / "vocabulary.json").unlink(), r"vocabulary\.json: cannot be read: No such file"),
        (lambda run: (run / "vocabulary.json").write_text("[]"), r"vocabulary\.json: this is not a vocabulary"),
        (lambda run: (run / "model.safetensors").unlink(), "the run has no weights yet"),
        (lambda run: (run / "model.safetensors").write_bytes(b"x" * 99), r"model\.safetensors: the weights cannot be"),
        (
            lambda run: (run / "vocabulary.json").write_text(
                (run / "vocabulary.json").read_text().replace('"garden",', '"gadget", "garden",', 1)
            ),
            r"model\.safetensors: belongs to another model: .+\n  got       .+\n  expected  .+\n  hint",
        ),
    ],
)
def test_a_wrecked_run_is_refused_by_the_name_of_the_file(wreck, message, trained, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "vocabulary.json", "model.safetensors", "metrics.csv"):
        (run / name).write_bytes((trained / name).read_bytes())
    load(run)
    wreck(run)
    with pytest.raises(InputError, match=message):
        load(run)


def test_a_run_that_knew_the_question_while_it_read_is_refused(trained, tmp_path):
    config = json.loads((trained / "config.json").read_text())
    config["model"]["question_first"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    for use in (load, evaluate, read_config):
        with pytest.raises(InputError) as error:
            use(tmp_path)
        assert str(error.value) == (
            f"{tmp_path / 'config.json'}: it was trained by a version that told the core the question while it read; "
            "that is no longer in the package; train again"
        )


def test_wrong_questions_about_a_run_are_refused(trained, data):
    with pytest.raises(InputError, match="split is not a known choice"):
        evaluate(trained, split="train")
    with pytest.raises(InputError, match="other data has none"):
        evaluate(trained, split="valid", data=data)


def test_a_run_killed_and_resumed_is_the_undisturbed_run(data, tmp_path, forked):
    config = little_run(data)
    train_quietly(config, tmp_path / "undisturbed")
    told, there = forked.Pipe(duplex=False)
    process = forked.Process(target=little_runs.train_and_tell, args=(data, tmp_path / "killed", there))
    process.start()
    there.close()
    while told.recv() < 5:
        pass
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    train_quietly(config, tmp_path / "killed", resume=True)
    a, b = tmp_path / "killed", tmp_path / "undisturbed"
    assert metrics(a) == metrics(b)
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    assert evaluate(a).per_task == evaluate(b).per_task


def test_compare_trains_what_is_missing_and_keeps_what_is_done(data, tmp_path):
    config = little_run(data, steps=4)
    done: list[str] = []

    def again(cores, on_progress=quiet):
        return compare(
            config, cores, [0, 7], tmp_path, on_progress=on_progress, on_report=silent,
            on_run=lambda folder, evaluation: done.append(folder.name),
        )  # fmt: skip

    class Stop(Exception):
        pass

    def stop(progress):
        if done:
            raise Stop

    with pytest.raises(Stop):
        again(["gru", "rmc"], on_progress=stop)
    assert done == ["gru-0"]
    first = (tmp_path / "gru-0" / "last.ckpt").stat().st_mtime_ns
    results = again(["gru", "rmc"])
    assert done == ["gru-0", "gru-0", "gru-7", "rmc-0", "rmc-7"]
    assert (tmp_path / "gru-0" / "last.ckpt").stat().st_mtime_ns == first
    assert [(e.core, e.seed) for e in results.values()] == [("gru", 0), ("gru", 7), ("rmc", 0), ("rmc", 7)]
    counts = [e.parameters for e in results.values()]
    assert max(counts) <= 1.1 * min(counts)


@pytest.mark.parametrize("jobs", [1, 2])
def test_compare_reads_stories_only_where_there_is_a_run_to_train(data, tmp_path, jobs):
    config = dataclasses.replace(little_run(data, steps=2), seed=0)
    train_quietly(config, tmp_path / "runs" / "rmc-0")
    said: list[str] = []
    compare(config, ["rmc"], [0], tmp_path / "runs", jobs=jobs, on_report=said.append)
    assert said == []  # all is done
    (tmp_path / "runs" / "gru-0").mkdir()
    (tmp_path / "runs" / "gru-0" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a run"):
        compare(config, ["rmc", "gru"], [0], tmp_path / "runs", jobs=jobs, on_report=said.append)
    assert said == []  # a folder in the way is found before


def test_compare_refuses_what_makes_no_table(data, tmp_path):
    config = little_run(data, steps=4)
    for cores, seeds in ((["gru", "gru"], [0]), ([], [0]), (["gru"], []), (["gru"], [1, 1])):
        with pytest.raises(InputError, match=r"compare: (cores|seeds) must be given, each once"):
            compare(config, cores, seeds, tmp_path / "x")
    (tmp_path / "x" / "gru-0").mkdir(parents=True)
    (tmp_path / "x" / "gru-0" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a run"):
        compare(config, ["lstm", "gru"], [0], tmp_path / "x")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["gru-0"]
