"""Every way a command can end: exit code and what is said on stderr."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from relational_rnn import InputError, MissingExtraError, cli
from relational_rnn.console.boundary import guarded
from relational_rnn.training import Terminated


def ending(with_what: BaseException | None, capsys) -> tuple[int, str]:
    def command() -> None:
        if with_what is not None:
            raise with_what

    code = guarded(command)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("with_what", "code", "said"),
    [
        (None, 0, ""),
        (InputError("train: wrong\n  got       3"), 2, "error: train: wrong\n  got       3\n"),
        (
            MissingExtraError('it needs x: pip install "relational-rnn[train]"'),
            2,
            'error: it needs x: pip install "relational-rnn[train]"\n',
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("go on with: --resume"), 130, "interrupted: go on with: --resume\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.txt"), 2, "error: x.txt: No such file\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a"),
            2,
            "error: runs/a: the disk is full; nothing was left half-written\n",
        ),
        (OSError("no number, no name"), 2, "error: no number, no name\n"),
        (SystemExit(0), 0, ""),
        (SystemExit(2), 2, ""),
        (SystemExit(None), 0, ""),
        (SystemExit("words"), 2, "error: words\n"),
        (Terminated(), 143, "terminated\n"),
        (Terminated("runs/a: stopped"), 143, "terminated: runs/a: stopped\n"),
    ],
)
def test_exit_code_and_message(with_what, code, said, capsys):
    assert ending(with_what, capsys) == (code, said)


def test_a_bug_traces_back(capsys):
    with pytest.raises(ZeroDivisionError):
        ending(ZeroDivisionError(), capsys)


def test_sigterm_ends_any_command_where_it_stands_and_is_then_as_it_was(capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert guarded(lambda: signal.raise_signal(signal.SIGTERM)) == 143
    assert capsys.readouterr().err == "terminated\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_who_leaves_early_is_no_error():
    program = (
        "import sys\n"
        "from relational_rnn.console.boundary import guarded\n"
        "sys.exit(guarded(lambda: [print('a line of some length') for _ in range(100_000)]))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "a line of some length\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=20) == 141


@pytest.mark.parametrize(
    ("environment", "loaded", "expected"),
    [
        ({}, False, "10000"),
        ({}, True, None),
        ({"GOMP_SPINCOUNT": "7"}, False, "7"),
        ({"OMP_WAIT_POLICY": "active"}, False, None),
    ],
)
def test_waiting_threads_sleep_unless_the_user_has_said_otherwise(environment, loaded, expected, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    modules = dict(sys.modules)
    modules.pop("torch", None)
    monkeypatch.setattr(cli.sys, "modules", modules | ({"torch": None} if loaded else {}))
    monkeypatch.setattr(cli.os, "environ", dict(os.environ))
    cli.let_waiting_threads_sleep()
    assert cli.os.environ.get("GOMP_SPINCOUNT") == expected
