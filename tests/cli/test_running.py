"""The commands that train and measure, on a run that takes a blink."""

import csv
import json
import shlex
import signal
from dataclasses import fields, replace

import pytest

from relational_rnn.cli import main
from relational_rnn.cli.commands import COMMANDS, find_command, load_command
from relational_rnn.nn.cores import FastWeightSizes
from relational_rnn.tasks.babi.recipes import RECIPES, DataConfig, babi, demo
from relational_rnn.training import Progress
from relational_rnn.training.progress import ConsoleProgress


@pytest.mark.parametrize(
    "line", [line for name in COMMANDS for line in load_command(name).EXAMPLES], ids=lambda line: line[15:50]
)
def test_every_example_is_a_command_that_parses(line):
    words = shlex.split(line)
    if "|" in words:  # what is typed into ask
        words = words[words.index("|") + 1 :]
    if "--resume" in words:
        words.remove("--resume")  # there is no such run here; resuming has its own test
    assert words[0] == "relational-rnn"
    found = find_command(words[1:])
    assert found is not None
    name, rest = found
    load_command(name).parse(rest)


def test_train_leaves_a_run_that_evaluate_measures(call, tiny, tmp_path):
    folder = tmp_path / "run"
    done = call("train", "babi", *tiny, "--core", "gru", "--seed", 3, "--loop.steps", 4, "--out", folder)
    assert done.code == 0
    assert done.out.startswith(f"{folder}: 4 steps in ")
    assert done.out.endswith(f"measure it with: relational-rnn evaluate {folder}\n")
    config = json.loads((folder / "config.json").read_text())
    assert (config["core"], config["seed"], config["memory"]["mem_slots"], config["loop"]["steps"]) == ("gru", 3, 2, 4)
    done = call("evaluate", folder)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["task", "accuracy,", "%"]
    assert lines[1].startswith("1 single-supporting-fact")
    assert lines[2].startswith("15 basic-deduction")
    result = json.loads((folder / "result.json").read_text())
    assert lines[3].split() == ["mean", f"{100 * result['mean_accuracy']:.1f}"]
    assert lines[5].startswith("GRU, seed 3, babi: 0 of 2 tasks above 95 % on 40 test questions; ")
    assert f"{result['parameters']:,} parameters" in lines[5]


def test_evaluate_can_take_other_stories_and_the_validation_stories(call, trained, published, tmp_path):
    before = (trained / "result.json").read_text()
    other = call("evaluate", trained, "--data", published)
    assert other.code == 0
    assert "on 12 test questions" in other.out
    (part := tmp_path / "part").mkdir()
    for name in ("qa1_single-supporting-fact_test.txt", "qa15_basic-deduction_test.txt"):
        (part / name).write_bytes((published / name).read_bytes())
    assert call("evaluate", trained, "--data", part).code == 2
    incomplete = call("evaluate", trained, "--data", part, "--partial")
    assert "note: task 1: no train file" in incomplete.out
    assert incomplete.out.endswith(other.out)
    valid = call("evaluate", trained, "--split", "valid")
    assert valid.code == 0
    assert "valid questions" in valid.out
    assert (trained / "result.json").read_text() == before


def test_without_out_the_folder_is_named_after_recipe_core_and_seed(call, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("train", "babi", *tiny, "--core", "lstm", "--seed", 5, "--loop.steps", 2).code == 0
    assert (tmp_path / "runs" / "demo" / "lstm-5" / "config.json").is_file()


def test_the_short_data_option_reads_the_published_format(call, tiny, published, tmp_path):
    short = [word for word in tiny if word not in ("--data.train-questions", "60", "--data.test-questions", "20")]
    done = call("train", "babi", *short, "--data", published, "--loop.steps", 2, "--out", tmp_path / "run")
    assert done.code == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["path"] == str(published)


def test_files_can_be_read_with_a_recipe_that_generates_few_stories(published, monkeypatch):
    few = replace(demo(), data=DataConfig(train_questions=7, test_questions=5, tasks=(1, 2)))
    monkeypatch.setitem(RECIPES, "demo", lambda: few)
    config = load_command("train babi").parse(["--recipe", "demo", "--data", str(published)]).run
    assert config == replace(few, data=DataConfig(path=published, tasks=(1, 2)))
    assert load_command("train babi").parse(["--recipe", "demo"]).run == few


def test_ctrl_c_keeps_the_run_says_how_to_go_on_and_resume_ends_like_an_undisturbed_run(
    call, tiny, tmp_path, monkeypatch
):
    options = [*tiny, "--loop.log-every", 1, "--loop.steps", 6]
    assert call("train", "babi", *options, "--out", tmp_path / "whole").code == 0
    show = ConsoleProgress.__call__

    def stop_at_five(self: ConsoleProgress, progress: Progress) -> None:
        show(self, progress)
        if progress.step == 5:
            signal.raise_signal(signal.SIGINT)

    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(ConsoleProgress, "__call__", stop_at_five)
        done = call("train", "babi", *options, "--out", folder)
    assert done.code == 130
    assert done.err.splitlines()[-1] == (
        f"interrupted: {folder}: stopped; the checkpoint of step 4 of 6 is kept; "
        f"go on with: relational-rnn train babi --out {folder} --resume"
    )
    done = call("train", "babi", "--out", folder, "--resume")
    assert done.code == 0
    assert f"{folder}: 6 steps in " in done.out

    def figures(name: str) -> list[dict[str, str]]:
        with (tmp_path / name / "metrics.csv").open(newline="") as file:
            return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]

    assert figures("stopped") == figures("whole")
    assert len(figures("whole")) == 2


def test_sigterm_saves_the_step_at_hand_and_says_how_to_go_on(call, tiny, tmp_path, monkeypatch):
    show = ConsoleProgress.__call__

    def asked_to_end_at_five(self: ConsoleProgress, progress: Progress) -> None:
        show(self, progress)
        if progress.step == 5:
            signal.raise_signal(signal.SIGTERM)

    folder = tmp_path / "a run"
    with monkeypatch.context() as patch:
        patch.setattr(ConsoleProgress, "__call__", asked_to_end_at_five)
        options = [*tiny, "--loop.log-every", 1, "--loop.steps", 8]
        done = call("train", "babi", *options, "--out", folder)
    assert done.code == 143
    assert done.err.splitlines()[-1] == (
        f"terminated: {folder}: stopped; the checkpoint of step 5 of 8 is kept; "
        f"go on with: relational-rnn train babi --out '{folder}' --resume"
    )
    assert call("train", "babi", "--out", folder, "--resume").code == 0


def test_sigterm_ends_a_comparison_after_the_step_at_hand(call, tiny, tmp_path, monkeypatch):
    def asked_to_end(self: ConsoleProgress, progress: Progress) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ConsoleProgress, "__call__", asked_to_end)
    words = ["--loop.log-every", 1, "--loop.steps", 8, "--cores", "rnn", "gru", "--out", tmp_path / "runs"]
    done = call("compare", "babi", *tiny, *words)
    assert done.code == 143
    assert done.err.splitlines()[-1] == "terminated: what is done is kept; the same command goes on from there"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["rnn-0"]
    assert (tmp_path / "runs" / "rnn-0" / "last.ckpt").exists()


def test_a_finished_run_goes_on_under_a_larger_budget(call, tiny, tmp_path):
    folder = tmp_path / "run"
    assert call("train", "babi", *tiny, "--loop.steps", 2, "--out", folder).code == 0
    done = call("train", "babi", "--out", folder, "--resume", "--loop.steps", 4)
    assert (done.code, done.out.split(" in ")[0]) == (0, f"{folder}: 4 steps")
    assert f"{folder}: goes on from step 2 under a budget of 4 steps, before 2; the learning rate, last" in done.err
    again = call("train", "babi", "--out", folder, "--resume", "--loop.steps", 3)
    assert again.code == 2
    assert "the budget is used up already" in again.err


def test_compare_trains_every_core_with_every_seed_and_goes_on_where_it_was(call, tiny, tmp_path):
    words = ["compare", "babi", *tiny, "--loop.steps", 3, "--cores", "rnn", "rmc", "--seeds", 1, 0, "--out", tmp_path]
    done = call(*words)
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == [
        str(tmp_path / n) for n in ("rnn-1", "rnn-0", "rmc-1", "rmc-0")
    ]
    assert lines[5].split("  ")[0] == "core"
    assert [line.split()[0] for line in lines[6:8]] == ["RNN", "RMC"]
    assert all("±" in line for line in lines[6:8])
    again = call(*words)
    assert (again.code, again.out) == (0, done.out)
    page = call("report", *(tmp_path / n for n in ("rnn-1", "rnn-0", "rmc-1", "rmc-0")), "-o", tmp_path / "page")
    assert page.out == f"{tmp_path / 'page' / 'index.html'}\n"
    assert "4 runs of 2 models" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_compare_lets_every_core_try_learning_rates_first(call, tiny, tmp_path):
    words = ["compare", "babi", *tiny, "--loop.steps", 3, "--cores", "rnn", "rmc", "--out", tmp_path]
    done = call(*words, "--tuning.learning-rates", "1e-5", "1e-2", "--tuning.steps", 2)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "best validation accuracy, %, of 2 steps with every learning rate"
    assert [line.split()[0] for line in lines[2:4]] == ["RNN", "RMC"]
    for core, line in zip(("rnn", "rmc"), lines[2:4], strict=True):
        config = json.loads((tmp_path / f"{core}-0" / "config.json").read_text())
        assert f"{config['optimizer']['learning_rate']:g}" == line.split()[-1]


def test_report_can_write_results_for_a_documentation(call, trained, tmp_path):
    done = call("report", trained, "--results", tmp_path / "docs" / "babi", "--task", "babi-generated", "--title", "Us")
    assert done.code == 0
    record = json.loads((tmp_path / "docs" / "babi.json").read_text())[0]
    assert (record["task"], record["core"], record["seeds"]) == ("babi-generated", "rmc", [0])
    assert record["value"] == json.loads((trained / "result.json").read_text())["mean_accuracy"]
    assert (tmp_path / "docs" / "babi.md").read_text(encoding="utf-8").startswith("# Us\n")


def test_the_demo_prints_a_table_three_stories_and_the_time_and_writes_the_report(call, tiny, tmp_path, monkeypatch):
    config = load_command("train babi").parse([*tiny, "--loop.steps", "2", "--data.tasks", "1", "12", "15"]).run
    # matrices of 16 x 16 would have more parameters than so little a memory
    config = replace(config, fast=FastWeightSizes(num_heads=2, key_size=7, value_size=7))
    monkeypatch.setattr("relational_rnn.tasks.babi.commands.demo.demo", lambda: config)
    done = call("demo", "--out", tmp_path / "demo")
    assert done.code == 0
    lines = done.out.splitlines()
    table = lines.index("", 1)
    assert "state bytes" in lines[table + 1]
    assert [line.split("  ")[0] for line in lines[table + 2 : table + 8]] == [
        "RMC",
        "RMC, competing slots",
        "Fast weights",
        "LSTM",
        "LSTM + attention",
        "Transformer",
    ]
    for title in ("task 1, single-supporting-fact", "task 12, conjunction", "task 15, basic-deduction"):
        assert f"A story of {title}:" in lines
    answers = [line for line in lines if line.endswith(("  right", "  wrong"))]
    assert len(answers) == 3 * 6
    rights = [line.split("Right: ")[1] for line in lines if "Right: " in line]
    for right, line in zip([word for word in rights for _ in range(6)], answers, strict=True):
        given = line[2:].split("  ")[-3].strip()
        assert line.endswith("right" if given == right else "wrong")
    assert f"report: {tmp_path / 'demo' / 'report' / 'index.html'}" in lines
    means = {line.split(":")[0]: float(line.split(": ")[1].split("%")[0]) for line in lines[1:table]}
    memories = [str(tmp_path / "demo" / f"{core}-0") for core in ("rmc", "competitive", "fastweights")]
    asked = next(line for line in lines if line.startswith("ask it yourself: ")).split()[-1]
    assert asked in memories
    assert means[asked] == max(means[folder] for folder in memories)
    assert lines[-1].startswith("time: ")
    again = call("demo", "--out", tmp_path / "demo")
    there = again.out.splitlines()
    assert sorted(there[1:table]) == sorted(lines[1:table])  # what ends first is told first
    assert [there[0], *there[table:-1]] == [lines[0], *lines[table:-1]]


def test_the_demo_wants_matplotlib_before_it_trains(call, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    done = call("demo", "--out", tmp_path / "demo")
    assert done.code == 2
    assert 'pip install "relational-rnn[report]"' in done.err
    assert not (tmp_path / "demo").exists()


def test_compare_changes_a_field_of_a_recipe_and_has_no_core_and_no_seed(call):
    command = load_command("compare babi")
    parsed = command.parse(["--recipe", "demo", "--batch-questions", "7"])
    assert command.base(parsed) == replace(demo(), batch_questions=7)
    for option in ("--core", "--seed"):
        assert call("compare", "babi", option, "3").code == 2


def test_a_printed_configuration_is_where_another_run_starts(call, tmp_path):
    done = call("train", "babi", "--recipe", "demo", "--core", "gru", "--loop.steps", 7, "--print-config")
    assert done.code == 0
    path = tmp_path / "mine.json"
    path.write_text(done.out)
    again = load_command("train babi").parse(["--config", str(path), "--seed", "5"]).run
    demo_of_gru = replace(demo(), core="gru", seed=5)
    assert again == replace(demo_of_gru, loop=replace(demo_of_gru.loop, steps=7))
    several = load_command("compare babi")
    assert several.base(several.parse(["--config", str(path)])).loop.steps == 7
    for words, message in (
        (["train", "relations", "--config", path], "this is no configuration of a run on relations"),
        (["train", "babi", "--config", path, "--recipe", "demo"], "--recipe and --config exclude each other"),
        (["train", "babi", "--config", path, "--out", tmp_path, "--resume"], "so --config has no place"),
        (["train", "babi", "--config", tmp_path / "gone.json"], "gone.json"),
    ):
        refused = call(*words)
        assert (refused.code, refused.out) == (2, "")
        assert message in refused.err


def test_help_names_the_shared_groups_and_help_all_lists_them(capsys):
    assert main(["train", "babi", "--help"]) == 0
    short = capsys.readouterr().out
    assert "--data.tasks" in short
    assert "--optimizer.learning-rate" not in short
    assert "`relational-rnn train babi --help-all`" in " ".join(short.split())


def test_every_field_of_a_configuration_can_be_changed(capsys):
    assert main(["train", "babi", "--help-all"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    config = babi()
    for group in ("data", "memory", "model", "optimizer", "loop"):
        for field in (field.name for field in fields(getattr(config, group))):
            assert f"--{group}.{field.replace('_', '-')}" in text
