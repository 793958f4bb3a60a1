"""Published figures stand beside the runs whose settings they share, and only there."""

import dataclasses

import pytest

from relational_rnn.recipes import TASK_RECIPES, TASK_RUNS
from relational_rnn.recipes.task_runs import task_config_json
from relational_rnn.reports.published import PUBLISHED, published_beside, published_beside_all


@pytest.mark.parametrize("figure", PUBLISHED, ids=lambda figure: f"{figure.task}-{figure.model}")
def test_every_figure_names_settings_that_a_run_can_have(figure):
    data = type(TASK_RUNS[figure.task]().data)
    settings = data(**figure.data)  # refused where there is no such setting
    config = {"task": figure.task, "data": dataclasses.asdict(settings)}
    assert figure in published_beside(config)
    assert 0 < figure.accuracy <= 1
    assert figure.source


@pytest.mark.parametrize(
    ("recipe", "models"),
    [
        ("nth-farthest-paper", ["RMC", "LSTM", "DNC", "STM", "TPR-RNN"]),
        ("nth-farthest-small", []),
        ("programs-control", ["RMC", "DNC", "LSTM", "Transformer", "Universal Transformer"]),
        ("memorize", ["LSTM", "Transformer", "Universal Transformer"]),
        ("relations", []),
    ],
)
def test_a_recipe_is_told_what_others_have_published(recipe, models):
    make = {name: make for recipes in TASK_RECIPES.values() for name, make in recipes.items()}[recipe]
    config = task_config_json(make())
    assert [figure.model for figure in published_beside(config)] == models
    assert published_beside_all([config, config]) == published_beside(config)


def test_a_run_on_stories_has_none():
    assert published_beside({"core": "rmc", "data": {"tasks": [1]}}) == []
