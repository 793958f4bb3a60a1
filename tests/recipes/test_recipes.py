"""Recipes build, configurations refuse what would have no effect, runs on bAbI train, resume, measure and answer."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import little_runs
import pytest
import torch
from little_runs import TASKS, little_run, quiet, silent, train_quietly, with_data, write_files
from safetensors.torch import load_file

pytest.importorskip("lightning")

from relational_rnn import InputError, recipes
from relational_rnn.nn.cores import CORE_NAMES, MemorySizes, count_parameters
from relational_rnn.recipes import RECIPES, BabiRun, DataConfig, babi_problem
from relational_rnn.recipes.babi import CoreName
from relational_rnn.recipes.babi_problem import build_data, build_model, build_vocabulary, training_stories
from relational_rnn.tasks.babi.encoding import BABI
from relational_rnn.tasks.babi.generation import generate
from relational_rnn.tasks.babi.reading import LANGUAGES
from relational_rnn.training import from_json, to_json


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("data") / "little")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned something."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    train_quietly(dataclasses.replace(little_run(data, steps=120)), folder)
    return folder


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: cell for name, cell in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_whole_configuration_that_says_what_to_expect(name):
    config = RECIPES[name]()
    assert from_json(BabiRun, json.loads(json.dumps(to_json(config))), where=name) == config
    doc = RECIPES[name].__doc__ or ""
    assert all(word in doc for word in ("Expected score:", "Time:", "Machine:", "Command: `relational-rnn "))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_every_core_at_the_same_size(name):
    config = RECIPES[name]()
    counts = {core: count_parameters(build_model(dataclasses.replace(config, core=core), BABI)) for core in CORE_NAMES}
    assert all(abs(count / counts["rmc"] - 1) <= 0.1 for count in counts.values()), counts


def test_the_cores_of_the_configuration_are_those_of_the_table():
    assert get_args(CoreName) == CORE_NAMES


def test_a_run_is_a_value():
    assert BabiRun() == BabiRun()
    with pytest.raises(dataclasses.FrozenInstanceError):
        BabiRun().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": ()}, "DataConfig: there are no such tasks"),
        ({"tasks": (2, 1)}, "DataConfig: there are no such tasks"),
        ({"tasks": (1, 1)}, "DataConfig: there are no such tasks"),
        ({"tasks": (21,)}, "DataConfig: there are no such tasks"),
        ({"language": "de"}, "DataConfig: language is not a known choice"),
        ({"language": "en"}, "DataConfig: language would have no effect\n  got       no path is given"),
        ({"partial": True}, "DataConfig: partial would have no effect"),
        ({"path": Path("x"), "train_questions": 5, "seed": 2}, "train_questions, seed would have no effect"),
        ({"path": Path("x"), "test_questions": 5}, "test_questions would have no effect\n  got       a path is given"),
        ({"fill_up": True}, "DataConfig: fill_up would have no effect"),
        ({"path": Path("x"), "fill_up": True, "language": "hn"}, "DataConfig: fill_up adds English stories"),
        ({"train_questions": 0}, "DataConfig: train_questions must be"),
        ({"max_sentences": 0}, "DataConfig: max_sentences must be"),
        ({"seed": -1}, "DataConfig: seed must be"),
    ],
)
def test_data_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        DataConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"core": "gpt"}, {"batch_questions": 0}, {"seed": True}, {"seed": 2**31}])
def test_a_run_that_cannot_be_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"BabiRun: {name}"):
        BabiRun(**wrong)


def test_all_languages_can_be_asked_for():
    assert [DataConfig(path=Path("x"), language=language).language for language in LANGUAGES] == list(LANGUAGES)


def test_weights_and_batches_come_from_the_seed_alone(data):
    config = little_run(data)
    torch.manual_seed(1)
    one = recipes.build(config)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    two = recipes.build(config)
    assert torch.equal(torch.random.get_rng_state(), before)
    other = recipes.build(dataclasses.replace(config, seed=4))
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, two.model.state_dict()[name]), name
    assert not torch.equal(one.model.encoder.embedding, other.model.encoder.embedding)
    assert torch.equal(one.train_batch(5).statements, two.train_batch(5).statements)
    assert not torch.equal(one.train_batch(5).answers, other.train_batch(5).answers)


def test_a_tenth_of_the_training_stories_is_kept_for_validation(data):
    problem = recipes.build(little_run(data))
    counts = problem.data.question_counts()
    assert set(counts) == {"train", "valid"}
    assert all(counts["train"][task] + counts["valid"][task] == 200 for task in TASKS)
    assert all(20 <= counts["valid"][task] < 40 for task in TASKS)
    assert sum(len(batch.answers) for batch in problem.valid_batches()) == sum(counts["valid"].values())


def test_an_answer_that_is_no_class_is_wrong_and_costs_nothing(data):
    problem = recipes.build(little_run(data))
    batch = problem.train_batch(0)
    outside = dataclasses.replace(batch, answers=batch.answers.clone())
    outside.answers[1] = len(problem.data.vocabulary.answers)
    problem.model.eval()
    plain, measure = problem.measure(batch), problem.measure(outside)
    assert not measure.correct[1]
    assert measure.losses[1] == 0
    assert torch.equal(measure.groups, batch.tasks)
    others = [i for i in range(len(batch.answers)) if i != 1]
    assert torch.equal(measure.losses[others], plain.losses[others])


def test_the_vocabulary_is_that_of_the_stories_or_of_all_english_tasks(data):
    config = little_run(data).data
    stories = training_stories(config)
    assert set(build_vocabulary(config, stories).answers) == {"garden", "kitchen", "office", "yes", "no"}
    everything = dataclasses.replace(config, tasks=tuple(range(1, 21)))
    assert build_vocabulary(everything, stories) == BABI
    hindi = dataclasses.replace(everything, language="hn")
    assert set(build_vocabulary(hindi, stories).answers) == {"garden", "kitchen", "office", "yes", "no"}


def test_generated_stories_are_made_anew_for_every_seed_and_part():
    config = DataConfig(tasks=(1, 15), train_questions=40, test_questions=30)
    train, (test, report) = training_stories(config), babi_problem.test_stories(config)
    assert train.valid is None
    assert train.report == report == ()
    for task in (1, 15):
        assert sum(len(story.questions) for story in train.train[task]) == 40
        assert sum(len(story.questions) for story in test[task]) == 30
        assert train.train[task][:3] != test[task][:3]
    assert training_stories(config).train == train.train
    other = dataclasses.replace(config, seed=1)
    assert training_stories(other).train != train.train
    assert babi_problem.test_stories(config)[0] != babi_problem.test_stories(other)[0]


def test_all_generated_tasks_fit_the_vocabulary_of_the_published_ones():
    config = BabiRun(data=DataConfig(train_questions=30, test_questions=10))
    stories = training_stories(config.data)
    vocabulary = build_vocabulary(config.data, stories)
    assert vocabulary == BABI
    assert build_data(config, stories, vocabulary).question_counts()["train"].keys() == set(range(1, 21))


def test_a_generated_run_trains_and_is_measured_on_its_own_test_stories(tmp_path):
    config = dataclasses.replace(
        little_run(tmp_path, steps=2), data=DataConfig(tasks=(1, 17), train_questions=40, test_questions=15)
    )
    train_quietly(config, tmp_path / "run")
    evaluation = recipes.evaluate(tmp_path / "run")
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
    config = recipes.read_config(trained)
    assert config.data.path is not None
    assert config.data.path.is_absolute()


def test_it_learns_and_the_measurement_is_kept(trained):
    evaluation = recipes.evaluate(trained)
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
    assert recipes.Evaluation.from_json(kept) == evaluation


def test_the_validation_split_is_the_one_of_training(trained):
    evaluation = recipes.evaluate(trained, split="valid")
    best = max(float(row["valid_accuracy"]) for row in metrics(trained))
    assert f"{evaluation.mean_accuracy:.8g}" == f"{best:.8g}"
    assert json.loads((trained / "result.json").read_text())["split"] == "test"  # not overwritten


def test_other_stories_can_be_measured_and_are_not_kept(trained, tmp_path):
    recipes.evaluate(trained)
    kept = (trained / "result.json").read_text()
    other = write_files(tmp_path / "other", train=2, test=11, seed=8)
    assert recipes.evaluate(trained, data=other).questions == 22
    assert recipes.evaluate(trained, data=DataConfig(path=other, tasks=(6,))).per_task.keys() == {6}
    assert (trained / "result.json").read_text() == kept


def test_an_answer_never_seen_is_counted_wrong_and_reported(trained, tmp_path):
    other = write_files(tmp_path / "other", train=2, test=4)
    path = other / "qa1_single-supporting-fact_test.txt"
    path.write_text("1 Mary went to the garden.\n2 Where is Mary? \tmoon\t1\n")
    evaluation = recipes.evaluate(trained, data=other)
    assert evaluation.per_task[1] == 0
    assert any("'moon', which is not among the" in line for line in evaluation.report)


def test_an_unknown_word_is_named(trained, tmp_path):
    other = write_files(tmp_path / "other", train=2, test=4)
    path = other / "qa1_single-supporting-fact_test.txt"
    path.write_text("1 Mary went to the gardn.\n2 Where is Mary? \tgarden\t1\n")
    with pytest.raises(InputError, match=r"unknown word: gardn(.|\n)*instead of gardn, garden"):
        recipes.evaluate(trained, data=other)


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
    recipes.train(with_data(config, partial=True), tmp_path / "run", on_progress=quiet, on_report=lines.append)
    assert any(line.startswith("task 6: no train file") for line in lines)
    assert json.loads((tmp_path / "run" / "data.json").read_text())["report"] == lines
    evaluation = recipes.evaluate(tmp_path / "run")
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
    recipes.train(config, tmp_path / "run", on_progress=quiet)
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
        recipes.train(little_run(data), tmp_path / "run", on_progress=stop, on_report=silent)
    evaluation = recipes.evaluate(tmp_path / "run")
    assert evaluation.steps == 4
    assert evaluation.report[-1] == "the run is not finished: 4 of 8 steps"


@pytest.mark.parametrize(
    ("wreck", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "there is no run in this folder"),
        (lambda run: (run / "config.json").write_text("{"), r"config\.json: is not readable JSON"),
        (lambda run: (run / "config.json").write_text('{"lr": 1}'), "unknown in the configuration: lr"),
        (lambda run: (run / "vocabulary.json").unlink(), r"vocabulary\.json: the vocabulary cannot be read"),
        (lambda run: (run / "vocabulary.json").write_text("[]"), r"vocabulary\.json: this is not a vocabulary"),
        (lambda run: (run / "model.safetensors").unlink(), "the run has no weights yet"),
        (lambda run: (run / "model.safetensors").write_bytes(b"x" * 99), r"model\.safetensors: the weights cannot be"),
        (
            lambda run: (run / "vocabulary.json").write_text(
                (run / "vocabulary.json").read_text().replace('"garden",', '"gadget", "garden",', 1)
            ),
            r"model\.safetensors: the weights belong to another model",
        ),
    ],
)
def test_a_wrecked_run_is_refused_by_the_name_of_the_file(wreck, message, trained, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "vocabulary.json", "model.safetensors", "metrics.csv"):
        (run / name).write_bytes((trained / name).read_bytes())
    recipes.load(run)
    wreck(run)
    with pytest.raises(InputError, match=message):
        recipes.load(run)


def test_wrong_questions_about_a_run_are_refused(trained, data):
    with pytest.raises(InputError, match="split is not a known choice"):
        recipes.evaluate(trained, split="train")
    with pytest.raises(InputError, match="other data has none"):
        recipes.evaluate(trained, split="valid", data=data)


def test_a_run_killed_and_resumed_is_the_undisturbed_run(data, tmp_path):
    config = little_run(data)
    train_quietly(config, tmp_path / "undisturbed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, little_runs.__file__, str(data), str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 5:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    train_quietly(config, tmp_path / "killed", resume=True)
    a, b = tmp_path / "killed", tmp_path / "undisturbed"
    assert metrics(a) == metrics(b)
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    assert recipes.evaluate(a).per_task == recipes.evaluate(b).per_task


def test_compare_trains_what_is_missing_and_keeps_what_is_done(data, tmp_path):
    config = little_run(data, steps=4)
    done: list[str] = []

    def compare(cores, on_progress=quiet):
        return recipes.compare(
            config, cores, [0, 7], tmp_path, on_progress=on_progress, on_report=silent,
            on_run=lambda folder, evaluation: done.append(folder.name),
        )  # fmt: skip

    class Stop(Exception):
        pass

    def stop(progress):
        if done:
            raise Stop

    with pytest.raises(Stop):
        compare(["gru", "rmc"], on_progress=stop)
    assert done == ["gru-0"]
    first = (tmp_path / "gru-0" / "last.ckpt").stat().st_mtime_ns
    results = compare(["gru", "rmc"])
    assert done == ["gru-0", "gru-0", "gru-7", "rmc-0", "rmc-7"]
    assert (tmp_path / "gru-0" / "last.ckpt").stat().st_mtime_ns == first
    assert [(e.core, e.seed) for e in results.values()] == [("gru", 0), ("gru", 7), ("rmc", 0), ("rmc", 7)]
    counts = [e.parameters for e in results.values()]
    assert max(counts) <= 1.1 * min(counts)


def test_compare_refuses_what_makes_no_table(data, tmp_path):
    config = little_run(data, steps=4)
    for cores, seeds in ((["gru", "gru"], [0]), ([], [0]), (["gru"], []), (["gru"], [1, 1])):
        with pytest.raises(InputError, match=r"compare: (cores|seeds) must be given, each once"):
            recipes.compare(config, cores, seeds, tmp_path / "x")
    (tmp_path / "x" / "gru-0").mkdir(parents=True)
    (tmp_path / "x" / "gru-0" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a run"):
        recipes.compare(config, ["lstm", "gru"], [0], tmp_path / "x")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["gru-0"]


def test_training_and_measuring_read_no_test_story(data):
    stories = training_stories(little_run(data).data)
    config = little_run(data)
    assert build_data(config, stories, build_vocabulary(config.data, stories)).test is None


@pytest.mark.parametrize("chosen", [{"backend": "cpu"}, {"activations": "recompute"}])
def test_how_the_memory_computes_is_no_option_of_a_rival(chosen):
    BabiRun(memory=MemorySizes(**chosen))
    with pytest.raises(InputError, match="would have no effect on the core 'lstm'"):
        BabiRun(core="lstm", memory=MemorySizes(**chosen))


@pytest.mark.parametrize(
    ("rare_tasks", "rare_share", "text"),
    [((1,), 1.0, "go together"), ((), 0.5, "go together"), ((1,), 0.0, r"\(0, 1\]"), ((1, 3), 0.1, "not all among")],
)
def test_rare_tasks_are_checked(rare_tasks, rare_share, text):
    with pytest.raises(InputError, match=text):
        BabiRun(data=DataConfig(tasks=(1, 2)), rare_tasks=rare_tasks, rare_share=rare_share)
