"""The whole command at tiny sizes: files, going on after Ctrl-C, red checks, and what it refuses."""

import json
import re

import pytest

from relational_rnn.benchmarks import running

TINY = ["benchmark", "--quick", "--threads", "1", "--shapes", "c", "d", "--sweeps", "T", "recompute"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Everything that a tiny benchmark writes. Read only."""
    from relational_rnn.cli import main

    folder = tmp_path_factory.mktemp("benchmark")
    assert main([*TINY, "--out", str(folder)]) == 0
    return folder


def results_of(folder) -> dict:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


def test_it_writes_results_a_page_and_figures(measured):
    results = results_of(measured)
    assert {row["shape"] for row in results["rows"]} == {"c", "d", "T=4", "T=16", "recompute T=8", "recompute T=32"}
    assert {row["pass"] for row in results["rows"]} == {"train", "infer", "step"}
    assert all(row["runs"] == 3 and row["min_ms"] <= row["median_ms"] <= row["max_ms"] for row in results["rows"])
    assert (results["threads"], results["dtype"], results["tests_green"]) == (1, "float32", True)
    assert sorted(path.suffix for path in measured.iterdir()) == [".json", ".md", ".svg", ".svg"]
    assert results["settings"]["steps_per_turn"] == 100
    (page,) = measured.glob("*.md")
    assert "One step is the time of 100 steps in a row" in page.read_text()
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        assert (measured / link).exists()


def test_every_figure_on_the_page_stands_in_the_results(measured):
    from relational_rnn.reports.benchmark import milliseconds

    results = results_of(measured)
    (page,) = measured.glob("*.md")
    text = page.read_text()
    for row in results["rows"]:
        assert milliseconds(row["median_ms"]) in text


def test_the_page_is_made_again_from_the_results_alone(measured, call, tmp_path):
    (path,) = measured.glob("*.json")
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    ending = call("benchmark", "--page", copy)
    assert ending.code == 0
    assert "a step takes" in ending.out
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in measured.iterdir()}


def test_called_again_it_measures_nothing_twice(measured, call, monkeypatch):
    before = results_of(measured)
    monkeypatch.setattr(running, "measure", None)  # would crash
    assert call(*TINY, "--out", measured).code == 0
    assert results_of(measured) == before


def test_after_ctrl_c_it_goes_on_where_it_was(call, tmp_path, monkeypatch):
    words = ["benchmark", "--quick", "--threads", "1", "--shapes", "c", "--sweeps", "--runs", "2", "--out", tmp_path]
    real, asked = running.peak_memory, []

    def stopped(case, setting, name):
        asked.append((case.key, name))
        if len(asked) == 7:
            raise KeyboardInterrupt
        return real(case, setting, name)

    monkeypatch.setattr(running, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(running, "peak_memory", stopped)
    ending = call(*words)
    assert ending.code == 130
    assert "what was measured is kept; the same command goes on from there" in ending.err
    (partial,) = tmp_path.iterdir()
    kept = json.loads(partial.read_text())["cases"]
    assert kept["c, train"]["done"]
    assert not kept["c, infer"]["done"]
    assert {len(times) for times in kept["c, infer"]["samples"].values()} == {2}
    assert call(*words[:-4], "--runs", "3", "--out", tmp_path).code == 2
    assert call(*words).code == 0
    assert not partial.exists()
    rows = {(row["pass"], row["contender"]): row for row in results_of(tmp_path)["rows"]}
    for run in ("train", "infer"):
        for name, times in kept[f"c, {run}"]["samples"].items():
            assert rows[run, name]["max_ms"] == pytest.approx(1e3 * max(times), rel=1e-3)
    assert len(asked) == len(set(asked)) + 1  # only what was under way was asked for again


def test_a_red_check_times_nothing_and_ends_with_1(call, tmp_path, monkeypatch):
    real = running.build

    def build(case, setting, name):
        from dataclasses import replace

        right = real(case, setting, name)
        if not name.endswith("cpu"):
            return right
        return replace(right, run=lambda: [1.001 * tensor for tensor in right.run()])

    monkeypatch.setattr(running, "build", build)
    ending = call(*TINY, "--out", tmp_path)
    assert ending.code == 1
    assert "a check is red, nothing was timed at this shape: c, train: relational_rnn:cpu, output: off by" in ending.err
    assert not list(tmp_path.iterdir())


def test_a_recipe_is_trained_with_every_backend(call, tmp_path):
    words = [
        "benchmark",
        "--quick",
        "--threads",
        "1",
        "--shapes",
        "--sweeps",
        "--recipe",
        "demo",
        "--recipe-steps",
        "3",
    ]
    ending = call(*words, "--out", tmp_path)
    assert ending.code == 0, ending.err
    results = results_of(tmp_path)
    assert [row["contender"] for row in results["training"]] == ["relational_rnn:reference", "relational_rnn:cpu"]
    assert results["rows"] == []
    (page,) = tmp_path.glob("*.md")
    for row in results["training"]:
        assert f"| {row['steps_per_second']:.2f} |" in page.read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--shapes", "--sweeps"], "there is nothing to measure"),
        (["--data", "x"], "are those of a recipe, and none is given"),
        (["--recipe-steps", "5"], "are those of a recipe, and none is given"),
        (["--recipe", "demo", "--recipe-steps", "2"], "a recipe needs 3 steps to be timed"),
        (["--recipe", "demo", "--dtype", "float64"], "a recipe is timed on the CPU in float32"),
        (["--recipe", "demo", "--partial"], "partial would have no effect"),
        (["--shapes", "--sweeps", "--recipe", "babi", "--data", "/nowhere"], "/nowhere"),
        (["--shapes", "c", "c"], "shapes must be given once each"),
        (["--threads", "0"], "threads must be a whole number of at least 1"),
        (["--runs", "0"], "runs must be a whole number of at least 1"),
        (["--runs", "3", "--budget-seconds", "5"], "both say how often to run"),
        (["--quick", "--budget-seconds", "5"], "both say how often to run"),
        (["--budget-seconds", "-5"], "budget_seconds must be a number of seconds above 0"),
        (["--budget-seconds", "nan"], "budget_seconds must be a number of seconds above 0"),
        (["--device", "cuda"], "there is no CUDA device here"),
        (["--l0sg", "/nowhere"], "the port is not there"),
        (["--page", "/nowhere.json"], "cannot be read"),
        (["--page", "/nowhere.json", "--runs", "3"], "other options have no place beside it"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(call, tmp_path, monkeypatch, words, sentence):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    ending = call("benchmark", *words)
    assert ending.code == 2
    assert sentence in ending.err
    assert "Traceback" not in ending.err
    assert not list(tmp_path.iterdir())


def test_a_file_of_something_else_is_no_page(call, tmp_path):
    path = tmp_path / "results.json"
    for content, sentence in (("[]", "must hold a JSON object"), ("{", "is not readable JSON")):
        path.write_text(content)
        ending = call("benchmark", "--page", path)
        assert ending.code == 2
        assert sentence in ending.err
