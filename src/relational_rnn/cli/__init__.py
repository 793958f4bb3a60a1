"""The command `relational-rnn`: parse, call, print.

Every command lives in a file of its own, which is imported only when the command is asked for: help and mistakes are
answered without waiting for torch.
"""

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
    """Run the command that `argv` (by default the process's own arguments) names.

    Returns:
        the exit code: 0, or 1 where `data compare` finds stories that are not alike, or 2 for a mistake in what was
        given, or 130 after Ctrl-C, or 143 after SIGTERM. Nothing is raised but bugs.

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
    """Have a thread of OpenMP that waits for work spin for some 0.3 ms, not for 10, before it sleeps.

    Beside other processes a spinning thread holds the core that the one it waits for needs: two threads then took four
    times the processor time of one, and longer. What the user has set is left alone, and so is a process that has
    loaded torch already, for the setting is read then.
    """
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
