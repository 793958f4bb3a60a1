"""The command `relational-rnn`. The file of a command is imported only when it is asked for: help need not wait."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from relational_rnn import __version__
from relational_rnn._check import InputError, describe, is_text
from relational_rnn.cli.commands import find_command, load_command, overview, unknown_command
from relational_rnn.console.boundary import guarded
from relational_rnn.console.tables import terminal_width

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names, by default the process's own arguments.

    Returns:
        the exit code: 0; 1 where a check of the command does not hold; 2 for a mistake in what was given; 130 after
        Ctrl-C; 143 after SIGTERM. Nothing is raised but bugs.

    Example:
        >>> main(["--version"])
        relational-rnn 0.1.0
        0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: names and texts may be in any letters
    return guarded(lambda: _dispatch(words))


def let_waiting_threads_sleep() -> None:
    """Let a waiting thread of OpenMP spin for some 0.3 ms, not 10, before it sleeps, unless the user has set this:
    beside other processes it holds a core that they need."""
    if "torch" not in sys.modules and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"


def _dispatch(words: list[str]) -> None:
    for word in words:
        if not is_text(word):
            problem = "an argument is not text in UTF-8"
            raise InputError(describe("relational-rnn", problem, got=ascii(word), hint="rename the file or folder"))
    found = find_command(words)
    if found:
        name, rest = found
        let_waiting_threads_sleep()
        command = load_command(name)
        command.run(command.parse(rest))
    elif words == ["--version"]:
        print(f"relational-rnn {__version__}")
    elif not words or words[-1] in ("-h", "--help"):
        print(overview(words[:-1], terminal_width()))
    else:
        raise unknown_command(words)
