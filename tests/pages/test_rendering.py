"""Templates: what comes from outside is escaped, what another template made is not, and nothing is left out unsaid."""

import sys

import jinja2
import pytest

from relational_rnn import MissingExtraError
from relational_rnn.pages import Cell, Table, document, render

HOSTILE = "<b>'&\""


def test_only_what_a_template_made_stands_as_html():
    table = Table(["a"], [[HOSTILE]]).html()
    assert "&lt;b&gt;&#39;&amp;&#34;" in table
    assert table in document("A page", table)
    assert table not in document("A page", str(table))


def test_a_value_that_is_not_given_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'description' is undefined"):
        render("reports/templates/inline.html", width=None, drawn="")


def test_the_extra_is_named_where_jinja_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r'pip install "relational-rnn\[report\]"'):
        Table(["a"], [["b"]]).html()


def test_one_table_has_its_notes_in_all_three_renderings():
    table = Table(["what", "how many"], [["a_b", Cell("7", 7)], ["*c*", "none"]], "Counts", ["more than < 3"])
    assert table.text().splitlines() == ["what  how many", "a_b          7", "*c*       none", "more than < 3"]
    assert table.markdown().splitlines()[2:] == ["| a_b | 7 |", r"| \*c\* | none |", "", "more than &lt; 3"]
    assert table.html().endswith("</div>\n<p>more than &lt; 3</p>")


def test_a_table_without_rows_has_headings():
    empty = Table(["what", "how many"], [])
    assert empty.text() == "what  how many"
    assert empty.markdown() == "| what | how many |\n| --- | --- |"
    assert empty.html().count("<th") == 3  # with <thead
