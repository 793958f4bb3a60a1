"""The published files: the symbolic solver answers them, and generated stories are like them.

Of task 3's en-10k training file only a part may be at hand (385 of 2,000 stories); it is compared as it is, with the
wider bounds that fewer stories have.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
from made_up import published_babi
from solver import solve

from relational_rnn.tasks.babi.generation import generate
from relational_rnn.tasks.babi.likeness import SETS, SHARES, compare_sets, compare_shares, compare_stories
from relational_rnn.tasks.babi.story import TASK_NAMES, Story

TASKS = sorted(TASK_NAMES)
RESULTS = Path(__file__).parents[3] / "docs" / "results"
FILES = {"en-10k": "RELATIONAL_RNN_BABI", "en": "RELATIONAL_RNN_BABI_EN"}
STRIDE = 5
"""Every fifth published story is compared; the slow test compares all of them."""

REASON = "of several things that passed between two people the question may mean an earlier one; the text does not say"
NOT_EXACT = {("en-10k", "train", 5): 9980, ("en-10k", "test", 5): 998, ("en", "train", 5): 998, ("en", "test", 5): 998}
"""Right answers where the solver is not exact, as measured."""


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("language", FILES)
def test_the_solver_is_exact_on_every_published_question(language, split, task, record_property):
    stories = getattr(published_babi(FILES[language], language), split)[task]
    asked = [(story, question) for story in stories for question in story.questions]
    missed = [
        (story, question)
        for story, question in asked
        if solve(task, story.statements[: question.at], question.text) != question.answer
    ]
    right = len(asked) - len(missed)
    record_property("solver", (f"{language} {split}", task, right, len(asked), REASON))
    assert right >= NOT_EXACT.get((language, split, task), len(asked)), missed[:1]
    for story, question in missed:  # only where the reason given is the reason
        words = question.text.rstrip("?").split()
        assert words[:2] == ["What", "did"]
        gifts = [s.split() for s in story.statements[: question.at] if f" to {words[-1]}." in s]
        assert question.answer in {gift[3] for gift in gifts if gift[0] == words[2] and gift[2] == "the"}


@cache
def made(task: int, questions: int) -> list[Story]:
    return generate(task, seed=0, questions=questions)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("quantity", SETS)
def test_words_and_answers_are_the_published_ones(quantity, task):
    # Three things at once in task 8: one answer in 2,000.
    published = published_babi(FILES["en-10k"], "en-10k").train[task]
    assert compare_sets(quantity, published, made(task, 20_000 if task == 8 else 8_000)).where == ""


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("quantity", SHARES)
def test_shares_are_those_of_every_fifth_published_story(quantity, task):
    published = published_babi(FILES["en-10k"], "en-10k").train[task][::STRIDE]
    verdict = compare_shares(quantity, published, made(task, 8_000))
    assert verdict.holds, verdict


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("language", FILES)
def test_the_documented_verdicts_are_those_of_all_stories(language, task):
    measured = json.loads((RESULTS / f"babi-data-{language}.json").read_text(encoding="utf-8"))
    of_task = measured["tasks"][task - 1]
    published = published_babi(FILES[language], language).train[task]
    if len(published) != of_task["published_stories"]:
        pytest.skip("the documented figures are those of a part of this file")
    generated = generate(task, measured["generated"]["seed"], questions=measured["generated"]["questions"])
    verdicts = compare_stories(published, generated)
    for verdict, documented in zip(verdicts, of_task["verdicts"], strict=True):
        now = asdict(verdict) | {"holds": verdict.holds}
        shares = [name for name, value in documented.items() if isinstance(value, float)]
        assert [now.pop(name) for name in shares] == pytest.approx([documented.pop(name) for name in shares], rel=1e-9)
        assert now == documented
        assert verdict.holds or language == "en"
