"""One tiny trained run and one tiny set of files for all tests of the commands, and a way to call a command."""

import io
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from relational_rnn.cli import main

TINY = shlex.split(
    "--recipe demo --data.tasks 1 15 --data.train-questions 60 --data.test-questions 20 --memory.mem-slots 2 "
    "--memory.head-size 10 --memory.num-heads 2 --model.embedding-size 28 --model.head-size 16 "
    "--batch-questions 16 --loop.validate-every 3 --loop.checkpoint-every 2"
)


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Ending]


@pytest.fixture
def call(capsys, monkeypatch) -> Call:
    """Runs a command in this process: call("ask", folder, typed="Mary left.\\n")."""

    def run(*words: object, typed: str = "") -> Ending:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Ending(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options of a run that trains in a blink, on two tasks."""
    return list(TINY)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run of six steps, measured. Read only."""
    folder = tmp_path_factory.mktemp("trained") / "rmc-0"
    assert main(["train", "babi", *TINY, "--loop.steps", "6", "--out", str(folder)]) == 0
    assert main(["evaluate", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """All 20 tasks in the published file format. Read only."""
    folder = tmp_path_factory.mktemp("published") / "generated"
    words = ["data", "generate", "babi", "--out", str(folder), "--questions", "30", "--test-questions", "6"]
    assert main(words) == 0
    return folder
