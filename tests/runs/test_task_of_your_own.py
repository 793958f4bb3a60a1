"""A task of another package is known to every command by its entry point alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relational_rnn import InputError, tasks
from relational_rnn.runs import Asked, LoadedRun, workload_of

pytest.importorskip("lightning_fabric")
pytest.importorskip("matplotlib")

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
COMMANDS = """
import json, sys
from relational_rnn.cli import main

sys.path.insert(0, sys.argv[1])
little = ["--loop.steps", "4", "--loop.validate-every", "2", "--batch-size", "8", "--valid-samples", "16"]
little += ["--test-samples", "24", "--data.length", "5"]
codes = [
    main(["train", "--help"]),
    main(["train", "parity", "--core", "gru", "--out", "runs/one", *little]),
    main(["evaluate", "runs/one"]),
    main(["compare", "parity", "--cores", "rmc", "lstm", "--out", "runs/several", *little]),
    main(["report", "runs/one", "--out", "page"]),
    main(["report", "runs/one", "--results", "results/parity", "--task", "parity"]),
    main(["inspect", "runs/one"]),
    main(["inspect", "runs/several/rmc-0", "--example", "9", "--out", "nine.html"]),
    main(["inspect", "runs/several/rmc-0", "--statistics"]),
    main(["report", "runs/several/rmc-0", "--examples", "2", "--out", "examples"]),
    main(["data", "--help"]),
    main(["data", "parity", "--ones", "5"]),
    main(["data", "parity", "--help"]),
    main(["data", "parity"]),
]
print(json.dumps(codes))
"""


def test_every_command_takes_it(tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## A task of your own") :]
    section = section[: section.index("\n## ", 1)]
    (tmp_path / "parity.py").write_text("\n\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL)))
    entries = re.findall(r"```toml\n\[project.entry-points.\"(.*?)\"\]\n(.*?)```", section, re.DOTALL)
    assert len(entries) == 2
    info = tmp_path / "parity-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parity\nVersion: 1\n")
    points = [f"[{group}]\n" + lines.replace('"', "") for group, lines in entries]
    (info / "entry_points.txt").write_text("\n".join(points))
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{COMMANDS}", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [*[0] * 6, 2, 0, 2, *[0] * 4, 2], done.stderr
    assert "train parity" in done.stdout
    assert "runs/one: 4 steps" in done.stdout
    assert "only a relational memory has slots" in done.stderr
    assert "--statistics has no effect: the run is on parity" in done.stderr
    assert "<h1>Even or odd?</h1>" in (tmp_path / "nine.html").read_text()
    listed = (tmp_path / "examples" / "index.html").read_text()
    assert len(re.findall(r">(?:odd|even)</td>", listed)) == 4
    assert "  data parity                  a command of parity\n" in done.stdout
    assert "\nodd\n" in done.stdout
    assert "example:\n  relational-rnn data parity --ones 3\n" in done.stdout
    result = json.loads((tmp_path / "runs" / "one" / "result.json").read_text())
    assert (result["task"], result["sequences"], list(result["per_group"])) == ("parity", 24, ["bits"])
    config = json.loads((tmp_path / "runs" / "several" / "lstm-0" / "config.json").read_text())
    assert config["data"] == {"length": 5}


EMPTY = """
from relational_rnn.tasks.generated import TaskWorkload
from relational_rnn.tasks.relations import RelationsRun


class Mine(TaskWorkload):
    def __init__(self):
        pass
"""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nowhere", "cannot be loaded\n  got       No module named 'nowhere'"),
        ("def (", r"cannot be loaded\n  got       invalid syntax \("),
        ("raise ValueError('boom')", "cannot be loaded\n  got       boom"),
        ("WORK = 1", "cannot be loaded\n  got       AttributeError: .* has no attribute 'WORKLOAD'"),
        ("WORKLOAD = 1", "got       int\n  expected  a relational_rnn.runs.Workload"),
        ("from relational_rnn.tasks.relations import WORKLOAD", "got       one named 'relations'"),
        (f"{EMPTY}\n    pass\nWORKLOAD = Mine()", "WORKLOAD lacks config, recipes\n"),
        (f"{EMPTY}\n    config = RelationsRun\n    recipes = {{}}\nWORKLOAD = Mine()", "WORKLOAD lacks recipes"),
        (f"{EMPTY}\n    config = recipes = 3\nWORKLOAD = Mine()", "WORKLOAD.config is not the class of its runs"),
    ],
)
def test_a_module_that_is_no_task_is_refused(code, message, tmp_path, monkeypatch):
    name = f"task_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    point = tasks.EntryPoint(name="mine", value=name, group=tasks.GROUP)
    monkeypatch.setattr(tasks, "_others", lambda: {"mine": point})
    with pytest.raises(InputError, match=message):
        workload_of("mine")


def test_a_name_that_is_taken_is_refused(monkeypatch):
    taken = tasks.EntryPoint(name="relations", value="mine", group=tasks.GROUP)
    monkeypatch.setattr(tasks, "_entries", lambda: {"relations": taken})
    with pytest.raises(InputError, match="another package has a task 'relations' too\n  got       mine"):
        workload_of("relations")


def test_a_command_that_is_taken_is_refused(monkeypatch):
    from relational_rnn.cli import commands

    monkeypatch.setattr(commands, "other_commands", lambda: {"ask": "mine"})
    with pytest.raises(InputError, match="another package has a command 'ask' too\n  got       mine"):
        commands.load_command("ask")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "got       No module named 'song_"),
        ("def (", "got       invalid syntax"),
        ("raise ValueError('boom')", "got       boom"),
        ("EXAMPLES, run = (), print", "got       AttributeError: .* has no attribute 'Arguments'"),
        ("EXAMPLES, run, Arguments = (), print, 3", "got       Arguments is no dataclass"),
        ("class Other: pass", "got       AttributeError: .* has no attribute 'Arguments'"),
    ],
)
def test_a_command_that_cannot_be_loaded_is_refused(code, message, tmp_path, monkeypatch):
    from relational_rnn.cli import commands

    name = f"song_{abs(hash(code))}"
    if code is not None:
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(commands, "other_commands", lambda: {"sing": name})
    monkeypatch.setitem(commands.COMMANDS, "sing", (name, "a command"))
    with pytest.raises(InputError, match=f"the command 'sing' of another package cannot be loaded\n  {message}"):
        commands.load_command("sing")


@pytest.mark.parametrize("value", ["a b c", "mine:", ""])
def test_an_entry_point_that_names_no_module_is_refused(value, monkeypatch):
    from relational_rnn.cli import commands

    point = tasks.EntryPoint(name="mine", value=value, group=tasks.GROUP)
    monkeypatch.setattr(tasks, "_others", lambda: {"mine": point})
    with pytest.raises(InputError, match="the task 'mine' of another package cannot be loaded"):
        workload_of("mine")
    monkeypatch.setattr(commands, "other_commands", lambda: {"sing": value})
    monkeypatch.setitem(commands.COMMANDS, "sing", (value, "a command"))
    with pytest.raises(InputError, match="the command 'sing' of another package cannot be loaded"):
        commands.load_command("sing")


def test_a_command_of_any_number_of_words_is_found_and_hides_no_longer_one(monkeypatch):
    from relational_rnn.cli import commands

    for name in ("data", "train my own task"):
        monkeypatch.setitem(commands.COMMANDS, name, ("mine", "a command"))
    assert commands.find_command(["data", "fetch", "babi", "--help"]) == ("data fetch babi", ["--help"])
    assert commands.find_command(["data", "--help"]) == ("data", ["--help"])
    assert commands.find_command(["train", "my", "own", "task"]) == ("train my own task", [])


def test_a_task_without_a_page_is_told_so(tmp_path):
    workload = workload_of("relations")
    run = LoadedRun(folder=tmp_path, workload=workload, config=workload.config(), model=None)
    with pytest.raises(InputError, match="cannot be inspected\n  got       a run on relations"):
        workload.inspect(run, Asked())
    with pytest.raises(InputError, match="lists no examples"):
        workload.worst_examples(run, 1)


def test_a_task_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(InputError, match=r"there is no task 'chess'\n  expected  babi, .*, language"):
        workload_of("chess")
