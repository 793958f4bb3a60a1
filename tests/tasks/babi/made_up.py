"""Made-up bAbI sets for tests, as text, folders and archives; and where the published files are, if anywhere."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from functools import cache
from pathlib import Path

import pytest

from relational_rnn.tasks.babi.reading import BabiFiles, read_babi
from relational_rnn.tasks.babi.story import TASK_NAMES, Question, Story

PEOPLE = ("Ada", "Bo", "Cy", "Di")
PLACES = ("attic", "barn", "cave", "dock", "exit")


def made_up_story(task: int, number: int) -> Story:
    """A story with 2 to 6 statements and 1 or 2 questions; all stories of a task with numbers below 400 differ."""
    walks = [
        (PEOPLE[(number // (25, 100)[i % 2] + i) % 4], PLACES[(task + number // (1, 5)[i % 2] + i) % 5])
        for i in range(2 + (task + number) % 5)
    ]
    questions = []
    for at in sorted({2, len(walks)}):
        who, place = walks[at - 1]
        questions.append(Question(f"Where is {who}?", place, (at - 1, at - 2), at))
    return Story(task, tuple(f"{who} ran to the {place}." for who, place in walks), tuple(questions))


def story_text(stories: list[Story]) -> str:
    """The stories in the published format."""
    lines = []
    for story in stories:
        number, ids = 0, []
        for i in range(len(story.statements) + 1):
            for question in [question for question in story.questions if question.at == i]:
                number += 1
                supports = " ".join(str(ids[support]) for support in question.supports)
                lines.append(f"{number} {question.text} \t{question.answer}\t{supports}\n")
            if i < len(story.statements):
                number += 1
                ids.append(number)
                lines.append(f"{number} {story.statements[i]}\n")
    return "".join(lines)


def made_up_files(train: int = 7, test: int = 3, valid: int = 0) -> dict[str, str]:
    """File name -> text of a complete set with so many stories per task and split; `valid` gives the short names."""
    files = {}
    for task, name in TASK_NAMES.items():
        start = 0
        for split, count in (("train", train), ("valid", valid), ("test", test)):
            stories = [made_up_story(task, start + i) for i in range(count)]
            start += count
            if count:
                files[f"qa{task}_{split}.txt" if valid else f"qa{task}_{name}_{split}.txt"] = story_text(stories)
    return files


def write_folder(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def write_tar(path: Path, files: dict[str, str], compression: str) -> Path:
    with tarfile.open(path, f"w:{compression}") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def write_zip(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def published(variable: str) -> Path:
    """The published files that an environment variable names; skips the test where it names none."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} does not name published bAbI files")
    return Path(value)


@cache
def published_babi(variable: str, language: str) -> BabiFiles:
    """The stories of the published files, read once."""
    return read_babi(published(variable), language=language, partial=True)
