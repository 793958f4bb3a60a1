"""Runs on generated tasks: recipes build, every core trains on every task, runs resume, are measured and compared."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("lightning_fabric")

from relational_rnn import InputError
from relational_rnn.nn.cores import MemorySizes, count_parameters
from relational_rnn.runs import build, compare, evaluate, load, read_config, train, workload_of
from relational_rnn.tasks import names
from relational_rnn.tasks.contract import Task
from relational_rnn.tasks.curriculum import Curriculum
from relational_rnn.tasks.generated import TaskEvaluation, TaskRun, TaskWorkload, split_batches
from relational_rnn.tasks.model import TaskModelConfig
from relational_rnn.tasks.nth_farthest import NthFarthest
from relational_rnn.tasks.programs import Programs
from relational_rnn.tasks.relations import Relations
from relational_rnn.training import LoopConfig, OptimizerConfig, from_json, read_metrics
from relational_rnn.training.progress import describe_progress

TASKS = [name for name in names() if name not in ("babi", "language")]
RECIPES = {name: recipe for task in TASKS for name, recipe in workload_of(task).recipes.items()}
SIZES = MemorySizes(mem_slots=3, head_size=6, num_heads=2)
TINY = TaskModelConfig(embedding_size=8, head_size=16, head_layers=1)
NEAREST = NthFarthest(objects=2, dimensions=1)
"""Two numbers: the farthest from m is the other one, the second farthest is m."""


def little_run(task: Task, *, steps: int = 6, **changes) -> TaskRun:
    """A run that takes well under a second."""
    settings = {
        "data": task,
        "memory": SIZES,
        "model": TINY,
        "optimizer": OptimizerConfig(learning_rate=5e-3, warmup_steps=3),
        "loop": LoopConfig(steps=steps, validate_every=4, checkpoint_every=3, log_every=1),
        "batch_size": 16,
        "valid_samples": 40,
        "test_samples": 100,
        "seed": 3,
    }
    return workload_of(task.name).config(**{**settings, **changes})


def train_quietly(config: TaskRun, folder: Path, **arguments):
    return train(config, folder, on_progress=lambda progress: None, **arguments)


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: cell for name, cell in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


@pytest.mark.parametrize("task", [NEAREST, Relations()], ids=["numbers", "sentences"])
def test_a_run_in_double_precision_is_one(task, tmp_path):
    config = little_run(task, steps=2)
    train_quietly(
        dataclasses.replace(config, loop=dataclasses.replace(config.loop, precision="64-true")), tmp_path / "run"
    )
    floating = [t for t in load_file(tmp_path / "run" / "model.safetensors").values() if t.is_floating_point()]
    assert {tensor.dtype for tensor in floating} == {torch.float64}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_whole_configuration_that_says_what_to_expect(name):
    config = RECIPES[name]()
    kept = json.loads(json.dumps(config.to_json()))
    assert kept.pop("task") == config.task_name
    assert from_json(type(config), kept, where=name) == config
    doc = RECIPES[name].__doc__ or ""
    assert all(word in doc for word in ("Expected score:", "Time:", "Machine:", "Command: `relational-rnn "))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_its_rivals_at_the_same_size(name):
    config = RECIPES[name]()
    with torch.device("meta"):
        counts = {
            core: count_parameters(build(dataclasses.replace(config, core=core)).model) for core in ("rmc", "lstm")
        }
    assert all(abs(count / counts["rmc"] - 1) <= 0.1 for count in counts.values()), counts


def test_weights_and_batches_come_from_the_seed_alone():
    config = little_run(NEAREST)
    torch.manual_seed(1)
    one = build(config)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    two = build(config)
    assert torch.equal(torch.random.get_rng_state(), before)
    other = build(dataclasses.replace(config, seed=4))
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, two.model.state_dict()[name]), name
    assert not torch.equal(one.model.head[0].weight, other.model.head[0].weight)
    assert torch.equal(one.train_batch(5).inputs, two.train_batch(5).inputs)
    assert not torch.equal(one.train_batch(5).inputs, other.train_batch(5).inputs)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_split_has_as_many_sequences_as_asked_for_all_different(split):
    batches = split_batches(little_run(NEAREST), split)
    assert sum(len(batch.targets) for batch in batches) == {"valid": 40, "test": 100}[split]
    assert (
        len(torch.cat([batch.inputs for batch in batches]).flatten(1).unique(dim=0))
        == {"valid": 40, "test": 100}[split]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned something."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    loop = LoopConfig(steps=150, validate_every=50, checkpoint_every=50, threads=1)
    train_quietly(little_run(NEAREST, loop=loop, optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=5)), folder)
    return folder


def test_a_run_is_measured_and_the_result_is_kept(trained):
    found = evaluate(trained)
    assert found.per_group.keys() == {"n = 1", "n = 2"}
    assert found.mean_accuracy > 0.9
    assert found.mean_accuracy == found.whole_accuracy == pytest.approx(sum(found.per_group.values()) / 2)
    assert (found.task, found.sequences, found.core, found.seed, found.steps) == ("nth-farthest", 100, "rmc", 3, 150)
    assert found.mean_beyond is None
    assert found.state_bytes == 3 * 12 * 4
    assert found.processor_seconds is not None
    assert found.processor_seconds > 0
    kept = json.loads((trained / "result.json").read_text())
    assert kept == found.to_json()
    assert TaskEvaluation.from_json(kept) == found
    valid = evaluate(trained, split="valid")
    assert (
        f"{valid.mean_accuracy:.8g}"
        == max(metrics(trained), key=lambda row: float(row["valid_accuracy"]))["valid_accuracy"]
    )
    assert json.loads((trained / "result.json").read_text())["split"] == "test"  # not overwritten
    assert read_config(trained).task_name == "nth-farthest"


def test_weights_that_are_no_numbers_are_not_measured(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "result.json").unlink(missing_ok=True)
    weights = load_file(folder / "model.safetensors")
    broken = {name: t.fill_(float("nan")) if t.is_floating_point() else t for name, t in weights.items()}
    save_file(broken, folder / "model.safetensors")
    for split in ("test", "valid"):
        with pytest.raises(InputError, match=r"run: its answers cannot be measured\n  got       loss nan\n"):
            evaluate(folder, split=split)
    assert not (folder / "result.json").exists()


def test_a_figure_that_no_json_holds_is_told_but_not_kept(trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "result.json").unlink(missing_ok=True)
    measure = TaskWorkload.measure
    infinite = {"whole_accuracy": float("inf")}
    monkeypatch.setattr(TaskWorkload, "measure", lambda *run, **how: measure(*run, **how) | infinite)
    assert evaluate(folder, split="valid").whole_accuracy == float("inf")
    with pytest.raises(InputError, match=r"run: a figure is infinite.*\n  got       whole_accuracy$"):
        evaluate(folder)
    assert not (folder / "result.json").exists()


def test_measuring_counts_answers_and_whole_sequences(trained):
    """Against a slow count, answer by answer."""
    run = load(trained)
    right = {name: [] for name in run.config.task.shape.groups}
    for batch in split_batches(run.config, "test"):
        guesses = run.model(batch).argmax(-1)
        for guess, target, group in zip(guesses, batch.targets[:, 0], batch.groups, strict=True):
            right[run.config.task.shape.groups[group]].append(bool(guess == target))
    assert evaluate(trained).per_group == {name: sum(r) / len(r) for name, r in right.items()}


def test_a_run_stopped_and_resumed_is_the_undisturbed_run(tmp_path):
    class Stop(Exception):
        pass

    def stop(progress):
        if progress.step == 5:
            raise Stop

    config = little_run(NEAREST, steps=8)
    train_quietly(config, tmp_path / "whole")
    with pytest.raises(Stop):
        train(config, tmp_path / "stopped", on_progress=stop)
    unfinished = evaluate(tmp_path / "stopped")
    assert unfinished.report == ("the run is not finished: 4 of 8 steps",)
    train_quietly(config, tmp_path / "stopped", resume=True)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "stopped")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert weights[0] == weights[1]


def test_compare_trains_what_is_missing_and_keeps_what_is_done(tmp_path):
    config = little_run(NEAREST, steps=4)
    done: list[str] = []

    def again(cores, seeds):
        return compare(
            config,
            cores,
            seeds,
            tmp_path,
            on_progress=lambda p: None,
            on_run=lambda folder, e: done.append(folder.name),
        )

    again(["gru"], [0])
    first = (tmp_path / "gru-0" / "last.ckpt").stat().st_mtime_ns
    found = again(["gru", "rmc"], [0, 7])
    assert done == ["gru-0", "gru-0", "gru-7", "rmc-0", "rmc-7"]
    assert (tmp_path / "gru-0" / "last.ckpt").stat().st_mtime_ns == first
    assert [(e.core, e.seed) for e in found.values()] == [("gru", 0), ("gru", 7), ("rmc", 0), ("rmc", 7)]
    counts = [e.parameters for e in found.values()]
    assert max(counts) <= 1.1 * min(counts)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"core": "gpt"}, "core is not a known choice"),
        ({"match": "seconds"}, "match is not a known choice"),
        ({"drawn_on": "tpu"}, "drawn_on is not a known choice"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"test_samples": 0}, "test_samples must be"),
        ({"seed": -1}, "seed must be"),
        ({"core": "lstm", "memory": MemorySizes(backend="cpu")}, "would have no effect on the core 'lstm'"),
        (
            {"model": TaskModelConfig(teacher_forcing=True)},
            "teacher_forcing would have no effect: nth-farthest decodes",
        ),
    ],
)
def test_a_run_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(InputError, match=f"NthFarthestRun: .*{message}|NthFarthestRun: {message}"):
        little_run(NEAREST, **wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(tmp_path):
    config = little_run(NEAREST, drawn_on="cuda")
    with pytest.raises(InputError, match="cannot draw batches on 'cuda'"):
        train_quietly(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_core_without_a_fitting_size_is_refused_before_anything_is_trained(tmp_path):
    config = little_run(NEAREST, match="state", memory=MemorySizes(mem_slots=1, head_size=3, num_heads=1))
    with pytest.raises(InputError, match="no size of the core 'lstm' comes within 10% of the relational memory's"):
        compare(config, ["rmc", "lstm"], [0], tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_runs_of_other_kinds_are_refused_by_name(trained, tmp_path):
    with pytest.raises(InputError, match=r"the run is not on babi\n  got       nth-farthest"):
        read_config(trained, "babi")
    (tmp_path / "config.json").write_text('{"task": "chess"}')
    with pytest.raises(InputError, match="task is not a known choice"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"core": "rmc"}')
    with pytest.raises(InputError, match=r"missing in the configuration: memory, .*batch_questions"):
        read_config(tmp_path)  # without a task it is on babi
    with pytest.raises(InputError, match="split is not a known choice"):
        evaluate(trained, split="train")


def test_a_curriculum_is_resumed_where_it_was(tmp_path):
    """The level is part of the checkpoint: a resumed run draws what the undisturbed one would have drawn."""

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.step == 5:
            raise Stop

    task = Programs(mode="control", length=2, nesting=2, curriculum="naive", window=1, improvement=0.9)
    config = little_run(task, steps=8)
    train_quietly(config, tmp_path / "whole")
    with pytest.raises(Stop):
        train(config, tmp_path / "stopped", on_progress=stop)
    told = []
    train(config, tmp_path / "stopped", resume=True, on_progress=told.append)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "stopped")
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped")]
    assert int(weights[0]["curriculum.current"]) == 2
    rows = read_metrics(tmp_path / "whole" / "metrics.csv")
    reached = int(rows[-1]["lesson"])
    assert reached == 3
    assert told[-1].lesson == (reached, 3)
    assert "lesson" not in describe_progress(told[-1])  # the last one: the validation figure stands there
    assert describe_progress(dataclasses.replace(told[-1], lesson=(2, 3))).endswith("  lesson 2/3")
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_level_decides_the_training_batch():
    problem = build(little_run(Programs(mode="control", length=3, nesting=2, curriculum="naive")))
    curriculum = problem.model.curriculum
    assert isinstance(curriculum, Curriculum)
    easy = problem.train_batch(0)
    problem.model.eval()
    problem.measure(easy)
    assert int(curriculum.updates) == 0  # measuring teaches the curriculum nothing
    problem.model.train()
    problem.measure(easy)
    assert int(curriculum.updates) == 1
    curriculum.current.fill_(3)
    assert problem.train_batch(0).inputs.shape[1] > easy.inputs.shape[1]
