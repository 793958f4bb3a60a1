"""Recipes build, and configurations refuse what would have no effect."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from little_runs import TASKS, little_run

pytest.importorskip("lightning_fabric")

from relational_rnn import InputError
from relational_rnn.nn.cores import CORE_NAMES, MemorySizes, count_parameters
from relational_rnn.runs import CoreName, build, initial_weights
from relational_rnn.tasks.babi import problem
from relational_rnn.tasks.babi.encoding import BABI
from relational_rnn.tasks.babi.problem import build_data, build_vocabulary, training_stories
from relational_rnn.tasks.babi.reading import LANGUAGES
from relational_rnn.tasks.babi.recipes import RECIPES, BabiRun, DataConfig
from relational_rnn.tasks.babi.workload import WORKLOAD as BABI_TASK
from relational_rnn.tasks.language.recipes import LANGUAGE_RECIPES
from relational_rnn.tasks.language.workload import WORKLOAD as LANGUAGE_TASK
from relational_rnn.tasks.programs import programs_add_small
from relational_rnn.training import LoopConfig, from_json, to_json


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_whole_configuration_that_says_what_to_expect(name):
    config = RECIPES[name]()
    assert from_json(BabiRun, json.loads(json.dumps(to_json(config))), where=name) == config
    doc = RECIPES[name].__doc__ or ""
    assert all(word in doc for word in ("Expected score:", "Time:", "Machine:", "Command: `relational-rnn "))


def drawn(workload, config, vocabulary):
    with initial_weights(config.seed):
        return workload.make_model(config, vocabulary)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_every_core_at_the_same_size(name):
    config = RECIPES[name]()
    with torch.device("meta"):  # drawing the weights takes most of the time
        models = {core: BABI_TASK.make_model(dataclasses.replace(config, core=core), BABI) for core in CORE_NAMES}
    counts = {core: count_parameters(model) for core, model in models.items()}
    assert all(abs(count / counts["rmc"] - 1) <= 0.1 for count in counts.values()), counts


@pytest.mark.parametrize(
    "build",
    [
        lambda: drawn(BABI_TASK, BabiRun(core="lstm"), BABI),
        lambda: build(dataclasses.replace(programs_add_small(), core="lstm")).model,
        lambda: drawn(
            LANGUAGE_TASK,
            dataclasses.replace(LANGUAGE_RECIPES["shakespeare-char"](), core="lstm"),
            SimpleNamespace(size=65),
        ),
    ],
)
def test_initial_weights_are_a_function_of_the_seed_whatever_the_threads(build):
    threads, weights = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            weights.append(build().state_dict())
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


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
    one = build(config)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    two = build(config)
    assert torch.equal(torch.random.get_rng_state(), before)
    other = build(dataclasses.replace(config, seed=4))
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, two.model.state_dict()[name]), name
    assert not torch.equal(one.model.encoder.embedding, other.model.encoder.embedding)
    assert torch.equal(one.train_batch(5).statements, two.train_batch(5).statements)
    assert not torch.equal(one.train_batch(5).answers, other.train_batch(5).answers)


def test_a_tenth_of_the_training_stories_is_kept_for_validation(data):
    problem = build(little_run(data))
    counts = problem.data.question_counts()
    assert set(counts) == {"train", "valid"}
    assert all(counts["train"][task] + counts["valid"][task] == 200 for task in TASKS)
    assert all(20 <= counts["valid"][task] < 40 for task in TASKS)
    assert sum(len(batch.answers) for batch in problem.valid_batches()) == sum(counts["valid"].values())


def test_an_answer_that_is_no_class_is_wrong_and_costs_nothing(data):
    problem = build(little_run(data))
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
    train, (test, report) = training_stories(config), problem.test_stories(config)
    assert train.valid is None
    assert train.report == report == ()
    for task in (1, 15):
        assert sum(len(story.questions) for story in train.train[task]) == 40
        assert sum(len(story.questions) for story in test[task]) == 30
        assert train.train[task][:3] != test[task][:3]
    assert training_stories(config).train == train.train
    other = dataclasses.replace(config, seed=1)
    assert training_stories(other).train != train.train
    assert problem.test_stories(config)[0] != problem.test_stories(other)[0]


def test_all_generated_tasks_fit_the_vocabulary_of_the_published_ones():
    config = BabiRun(data=DataConfig(train_questions=30, test_questions=10))
    stories = training_stories(config.data)
    vocabulary = build_vocabulary(config.data, stories)
    assert vocabulary == BABI
    assert build_data(config, stories, vocabulary).question_counts()["train"].keys() == set(range(1, 21))


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


@pytest.mark.parametrize(
    ("first_tasks", "first_steps", "text"),
    [((1,), 0, "go together"), ((), 5, "go together"), ((1,), -1, "number of updates"), ((1, 3), 7, "not all among")],
)
def test_first_tasks_are_checked(first_tasks, first_steps, text):
    with pytest.raises(InputError, match=text):
        BabiRun(data=DataConfig(tasks=(1, 2)), first_tasks=first_tasks, first_steps=first_steps)


def test_first_tasks_leave_updates_for_the_others():
    loop = LoopConfig(steps=7)
    BabiRun(loop=loop, first_tasks=(1,), first_steps=6)
    with pytest.raises(InputError, match="no update is left for the other tasks\n  got       first_steps 7 of 7"):
        BabiRun(loop=loop, first_tasks=(1,), first_steps=7)
