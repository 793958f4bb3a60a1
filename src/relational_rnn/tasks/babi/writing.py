"""Stories in the published bAbI format: `ID text.` or `ID question? <TAB>answer<TAB>supporting IDs`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from relational_rnn._check import InputError, describe
from relational_rnn.tasks.babi.story import TASK_NAMES, Story

_SPACE_BEFORE_TAB = frozenset({1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14})
"""In the published files of these tasks a space stands between the question mark and the tab."""


def story_lines(story: Story) -> list[str]:
    r"""The lines of one story, numbered from 1, questions included; without line ends.

    Raises:
        InputError: a question is out of order, or refers to a statement that does not precede it.

    >>> from relational_rnn.tasks.babi.story import Question
    >>> question = Question("Where is Mary?", "office", (0,), 1)
    >>> story_lines(Story(1, ("Mary went to the office.",), (question,)))
    ['1 Mary went to the office.', '2 Where is Mary? \toffice\t1']
    """
    lines: list[str] = []
    line_of: list[int] = []  # of each statement written so far

    def tell(until: int) -> None:
        for text in story.statements[len(line_of) : until]:
            line_of.append(len(lines) + 1)
            lines.append(f"{len(lines) + 1} {text}")

    space = " " if story.task in _SPACE_BEFORE_TAB else ""
    for question in story.questions:
        if not len(line_of) <= question.at <= len(story.statements):
            problem = f"{question.text!r} is out of order: it follows {question.at} statements"
            expected = f"{len(line_of)} to {len(story.statements)} statements"
            raise InputError(describe("story_lines", problem, expected=expected))
        if not all(0 <= index < question.at for index in question.supports):
            problem = f"{question.text!r} is supported by a statement that does not precede it"
            raise InputError(describe("story_lines", problem, got=question.supports, expected=f"below {question.at}"))
        tell(question.at)
        supports = " ".join(str(line_of[index]) for index in question.supports)
        lines.append(f"{len(lines) + 1} {question.text}{space}\t{question.answer}\t{supports}")
    tell(len(story.statements))
    return lines


def write_babi(
    folder: str | os.PathLike[str], train: Mapping[int, Sequence[Story]], test: Mapping[int, Sequence[Story]]
) -> None:
    """Write stories per task as `qa<N>_<name>_train.txt` and `..._test.txt`, the layout of the published archive.

    The folder appears complete or not at all: the files are written beside it under a temporary name.

    Raises:
        InputError: the folder holds something already, there is nothing to write or a story of another task among a
            task's stories, or the disk refuses.
    """
    folder = Path(folder).absolute()
    where = "write_babi"
    files: dict[str, Sequence[Story]] = {}
    for split, tasks in (("train", train), ("test", test)):
        for task, stories in sorted(tasks.items()):
            if task not in TASK_NAMES:
                raise InputError(describe(where, "there is no such task", got=repr(task), expected="1 to 20"))
            if not stories:
                raise InputError(describe(where, f"task {task} has no {split} stories"))
            if other := {story.task for story in stories} - {task}:
                problem = f"the {split} stories of task {task} include stories of another task"
                raise InputError(describe(where, problem, got=", ".join(map(str, sorted(other))), expected=task))
            files[f"qa{task}_{TASK_NAMES[task]}_{split}.txt"] = stories
    if not files:
        raise InputError(describe(where, "there are no stories to write"))
    temporary: Path | None = None
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            hint = "name a new or an empty folder"
            raise InputError(describe(where, "something is there already", got=folder, hint=hint))
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        for name, stories in files.items():
            with open(temporary / name, "w", encoding="ascii", newline="\n") as file:
                for story in stories:
                    file.writelines(line + "\n" for line in story_lines(story))
        temporary.chmod(0o777 & ~_umask())
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, UnicodeEncodeError):
            raise InputError(describe(where, "a story is not ASCII", got=repr(error.object))) from error
        if isinstance(error, OSError):
            raise InputError(describe(where, f"cannot write the folder: {error.strerror}", got=folder)) from error
        raise


def _umask() -> int:
    """The process's mask, which `mkdtemp` overrides with an owner-only folder."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
