"""The frame of a page: what it allows, and that no text can leave its place."""

import base64
import hashlib
import json
import re

from relational_rnn.pages import Cell, Table, document

SCRIPTS = ("pages/tables.js", "pages/figures.js")
HOSTILE = "</script><script>alert(1)</script><!--"


def test_only_the_given_scripts_may_run_and_nothing_may_be_loaded():
    page = document("A page", "<p></p>", scripts=SCRIPTS)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    code = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(code) == 2
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(c.encode()).digest()).decode()}'" for c in code]
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src {' '.join(hashes)}"
    assert "script-src 'none'" in document("A page", "")


def test_data_of_any_text_stays_data():
    page = document(HOSTILE, "", data={"text": HOSTILE, HOSTILE: [1, None]})
    inside = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
    assert json.loads(inside) == {"text": HOSTILE, HOSTILE: [1, None]}
    assert page.count("<script") == 1
    assert "<title>&lt;/script&gt;" in page


def test_a_table_escapes_its_cells_and_keeps_what_they_sort_by():
    html = Table(
        [HOSTILE] * 3, [[HOSTILE, Cell("ten", 10, f'#"{HOSTILE}'), Cell("none", "")]], HOSTILE, [HOSTILE]
    ).html()
    assert "<script" not in html
    assert '<td data-value="10"><a href="#&#34;&lt;/script&gt;' in html
    assert '<td class="words" data-value="">none</td>' in html


def test_columns_of_words_stand_to_the_left_and_long_texts_wrap():
    rows = [[Cell("1", 1), Cell("Where?"), Cell("x", "")], [Cell("2", 2), Cell("Who? " * 9), Cell("7.5 %", 0.075)]]
    html = Table(["number", "question", "share"], rows).html()
    classes = lambda tag: re.findall(rf'<{tag}(?: scope="col")?((?: class="[^"]*")?)[ >]', html)  # noqa: E731
    assert classes("td") == [' class="words"', "", ' class="words long"', ""]
    assert [kind for kind in classes("th") if kind] == [' class="words"']
