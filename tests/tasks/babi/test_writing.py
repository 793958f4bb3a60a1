"""The published file format, written line by line and folder by folder."""

from __future__ import annotations

import os
import re

import pytest

from relational_rnn._check import InputError
from relational_rnn.tasks.babi.generation import generate
from relational_rnn.tasks.babi.story import TASK_NAMES, Question, Story
from relational_rnn.tasks.babi.writing import story_lines, write_babi

STATEMENT = re.compile(r"([1-9]\d*) [A-Z][A-Za-z ]*\.")
QUESTION = re.compile(r"([1-9]\d*) ([A-Z][A-Za-z ]*\?)( ?)\t([A-Za-z]+(?:,[a-z]+)*)\t([1-9]\d*(?: [1-9]\d*)*)")
WITHOUT_SPACE = {4, 15, 16, 17, 18, 19, 20}


@pytest.mark.parametrize("task", sorted(TASK_NAMES))
def test_every_line_has_the_published_form_and_says_what_the_story_says(task):
    for story in generate(task, seed=2, stories=30):
        lines = story_lines(story)
        assert len(lines) == len(story.statements) + len(story.questions)
        statements: list[str] = []
        index_of: dict[int, int] = {}
        questions: list[Question] = []
        for number, line in enumerate(lines, start=1):
            if match := QUESTION.fullmatch(line):
                supports = tuple(index_of[int(support)] for support in match[5].split())
                questions.append(Question(match[2], match[4], supports, len(statements)))
                assert (match[3] == "") == (task in WITHOUT_SPACE)
            else:
                match = STATEMENT.fullmatch(line)
                assert match, line
                index_of[number] = len(statements)
                statements.append(line.split(" ", 1)[1])
            assert int(match[1]) == number
        assert Story(task, tuple(statements), tuple(questions)) == story


def test_a_published_story_comes_out_as_published():
    story = Story(
        2,
        ("Mary moved to the office.", "Mary got the milk there.", "Mary went to the garden.", "John got the apple."),
        (Question("Where is the milk?", "garden", (1, 2), 3), Question("Where is the milk?", "garden", (1, 2), 3)),
    )
    assert story_lines(story) == [
        "1 Mary moved to the office.",
        "2 Mary got the milk there.",
        "3 Mary went to the garden.",
        "4 Where is the milk? \tgarden\t2 3",
        "5 Where is the milk? \tgarden\t2 3",
        "6 John got the apple.",
    ]


@pytest.mark.parametrize(
    ("questions", "problem"),
    [
        ([((0,), 2), ((0,), 1)], "out of order"),
        ([((0,), 3)], "out of order"),
        ([((1,), 1)], "does not precede it"),
        ([((-1,), 1)], "does not precede it"),
    ],
)
def test_a_story_that_contradicts_itself_is_refused(questions, problem):
    asked = tuple(Question("Where is Mary?", "office", supports, at) for supports, at in questions)
    with pytest.raises(InputError, match=problem):
        story_lines(Story(1, ("Mary went to the office.", "Mary went to the garden."), asked))


def test_a_folder_holds_all_tasks_under_their_published_names(tmp_path):
    train = {task: generate(task, seed=1, stories=3) for task in TASK_NAMES}
    test = {task: generate(task, seed=2, stories=2) for task in TASK_NAMES}
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new" / "deep", tmp_path / "empty"):
        write_babi(folder, train, test)
        names = {f"qa{task}_{name}_{split}.txt" for task, name in TASK_NAMES.items() for split in ("train", "test")}
        assert {path.name for path in folder.iterdir()} == names
        for task, name in TASK_NAMES.items():
            for split, stories in (("train", train), ("test", test)):
                written = (folder / f"qa{task}_{name}_{split}.txt").read_bytes()
                lines = [line for story in stories[task] for line in story_lines(story)]
                assert written == "".join(line + "\n" for line in lines).encode("ascii")
        assert os.stat(folder).st_mode & 0o777 == 0o777 & ~_umask()
    assert {path.name for path in tmp_path.iterdir()} == {"new", "empty"}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_is_there_already_is_left_alone(tmp_path):
    stories = {1: generate(1, seed=1, stories=1)}
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    file.write_text("mine too")
    for there in (full, file):
        with pytest.raises(InputError, match="something is there already"):
            write_babi(there, stories, stories)
    assert (full / "notes.txt").read_text() == "mine"
    assert file.read_text() == "mine too"
    assert {path.name for path in tmp_path.rglob("*")} == {"full", "file", "notes.txt"}


def test_unusable_stories_are_refused_and_nothing_is_left_behind(tmp_path):
    good = generate(1, seed=1, stories=1)
    bad = Story(1, ("Mary went to the office.",), (Question("Where is Mary?", "office", (4,), 1),))
    foreign = Story(1, ("Zoë went to the office.",), ())
    for train, problem in (
        ({}, "no stories to write"),
        ({1: []}, "task 1 has no train stories"),
        ({21: good}, "there is no such task"),
        ({2: good}, "the train stories of task 2 include stories of another task"),
        ({1: [*good, bad]}, "does not precede it"),
        ({1: [*good, foreign]}, "not ASCII"),
    ):
        with pytest.raises(InputError, match=problem):
            write_babi(tmp_path / "out", train, {})
        assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_babi(tmp_path / "out", {1: generate(1, seed=1, stories=1)}, {})
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_babi(tmp_path / "out", {1: generate(1, seed=1, stories=1)}, {})
    assert list(tmp_path.iterdir()) == []
