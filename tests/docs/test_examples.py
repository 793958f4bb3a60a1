"""The examples of the documentation: fenced Python in README.md and docs/, and the doctests of every module.

A page's ```python blocks run in order in one namespace, in an empty folder. A ```text block directly after one shows
what it prints. A comment `<!-- not run: why -->` on the line above a block leaves it out.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import relational_rnn
from relational_rnn.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))) if page.exists()]
FENCE = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^```$", re.M | re.S)
README_BLOCKS = [match["body"] for match in FENCE.finditer((ROOT / "README.md").read_text(encoding="utf-8"))]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(relational_rnn.__path__, "relational_rnn.")
    if not module.name.endswith("__main__")
]


@dataclass(frozen=True)
class Example:
    code: str
    line: int
    output: str | None


def examples(page: Path) -> list[Example]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        if match["kind"] == "python" and match["reason"] is None:
            after = FENCE.match(text, re.compile(r"\s*").match(text, match.end()).end())
            output = after["body"] if after is not None and after["kind"] == "text" else None
            found.append(Example(code=match["body"], line=text.count("\n", 0, match.start("body")), output=output))
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=lambda page: page.name)
def test_a_page_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for example in examples(page):
        code = compile("\n" * example.line + example.code, str(page), "exec")  # so that tracebacks show the page's line
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        if example.output is not None:
            assert printed.getvalue() == example.output, f"{page.name}, line {example.line}"


def test_turning_from_the_lstm_changes_one_line():
    lstm, memory = (example.code.splitlines() for example in examples(ROOT / "docs" / "guide.md")[:2])
    changed = [(a, b) for a, b in zip(lstm, memory, strict=True) if a != b]
    assert len(changed) == 1
    assert changed[0][0].startswith("layer = nn.LSTM(")
    assert changed[0][1].startswith("layer = RelationalMemory(")


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if ".relational_scan._triton_" in name:
        pytest.importorskip("triton", reason="the package triton is not installed")
    if name.endswith(".huggingface"):
        pytest.importorskip("transformers", reason="the package transformers is not installed")
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0, "see the captured output for the difference"


def test_the_stories_of_the_readme_are_answered_as_it_shows(monkeypatch, capsys):
    told, shown = (block for block in README_BLOCKS if "Where is the apple?" in block)
    monkeypatch.setattr("sys.stdin", io.StringIO(told))
    assert main(["ask"]) == 0
    number = re.compile(r"([-+]?\d+\.\d)(%| points)")
    # another processor may round the last digit of a probability otherwise
    for got, expected in zip(capsys.readouterr().out.splitlines(), shown.splitlines(), strict=True):
        assert number.sub("#", got).split() == number.sub("#", expected).split()
        for (a, _), (b, _) in zip(number.findall(got), number.findall(expected), strict=True):
            assert float(a) == pytest.approx(float(b), abs=0.2)
