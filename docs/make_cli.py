"""Writes docs/cli/ from the help of every command: `python docs/make_cli.py` after a change of an option."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

from relational_rnn.cli import main
from relational_rnn.cli.commands import COMMANDS
from relational_rnn.cli.train import SHARED

FOLDER = Path(__file__).with_name("cli")
BY_HAND = "Collected from the program's own help by `python docs/make_cli.py`; do not edit it by hand."
INTRODUCTION = f"""# The command line

Every command has a page with its own options. Options that `train` and `compare` have on every task are on
[one page](shared.md). {BY_HAND}

Exit codes: 0, done; 1, `data compare` is done and some of what it compares is out of bounds; 2, something that was
given cannot be used (one message on stderr says what, and what would work); 130, stopped by Ctrl-C; 143, by SIGTERM,
which has a checkpoint saved first where a model is trained. Anything else, and every traceback, is a bug.
"""
SHARED_INTRODUCTION = f"""# Options that every task has

The memory, the rivals, the optimizer and the loop have the same options wherever a model is trained. The defaults below
are those of `relational-rnn {{command}}`; a recipe sets its own, and
`relational-rnn train TASK --recipe RECIPE --help-all` prints them. {BY_HAND}
"""
SHOWN = "train nth-farthest"
"""The command whose help has the shared options."""


def help_text(*words: str) -> str:
    """What `relational-rnn <words>` prints when it is 100 columns wide and no terminal is there."""
    with mock.patch.dict(os.environ, COLUMNS="100"), contextlib.redirect_stdout(io.StringIO()) as text:
        assert main([*words]) == 0
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def file_name(command: str) -> str:
    return f"{command.replace(' ', '-')}.md"


def render() -> dict[str, str]:
    """Every page by the name of its file."""
    pages = {"index.md": f"{INTRODUCTION}\n```\n{help_text('--help')}\n```\n\n"}
    pages["index.md"] += "\n".join(f"- [{name}]({file_name(name)})" for name in COMMANDS) + "\n"
    everything = help_text(*SHOWN.split(), "--help-all").splitlines()
    first = everything.index(f" {SHARED[0]} options")
    others = (n for n, line in enumerate(everything) if n > first and line.endswith(" options"))
    after = next(n for n in others if everything[n].split()[0] not in SHARED)
    groups = everything[first:after]  # they stand together
    introduction = SHARED_INTRODUCTION.format(command=SHOWN)
    pages["shared.md"] = f"{introduction}\n```\n" + "\n".join(groups).rstrip() + "\n```\n"
    for name in COMMANDS:
        pages[file_name(name)] = f"# relational-rnn {name}\n\n```\n{help_text(*name.split(), '--help')}\n```\n"
    return pages


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    pages = render()
    for old in FOLDER.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(FOLDER)
