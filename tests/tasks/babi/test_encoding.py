"""Words, answers and the vocabulary."""

from __future__ import annotations

import json

import pytest
from made_up import made_up_story, published_babi

from relational_rnn._check import InputError
from relational_rnn.tasks.babi.encoding import BABI, Vocabulary, tokenize
from relational_rnn.tasks.babi.story import Question, Story

STORY = Story(
    8,
    ("Mary got the milk there.", "Mary dropped the apple."),
    (Question("What is Mary carrying?", "milk", (0,), 1), Question("Where is Mary?", "apple,milk", (0, 1), 2)),
)
OTHER = Story(1, ("Bo went home.",), (Question("Where is Bo?", "home", (0,), 1),))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Where is Mary? ", ["where", "is", "mary"]),
        ("The box fits inside the chest.", ["the", "box", "fits", "inside", "the", "chest"]),
        ("  Mary's  milk,\tnot_Bo's!", ["mary's", "milk", "not", "bo's"]),
        ("Où 2 go?", ["où", "2", "go"]),
        ("?!", []),
    ],
)
def test_words_are_lower_case_without_punctuation(text, words):
    assert tokenize(text) == words


def test_the_vocabulary_depends_on_the_sets_of_words_alone():
    one = Vocabulary.build([STORY, OTHER])
    assert one == Vocabulary.build([OTHER], [STORY, OTHER, STORY])
    assert one.answers == ("apple,milk", "home", "milk")
    assert one.words == tuple(
        sorted(
            {"mary", "got", "the", "milk", "there", "dropped", "apple", "what", "is", "carrying", "where"}
            | {"bo", "went", "home"}
        )
    )
    assert one.max_words == 5
    assert one.encode("Mary is HOME.") == [one.words.index(word) + 1 for word in ("mary", "is", "home")]
    assert one.answer_number("milk") == 2
    assert one.answer_number("apple") is None


def test_a_base_keeps_its_words_and_answers():
    built = Vocabulary.build([OTHER], base=BABI)
    assert set(built.words) == set(BABI.words) | {"bo", "home"}
    assert set(built.answers) == set(BABI.answers) | {"home"}
    assert built.max_words == BABI.max_words


def test_unknown_words_are_named_with_the_nearest_known_ones():
    with pytest.raises(InputError) as error:
        BABI.encode("Marie wnet to the zzz and the zzz.", where="ask")
    assert str(error.value) == (
        "ask: unknown words: marie, wnet, zzz\n"
        "  got       'Marie wnet to the zzz and the zzz.'\n"
        "  expected  only the 145 words that the model knows\n"
        "  hint      for 'marie' try 'are', 'mice' or 'mary'; for 'wnet' try 'west' or 'went'"
    )


def test_a_sentence_that_is_empty_or_too_long_is_refused():
    with pytest.raises(InputError, match="a sentence without a word"):
        BABI.encode(" ?")
    with pytest.raises(InputError, match=r"too long\n  got       12 words in .*\n  expected  at most 11"):
        BABI.encode("the " * 12)


def test_json_gives_the_same_vocabulary_back():
    for vocabulary in (BABI, Vocabulary.build([STORY])):
        again = Vocabulary.from_json(vocabulary.to_json())
        assert again == vocabulary
        assert again.encode("Mary got the milk") == vocabulary.encode("Mary got the milk")


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("answers"),
        lambda fields: fields.update(extra=1),
        lambda fields: fields.update(max_words="9"),
        lambda fields: fields.update(words=fields["words"][::-1]),
        lambda fields: fields.update(words=[*fields["words"], "zz", "zz"]),
        lambda fields: fields.update(answers=[]),
        lambda fields: fields.update(answers=[1, 2]),
        lambda fields: fields.update(words=7),
    ],
)
def test_json_that_is_no_vocabulary_is_refused(change):
    fields = json.loads(BABI.to_json())
    change(fields)
    with pytest.raises(InputError, match=r"run/vocabulary.json: this is not a vocabulary"):
        Vocabulary.from_json(json.dumps(fields), where="run/vocabulary.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null"])
def test_text_that_is_no_json_object_is_refused(text):
    with pytest.raises(InputError, match="this is not a vocabulary"):
        Vocabulary.from_json(text)


def test_the_built_in_vocabulary_covers_made_up_numbers_of_published_size():
    assert (len(BABI.words), len(BABI.answers), BABI.max_words) == (145, 60, 11)
    with pytest.raises(InputError, match="unknown words: ada, ran"):
        BABI.encode(made_up_story(1, 0).statements[0])


def test_the_built_in_vocabulary_is_that_of_the_published_files():
    read = published_babi("RELATIONAL_RNN_BABI", "en-10k")
    assert Vocabulary.build(*read.train.values()) == BABI
    assert Vocabulary.build(*read.test.values(), base=BABI) == BABI


def test_the_small_published_set_has_one_answer_that_its_training_files_lack():
    read = published_babi("RELATIONAL_RNN_BABI_EN", "en")
    train = Vocabulary.build(*read.train.values())
    test = Vocabulary.build(*read.test.values())
    assert set(test.words) <= set(train.words)
    assert len(set(test.answers) - set(train.answers)) <= 1
    in_task_8 = {q.answer for s in read.train[8] for q in s.questions}
    assert {q.answer for s in read.test[8] for q in s.questions} - in_task_8 == {"football,apple,milk"}
