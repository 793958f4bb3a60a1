"""A task of another package is known to every command by its entry point alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relational_rnn import InputError, tasks
from relational_rnn.runs import workload_of

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
]
print(json.dumps(codes))
"""


def test_every_command_takes_it(tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## A task of your own") :]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code
    (tmp_path / "parity.py").write_text(code[1])
    entry = re.search(r"```toml\n\[project.entry-points.\"(.*?)\"\]\n(.*?)```", section, re.DOTALL)
    assert entry
    info = tmp_path / "parity-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parity\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{entry[1]}]\n" + entry[2].replace('"', ""))
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{COMMANDS}", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0, 0, 0, 0, 0, 2], done.stderr
    assert "train parity" in done.stdout
    assert "runs/one: 4 steps" in done.stdout
    assert "can be inspected\n  got       a run on parity" in done.stderr
    result = json.loads((tmp_path / "runs" / "one" / "result.json").read_text())
    assert (result["task"], result["sequences"], list(result["per_group"])) == ("parity", 24, ["bits"])
    config = json.loads((tmp_path / "runs" / "several" / "lstm-0" / "config.json").read_text())
    assert config["data"] == {"length": 5}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nowhere", "cannot be loaded: No module named 'nowhere'"),
        ("WORK = 1", "cannot be loaded: .* has no attribute 'WORKLOAD'"),
        ("WORKLOAD = 1", "got       int\n  expected  a relational_rnn.runs.Workload"),
        ("from relational_rnn.tasks.relations import WORKLOAD", "got       one named 'relations'"),
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


def test_a_task_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(InputError, match=r"there is no task 'chess'\n  expected  babi, .*, language"):
        workload_of("chess")
