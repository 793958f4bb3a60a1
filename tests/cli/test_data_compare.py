"""data compare: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
import shutil

import pytest

from relational_rnn.tasks.babi.likeness import SETS, SHARES


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    """Tasks 1 and 15 of another seed in the published format. Read only."""
    from relational_rnn.cli import main

    folder = tmp_path_factory.mktemp("alike") / "files"
    words = ["data", "generate", "babi", "--out", str(folder), "--questions", "1000", "--test-questions", "10"]
    assert main([*words, "--tasks", "1", "15", "--seed", "5"]) == 0
    return folder


COMPARE = ("--tasks", 1, 15, "--questions", 4000)


def test_a_table_with_every_verdict(call, alike, tmp_path):
    done = call("data", "compare", alike, *COMPARE, "--json", tmp_path / "new" / "compared.json")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("4,000 generated questions of each task (seed 0), en-10k training files; ")
    assert [cell.strip() for cell in lines[2].split("  ") if cell.strip()] == ["task", *SETS, *SHARES]
    assert lines[3].startswith("1 single-supporting-fact ")
    assert lines[4].startswith("15 basic-deduction ")
    assert lines[6] == "12 of 12 verdicts hold"
    written = json.loads((tmp_path / "new" / "compared.json").read_text())
    assert written["generated"] == {"seed": 0, "questions": 4000}
    assert [(t["task"], t["published_questions"]) for t in written["tasks"]] == [(1, 1000), (15, 1000)]
    for line, of_task in zip(lines[3:5], written["tasks"], strict=True):
        assert [verdict["quantity"] for verdict in of_task["verdicts"]] == [*SETS, *SHARES]
        for verdict in of_task["verdicts"][2:]:
            assert f"{100 * verdict['deviation']:.2f} / {100 * verdict['bound']:.2f}" in line
            assert verdict["holds"] is True
    assert call("data", "compare", alike, *COMPARE).out == done.out.rsplit("\n", 2)[0] + "\n"
    assert call("data", "compare", alike, *COMPARE, "--seed", 1).out.splitlines()[3:5] != lines[3:5]


def test_what_is_out_of_bounds_is_named_and_gives_1(call, alike, tmp_path):
    files = shutil.copytree(alike, tmp_path / "files")
    train = files / "qa1_single-supporting-fact_train.txt"
    train.write_text(train.read_text().replace("\tgarden\t", "\tpark\t"))
    done = call("data", "compare", files, *COMPARE, "--json", tmp_path / "compared.json")
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[3].count(" OUT") == 2
    assert lines[4].count(" OUT") == 0
    assert lines[6] == "10 of 12 verdicts hold"
    assert lines[7] == "out of bounds: task 1, answers, only published: park; only generated: garden"
    assert lines[8].startswith("out of bounds: task 1, answer shares, ")
    holds = [[v["holds"] for v in t["verdicts"]] for t in json.loads((tmp_path / "compared.json").read_text())["tasks"]]
    assert holds == [[True, False, False, True, True, True], [True] * 6]


def test_an_incomplete_set_needs_partial_and_is_said_to_be_one(call, alike, tmp_path):
    files = shutil.copytree(alike, tmp_path / "files")
    (files / "qa15_basic-deduction_train.txt").unlink()
    refused = call("data", "compare", files, *COMPARE)
    assert refused.code == 2
    assert "--partial" in refused.err
    done = call("data", "compare", files, *COMPARE, "--partial")
    assert done.code == 0
    assert done.out.splitlines()[0] == "note: task 15: no train file"
    assert "6 of 6 verdicts hold" in done.out
    refused = call("data", "compare", files, "--tasks", 15, "--partial")
    assert refused.code == 2
    assert refused.err.startswith(f"error: {files}: there is no training file of the tasks asked for")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--questions", "0"), "questions must be a whole number of at least 1"),
        (("--language", "fr"), "language is not a known choice"),
        (("--tasks", "21"), "tasks must be numbers from 1 to 20"),
    ],
)
def test_mistakes_give_2(call, alike, words, said):
    refused = call("data", "compare", alike, *words)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
