"""The commands of generated tasks, on runs that take a blink."""

import json
import re
import shlex

import pytest

from relational_rnn.cli.commands import load_command
from relational_rnn.cli.compare import Compare, trial_note, trial_table
from relational_rnn.nn.cores import CORE_NAMES
from relational_rnn.runs import Trial, workload_of
from relational_rnn.tasks import names
from relational_rnn.tasks.nth_farthest import nth_farthest_paper

TASKS = [name for name in names() if name not in ("babi", "language")]
TINY = shlex.split(
    "--data.objects 2 --data.dimensions 1 --memory.mem-slots 2 --memory.head-size 6 --memory.num-heads 2 "
    "--model.head-size 12 --model.head-layers 1 --batch-size 8 --valid-samples 20 --test-samples 30 "
    "--loop.validate-every 3 --loop.checkpoint-every 2"
)


def test_train_leaves_a_run_that_evaluate_measures(call, tmp_path):
    folder = tmp_path / "run"
    done = call("train", "nth-farthest", *TINY, "--core", "gru", "--seed", 3, "--loop.steps", 4, "--out", folder)
    assert done.code == 0
    assert done.out.startswith(f"{folder}: 4 steps in ")
    assert done.out.endswith(f"measure it with: relational-rnn evaluate {folder}\n")
    config = json.loads((folder / "config.json").read_text())
    assert (config["task"], config["core"], config["seed"], config["data"]["objects"]) == ("nth-farthest", "gru", 3, 2)
    done = call("evaluate", folder)
    assert done.code == 0
    lines = done.out.splitlines()
    result = json.loads((folder / "result.json").read_text())
    assert [line.split() for line in lines[:4]] == [
        ["group", "accuracy,", "%"],
        *(["n", "=", n, f"{100 * result['per_group'][f'n = {n}']:.1f}"] for n in "12"),
        ["mean", f"{100 * result['mean_accuracy']:.1f}"],
    ]
    assert lines[5].startswith("GRU, seed 3, nth-farthest: 30 test sequences; ")
    assert (
        call("evaluate", folder, "--split", "valid")
        .out.splitlines()[5]
        .startswith("GRU, seed 3, nth-farthest: 20 valid")
    )
    refused = call("evaluate", folder, "--data", tmp_path)
    assert (refused.code, refused.out) == (2, "")
    assert "--data has no effect: the sequences of nth-farthest are generated" in refused.err
    asked = call("ask", folder, typed="Mary left.\nWhere is Mary?\n")
    assert asked.code == 2
    assert "the run is not on babi" in asked.err
    again = call("train", "nth-farthest", "--out", folder, "--resume")
    assert again.code == 0
    other = call("train", "relations", "--out", folder, "--resume")
    assert other.code == 2
    assert "the run is not on relations" in other.err


def test_measured_groups_beyond_training_and_whole_answers_are_shown_apart(call, tmp_path):
    words = ["--data.length", 3, "--memory.mem-slots", 2, "--memory.head-size", 6, "--memory.num-heads", 2]
    words += ["--model.head-size", 12, "--model.head-layers", 1, "--loop.steps", 2, "--test-samples", 40]
    assert call("train", "memorize", *words, "--out", tmp_path / "run").code == 0
    lines = call("evaluate", tmp_path / "run").out.splitlines()
    assert lines[0].split("  ")[0] == "group"
    assert lines[0].endswith("whole answers, %")
    assert [" ".join(line.split()[:-2]) for line in lines[1:5]] == [
        "length 3",
        "length 4",
        "length 6",
        "mean of what was trained",
    ]
    assert lines[5].startswith("mean beyond ")


def test_compare_writes_a_table_the_published_figures_and_a_report_and_goes_on_where_it_was(call, tmp_path):
    words = ["compare", "nth-farthest", *TINY, "--data.objects", 8, "--data.dimensions", 16, "--loop.steps", 3]
    words += ["--cores", "rnn", "rmc", "--seeds", 1, 0, "--test-samples", 100, "--out", tmp_path / "grid"]
    done = call(*words)
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == [
        str(tmp_path / "grid" / n) for n in ("rnn-1", "rnn-0", "rmc-1", "rmc-0")
    ]
    assert [line.split()[0] for line in lines[5:8]] == ["core", "RNN", "RMC"]
    assert all("±" in line for line in lines[6:8])
    assert lines[9] == "published:"
    assert any("STM" in line and "98 %" in line and "Le et al. 2020" in line for line in lines)
    page = tmp_path / "grid" / "report" / "index.html"
    assert lines[-1] == f"report: {page}"
    text = page.read_text(encoding="utf-8")
    assert "Validation accuracy against training samples" in text
    assert "Validation accuracy against seconds" in text
    assert "Published by others" in text
    assert "TPR-RNN" in text
    again = call(*words)
    assert (again.code, again.out) == (0, done.out)
    mixed = call(
        "report", tmp_path / "grid" / "rmc-0", tmp_path / "grid" / "rnn-0", "--results", tmp_path / "nf", "--task", "nf"
    )
    assert mixed.code == 0
    records = json.loads((tmp_path / "nf.json").read_text())
    assert [r["core"] for r in records] == ["rmc", "rnn", "RMC", "LSTM", "DNC", "STM", "TPR-RNN"]
    assert set(records[0]["details"]["per_group"]) == {f"n = {n}" for n in range(1, 9)}
    assert records[3]["published"].startswith("Santoro et al. 2018")
    assert "| LSTM | below 30.0 |" in (tmp_path / "nf.md").read_text(encoding="utf-8")
    page = (tmp_path / "nf.md").read_text(encoding="utf-8")
    assert "## Test accuracy per group, %" in page
    assert "| processor seconds |" in page
    for name, words in (("samples", "training samples"), ("seconds", "processor seconds of training")):
        assert f"![Validation accuracy against {words}, one line per run.](nf-{name}.svg)" in page
        assert words in (tmp_path / f"nf-{name}.svg").read_text(encoding="utf-8")


def test_every_core_may_try_learning_rates_first(call, tmp_path):
    words = ["compare", "nth-farthest", *TINY, "--loop.steps", 4, "--cores", "rmc", "gru", "--out", tmp_path / "grid"]
    done = call(*words, "--tuning.learning-rates", "1e-4", "0.02", "--tuning.steps", 3)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[4] == "the best rate may lie beyond those tried for: RMC, GRU"
    assert lines[0] == "best validation accuracy, %, of 3 steps with every learning rate"
    assert lines[1].split() == ["core", "0.0001", "0.02", "taken"]
    taken = {}
    for line in lines[2:4]:
        core, low, high, taken[core] = line.split()
        assert taken[core] in (
            ["0.0001", "0.02"] if low == high else ["0.0001" if float(low) > float(high) else "0.02"]
        )
    for core, label in (("rmc", "RMC"), ("gru", "GRU")):
        config = json.loads((tmp_path / "grid" / f"{core}-0" / "config.json").read_text())
        assert config["optimizer"]["learning_rate"] == float(taken[label])
    note = (
        "every core tried learning rates of 0.0001, 0.02 in 3 steps and took what did best on the validation set: "
        f"RMC {taken['RMC']}, GRU {taken['GRU']}"
    )
    assert note in (tmp_path / "grid" / "report" / "index.html").read_text(encoding="utf-8")


def test_a_rate_between_others_is_not_at_the_edge():
    trials = [
        Trial(core="rmc", learning_rate=rate, steps=9, valid_accuracy=accuracy, valid_loss=loss)
        for rate, accuracy, loss in ((1e-3, 0.5, 0.9), (2e-3, 0.75, 0.5), (4e-3, None, None))
    ]
    assert trial_table(trials).splitlines() == [
        "best validation accuracy, %, of 9 steps with every learning rate",
        "core  0.001  0.002     0.004  taken",
        "RMC    50.0   75.0  diverged  0.002",
    ]


def test_trials_that_ended_before_the_last_lesson_tell_which_and_its_loss():
    trials = [
        Trial(
            core="ntm",
            learning_rate=rate,
            steps=9,
            valid_accuracy=0.5,
            valid_loss=0.75,
            lesson=lesson,
            lesson_loss=loss,
        )
        for rate, lesson, loss in ((1e-3, 1, 0.25), (2e-3, 3, 0.5))
    ]
    trials.append(Trial(core="rnn", learning_rate=1e-3, steps=9, valid_accuracy=0.25, valid_loss=0.5, lesson=4))
    trials.append(Trial(core="rnn", learning_rate=2e-3, steps=9))
    assert trial_table(trials).splitlines()[:4] == [
        "best validation accuracy, %, of 9 steps with every learning rate; before the last lesson, its loss",
        "core             0.001             0.002  taken",
        "NTM   lesson 1: 0.2500  lesson 3: 0.5000  0.002",
        "RNN               25.0          diverged  0.001",
    ]
    assert "0.5000" in trial_table(trials[2:], "loss").splitlines()[2]
    assert "or was furthest in the lessons: NTM 0.002, RNN 0.001" in trial_note(trials)
    assert "furthest" not in trial_note(trials[2:])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compare relations --tuning.learning-rates 1e-3", "learning_rates must be two or more"),
        ("compare relations --tuning.steps 10", "steps would have no effect"),
        ("train nth-farthest --data.n 9", "4 objects have no 9-th farthest"),
        ("train programs --data.nesting 2", "nesting needs the mode control or program"),
        ("train programs --data.length 0", "length must be a whole number"),
        ("train programs --data.curriculum hard", "hard"),
        ("train memorize --data.length 0", "length must be a whole number"),
        ("compare relations --data.chain 1", "there are no such chains"),
        ("compare relations --cores gpt", "gpt"),
        ("compare relations --recipe best", "best"),
        ("compare relations --match seconds", "seconds"),
        ("train relations --model.teacher-forcing", "teacher_forcing would have no effect"),
        ("train memorize --model.thinking-steps 2", "thinking_steps would have no effect"),
        ("train relations --data.curriculum none --data.mastered 0.2", "mastered would have no effect"),
        ("train nth-farthest --data.curriculum lessons --data.n 2", "lessons need every n"),
        ("train relations --resume", "--resume needs to know which run"),
        ("train relations --resume --out runs --recipe relations", "--recipe has no place"),
        (
            "compare relations --cores rmc lstm --match state --memory.mem-slots 1 --memory.head-size 3",
            "no size of the core 'lstm' comes within 10% of the relational memory's bytes of state",
        ),
        ("compare relations --cores rmc rmc", "cores must be given, each once"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(call, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*words.split())
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err
    assert message in " ".join(done.err.split())
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_names_the_folder_and_sets_the_options(tmp_path):
    arguments = load_command("train nth-farthest").parse(["--recipe", "nth-farthest-paper", "--seed", "4"])
    assert arguments.run.data == nth_farthest_paper().data
    assert (arguments.recipe, arguments.run.seed) == ("nth-farthest-paper", 4)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_starts_from_a_recipe_that_was_measured_and_ends_in_minutes_on_a_processor(task):
    recipe = workload_of(task).recipes[load_command(f"train {task}").parse([]).recipe]
    said = " ".join((recipe.__doc__ or "").split())
    assert "not measured yet" not in said
    assert "Machine: 2-core CPU" in said
    minutes, seconds = re.search(r"Time: ([\d.]+) minutes", said), re.search(r"Time: (\d+) (and|processor)", said)
    assert (float(minutes[1]) if minutes else int(seconds[1]) / 60) < 15
    assert recipe().loop.accelerator == "cpu"


@pytest.mark.parametrize("task", TASKS)
def test_compare_takes_over_every_field_of_a_run(task):
    name, recipe = list(workload_of(task).recipes.items())[-1]
    command = Compare(f"compare {task}")
    assert command.base(command.parse(["--recipe", name])) == recipe()


@pytest.mark.slow
@pytest.mark.parametrize("core", CORE_NAMES)
@pytest.mark.parametrize("task", TASKS)
def test_every_core_takes_every_task_at_the_size_of_its_recipe(call, task, core, tmp_path):
    words = ["--loop.steps", 2, "--loop.validate-every", 2, "--batch-size", 5, "--valid-samples", 8]
    done = call("train", task, "--core", core, *words, "--test-samples", 60, "--out", tmp_path / "run")
    assert (done.code, done.out.split(":")[1].split(" in ")[0]) == (0, " 2 steps"), done.err
    assert call("evaluate", tmp_path / "run").code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["task"], result["core"]) == (task, core)
    assert 0 < result["loss"] < 100
