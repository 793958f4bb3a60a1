"""Generated stories: deterministic, with answers that follow from the text, and alike the published ones.

`published.json` holds what was counted in the published en-10k training files (task 3: the 385 stories that were at
hand, words and answers also from its test file): the words, and the shares of answers, of numbers of supports and of
distances between question and support, each with the difference allowed, the larger of 2 percentage points and 3
standard errors (bootstrap over stories).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from solver import solve

from relational_rnn._check import InputError
from relational_rnn.tasks.babi.generation import generate
from relational_rnn.tasks.babi.story import TASK_NAMES, Story

TASKS = sorted(TASK_NAMES)
PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
# Task 3 has the longest stories, 8 answers that come up once in 2,000; in 15 the questions of a story hang together.
ENOUGH = {3: 4000, 8: 20000, 15: 40000}

DIGEST = """
import hashlib
from relational_rnn.tasks.babi.generation import generate
digest = hashlib.sha256()
for task in range(1, 21):
    digest.update(repr(generate(task, seed=7, questions=20)).encode())
print(digest.hexdigest())
"""


@cache
def sample(task: int) -> list[Story]:
    return generate(task, seed=1, questions=ENOUGH.get(task, 6000))


def asked(task: int, limit: int | None = None):
    """(story, question) pairs."""
    return [(story, question) for story in sample(task) for question in story.questions][:limit]


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_stories(task):
    stories = generate(task, seed=3, stories=6)
    assert generate(task, seed=3, stories=6) == stories
    assert generate(task, seed=3, stories=4) == stories[:4]
    assert generate(task, seed=4, stories=6) != stories
    assert {story.task for story in stories} == {task}


def test_stories_do_not_depend_on_the_hash_seed(capsys):
    exec(DIGEST, {})
    here = capsys.readouterr().out.strip()
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1"}
    run = subprocess.run([sys.executable, "-c", DIGEST], env=environment, text=True, capture_output=True, check=True)
    assert run.stdout.strip() == here


@pytest.mark.parametrize("task", TASKS)
def test_as_many_questions_as_asked_for(task):
    for questions in (1, 7, 23):
        stories = generate(task, seed=5, questions=questions)
        assert sum(len(story.questions) for story in stories) == questions
        whole = generate(task, seed=5, stories=len(stories))
        assert stories[:-1] == whole[:-1]
        cut, story = stories[-1], whole[-1]
        assert cut.questions == story.questions[: len(cut.questions)]
        assert cut.statements == story.statements[: cut.questions[-1].at]


def test_a_caller_s_mistakes():
    for arguments, problem in (
        ({"task": 0, "stories": 1}, "no such task"),
        ({"task": 21, "stories": 1}, "no such task"),
        ({"task": True, "stories": 1}, "no such task"),
        ({"task": 1, "stories": 0}, "stories must be a whole number of at least 1"),
        ({"task": 1, "questions": 0}, "questions must be a whole number of at least 1"),
        ({"task": 1, "questions": -3}, "questions must be a whole number of at least 1"),
        ({"task": 1}, "give either stories or questions"),
        ({"task": 1, "stories": 2, "questions": 2}, "give either stories or questions"),
        ({"task": 1, "stories": 2, "seed": 0.5}, "seed must be a whole number"),
    ):
        with pytest.raises(InputError, match=problem):
            generate(**{"seed": 0, **arguments})


@pytest.mark.parametrize("task", TASKS)
def test_questions_are_in_order_and_supported_by_what_was_told_before(task):
    for story in sample(task)[:300]:
        assert story.questions
        assert story.questions[-1].at == len(story.statements)
        points = [question.at for question in story.questions]
        assert points == sorted(points)
        for question in story.questions:
            assert question.supports
            assert len(set(question.supports)) == len(question.supports)
            assert 0 <= min(question.supports) <= max(question.supports) < question.at


@pytest.mark.parametrize("task", TASKS)
def test_answers_follow_from_the_text(task):
    # All of task 5: that two people passed on two things, one of which went further, is rare.
    for story, question in asked(task, None if task == 5 else 1000):
        assert solve(task, story.statements[: question.at], question.text) == question.answer, (story, question)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_20000_answers_follow_from_the_text(task):
    questions = 0
    for story in generate(task, seed=20, questions=20000):
        for question in story.questions:
            questions += 1
            assert solve(task, story.statements[: question.at], question.text) == question.answer, (story, question)
    assert questions == 20000


# Left out: what somebody carries (3, 7 and 8) and where a dropped thing lies (2) take statements beyond the supports.
@pytest.mark.parametrize("task", [task for task in TASKS if task not in (2, 3, 5, 7, 8)])
def test_the_supports_alone_give_the_answer(task):
    for story, question in asked(task, 500):
        supports = [story.statements[index] for index in sorted(question.supports)]
        assert solve(task, supports, question.text) == question.answer, (story, question)


@pytest.mark.parametrize("task", [2, 3])
def test_supports_name_the_thing_then_its_bearer_s_moves(task):
    for story, question in asked(task, 500):
        touched, *moves = (story.statements[index] for index in question.supports)
        thing = re.search(r"the (\w+)", question.text)
        assert thing
        assert f"the {thing[1]}" in touched
        assert {text.split()[0] for text in moves} == {touched.split()[0]}
        places = [text.rstrip(".").split()[-1] for text in moves]
        assert places[-1] == question.answer
        if task == 3:
            assert question.text.endswith(f"before the {places[0]}?")


def test_no_two_rooms_lie_in_one_place():
    steps = {"north": 1j, "south": -1j, "east": 1, "west": -1}
    for story in sample(19)[:2000]:
        facts = [re.fullmatch(r"The (\w+) is (\w+) of the (\w+)\.", text).groups() for text in story.statements]
        cell = {facts[0][0]: 0j}
        for _ in facts:
            for one, direction, other in facts:
                if other in cell:
                    cell.setdefault(one, cell[other] + steps[direction])
                elif one in cell:
                    cell[other] = cell[one] - steps[direction]
        assert len(cell) == 6
        assert len(set(cell.values())) == 6


@pytest.mark.parametrize("task", TASKS)
def test_words_and_answers_are_the_published_ones(task):
    texts = {text for story in sample(task) for text in story.statements}
    texts |= {question.text for _, question in asked(task)}
    assert {word for text in texts for word in re.findall("[a-z]+", text.lower())} == set(
        PUBLISHED[str(task)]["words"].split()
    )
    assert {question.answer for _, question in asked(task)} == set(PUBLISHED[str(task)]["answers"])


@pytest.mark.parametrize("task", TASKS)
def test_frequencies_are_the_published_ones(task):
    published = PUBLISHED[str(task)]
    questions = [question for _, question in asked(task)]
    since = [question.at - 1 - index for question in questions for index in question.supports]
    for counted, of in (
        (Counter(question.answer for question in questions), "answers"),
        (Counter(str(len(question.supports)) for question in questions), "supports"),
        (Counter(str(distance) for distance in since if distance < 10), "statements since a support"),
    ):
        total = len(since) if of == "statements since a support" else len(questions)
        for key in set(counted) | set(published[of]):
            share, allowed = published[of].get(key, (0.0, 0.02))
            assert abs(counted[key] / total - share) <= allowed, (of, key)
    mean, allowed = published["statements before a question"]
    assert abs(sum(question.at for question in questions) / len(questions) - mean) <= allowed


def test_one_place_may_be_named_twice_and_still_leaves_doubt():
    pairs = [re.search(r"either in the (\w+) or the (\w+)", text) for story in sample(10) for text in story.statements]
    same = [pair[1] == pair[2] for pair in pairs if pair]
    assert abs(sum(same) / len(same) - 839 / 4992) < 0.02  # as counted in the published file
