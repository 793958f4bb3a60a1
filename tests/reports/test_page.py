"""The HTML page: self-contained, escaped, complete, written whole or not at all."""

import os
import re
from html.parser import HTMLParser

import pytest

from relational_rnn import InputError, MissingExtraError
from relational_rnn.pages import read
from relational_rnn.reports import write_report
from relational_rnn.reports.page import SCRIPTS
from relational_rnn.runs import Example

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that elements nest, and collects cells and whatever would leave the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.outside: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.outside.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture
def page(make_run, tmp_path):
    folders = [
        make_run("r0", per_task={1: 1.0, 2: 0.5}, train_seconds=1000),
        make_run("r1", seed=1, per_task={1: 0.8, 2: 0.3}, train_seconds=1100),
        make_run("l0", core="lstm", per_task={1: 0.25, 2: 0.75}, parameters=98765),
        make_run("g0", core="gru", evaluated=False),
    ]
    return write_report(folders, tmp_path / "out", title="Four <models> & more").read_text(encoding="utf-8")


def test_the_table_has_means_and_spreads(page):
    rows = Page(page).rows
    assert rows[0][0] == "model"
    assert rows[1] == ["RMC", "1,234", "4,096", "65.0 % ± 14.1 %", "0.5 ± 0.707", "1,050 ± 71", "0, 1"]
    assert rows[2] == ["LSTM", "98,765", "4,096", "50.0 %", "0", "12", "0"]
    assert rows[3] == ["GRU", *["not evaluated"] * 5, "0"]
    assert ["1 single-supporting-fact", "90.0 ± 14.1", "25.0"] in rows
    assert ["2 two-supporting-facts", "40.0 ± 14.1", "75.0"] in rows


def own_scripts() -> list[str]:
    """The scripts that a report carries, as elements."""
    return [f"<script>\n{read(script)}</script>" for script in SCRIPTS]


def test_the_page_needs_nothing_from_outside_and_runs_no_script_but_its_own(page):
    assert Page(page).outside == []
    assert re.findall(r"<script.*?</script>", page, re.DOTALL) == own_scripts()
    assert not re.search(r"@import|url\((?!#)", page)
    assert page.count("<svg") == 3


def test_the_page_says_what_was_measured_and_on_what(page):
    for fact in (
        "2-core CPU (test)",
        "0123abc",
        "2.13.0",
        "r0, r1, l0, g0",
        "4 runs of 3 models, 1 of them not evaluated",
    ):
        assert fact in page


def test_whatever_comes_from_a_run_is_escaped(make_run, tmp_path):
    hostile = "<script>alert('x')</script>&"
    folder = make_run("a<b>&c", core=hostile, versions={"machine": hostile, hostile: {"inner": hostile}})
    texts = dict.fromkeys(("run", "group", "question", "right", "answer"), hostile)
    example = Example(number=3, right_probability=0.5, page='inspect/"x".html', **texts)
    page = write_report([folder], tmp_path / "out", title=hostile, examples=[example]).read_text(encoding="utf-8")
    assert re.findall(r"<script.*?</script>", page, re.DOTALL) == own_scripts()
    assert "&lt;script&gt;" in page


def test_versions_that_differ_between_runs_are_given_with_their_runs(make_run, tmp_path):
    folders = [make_run("a", versions={"torch": "2.11"}), make_run("b", core="lstm", versions={"torch": "2.13"})]
    page = write_report(folders, tmp_path / "out").read_text(encoding="utf-8")
    assert "2.11 (a); 2.13 (b)" in page


def test_notes_of_the_runs_are_listed_once_and_say_whom_they_are_about(make_run, tmp_path):
    folders = [make_run("a", notes=("not <finished>",)), make_run("b", core="lstm")]
    page = write_report(folders, tmp_path / "out").read_text(encoding="utf-8")
    assert "<ul><li>task 3: 385 of 2,000 stories</li><li>RMC: not &lt;finished&gt;</li></ul>" in page


def test_the_figures_are_files_too_and_a_second_report_replaces_the_first(make_run, tmp_path):
    out = tmp_path / "out"
    write_report([make_run("a")], out)
    first = (out / "accuracy-by-task.svg").read_bytes()
    write_report([make_run("b", core="lstm")], out)
    assert sorted(path.name for path in out.iterdir()) == [
        "accuracy-by-seconds.svg",
        "accuracy-by-step.svg",
        "accuracy-by-task.svg",
        "index.html",
    ]
    assert (out / "accuracy-by-task.svg").read_bytes() != first


def test_a_run_without_numbers_gives_a_page_without_figures(make_run, tmp_path):
    folder = make_run("a", evaluated=False)
    (folder / "metrics.csv").unlink()
    page = write_report([folder], tmp_path / "out").read_text(encoding="utf-8")
    assert "<svg" not in page
    assert "not evaluated" in page


def test_nothing_is_written_when_a_run_cannot_be_read(make_run, tmp_path):
    with pytest.raises(InputError):
        write_report([make_run("a"), tmp_path / "missing"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_write_that_fails_leaves_the_old_page_and_no_part(make_run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_report([make_run("a")], out, title="first")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_report([make_run("b")], out, title="second")
    assert "first" in (out / "index.html").read_text(encoding="utf-8")
    assert not list(out.glob(".*"))


def test_without_matplotlib_the_extra_is_named(make_run, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'pip install "relational-rnn\[report\]"'):
        write_report([make_run("a")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
