"""Whatever a user can get wrong ends with one clear message, exit code 2, and nothing half-written."""

import errno
import os
import shutil
import tarfile
from dataclasses import replace

import pytest

from relational_rnn import InputError
from relational_rnn.runs import train
from relational_rnn.tasks.babi.recipes import DataConfig, demo

BAD = os.fsdecode(b"bad\xff")
"""A name that the system takes and that is no text."""


def refused(ending) -> str:
    """The message of a command that must have been refused."""
    assert ending.code == 2, ending
    assert "Traceback" not in ending.err
    return ending.err


@pytest.fixture
def options(tiny):
    """Those of a tiny run on files; the tasks and sizes of generated data have no place there."""
    start = tiny.index("--memory.mem-slots")
    return ["--recipe", "demo", *tiny[start:], "--loop.steps", "4"]


@pytest.fixture
def files(published, tmp_path):
    """A copy of the files that can be damaged."""
    return shutil.copytree(published, tmp_path / "files")


@pytest.fixture
def run_copy(trained, tmp_path):
    """A copy of the trained run that can be damaged."""
    return shutil.copytree(trained, tmp_path / "copy")


def test_an_archive_of_something_else(call, options, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing of the kind\n")
    archive = tmp_path / "notes.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "notes.txt", arcname="notes.txt")
    err = refused(call("train", "babi", *options, "--data", archive, "--out", tmp_path / "run"))
    assert err.startswith(f"error: {archive}: ")
    assert "bAbI" in err
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_archive(call, options, tmp_path):
    path = tmp_path / "babi.tar.gz"
    path.write_bytes(b"not compressed at all")
    err = refused(call("train", "babi", *options, "--data", path, "--out", tmp_path / "run"))
    assert err.startswith(f"error: {path}")
    assert not (tmp_path / "run").exists()


def test_data_that_are_not_there(call, options, tmp_path):
    err = refused(call("train", "babi", *options, "--data", tmp_path / "nowhere", "--out", tmp_path / "run"))
    assert str(tmp_path / "nowhere") in err


def test_a_missing_task_file_is_named_with_the_way_to_go_on_without_it(call, options, files, tmp_path):
    (files / "qa7_counting_train.txt").unlink()
    err = refused(call("train", "babi", *options, "--data", files, "--out", tmp_path / "run"))
    assert "qa7_counting_train.txt" in err
    assert "--partial" in err
    assert not (tmp_path / "run").exists()


def test_a_missing_task_file_can_be_accepted_and_is_reported(call, options, files, tmp_path):
    (files / "qa7_counting_train.txt").unlink()
    done = call("train", "babi", *options, "--data", files, "--partial", "--out", tmp_path / "run")
    assert done.code == 0
    assert "task 7: no train file" in done.err
    measured = call("evaluate", tmp_path / "run")
    assert "task 7: not measured" in measured.out
    assert "7 counting" not in measured.out


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda text: text.replace("\t", "|", 1), None),
        (lambda text: text.replace("\t", " ", 1), None),
        (lambda text: "1 Where is Mary? \tgarden\t1\n" + text, 1),
        (lambda text: text.replace("2 ", "7 ", 1), 2),
    ],
    ids=["tabs to bars", "tab to space", "question first", "number skipped"],
)
def test_a_damaged_line_is_named_with_file_and_line(call, options, files, tmp_path, damage, line):
    path = files / "qa1_single-supporting-fact_train.txt"
    path.write_text(damage(path.read_text()))
    err = refused(call("train", "babi", *options, "--data", files, "--out", tmp_path / "run"))
    assert path.name in err
    if line is not None:
        assert f"line {line}" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "babi", "--lrate", "3"], ["Unrecognized options: --lrate", "relational-rnn train babi --help"]),
        (["train", "babi", "--core", "lsmt"], ["invalid choice 'lsmt'", "--core", "transformer"]),
        (["train", "babi", "--recipe", "domo"], ["invalid choice 'domo'", "--recipe", "'demo'"]),
        (["train", "babi", "--seed", "many"], ["--seed", "'many'"]),
        (["train", "babi", "--loop.steps", "0"], ["steps must be a whole number of at least 1"]),
        (["train", "babi", "--data.tasks", "1", "21"], ["there are no such tasks"]),
        (["train", "babi", "--data.language", "en"], ["language would have no effect", "no path is given"]),
        (["train", "babi", "--out"], ["--out"]),
        (["train", "babi", "--resume"], ["--resume needs to know which run", "--out"]),
        (["train", "babi", "--resume", "--recipe", "demo", "--out", "x"], ["--recipe has no place"]),
        (["compare", "babi", "--cores", "rmc", "lsmt"], ["lsmt", "transformer"]),
        (["compare", "babi", "--cores", "rmc", "rmc"], ["cores must be given, each once"]),
        (["compare", "babi", "--jobs", "0"], ["jobs must be a whole number of at least 1"]),
        (
            ["train", "babi", "--core", "lstm", "--fast.key-size", "32"],  # as the recipe has it
            ["train babi: --fast.key-size would have no effect on lstm"],
        ),
        (
            ["compare", "babi", "--cores", "rmc", "lstm", "--fast.reads=3"],
            ["compare babi: --fast.reads would have no effect on rmc, lstm"],
        ),
        (
            ["train", "babi", "--core", "fastweights", "--model.read-heads", "2"],
            [
                "train: model.read_heads would have no effect on fastweights",
                "the cores that have it: rmc, competitive, rnn",
            ],
        ),
        (
            ["compare", "babi", "--cores", "deltanet", "fastweights", "--model.read_heads=2"],
            ["compare: model.read_heads would have no effect on deltanet, fastweights"],
        ),
        (["compare", "babi", "--seed", "3"], ["Unrecognized options: --seed"]),
        (["evaluate"], ["RUN"]),
        (["evaluate", "run", "--partial"], ["--partial has no effect without --data"]),
        (["evaluate", "run", "--split", "training"], ["invalid choice 'training'", "'valid'"]),
        (["data", "generate", "babi", "--questions", "0", "--out", "x"], ["train_questions must be a whole number"]),
        (["data", "generate", "babi", "--out", "x", "--tasks"], ["there are no such tasks"]),
        (["data", "fetch", "babi", "--out", "x", "--url", "babi.tar.gz"], ["this is no web address"]),
        (["report", "--task", "babi", "run"], ["--results and --task go together"]),
        (["report", "run", "--note", "a busy machine"], ["--note goes with --results"]),
        (["report", "run", "--note", "busy", "idle"], ["idle"]),
    ],
    ids=lambda value: " ".join(value[:5]) if isinstance(value, list) else None,
)
def test_an_option_that_cannot_be(call, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    err = refused(call(*words))
    for part in said:
        assert part in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["train", "babi", "--out", BAD],
        ["train", "language", "--data", BAD, "--out", "run"],
        ["compare", "relations", "--out", BAD],
        ["evaluate", BAD],
        ["report", BAD, "--out", "page"],
        ["report", "run", "--out", BAD],
        ["ask", "--story", BAD],
        ["data", "generate", "babi", "--out", BAD],
        ["data", "fetch", "babi", "--out", BAD],
        [BAD],
    ],
    ids=lambda words: " ".join(words[:-1]),
)
def test_a_path_that_is_not_text_is_refused_and_leaves_nothing(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    err = refused(call(*words))
    assert err.startswith("error: relational-rnn: an argument is not text in UTF-8\n  got       'bad\\udcff'\n")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_a_folder_that_is_not_text_is_refused(tmp_path):
    (tmp_path / BAD).mkdir()
    with pytest.raises(InputError, match=r"bad\\udcff/run': the name of a run's folder must be text"):
        train(demo(), tmp_path / BAD / "run")
    config = demo()
    stories = replace(DataConfig(path=tmp_path / BAD), tasks=config.data.tasks)
    with pytest.raises(InputError, match=r"bad\\udcff': a configuration holds text"):
        train(replace(config, data=stories), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == [BAD]


@pytest.mark.parametrize("command", ["evaluate", "ask", "report"])
def test_a_run_folder_that_does_not_exist(call, command, tmp_path):
    err = refused(call(command, tmp_path / "nowhere", *(["-o", tmp_path / "page"] if command == "report" else [])))
    assert str(tmp_path / "nowhere") in err
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_is_taken(call, tiny, trained):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in trained.iterdir())
    err = refused(call("train", "babi", *tiny, "--loop.steps", 6, "--out", trained))
    assert err.startswith(f"error: {trained}: there is a run in this folder already\n")
    assert "--resume" in err
    assert sorted((path.name, path.stat().st_mtime_ns) for path in trained.iterdir()) == before


def test_a_folder_of_something_else(call, tiny, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    err = refused(call("train", "babi", *tiny, "--out", tmp_path))
    assert "the folder is not empty and not a run" in err
    err = refused(call("data", "generate", "babi", "--out", tmp_path))
    assert "this folder is not empty" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_resume_where_there_is_no_run(call, tmp_path):
    err = refused(call("train", "babi", "--out", tmp_path / "nowhere", "--resume"))
    assert f"{tmp_path / 'nowhere'}: there is no run in this folder" in err


def test_a_checkpoint_of_another_configuration(call, run_copy):
    err = refused(call("train", "babi", "--out", run_copy, "--resume", "--optimizer.learning-rate", "0.5"))
    rate = demo().optimizer.learning_rate
    assert f"belongs to another configuration: optimizer.learning_rate is {rate} there and 0.5 here" in err


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None], ids=["empty", "other", "half"])
def test_an_unreadable_checkpoint(call, run_copy, content):
    path = run_copy / "last.ckpt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    before = path.read_bytes()
    err = refused(call("train", "babi", "--out", run_copy, "--resume"))
    assert err.startswith(f"error: {path}: the checkpoint is damaged or incomplete\n")
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", ["evaluate", "ask"])
def test_unreadable_weights(call, run_copy, command):
    path = run_copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert refused(call(command, run_copy)).startswith(f"error: {path}: the weights cannot be read")


def test_a_configuration_of_another_version(call, run_copy):
    path = run_copy / "config.json"
    path.write_text(path.read_text().replace('"core"', '"heart"'))
    assert "unknown in the configuration: heart" in refused(call("evaluate", run_copy))


def test_a_full_disk_is_one_sentence_and_leaves_no_part_of_a_file(call, tiny, tmp_path, monkeypatch):
    replace = os.replace

    def full(source, target):
        if str(target).endswith("last.ckpt"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    err = refused(call("train", "babi", *tiny, "--loop.steps", 4, "--out", tmp_path / "run"))
    assert "No space left on device" in err
    assert not list((tmp_path / "run").rglob("*.part"))


def test_data_with_a_word_that_the_run_does_not_know(call, trained, files):
    path = files / "qa1_single-supporting-fact_test.txt"
    path.write_text(
        path.read_text().replace("garden", "cellar").replace("kitchen", "cellar").replace("office", "cellar")
    )
    err = refused(call("evaluate", trained, "--data", files))
    assert "unknown word: cellar" in err


def test_a_story_that_is_not_text(call, trained, tmp_path):
    (tmp_path / "story").write_bytes(b"\xff\xfe\x00")
    err = refused(call("ask", trained, "--story", tmp_path / "story"))
    assert err == f"error: {tmp_path / 'story'}, line 1: this is not UTF-8 text\n  got       b'\\xff'\n"
    err = refused(call("ask", trained, "--story", tmp_path / "nowhere.txt"))
    assert err == f"error: {tmp_path / 'nowhere.txt'}: cannot be read: No such file or directory\n"
