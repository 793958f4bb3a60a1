"""Command lines with odd words, run through the package's own main."""

from __future__ import annotations

import contextlib
import io
import json
import random
from pathlib import Path
from unittest import mock

from fuzz.engine import Family
from fuzz.mutations import damage
from fuzz.reports import folder_of
from fuzz.runs import METRICS
from relational_rnn.cli import main
from relational_rnn.cli.commands import COMMANDS
from relational_rnn.console.boundary import MISTAKE
from relational_rnn.tasks.babi.pretrained import pretrained_babi

FOLDERS = ("run", "nothing", "empty", "notes.txt", ".", "/dev/null", "pipe", "", "r$\\frac{$", "\udcff", "<pretrained>")
NUMBERS = ("0", "-1", "1", "2", "1e3", "nan", "inf", "x", "", "9" * 30, "٣", "1.5", "True", "None")
OPTIONS: dict[str, tuple[str, ...]] = {
    "ask": ("--story", "--pretrained"),
    "evaluate": ("--split", "--data", "--partial"),
    "generate": ("--prompt", "--tokens", "--temperature", "--top-k", "--top-p", "--seed"),
    "inspect": ("--out", "--task", "--example", "--text", "--statistics"),
    "report": ("--out", "--title", "--examples", "--results", "--task", "--note"),
    "data compare": ("--language", "--tasks", "--partial", "--seed", "--questions", "--json"),
    "data generate babi": ("--out", "--questions", "--test-questions", "--seed", "--tasks"),
    "data fetch babi": ("--url", "--out"),
    "data fetch tiny-shakespeare": ("--url", "--out"),
}
TRAINED = ("train nth-farthest", "train memorize", "train babi", "train language", "compare nth-farthest")
"""Started only with a mistake among the words: training is no matter of a moment."""
VALUES = (*FOLDERS, *NUMBERS, "test", "valid", "en-10k", "http://[", "ftp://x", "--help", "-", "--")
NO_SECONDS = ("http://127.0.0.1:1/x",)


def make_words(rng: random.Random) -> list[str]:
    name = rng.choice((*OPTIONS, *TRAINED, *rng.sample(list(COMMANDS), 2)))
    words = name.split()
    if rng.random() < 0.1:
        words[rng.randrange(len(words))] = rng.choice(("", "help", "babi", "-h", "\0", "Train"))
    if name not in OPTIONS:
        odd = rng.choice(("--steps", "--loop.steps", "--memory.mem-slots", "--core", "--seed", "--loop.precision"))
        bad = rng.choice(("0", "-1", "x", "nan", "", "1.5", "9" * 30, "[]"))
        return [*words, odd, bad, *rng.sample(VALUES, rng.randrange(2)), "--no-such-option"]
    words += [rng.choice(FOLDERS)] * (rng.random() < 0.8)
    for _ in range(rng.randrange(4)):
        words.append(rng.choice(OPTIONS[name]))
        if rng.random() < 0.85:
            words.append(rng.choice((*VALUES, *NO_SECONDS)))
    return words


def run_words(case: list[str], folder: Path) -> bool:
    made = folder / "run"
    made.mkdir()
    for name, value in folder_of("babi").items():
        (made / name).write_text(json.dumps(value))
    (made / "metrics.csv").write_bytes(METRICS)
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_bytes(damage(random.Random(repr(case)), b"1 Ada ran.\n2 Where is Ada? \tx\t1\n"))
    words = [str(pretrained_babi()) if word == "<pretrained>" else word for word in case]
    out, said = io.StringIO(), io.StringIO()
    typed = io.StringIO("Mary went to the garden.\nWhere is Mary?\n\0\nhelp\n?\n")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said), mock.patch("sys.stdin", typed):
        code = main(words)
    assert "Traceback" not in said.getvalue(), said.getvalue()
    assert code in (0, 1, MISTAKE), code
    return code != MISTAKE


FAMILIES = [Family("commands", 4, make_words, run_words)]
