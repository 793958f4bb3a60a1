"""The commands of language, on runs that take a blink."""

import json
import shlex
from pathlib import Path

import pytest

from relational_rnn.cli.commands import load_command

TINY = shlex.split(
    "--memory.mem-slots 1 --memory.head-size 6 --memory.num-heads 2 --model.embedding-size 8 --batch-size 2 --chunk 10 "
    "--loop.steps 4 --loop.validate-every 3 --loop.checkpoint-every 2 --valid-streams 2"
)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text("the cat sat on a mat\nand saw two birds\n" * 30)
    return path


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RELATIONAL_RNN_CACHE", str(tmp_path_factory.getbasetemp() / "language-cache"))


@pytest.fixture
def trained(call, text, tmp_path_factory):
    """The folder of a run, which is trained when it is first asked for."""
    folder = tmp_path_factory.getbasetemp() / "language-run"
    if not folder.exists():
        done = call("train", "language", "--data", text, *TINY, "--core", "gru", "--seed", 3, "--out", folder)
        assert done.code == 0
        assert done.out.startswith(f"{folder}: 4 steps in ")
        assert " nats per token (" in done.out
        assert "vocabulary: 16 characters\n" in done.err
    return folder


def test_evaluate_reads_the_whole_test_text(call, trained):
    done = call("evaluate", trained)
    assert done.code == 0
    result = json.loads((trained / "result.json").read_text())
    lines = done.out.splitlines()
    assert lines[0].split() == ["occurrences", "in", "training", "tokens", "perplexity", "accuracy,", "%"]
    never = next(line for line in lines if line.startswith("never"))
    assert never.split()[1:] == [f"{result['perplexity']:,.2f}", f"{result['bits_per_character']:.4f}"]
    assert lines[-1].startswith(f"GRU, seed 3, language: perplexity {result['perplexity']:,.2f} per word, ")
    assert f"of {result['tokens']} test tokens right" in lines[-1]
    assert "117 valid tokens" in call("evaluate", trained, "--split", "valid").out
    refused = call("evaluate", trained, "--data", trained / "config.json", "--partial")
    assert (refused.code, refused.out) == (2, "")
    assert "--partial has no effect on a text" in refused.err


def test_evaluate_reads_another_text(call, trained, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("two cats sat on a mat\n")
    assert "of 22 text tokens right" in call("evaluate", trained, "--data", other).out
    other.write_text("a dog\n")
    refused = call("evaluate", trained, "--data", other)
    assert refused.code == 2
    assert "'g' (line 1)" in refused.err


def test_generate_goes_on_with_a_prompt(call, trained):
    words = ["generate", trained, "--prompt", "the cat", "--tokens", 30]
    done = call(*words)
    assert done.code == 0
    assert done.out.startswith("the cat")
    assert len(done.out) == len("the cat") + 30 + 1
    assert call(*words, "--seed", 0).out == done.out
    assert call(*words, "--seed", 1).out != done.out
    greedy = call(*words, "--temperature", 0)
    assert greedy.out == call(*words, "--top-k", 1, "--seed", 5).out
    assert len(call("generate", trained, "--tokens", 5, "--top-p", 0.5).out) == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", "über"], "prompt: the vocabulary lacks characters of this text"),
        (["--prompt", ""], "the prompt holds no token"),
        (["--temperature", "-1"], "temperature is out of range"),
        (["--temperature", "0", "--top-k", "3"], "would have no effect at temperature 0"),
        (["--tokens", "0"], "tokens must be a whole number of at least 1"),
    ],
)
def test_generate_refuses_in_one_message(call, trained, words, message):
    refused = call("generate", trained, *words)
    assert (refused.code, refused.out) == (2, "")
    assert message in refused.err


def test_generate_needs_a_prompt_where_the_text_has_no_line_ends(call, tmp_path):
    (tmp_path / "line.txt").write_text("the cat sat on a mat and saw two birds " * 60)
    run = tmp_path / "run"
    assert call("train", "language", "--data", tmp_path / "line.txt", *TINY, "--core", "gru", "--out", run).code == 0
    refused = call("generate", run, "--tokens", 3)
    assert (refused.code, refused.out) == (2, "")
    assert "the run knows no line end" in refused.err
    assert "--prompt" in refused.err
    assert call("generate", run, "--tokens", 3, "--prompt", "the ").code == 0


def test_generate_and_train_name_what_is_missing(call, text, tmp_path):
    refused = call("generate", tmp_path)
    assert refused.code == 2
    assert "there is no run in this folder" in refused.err
    refused = call("train", "language", "--out", tmp_path / "run")
    assert refused.code == 2
    assert "there is no text to read" in refused.err
    refused = call("train", "language", "--data", text, "--chunk", 5000, "--out", tmp_path / "run")
    assert refused.code == 2
    assert "shorter than one chunk of every stream" in refused.err
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    refused = call("train", "language", "--data", empty, "--out", tmp_path / "run")
    assert refused.code == 2
    assert "the file is empty" in refused.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "my notes.txt"], "runs/my notes/rmc-0"),
        (["--data", "wikitext-2-v1.tar.gz", "--core", "lstm", "--seed", "4"], "runs/wikitext-2-v1/lstm-4"),
        (["--data", "a.folder"], "runs/a.folder/rmc-0"),
        (["--data", "mine.txt", "--recipe", "wikitext-2-small"], "runs/wikitext-2-small/rmc-0"),
        (["--data", "mine.txt", "--recipe=shakespeare-char"], "runs/shakespeare-char/rmc-0"),
        (["--data", "mine.txt", "--out", "here"], "here"),
    ],
)
def test_the_folder_is_named_after_the_text_or_the_recipe_asked_for(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.folder").mkdir()
    assert load_command("train language").parse(words).out == Path(expected)
    if "--core" not in words:
        assert load_command("compare language").parse(words).out == Path(expected.removesuffix("/rmc-0"))


def test_resume_goes_on_with_the_configuration_of_the_run(call, trained, text):
    again = call("train", "language", "--out", trained, "--resume")
    assert (again.code, again.out.split(" steps")[0]) == (0, f"{trained}: 4")
    other = call("train", "language", "--data", text, "--out", trained)
    assert other.code == 2
    assert "there is a run in this folder already" in other.err


def test_compare_prints_a_table_and_writes_reports(call, text, tmp_path):
    pytest.importorskip("matplotlib")
    words = ["compare", "language", "--data", text, *TINY, "--cores", "rmc", "lstm", "--seeds", 0, 1]
    done = call(*words, "--out", tmp_path, "--tuning.learning-rates", "1e-5", "1e-2", "--tuning.steps", 2)
    assert done.code == 0
    told, lines = done.out.splitlines()[:4], done.out.splitlines()[6:]
    assert told[0] == "best validation loss of 2 steps with every learning rate"
    for line in told[2:]:  # by the loss, the lower the better
        _, low, high, taken = line.split()
        assert taken == ("1e-05" if float(low) <= float(high) else "0.01")
    assert [line.split(":")[0] for line in lines[:4]] == [
        str(tmp_path / name) for name in ("rmc-0", "rmc-1", "lstm-0", "lstm-1")
    ]
    assert lines[5].split()[:3] == ["core", "parameters", "state"]
    assert [line.split()[0] for line in lines[6:8]] == ["RMC", "LSTM"]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "bits per character" in page
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "index.html",
        "loss-by-step.svg",
        "loss-by-seconds.svg",
        "cost-of-forgetting.svg",
        "perplexity-by-frequency.svg",
    }
    runs = [tmp_path / name for name in ("rmc-0", "rmc-1", "lstm-0", "lstm-1")]
    done = call("report", *runs, "--results", tmp_path / "page", "--task", "cats")
    assert done.code == 0
    records = json.loads((tmp_path / "page.json").read_text())
    values = [json.loads((run / "result.json").read_text())["bits_per_character"] for run in runs[:2]]
    assert (records[0]["metric"], records[0]["values"], records[0]["seeds"]) == (
        "test_bits_per_character",
        values,
        [0, 1],
    )
    resets = records[0]["details"]["resets"]["bits_per_character"]
    assert list(resets) == ["10", "30", "100"]
    markdown = (tmp_path / "page.md").read_text()
    assert f"| every 30 tokens | {resets['30']:.4f} |" in markdown
    assert "page-cost-of-forgetting.svg" in markdown
    assert (tmp_path / "page-cost-of-forgetting.svg").exists()
