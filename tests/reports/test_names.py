"""A run's name is text: on the page, in its figures, in Markdown and in addresses."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("matplotlib")

from relational_rnn.pages import Cell, Table
from relational_rnn.pages.tables import as_text
from relational_rnn.reports import group_runs, read_runs, records_of, write_report, write_results
from relational_rnn.runs import Example, workload_of

NAMES = ("r$\\frac{$", "a_b^c", "<b>&amp;", "[link](x)", "50% #1?", "two\nlines", "\x01bell", os.fsdecode(b"bad\xff"))
EXAMPLE = Example(group="1 x", number=1, question="?", right="a", answer="b", right_probability=0.1)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_drawn_and_written_as_it_is(name, make_run, tmp_path):
    folders = [make_run(name), make_run("plain", learning_rate=0.5)]  # of one core, so that names tell them apart
    example = replace(EXAMPLE, run=name, page=f"inspect/1-{name}/task-1.html", html="<p>inspected</p>")
    pages = [example] if name.isprintable() else []
    page = write_report(folders, tmp_path / "out", examples=pages)
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    text = page.read_text(encoding="utf-8")
    assert shown in xml_text(re.search(r"<dl>.*?</dl>", text, re.DOTALL)[0])
    for figure in (tmp_path / "out").glob("*.svg"):
        drawn = xml.etree.ElementTree.parse(figure)
        assert any(shown in (element.text or "") for element in drawn.iter()), figure.name
    if pages:
        address = re.search(r'href="(inspect[^"]*)"', text)[1]
        assert (tmp_path / "out" / unquote(address)).read_text() == "<p>inspected</p>"


def xml_text(html: str) -> str:
    return "".join(xml.etree.ElementTree.fromstring(html).itertext())


def test_names_in_markdown_mean_nothing_but_themselves(make_run, tmp_path):
    folder = make_run("run", core="*x* | <i> `y` [z](w)\n# t", notes=("see [this](x) | `that`",))
    folder_of_results = tmp_path / "docs"
    records = records_of(group_runs(read_runs([folder])), task="t")
    page, _ = write_results(folder_of_results / "a b", records, workload_of("babi"), title="T")
    text = page.read_text(encoding="utf-8")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows[:3]} == {len(rows[0])}
    assert r"\*x\* \| &lt;i&gt; \`y\` \[z\](w)" in text
    assert r"- see \[this\](x) | \`that\`" in text
    assert "[a b.json](a%20b.json)" in text
    assert Table(["command"], [[Cell("echo `a` | b", kind="code")]]).markdown().endswith("| `` echo `a` \\| b `` |")
    assert as_text("two-supporting-facts, 4 x 16 (best_of)") == "two-supporting-facts, 4 x 16 (best_of)"


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3])
def test_a_disk_that_gets_full_leaves_the_report_that_was_there(fails_at, make_run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_report([make_run("first")], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(before) == 4
    second = make_run("second", core="lstm")
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > fails_at:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_report([second], out)
    assert Path(error.value.filename).parent == out
    assert not Path(error.value.filename).name.startswith(".")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(OSError, match="No space left"):
        write_report([second], tmp_path / "new" / "out", examples=[replace(EXAMPLE, page="inspect/1/a.html", html="x")])
    assert not (tmp_path / "new").exists()


def test_what_a_killed_report_left_goes_with_the_next(make_run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".index.html.999999999.part").write_text("half")
    write_report([make_run("first")], out)
    assert not list(out.glob(".*"))
