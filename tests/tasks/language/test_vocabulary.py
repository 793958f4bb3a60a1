"""Words, characters and byte pairs: there and back, in pieces, refused, as JSON."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from relational_rnn._check import InputError
from relational_rnn.tasks.language.vocabulary import Vocabulary

TEXT = "to be or not to be\nthat is the question\n\nwhether 'tis nobler — in the mind ü 日本\n"
SIZES = {"word": None, "character": None, "bpe": 270}


def build(kind: str, text: str = TEXT, size: int | None = None, **settings: bool) -> Vocabulary:
    return Vocabulary.build(kind, [text], size=SIZES[kind] if size is None else size, **settings)


@pytest.fixture(params=SIZES)
def vocabulary(request) -> Vocabulary:
    return build(request.param)


def test_text_comes_back(vocabulary):
    tokens = vocabulary.encode(TEXT)
    assert tokens.dtype == np.int64
    assert 0 <= tokens.min() <= tokens.max() < vocabulary.size
    assert vocabulary.decode(tokens) == TEXT
    assert list("".join(vocabulary.pieces(tokens.tolist()))) == list(TEXT)
    assert vocabulary.encode("").tolist() == []
    assert vocabulary.decode([]) == ""


def test_the_tokens_of_pieces_are_those_of_the_whole(vocabulary):
    whole = vocabulary.encode(TEXT)
    cuts = random.Random(5)
    for _ in range(50):
        places = sorted(cuts.choices(range(len(TEXT) + 1), k=cuts.randrange(6)))
        encoder = vocabulary.encoder()
        parts = [encoder.feed(TEXT[begin:end]) for begin, end in zip([0, *places], [*places, len(TEXT)], strict=True)]
        np.testing.assert_array_equal(np.concatenate([*parts, encoder.finish()]), whole)


def test_the_vocabulary_of_pieces_is_that_of_the_whole(vocabulary):
    pieces = [TEXT[i : i + 7] for i in range(0, len(TEXT), 7)]
    assert Vocabulary.build(vocabulary.kind, pieces, size=SIZES[vocabulary.kind]) == vocabulary
    assert build(vocabulary.kind, TEXT.replace("to", "on")) != vocabulary


def test_json_there_and_back(vocabulary):
    text = vocabulary.to_json()
    back = Vocabulary.from_json(text, "here")
    assert type(back) is type(vocabulary)
    assert back == vocabulary
    assert hash(back) == hash(vocabulary)
    np.testing.assert_array_equal(back.encode(TEXT), vocabulary.encode(TEXT))
    assert json.loads(text)["kind"] == vocabulary.kind


def test_the_line_end_has_a_token(vocabulary):
    assert vocabulary.encode("\n").tolist() == [vocabulary.line_end]
    assert vocabulary.decode([vocabulary.line_end]) == "\n"


def test_every_token_has_a_symbol(vocabulary):
    shown = [vocabulary.symbol(token) for token in range(vocabulary.size)]
    assert "o" in shown or "or" in shown
    with pytest.raises(InputError, match=rf"there is no such token\n  got       {vocabulary.size}\n"):
        vocabulary.symbol(vocabulary.size)
    with pytest.raises(InputError, match="there is no such token"):
        vocabulary.decode([-1])


def test_the_most_frequent_comes_first_and_equals_by_code_point():
    words = build("word", "c b a b c c\n")
    assert words.symbols == ("c", "b", "<eos>", "a")
    assert build("word", "a b c c c b\n") == words
    assert build("character", "ccbab").symbols == ("b", "c", "a")


def test_the_rarest_are_left_out_and_read_as_unknown():
    words = build("word", "a a a b b c d\n", size=4)
    assert words.symbols == ("a", "<unk>", "b", "<eos>")
    assert words.unknown == 1
    assert words.encode("b c\nnew").tolist() == [2, 1, 3, 1]
    assert words.decode([0, 1]) == "a <unk>"
    letters = build("character", "aaaabbbcdé", size=3)
    assert letters.symbols == ("a", "b", "\ufffd")
    assert letters.encode("baéx😀").tolist() == [1, 0, 2, 2, 2]


def test_a_text_that_fits_into_the_size_has_no_unknown():
    assert build("word", "a b\n", size=9).unknown is None
    assert build("word", "a b\n", size=9).size == 3
    assert build("word", "a <unk> b\n").unknown is not None


def test_words_without_line_ends():
    words = build("word", "a\nb a\n", line_ends=False)
    assert words.symbols == ("a", "b")
    assert words.line_end is None
    assert words.encode("b\n\na").tolist() == [1, 0]
    assert Vocabulary.from_json(words.to_json(), "here").encode("a\n").tolist() == [0]


def test_a_line_end_is_known_even_where_the_text_had_none():
    assert build("word", "a b").encode("a\n").tolist() == [0, build("word", "a b").line_end]


@pytest.mark.parametrize(
    ("kind", "text", "got"),
    [
        ("character", "ab\nbéa\n日é", "'é' (line 2), '日' (line 3)"),
        ("word", "a b\n\nbe a\nnot be", "'be' (line 3), 'not' (line 4)"),
        ("character", "ABCDEFG", "'A' (line 1), 'B' (line 1), 'C' (line 1), 'D' (line 1), 'E' (line 1) and 2 more"),
    ],
)
def test_what_is_not_in_the_vocabulary_is_named_with_its_line(kind, text, got):
    known = build(kind, "a b\n")
    with pytest.raises(InputError) as error:
        known.encode(text, "new.txt")
    assert str(error.value) == (
        f"new.txt: the vocabulary lacks {kind}s of this text\n"
        f"  got       {got}\n"
        f"  hint      a vocabulary that is built with a smaller vocabulary_size reads rare {kind}s as unknown."
    )


@pytest.mark.parametrize("kind", ["word", "character"])
def test_lines_are_counted_over_pieces(kind):
    encoder = build(kind, "a b\n").encoder("long.txt", 11)
    encoder.feed("a\nb\na")
    with pytest.raises(InputError, match=r"got       'q' \(line 14\)"):
        encoder.feed("\nq b")


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("word", {"size": 2}, "vocabulary_size is too small\n  got       2\n  expected  >= 3"),
        ("character", {"size": 1}, "vocabulary_size is too small\n  got       1\n  expected  >= 2"),
        ("bpe", {"size": 255}, "vocabulary_size is too small\n  got       255\n  expected  >= 256: one for each byte"),
        ("bpe", {"size": None}, "byte pairs need a vocabulary_size"),
        ("word", {"size": 0}, "vocabulary_size must be a whole number of at least 1"),
        (
            "character",
            {"line_ends": False},
            "only a vocabulary of words can leave line ends out\n  got       character",
        ),
        ("bpe", {"size": 300, "line_ends": False}, "only a vocabulary of words can leave line ends out"),
        ("syllable", {}, "kind is not a known choice"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(kind, settings, message):
    with pytest.raises(InputError, match=message):
        Vocabulary.build(kind, [TEXT], **settings)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("word", " \t ", "here: the text holds no word"),
        ("character", "", "here: the text holds no character"),
        ("bpe", "", "here: the text holds no byte"),
        ("bpe", "ab\n", "here: the text is too short to learn so many byte pairs from\n  got       257 tokens"),
    ],
)
def test_a_text_without_enough_in_it_is_refused(kind, text, message):
    with pytest.raises(InputError, match=message):
        Vocabulary.build(kind, [text], size=SIZES[kind], where="here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "here: this is no vocabulary\n  got       list"),
        ("{", "here: is not readable JSON"),
        ('{"format": 1, "kind": "pickle"}', "this is no vocabulary\n  got       format 1, kind 'pickle'"),
        ('{"format": 1, "kind": ["word"]}', "this is no vocabulary"),
        ('{"format": 9, "kind": "word", "symbols": ["a"]}', "this is no vocabulary\n  got       format 9, kind 'word'"),
        ('{"format": 1, "kind": "word", "symbols": []}', "symbols must be a list of texts"),
        ('{"format": 1, "kind": "word", "symbols": ["a", 3]}', "symbols must be a list of texts"),
        ('{"format": 1, "kind": "word", "symbols": ["a", "b", "a"]}', "has a symbol twice\n  got       'a'"),
        ('{"format": 1, "kind": "character", "symbols": ["a", "bc"]}', "a symbol of more than one character"),
        ('{"format": 1, "kind": "bpe"}', "here: the vocabulary's byte pairs cannot be read"),
        ('{"format": 1, "kind": "bpe", "tokenizer": {"model": 3}}', "here: the vocabulary's byte pairs cannot be read"),
    ],
)
def test_json_that_is_no_vocabulary_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        Vocabulary.from_json(text, "here")
