"""The reader: every container, every refusal with file and line, incomplete sets."""

from __future__ import annotations

import pytest
from made_up import made_up_files, made_up_story, published_babi, story_text, write_folder, write_tar, write_zip

from relational_rnn._check import InputError
from relational_rnn.tasks.babi.reading import read_babi, read_story_text
from relational_rnn.tasks.babi.story import TASK_NAMES, Question, Story

PART = "qa3-10k-partial/qa3_train_2-of-9-stories.txt"


def under(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


@pytest.fixture
def files() -> dict[str, str]:
    return made_up_files()


def assert_is_made_up(read) -> None:
    assert sorted(read.train) == sorted(read.test) == list(range(1, 21))
    for task in TASK_NAMES:
        assert read.train[task] == [made_up_story(task, i) for i in range(7)]
        assert read.test[task] == [made_up_story(task, i) for i in range(7, 10)]
    assert read.valid == {}


def test_a_story_is_read_as_published():
    lines = [
        "1 Mary moved to the bathroom.\n",
        "2 John went to the hallway.\n",
        "3 Where is Mary? \tbathroom\t1\n",
        "4 Mary got the apple.\n",
        "5 What is Mary carrying?\tapple,milk\t4 2\n",
        "1 Sandra went home.\n",
        "2 Where is Sandra? \thome\t1\n",
    ]
    assert read_story_text(lines, "f", task=8) == [
        Story(
            8,
            ("Mary moved to the bathroom.", "John went to the hallway.", "Mary got the apple."),
            (
                Question("Where is Mary?", "bathroom", (0,), 2),
                Question("What is Mary carrying?", "apple,milk", (2, 1), 3),
            ),
        ),
        Story(8, ("Sandra went home.",), (Question("Where is Sandra?", "home", (0,), 1),)),
    ]


GOOD = [
    "1 Ada ran to the barn.",
    "2 Where is Ada? \tbarn\t1",
    "1 Bo ran to the cave.",
    "2 Bo sat.",
    "3 Where is Bo? \tcave\t1",
]


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (2, "2 Where is Ada? |barn|1", "a question needs a tab before its answer"),
        (2, "2 Where is Ada?  barn 1", "a question needs a tab before its answer"),
        (2, "2 Where is Ada?\tbarn", "a question needs three fields"),
        (2, "2 Where is Ada?\tbarn\t1\t1", "a question needs three fields"),
        (2, "2 Where is Ada\tbarn\t1", "a question must end with a question mark"),
        (2, "2 Where is Ada? \t \t1", "the answer is empty"),
        (2, "2 Where is Ada? \tbarn\t2", "a supporting ID is no statement of this story"),
        (2, "2 Where is Ada? \tbarn\t", "a supporting ID is no statement of this story"),
        (2, "2 Where is Ada? \tbarn\tone", "a supporting ID is no statement of this story"),
        (5, "3 Where is Bo? \tcave\t3", "a supporting ID is no statement of this story"),
        (2, "3 Where is Ada? \tbarn\t1", "IDs must count up by 1"),
        (3, "3 Bo ran to the cave.", "IDs must count up by 1"),
        (4, "4 Bo sat.", "IDs must count up by 1"),
        (1, "2 Ada ran to the barn.", "IDs must count up by 1"),
        (1, "1 Where is Ada? \tbarn\t1", "a question before any statement"),
        (1, "Ada ran to the barn.", "a line must start with a number"),
        (2, "", "a line must start with a number"),
        (1, "1 .", "a statement must be words and a full stop"),
        (4, "2 Bo sa", "a statement must be words and a full stop"),
        (2, "2 Ada sat.", "the story that ends here has no question"),
    ],
)
def test_a_malformed_line_is_refused_with_file_and_line(line, text, message):
    lines = list(GOOD)
    lines[line - 1] = text
    # The line after a changed ID is the first that shows the mistake.
    shown = line + 1 if (line, text) == (3, "3 Bo ran to the cave.") else line
    with pytest.raises(InputError, match=message) as error:
        read_story_text(lines, "qa1_train.txt", task=1)
    assert str(error.value).startswith(f"qa1_train.txt, line {shown}: ")


def test_a_message_in_full():
    with pytest.raises(InputError) as error:
        read_story_text(["1 Ada ran.", "2 Where is Ada?|barn|1"], "qa1_train.txt", task=1)
    assert str(error.value) == (
        "qa1_train.txt, line 2: a question needs a tab before its answer and a tab before its supporting IDs\n"
        "  got       '2 Where is Ada?|barn|1'\n"
        "  hint      this copy's tabs were altered; fetch the published files again."
    )


def test_a_file_without_a_story_and_a_last_story_without_a_question_are_refused():
    with pytest.raises(InputError, match="f: the file holds no story"):
        read_story_text([], "f", task=1)
    with pytest.raises(InputError, match="f, line 3: the story that ends here has no question"):
        read_story_text(["1 Ada ran.", "2 Where is Ada?\tbarn\t1", "1 Bo sat."], "f", task=1)


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2", ""])
def test_archives_are_read_without_unpacking(tmp_path, files, kind):
    path = write_tar(tmp_path / "set.bin", under("tasks_1-20_v1-2/en-10k", files), kind)
    assert_is_made_up(read_babi(path))
    assert [p.name for p in tmp_path.iterdir()] == ["set.bin"]


def test_zip_folder_of_folders_and_plain_folder_are_read(tmp_path, files):
    assert_is_made_up(read_babi(write_zip(tmp_path / "set.zip", under("en-10k", files))))
    assert_is_made_up(read_babi(write_folder(tmp_path / "mine", files)))
    write_folder(tmp_path / "tasks_1-20_v1-2", under("en-10k", files) | under("en", made_up_files(2, 1)))
    assert_is_made_up(read_babi(tmp_path / "tasks_1-20_v1-2"))
    assert_is_made_up(read_babi(str(tmp_path / "tasks_1-20_v1-2" / "en-10k")))
    assert len(read_babi(tmp_path / "tasks_1-20_v1-2", language="en").train[4]) == 2


def test_a_member_that_points_outside_is_only_read_in_memory(tmp_path, files):
    write_tar(tmp_path / "sub.tar", under("../../en-10k", files) | {"/tmp_file_of_a_stranger.txt": "x"}, "")
    assert_is_made_up(read_babi(tmp_path / "sub.tar"))
    assert [p.name for p in tmp_path.iterdir()] == ["sub.tar"]


def test_validation_files_have_short_names(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz", under("en-valid", made_up_files(5, 2, valid=1)), "gz")
    read = read_babi(path, language="en-valid", tasks=[4, 2])
    assert sorted(read.train) == sorted(read.valid) == sorted(read.test) == [2, 4]
    assert read.valid[4] == [made_up_story(4, 5)]


def test_the_language_is_obeyed_or_refused(tmp_path, files):
    path = write_tar(tmp_path / "a.tar", under("en", files) | under("hn", files), "")
    with pytest.raises(InputError) as error:
        read_babi(path)
    assert str(error.value) == (
        f"{path}: it has no folder 'en-10k'\n"
        "  got       en, hn\n"
        "  hint      choose with language=... (on the command line --language ...)"
    )
    with pytest.raises(InputError, match="it has no folder 'en-10k'"):
        read_babi(write_folder(tmp_path / "en", files))
    with pytest.raises(InputError, match="unknown language"):
        read_babi(path, language="fr")
    with pytest.raises(InputError, match="more than one folder 'en'"):
        read_babi(write_tar(tmp_path / "b.tar", under("a/en", files) | under("b/en", files), ""), language="en")


def test_a_missing_file_is_refused_unless_partial(tmp_path, files):
    del files["qa3_three-supporting-facts_train.txt"], files["qa7_counting_test.txt"]
    folder = write_folder(tmp_path / "set", files)
    with pytest.raises(InputError) as error:
        read_babi(folder)
    assert str(error.value) == (
        f"{folder}: the set is not complete\n"
        "  got       no qa3_three-supporting-facts_train.txt, qa7_counting_test.txt\n"
        "  hint      partial=True (on the command line --partial) reads what is there and says what is missing."
    )
    read = read_babi(folder, partial=True)
    assert read.report[:2] == ("task 3: no train file", "task 7: no test file")
    assert 3 not in read.train
    assert 3 in read.test
    assert read_babi(folder, tasks=[1, 2, 20]).report == ()
    (folder / "qa3_three-supporting-facts_test.txt").unlink()
    with pytest.raises(InputError, match="no file of the tasks asked for"):
        read_babi(folder, tasks=[3], partial=True)


@pytest.mark.parametrize("tasks", [[], [0], [21], [1, 33]])
def test_tasks_are_numbers_from_1_to_20(tmp_path, tasks):
    with pytest.raises(InputError, match="tasks must be numbers from 1 to 20"):
        read_babi(tmp_path, tasks=tasks)


@pytest.mark.parametrize("language", ["en-10k", "en"])
def test_a_part_of_a_training_file_stands_for_it_when_asked(tmp_path, files, language):
    del files["qa3_three-supporting-facts_train.txt"]
    part = {PART: story_text([made_up_story(3, 20), made_up_story(3, 21)])}
    path = write_tar(tmp_path / "a.tar.xz", under(language, files) | part, "xz")
    with pytest.raises(InputError, match="the set is not complete"):
        read_babi(path, language=language)
    read = read_babi(path, language=language, partial=True)
    if language == "en":  # the part is of en-10k
        assert read.report[0] == "task 3: no train file"
    else:
        assert read.report[0] == "task 3: 2 of 9 published training stories"
        assert read.train[3] == [made_up_story(3, 20), made_up_story(3, 21)]


def test_repeated_stories_are_reported(tmp_path, files):
    files["qa5_three-arg-relations_test.txt"] = files["qa5_three-arg-relations_train.txt"]
    report = read_babi(write_folder(tmp_path / "set", files)).report
    assert report == ("task 5: 7 of 7 test stories also stand in the training file",)


def test_what_is_no_archive_is_refused_in_one_sentence(tmp_path, files):
    with pytest.raises(InputError, match="there is no such file or folder"):
        read_babi(tmp_path / "nowhere.tar.gz")
    (tmp_path / "page.tar.gz").write_text("<html>Not found</html>")
    with pytest.raises(InputError, match="this is not an archive that can be read"):
        read_babi(tmp_path / "page.tar.gz")
    with pytest.raises(InputError, match="it holds no bAbI files"):
        read_babi(write_tar(tmp_path / "other.tar.gz", {"a/readme.txt": "hello"}, "gz"))
    with pytest.raises(InputError, match="it holds no bAbI files"):
        read_babi(write_folder(tmp_path / "empty", {"a.txt": ""}))


@pytest.mark.parametrize("kind", ["gz", "xz", "zip"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_archive_is_refused(tmp_path, files, kind, share):
    files = under("en-10k", files)
    path = write_zip(tmp_path / "a", files) if kind == "zip" else write_tar(tmp_path / "a", files, kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"archive (cannot|that can)"):
        read_babi(path)


def test_bytes_that_are_not_ascii_and_a_cut_file_are_refused(tmp_path, files):
    folder = write_folder(tmp_path / "set", files)
    name = "qa1_single-supporting-fact_train.txt"
    (folder / name).write_bytes(files[name].encode().replace(b"Bo ran", b"B\xf6 ran", 1))
    with pytest.raises(InputError, match=rf"^set: {name}, line 2: this is not ASCII text\n  got       b'\\xf6'"):
        read_babi(folder)
    (folder / name).write_text(files[name][:-3])
    with pytest.raises(InputError, match=rf"set: {name}, line \d+: the last line has no line end"):
        read_babi(folder)


def test_the_published_files_are_read():
    read = published_babi("RELATIONAL_RNN_BABI", "en-10k")
    assert sum(len(s.questions) for stories in read.test.values() for s in stories) == 20_000
    counts = {task: sum(len(s.questions) for s in stories) for task, stories in read.train.items()}
    assert all(count == 10_000 for task, count in counts.items() if task != 3)
    assert "task 4: 741 of 1,000 test stories also stand in the training file" in read.report
    if counts[3] == 1925:
        assert read.report[0] == "task 3: 385 of 2,000 published training stories"
    else:
        assert counts[3] == 10_000
    assert [len(read.train[task]) for task in (1, 15, 18, 20)] == [2000, 2500, 1978, 933]
    first = read.train[1][0]
    assert first.statements[0] == "Mary moved to the bathroom."
    assert first.questions[0] == Question("Where is Mary?", "bathroom", (0,), 2)


def test_the_published_small_set_is_read_in_full():
    read = published_babi("RELATIONAL_RNN_BABI_EN", "en")
    assert read.report == ("task 4: 134 of 1,000 test stories also stand in the training file",)
    assert {sum(len(s.questions) for s in stories) for stories in read.train.values()} == {1000}
    assert max(len(s.statements) for s in read.test[3]) == 228
