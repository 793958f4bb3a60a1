"""The reader of the published bAbI format: a folder of files, or an archive that is never unpacked."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from relational_rnn._check import InputError, describe
from relational_rnn._reading.archives import read_members
from relational_rnn._reading.plain import decode_text, read_bytes
from relational_rnn.tasks.babi.story import TASK_NAMES, Question, Story

LANGUAGES = ("en", "en-10k", "en-valid", "en-valid-10k", "hn", "hn-10k", "shuffled", "shuffled-10k")
"""The folders of the published archive `tasks_1-20_v1-2`."""
SPLITS = ("train", "valid", "test")
MAX_BYTES = 64 * 2**20
"""No bAbI file is anywhere near as large; a larger one is refused."""
MOST_UNPACKED = 256 * 2**20
"""Nor is the whole published archive, which unpacks to half of it."""

_LINE = re.compile(r"([0-9]{1,9}) (.*)", re.DOTALL)
_PART = re.compile(r"qa([0-9]{1,2})_train_([0-9]{1,9})-of-([0-9]{1,9})-stories\.txt")


@dataclass(frozen=True, slots=True)
class BabiFiles:
    """The stories of a set of bAbI files."""

    train: dict[int, list[Story]]
    """Training stories of each task."""
    valid: dict[int, list[Story]]
    """Validation stories of each task; empty but in the two `en-valid` sets."""
    test: dict[int, list[Story]]
    """Test stories of each task."""
    report: tuple[str, ...]
    """What a user should know, one line each: what is missing, which test stories also stand in the training file."""


def read_babi(
    path: Path | str, *, language: str = "en-10k", partial: bool = False, tasks: Iterable[int] = range(1, 21)
) -> BabiFiles:
    """Reads bAbI files in the published format (Weston et al. 2015, arXiv 1502.05698; version 1.2).

    Args:
        path: the folder that holds the files `qa<N>_<name>_{train,test}.txt` or `qa<N>_{train,valid,test}.txt`; a
            folder of such folders, as the published archive unpacks to; or an archive of either kind (.tar.gz,
            .tar.xz, .tar, .zip), which is read in memory.
        language: which of the published folders to read, one of `LANGUAGES`. A single folder of files is read whatever
            it is called, unless that is the name of another language.
        partial: read what is there of an incomplete set and say so in `report`. A file
            `qa3_train_385-of-2000-stories.txt` in a folder `qa3-10k-partial` then stands for the missing training file.
        tasks: which tasks to read.

    Raises:
        InputError: no such path, not bAbI, a missing file without `partial`, a malformed line (file and line named).
    """
    wanted = sorted(set(tasks))
    if not wanted or any(task not in TASK_NAMES for task in wanted):
        raise InputError(describe("read_babi", "tasks must be numbers from 1 to 20", got=list(wanted)))
    if language not in LANGUAGES:
        raise InputError(
            describe("read_babi", "unknown language", got=repr(language), expected="one of " + ", ".join(LANGUAGES))
        )
    path = Path(path)
    files = _pick_language(path, _list_files(path, language), language)
    splits = SPLITS if any(_find(files, task, "valid") for task in TASK_NAMES) else ("train", "test")
    stories: dict[str, dict[int, list[Story]]] = {split: {} for split in SPLITS}
    missing, notes = [], []
    for task in wanted:
        for split in splits:
            found = _find(files, task, split)
            if found is not None:
                text = _decode(files[found](), f"{path.name}: {found}")
                stories[split][task] = read_story_text(text, f"{path.name}: {found}", task=task)
                continue
            missing.append(f"qa{task}_{TASK_NAMES[task]}_{split}.txt")
            part = _part(files, task) if split == "train" else None
            if part and partial:
                name, published = part
                stories[split][task] = read = read_story_text(_decode(files[name](), name), name, task=task)
                notes.append(f"task {task}: {len(read):,} of {published:,} published training stories")
            else:
                notes.append(f"task {task}: no {split} file")
    if missing and not partial:
        raise InputError(
            describe(
                str(path),
                "the set is not complete",
                got="no " + ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
                hint="partial=True (on the command line --partial) reads what is there and says what is missing.",
            )
        )
    if not any(stories.values()):
        raise InputError(describe(str(path), "it has no file of the tasks asked for", got=wanted))
    return BabiFiles(stories["train"], stories["valid"], stories["test"], tuple(notes + _repeats(stories)))


def read_story_text(lines: Iterable[str], where: str, *, task: int) -> list[Story]:
    """The stories in the lines of one file: `ID text` and `ID question<TAB>answer<TAB>supporting IDs`.

    IDs count up by 1 and start again at 1 with a new story; questions take an ID too.

    Args:
        lines: without or with their line ends.
        where: the file, for messages.
        task: 1 to 20.

    Raises:
        InputError: a line does not keep the format; the message has the file and the number of the line.

    >>> lines = ["1 Mary went to the garden.", "2 Where is Mary? \\tgarden\\t1"]
    >>> read_story_text(lines, "notes.txt", task=1)[0].questions[0]
    Question(text='Where is Mary?', answer='garden', supports=(0,), at=1)
    """
    stories: list[Story] = []
    statements: list[str] = []
    questions: list[Question] = []
    index: dict[int, int] = {}  # ID of a statement -> its place among the statements
    last, number = 0, 0

    def refuse(problem: str, got: object, expected: str | None = None, hint: str | None = None) -> InputError:
        return InputError(describe(f"{where}, line {number}", problem, got=got, expected=expected, hint=hint))

    def close() -> None:
        if not questions:
            raise refuse("the story that ends here has no question", f"{len(statements)} statements")
        stories.append(Story(task, tuple(statements), tuple(questions)))

    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip("\r\n")
        match = _LINE.fullmatch(line)
        if match is None:
            raise refuse("a line must start with a number and a space", repr(line))
        identity, text = int(match[1]), match[2]
        if identity == 1 and last:
            number -= 1
            close()
            number += 1
            statements, questions, index = [], [], {}
        elif identity != last + 1:
            raise refuse("IDs must count up by 1, or start again at 1", identity, expected=f"{last + 1} or 1")
        last = identity
        if "\t" not in text:
            if "?" in text or "|" in text:
                raise refuse(
                    "a question needs a tab before its answer and a tab before its supporting IDs",
                    repr(line),
                    hint="this copy's tabs were altered; fetch the published files again." if "|" in text else None,
                )
            if not text.endswith(".") or not text.strip(" ."):
                raise refuse("a statement must be words and a full stop", repr(line))
            index[identity] = len(statements)
            statements.append(sys.intern(text))  # a few thousand sentences make up all stories
            continue
        if not statements:
            raise refuse("a question before any statement", repr(line))
        fields = text.split("\t")
        if len(fields) != 3:
            raise refuse("a question needs three fields: question, answer, supporting IDs", repr(line))
        question, answer, supports = (field.strip(" ") for field in fields)
        if not question.endswith("?"):
            raise refuse("a question must end with a question mark", repr(line))
        if not answer:
            raise refuse("the answer is empty", repr(line))
        ids = supports.split(" ")
        wrong = [i for i in ids if not re.fullmatch("[0-9]{1,9}", i) or int(i) not in index]
        if wrong:
            known = f"IDs of statements before it in the same story: {', '.join(map(str, index))}"
            raise refuse("a supporting ID is no statement of this story", repr(wrong[0]), expected=known)
        questions.append(
            Question(sys.intern(question), sys.intern(answer), tuple(index[int(i)] for i in ids), len(statements))
        )
    if not last:
        raise InputError(describe(where, "the file holds no story"))
    close()
    return stories


def _decode(data: bytes, where: str) -> list[str]:
    """The lines of a file, which must be ASCII and end with a line end."""
    text = decode_text(data, where, "ascii")
    if text and not text.endswith("\n"):
        problem = "the last line has no line end: the file is cut off"
        raise InputError(describe(f"{where}, line {text.count(chr(10)) + 1}", problem, got=repr(text[-40:])))
    return text.split("\n")[:-1]


def _list_files(path: Path, language: str) -> dict[str, Callable[[], bytes]]:
    """Name -> reader of every text file under a folder or in an archive (there: of every file that may be needed)."""
    if path.is_dir():
        found = sorted([*path.glob("*.txt"), *path.glob("*/*.txt"), *path.glob("*/*/*.txt")])
        # The folder's own name takes part in choosing the language.
        return {
            (path.resolve().name / file.relative_to(path)).as_posix(): partial(read_bytes, file, MAX_BYTES)
            for file in found
        }
    if not path.exists():
        raise InputError(describe(str(path), "there is no such file or folder"))
    expected = "a folder of bAbI files, or an archive of them (.tar.gz, .tar.xz, .zip)"

    def wanted(name: str) -> bool:
        return name.endswith(".txt")

    files = {}
    for name, member in read_members(path, wanted, most=MOST_UNPACKED, most_each=MAX_BYTES, expected=expected):
        folder = PurePosixPath(name).parent.name
        other = folder in LANGUAGES and folder != language  # named, that messages can list it, but not kept
        files[name] = b"" if other else member.read()
    return {name: lambda data=data: data for name, data in files.items()}


def _pick_language(path: Path, files: dict[str, Callable[[], bytes]], language: str) -> dict[str, Callable[[], bytes]]:
    """The files of one language, and the folder of parts that goes with it, by `folder/name` or name alone."""
    folders: dict[str, list[str]] = {}
    for name in files:
        if re.match(r"qa[0-9]+_", PurePosixPath(name).name):
            folders.setdefault(str(PurePosixPath(name).parent), []).append(name)
    suffix = language.removeprefix("en") if language.startswith("en") else None
    parts = [folder for folder in folders if suffix is not None and _is_parts(folder, suffix)]
    whole = [folder for folder in folders if not re.fullmatch(r"qa[0-9]+.*-partial", PurePosixPath(folder).name)]
    if not whole:
        raise InputError(
            describe(
                str(path),
                "it holds no bAbI files",
                got=", ".join(sorted(files)[:3]) or "no text file",
                expected="files named qa<N>_<name>_train.txt and qa<N>_<name>_test.txt",
            )
        )
    chosen = [folder for folder in whole if PurePosixPath(folder).name == language]
    if not chosen and len(whole) == 1 and PurePosixPath(whole[0]).name not in LANGUAGES:
        chosen = whole
    if len(chosen) != 1:
        problem = f"it has no folder {language!r}" if not chosen else f"it has more than one folder {language!r}"
        names = ", ".join(sorted(PurePosixPath(folder).name if not chosen else folder for folder in chosen or whole))
        hint = "choose with language=... (on the command line --language ...)" if not chosen else None
        raise InputError(describe(str(path), problem, got=names, hint=hint))
    picked = {PurePosixPath(name).name: files[name] for name in folders[chosen[0]]}
    for folder in parts:
        picked.update({f"{PurePosixPath(folder).name}/{PurePosixPath(n).name}": files[n] for n in folders[folder]})
    return picked


def _is_parts(folder: str, suffix: str) -> bool:
    """Whether a folder holds a part of a training file of this language, e.g. `qa3-10k-partial` of `en-10k`."""
    return re.fullmatch(rf"qa[0-9]+{suffix}-partial", PurePosixPath(folder).name) is not None


def _find(files: dict[str, Callable[[], bytes]], task: int, split: str) -> str | None:
    """The name of the file of one task and split."""
    names = [name for name in (f"qa{task}_{TASK_NAMES[task]}_{split}.txt", f"qa{task}_{split}.txt") if name in files]
    if len(names) > 1:
        raise InputError(describe("read_babi", f"two files for task {task}, {split}", got=" and ".join(names)))
    return names[0] if names else None


def _part(files: dict[str, Callable[[], bytes]], task: int) -> tuple[str, int] | None:
    """(name, stories of the published file) of a part of a task's training file."""
    for name in files:
        match = _PART.fullmatch(PurePosixPath(name).name)
        if match and "/" in name and int(match[1]) == task:
            return name, int(match[3])
    return None


def _repeats(stories: dict[str, dict[int, list[Story]]]) -> list[str]:
    """A line for each task with test stories that also stand in its training file."""
    lines = []
    for task, test in stories["test"].items():
        seen = set(stories["train"].get(task, ()))
        count = sum(story in seen for story in test)
        if count:
            lines.append(f"task {task}: {count:,} of {len(test):,} test stories also stand in the training file")
    return lines
