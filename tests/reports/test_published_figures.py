"""Published figures stand beside the runs whose settings they share, and only there."""

import dataclasses
import json
from pathlib import Path

import pytest

from relational_rnn import InputError
from relational_rnn.reports import Group, group_runs, published_beside, read_runs, records_of, write_report
from relational_rnn.runs import Published, Run, workload_of
from relational_rnn.tasks import names
from relational_rnn.tasks.babi.published import PUBLISHED
from relational_rnn.tasks.babi.recipes import DataConfig

GENERATED = [workload_of(name) for name in names() if name not in ("language", "babi")]
ON_TASKS = [(workload, figure) for workload in GENERATED for figure in workload.published]


def beside(config, training_words=None, runs=1):
    run = Run(
        folder=Path("runs/x"),
        config=config,
        versions={},
        metrics={},
        result=None,
        groups={},
        data={"text": {"train": {"words": training_words}}} if training_words else {},
        notes=(),
    )
    return published_beside([Group(label="x", runs=(run,))] * runs)


@pytest.mark.parametrize(("workload", "figure"), ON_TASKS)
def test_every_figure_names_settings_that_a_run_can_have(workload, figure):
    data = type(workload.config().data)
    settings = data(**figure.data)  # refused where there is no such setting
    config = {"task": workload.name, "data": dataclasses.asdict(settings)}
    assert figure in beside(config)
    assert 0 < figure.value <= 1
    assert figure.source


@pytest.mark.parametrize(
    ("recipe", "models"),
    [
        ("nth-farthest-paper", ["RMC", "LSTM", "DNC", "STM", "TPR-RNN"]),
        ("nth-farthest-lessons", ["RMC", "LSTM", "DNC", "STM", "TPR-RNN"]),
        ("nth-farthest-small", []),
        ("programs-control", ["RMC", "DNC", "LSTM", "Transformer", "Universal Transformer"]),
        ("memorize", ["LSTM", "Transformer", "Universal Transformer"]),
        ("relations", []),
    ],
)
def test_a_recipe_is_told_what_others_have_published(recipe, models):
    make = {name: make for workload in GENERATED for name, make in workload.recipes.items()}[recipe]
    config = make().to_json()
    assert [figure.model for figure in beside(config)] == models
    assert beside(config, runs=2) == beside(config)


def test_a_run_on_stories_has_those_of_one_model_for_all_published_tasks():
    data = json.loads(json.dumps(dataclasses.asdict(DataConfig())))
    data["path"] = "tasks.tar.gz"
    figures = beside({"task": "babi", "core": "rmc", "data": data})
    assert [(figure.model, figure.shown) for figure in figures[:3]] == [
        ("LSTM", "72.7 %"),
        ("DNC", "83.3 %"),
        ("SDNC", "93.6 %"),
    ]
    assert figures == list(PUBLISHED)
    for change in ({"path": None}, {"tasks": [1]}, {"language": "en"}):
        assert beside({"task": "babi", "core": "rmc", "data": {**data, **change}}) == []


def test_published_accuracies_of_the_tasks_give_the_published_means():
    tasks = {figure.model: figure for figure in PUBLISHED if figure.per_task}
    assert set(tasks) == {"DNC", "SDNC", "EntNet"}
    for figure in tasks.values():
        assert list(figure.per_task) == [str(task) for task in range(1, 21)]
        assert sum(figure.per_task.values()) / 20 == pytest.approx(figure.value, abs=0.0006)
    assert tasks["EntNet"].per_task["19"] == 0.296


@pytest.mark.parametrize(
    ("vocabulary", "training_words", "figures"),
    [
        ("word", 2_088_628, {"RMC": "107.21", "LSTM": "105.56"}),
        ("word", 103_227_021, {"RMC": "31.6", "LSTM (Rae et al. 2018)": "34.3"}),
        ("bpe", 2_088_628, {}),
        ("word", 2_088_627, {}),
        ("word", None, {}),
    ],
)
def test_a_run_on_language_has_those_of_its_corpus(vocabulary, training_words, figures):
    others = beside({"task": "language", "data": {"vocabulary": vocabulary}}, training_words)
    found = {figure.model: figure.shown for figure in others}
    assert figures.items() <= found.items()
    assert bool(found) == bool(figures)
    assert all(figure.metric == "perplexity" for figure in others)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: write_report([folder], folder.parent / "out"),
        lambda folder: records_of(group_runs(read_runs([folder])), task="stories"),
    ],
    ids=["report", "results"],
)
def test_a_metric_that_the_task_does_not_measure_is_one_sentence(make_run, tmp_path, monkeypatch, make):
    figure = Published(model="RMC", metric="acuracy", value=0.9, setting="", source="Someone 2018")
    monkeypatch.setattr(workload_of("babi"), "published", [figure])
    folder = make_run("a")
    with pytest.raises(InputError) as error:
        make(folder)
    assert str(error.value).splitlines() == [
        "task babi: the metric of a published figure (RMC, Someone 2018) is not a known choice",
        "  got       'acuracy'",
        "  expected  one of 'accuracy', 'tasks_above_95'",
    ]
    assert not (tmp_path / "out").exists()


def test_a_measure_that_the_task_does_not_have_is_one_sentence(make_run, monkeypatch):
    monkeypatch.setattr(type(workload_of("babi")), "main_measure", lambda self, config: "mean_acuracy")
    with pytest.raises(InputError, match="task babi: main_measure is not a known choice\n  got       'acuracy'"):
        records_of(group_runs(read_runs([make_run("a")])), task="stories")
