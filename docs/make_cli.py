"""Writes docs/cli.md from the help of every command: `python docs/make_cli.py` after a change of an option."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

from relational_rnn.cli import main
from relational_rnn.cli.commands import COMMANDS

PAGE = Path(__file__).with_name("cli.md")
INTRODUCTION = """# The command line

This page is the program's own help, collected by `python docs/make_cli.py`; do not edit it by hand.

Exit codes: 0, done; 1, `data compare` is done and some of what it compares is out of bounds; 2, something that was
given cannot be used (one message on stderr says what, and what would work); 130, stopped by Ctrl-C; 143, by SIGTERM,
which has a checkpoint saved first where a model is trained. Anything else, and every traceback, is a bug.
"""


def help_text(command: str) -> str:
    """What `relational-rnn <command> --help` prints when it is 100 columns wide and no terminal is there."""
    with mock.patch.dict(os.environ, COLUMNS="100"), contextlib.redirect_stdout(io.StringIO()) as text:
        assert main([*command.split(), "--help"]) == 0
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def render() -> str:
    """The whole page."""
    parts = [INTRODUCTION, f"```\n{help_text('')}\n```\n"]
    parts += [f"## relational-rnn {name}\n\n```\n{help_text(name)}\n```\n" for name in COMMANDS]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(PAGE)
