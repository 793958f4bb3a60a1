"""Byte pairs: any text is encoded, half characters wait, long lines are cut, the library may be missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from relational_rnn._check import MissingExtraError
from relational_rnn.tasks.language.byte_pairs import BYTES, BytePairs, LineCarry
from relational_rnn.tasks.language.vocabulary import Vocabulary

TEXT = "the cat sat on the mat and the hat  \n" * 30


@pytest.fixture(scope="module")
def pairs() -> Vocabulary:
    return Vocabulary.build("bpe", [TEXT], size=270)


def test_frequent_words_become_one_token(pairs):
    assert isinstance(pairs, BytePairs)
    assert [pairs.symbol(token) for token in pairs.encode("the cat")] == ["the", " cat"]


@pytest.mark.parametrize("text", ["né 日本 😀\n", "\r\n\t  x", "\0\x7f\xa0\u2028", "".join(map(chr, range(1, 700)))])
def test_no_text_is_unknown(pairs, text):
    tokens = pairs.encode(text)
    assert pairs.decode(tokens) == text
    assert pairs.unknown is None


def test_half_a_character_waits_for_its_other_half(pairs):
    tokens = pairs.encode("é!").tolist()
    assert list(pairs.pieces(tokens)) == ["", "é", "!", ""]
    assert pairs.decode(tokens[:1]) == "\ufffd"  # it never came


def test_no_token_reaches_over_a_line_end(pairs):
    assert all("\n" not in pairs.symbol(token) for token in range(pairs.size) if token != pairs.line_end)
    assert pairs.encode("\n\n").tolist() == [pairs.line_end] * 2


def test_the_alphabet_of_bytes_is_the_librarys():
    from tokenizers import pre_tokenizers

    assert sorted(BYTES) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTES.values()) == list(range(256))


def test_lines_are_cut_at_the_same_places_however_the_text_comes():
    text = "a b\n" + "word " * 9 + "x" * 31 + "\n\n" + "y" * 10 + " z" * 12
    expected = LineCarry(limit=10)
    whole = expected.feed(text) + expected.finish()
    assert "".join(whole) == text
    assert max(map(len, whole)) == 10
    for step in (1, 3, 10, 17):
        carry = LineCarry(limit=10)
        parts = [line for i in range(0, len(text), step) for line in carry.feed(text[i : i + step])]
        assert parts + carry.finish() == whole


def test_learning_twice_gives_the_same(pairs):
    again = Vocabulary.build("bpe", [TEXT], size=270)
    assert again == pairs
    np.testing.assert_array_equal(again.encode(TEXT), pairs.encode(TEXT))


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r'pip install "relational-rnn\[language\]"'):
        Vocabulary.build("bpe", [TEXT], size=270)
