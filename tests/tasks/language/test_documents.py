"""Where documents start, whatever the pieces that the text comes in."""

from __future__ import annotations

import pytest

from relational_rnn.tasks.language import sources
from relational_rnn.tasks.language.sources import split_documents

WIKI = (
    "\n = Ada = \n\ntext\n = not one = \ntext\n \n = = Early life = = \n\nmore\n\n"
    " = Bo 2 = \n\n = Cy = \nend = \n \n = Di = \n"
)
CASES = {
    "files": ("a\n\n = B = \n\nc", ["a\n\n = B = \n\nc"]),
    "blank-line": ("\n\na\nb\n \n\t\nc\r\n\r\n\nd", ["\n\na\nb\n \n\t\n", "c\r\n\r\n\n", "d"]),
    # a heading stands between blank lines, or begins the text; the last one has no blank line after it
    "heading": (WIKI, [WIKI[: WIKI.index(" = Bo")], WIKI[WIKI.index(" = Bo") :]]),
}


def collected(pieces: list[str], starts: str) -> list[str]:
    """The text of every document."""
    found = [""]
    for new, piece in split_documents(pieces, starts):
        if new:
            found.append("")
        found[-1] += piece
    return found


@pytest.mark.parametrize("starts", CASES)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_documents_are_found_in_text_that_comes_in_pieces(starts, step):
    text, expected = CASES[starts]
    assert collected([text[i : i + step] for i in range(0, len(text), step)], starts) == expected


@pytest.mark.parametrize("starts", CASES)
def test_nothing_is_lost_of_very_long_lines_and_documents(starts, monkeypatch):
    monkeypatch.setattr(sources, "LONGEST", 10)
    monkeypatch.setattr(sources, "COLLECTED", 20)
    text = "x" * 35 + "\n\n" + "y " * 20 + "\nz\n" * 9 + " = A = \n\n" + " " * 30 + "\n" + " = Bcdefghijklm = \n\n"
    pieces = list(split_documents([text[i : i + 4] for i in range(0, len(text), 4)], starts))
    assert "".join(piece for _, piece in pieces) == text
    assert max(len(piece) for _, piece in pieces) < 50
    assert sum(new for new, _ in pieces) == {"files": 0, "blank-line": 10, "heading": 0}[starts]


def test_an_empty_text_has_no_pieces():
    for starts in CASES:
        assert list(split_documents([""], starts)) == []
