"""The command `relational-rnn`: parse, call, print.

Every command lives in a file of its own, which is imported only when the command is asked for: help and mistakes are
answered without waiting for torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from relational_rnn import __version__
from relational_rnn.cli.boundary import guarded
from relational_rnn.cli.commands import find_command, load_command, overview, unknown_command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (by default the process's own arguments) names.

    Returns:
        the exit code: 0, or 1 where `data compare` finds stories that are not alike, or 2 for a mistake in what was
        given, or 130 after Ctrl-C. Nothing is raised but bugs.

    Example:
        >>> main(["--version"])
        relational-rnn 0.1.0
        0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> None:
    found = find_command(words)
    if found:
        name, rest = found
        command = load_command(name)
        command.run(command.parse(rest))
    elif words == ["--version"]:
        print(f"relational-rnn {__version__}")
    elif not words or words[-1] in ("-h", "--help"):
        print(overview(words[:-1]))
    else:
        raise unknown_command(words)
