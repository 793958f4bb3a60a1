"""Batches: what they hold, that they depend on seed and step alone, equal shares, buckets, cut stories."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from made_up import made_up_story, published_babi

from relational_rnn._check import InputError
from relational_rnn.tasks.babi.batching import BabiData, Batch, EncodedStories, cut_story, split_stories
from relational_rnn.tasks.babi.encoding import BABI, Vocabulary
from relational_rnn.tasks.babi.passes import BUCKETS
from relational_rnn.tasks.babi.story import Question, Story


def stories_of(task: int, count: int, start: int = 0) -> list[Story]:
    return [made_up_story(task, start + i) for i in range(count)]


# Tasks with different numbers of stories: the smaller ones have to be repeated.
TRAIN = {2: stories_of(2, 31), 5: stories_of(5, 7), 17: stories_of(17, 90), 9: stories_of(9, 50)}
TEST = {task: stories_of(task, 5, start=200) for task in TRAIN}
VOCABULARY = Vocabulary.build(*TRAIN.values(), *TEST.values())


def make_data(**options) -> BabiData:
    return BabiData(TRAIN, TEST, VOCABULARY, **({"batch_questions": 16} | options))


def contents(batch: Batch) -> list[tuple]:
    """(task, statements before, question, answer) of every question, as numbers, from the padded tensors."""
    return [
        (
            int(batch.tasks[m]),
            tuple(tuple(w for w in row if w) for row in batch.statements[batch.story[m], : batch.at[m]].tolist()),
            tuple(w for w in batch.questions[m].tolist() if w),
            int(batch.answers[m]),
        )
        for m in range(len(batch.at))
    ]


def expected(story: Story, vocabulary: Vocabulary) -> list[tuple]:
    rows = tuple(tuple(vocabulary.encode(text)) for text in story.statements)
    return [
        (story.task, rows[: q.at], tuple(vocabulary.encode(q.text)), vocabulary.answer_number(q.answer))
        for q in story.questions
    ]


def assert_equal(a: Batch, b: Batch) -> None:
    for field in fields(Batch):
        assert torch.equal(getattr(a, field.name), getattr(b, field.name)), field.name


def test_a_batch_holds_exactly_the_chosen_stories():
    stories = [*stories_of(2, 4), *stories_of(5, 3)]
    batch = EncodedStories(stories, VOCABULARY).batch([6, 0, 3])
    chosen = [stories[i] for i in (6, 0, 3)]
    assert contents(batch) == [row for story in chosen for row in expected(story, VOCABULARY)]
    assert batch.lengths.tolist() == [len(story.statements) for story in chosen]
    assert batch.statements.shape[:2] == (3, max(batch.lengths))
    for row, length in zip(batch.statements, batch.lengths, strict=True):
        assert (row[:length, 0] > 0).all()
        assert (row[length:] == 0).all()
    assert {getattr(batch, field.name).dtype for field in fields(Batch)} == {torch.int64}


def test_padding_is_no_wider_than_the_longest_sentence_of_the_batch():
    long = Story(1, ("A cat sat on the mat by the door.",), (Question("Where?", "mat", (0,), 1),))
    short = Story(1, ("Bo sat.", "A cat ran."), (Question("Where is it now?", "mat", (0,), 2),))
    encoded = EncodedStories([long, short], Vocabulary.build([long, short]))
    assert encoded.batch([0]).statements.shape == (1, 1, 9)
    assert encoded.batch([1]).statements.shape == (1, 2, 3)
    assert encoded.batch([1]).questions.shape == (1, 4)
    assert encoded.batch([0, 1]).statements.shape == (2, 2, 9)


def test_validation_and_test_batches_hold_every_story_once():
    data = make_data(batch_questions=7)
    for part, batches, groups in (
        (data.valid, data.valid_batches(), [split_stories(TRAIN[task], 0)[1] for task in sorted(TRAIN)]),
        (data.test, data.test_batches(), [TEST[task] for task in sorted(TEST)]),
    ):
        batches = list(batches)
        got = Counter(row for batch in batches for row in contents(batch))
        assert got == Counter(row for group in groups for story in group for row in expected(story, VOCABULARY))
        assert part is not None
        assert sum(len(batch.lengths) for batch in batches) == len(part)
        assert all(3 <= len(batch.at) <= 11 for batch in batches)
        maxima = [int(batch.lengths.max()) for batch in batches]
        assert maxima == sorted(maxima)


def test_a_training_batch_is_a_function_of_seed_and_step_alone():
    data = make_data()
    steps = [3, 0, 100, 3 * data.steps_per_pass - 1, 3]
    first = [data.train_batch(step) for step in steps]
    again = make_data()
    for step, batch in sorted(zip(steps, first, strict=True), key=lambda pair: pair[0]):
        torch.manual_seed(step)
        np.random.seed(step)
        assert_equal(again.train_batch(step), batch)
    assert contents(make_data(seed=1).train_batch(3)) != contents(first[0])
    assert contents(data.train_batch(4)) != contents(first[0])


def test_every_task_gets_the_same_number_of_questions():
    data = make_data()
    assert data.train is not None
    passes = 6
    counts = Counter()
    stories = Counter()
    for step in range(passes * data.steps_per_pass):
        batch = data.train_batch(step)
        assert 10 <= len(batch.at) <= 22
        counts.update(batch.tasks.tolist())
        stories.update((row[0], row[1:3]) for row in contents(batch))
    largest = max(data.question_counts()["train"].values())
    assert all(abs(count - passes * largest) <= 1 for count in counts.values()), counts
    # Within a task, the stories are used equally often too.
    for task in TRAIN:
        seen = [count for (of, _), count in stories.items() if of == task]
        assert max(seen) - min(seen) <= 1, task


def test_rare_tasks_get_their_share():
    data = make_data(rare_tasks=(2, 17), rare_share=0.3)
    passes = 5
    counts = Counter(
        task for step in range(passes * data.steps_per_pass) for task in data.train_batch(step).tasks.tolist()
    )
    largest = max(data.question_counts()["train"].values())
    for task, count in counts.items():
        assert abs(count - passes * (round(0.3 * largest) if task in (2, 17) else largest)) <= 1


def test_first_tasks_are_alone_until_their_steps_are_over():
    data, plain = make_data(first_tasks=(2, 17), first_steps=9), make_data()
    counts = Counter(task for step in range(9) for task in data.train_batch(step).tasks.tolist())
    assert set(counts) == {2, 17}
    for step in range(2 * plain.steps_per_pass):
        assert contents(data.train_batch(9 + step)) == contents(plain.train_batch(step))


def test_training_never_sees_a_validation_story():
    data = make_data()
    held = {row for batch in data.valid_batches() for row in contents(batch)}
    trained = {row for step in range(2 * data.steps_per_pass) for row in contents(data.train_batch(step))}
    kept = {row for task in TRAIN for story in split_stories(TRAIN[task], 0)[0] for row in expected(story, VOCABULARY)}
    assert trained == kept
    assert held
    assert not any(row in trained for row in held - kept)


@pytest.mark.parametrize(("count", "held"), [(2, 1), (9, 1), (10, 1), (20, 2), (57, 5)])
def test_a_tenth_of_the_stories_and_at_least_one_is_kept_for_validation(count, held):
    stories = stories_of(6, count)
    train, valid = split_stories(stories, 4)
    assert len(valid) == held
    assert sorted(map(stories.index, train + valid)) == list(range(count))
    assert split_stories(stories, 4) == (train, valid)
    if count > 10:
        assert split_stories(stories, 5) != (train, valid)


def test_equal_stories_stay_on_one_side():
    stories = [story for story in stories_of(4, 12) for _ in range(3)]
    train, valid = split_stories(stories, 0)
    assert len(train) + len(valid) == 36
    assert len(valid) == 3
    assert not set(train) & set(valid)


def test_too_few_stories_to_validate_are_refused():
    with pytest.raises(InputError, match=r"task 4: too few training stories .*\n  got       1 different"):
        split_stories(stories_of(4, 1) * 5, 0)


def test_given_validation_stories_are_used():
    data = BabiData(TRAIN, None, VOCABULARY, valid=TEST)
    assert data.question_counts()["train"][17] == sum(len(story.questions) for story in TRAIN[17])
    assert data.question_counts()["valid"][17] == sum(len(story.questions) for story in TEST[17])
    with pytest.raises(InputError, match="there are no test stories"):
        data.test_batches()


def test_a_data_set_for_evaluation_alone_has_no_training_batches():
    data = BabiData({}, TEST, VOCABULARY)
    assert set(data.question_counts()) == {"test"}
    with pytest.raises(InputError, match="there are no train stories"):
        data.train_batch(0)
    with pytest.raises(InputError, match="there is no such step"):
        make_data().train_batch(-1)


def lengthy(task: int, number: int, length: int) -> Story:
    story = made_up_story(task, number)
    filler = tuple(f"Bo ran to the {'barn' if i % 2 else 'cave'}." for i in range(length - len(story.statements)))
    return replace(story, statements=story.statements + filler)


def test_stories_of_a_batch_have_similar_lengths():
    lengths = [6, 9, 15, 33, 55, 70, 100, 150, 170, 200]
    train = {task: [lengthy(task, i, lengths[(i + task) % 10]) for i in range(300)] for task in (1, 2)}
    data = BabiData(train, None, Vocabulary.build(*train.values()), batch_questions=24)
    mixed = 0
    for step in range(data.steps_per_pass):
        batch = data.train_batch(step)
        mixed += len(set(np.searchsorted(BUCKETS, batch.lengths.numpy()))) > 1
        assert set(batch.tasks.tolist()) == {1, 2}
    assert data.steps_per_pass > 35
    assert mixed <= len(BUCKETS)


def test_a_story_with_more_questions_than_a_batch_is_a_batch():
    many = Story(
        1, ("Bo ran.",), tuple(Question(f"Where is {n}?", "cave", (0,), 1) for n in ("Bo", "Ada", "Cy", "Di") * 9)
    )
    train = {1: [many, *stories_of(1, 6)]}
    data = BabiData(train, None, Vocabulary.build(*train.values()), valid={}, batch_questions=4)
    sizes = [len(data.train_batch(step).at) for step in range(data.steps_per_pass)]
    assert max(sizes) >= 36
    assert min(sizes) >= 1


def test_an_answer_that_is_no_class_counts_as_one_past_the_classes_and_is_reported():
    strange = Story(8, ("Ada ran.",), (Question("Where is Ada?", "football,apple", (0,), 1),))
    vocabulary = Vocabulary.build(*TRAIN.values())
    data = BabiData(TRAIN, {8: [strange]}, vocabulary)
    (batch,) = data.test_batches()
    assert batch.answers.tolist() == [len(vocabulary.answers)]
    assert data.report == [
        f"test, task 8: 1 question with the answer 'football,apple', which is not among the "
        f"{len(vocabulary.answers)} classes: counted as wrong"
    ]
    with pytest.raises(InputError, match="an answer to train on is not among the classes"):
        BabiData({8: [strange], **TRAIN}, None, vocabulary, valid=TEST)


def test_unknown_words_are_named_with_their_set_and_task():
    strange = Story(8, ("Ada flew.",), (Question("Where is Ada?", "barn", (0,), 1),))
    with pytest.raises(InputError, match="test, task 8: unknown word: flew"):
        BabiData(TRAIN, {8: [strange]}, VOCABULARY)


def test_stories_that_cannot_be_asked_are_refused():
    question = Question("Where is Ada?", "barn", (), 0)
    with pytest.raises(InputError, match="a question before any statement"):
        EncodedStories([Story(1, ("Ada ran.",), (question,))], VOCABULARY)
    with pytest.raises(InputError, match="a story without a question"):
        EncodedStories([Story(1, ("Ada ran.",), ())], VOCABULARY)
    with pytest.raises(InputError, match="test: there is no story"):
        EncodedStories([], VOCABULARY, name="test")


LONG = Story(
    3,
    tuple(f"{who} ran to the {place}." for place in ("attic", "barn", "cave") for who in ("Ada", "Bo")),
    (
        Question("Where is Ada?", "attic", (0,), 2),
        Question("Where is Bo?", "barn", (1, 3), 4),
        Question("Where is Ada?", "cave", (0, 4), 5),
        Question("Where is Bo?", "cave", (5,), 6),
    ),
)


def test_a_cut_story_shows_each_question_the_last_statements_before_it():
    pieces = cut_story(LONG, 4)
    assert [len(piece.statements) for piece in pieces] == [4, 4, 4]
    assert pieces[0].questions == LONG.questions[:2]
    assert pieces[1] == Story(3, LONG.statements[1:5], (Question("Where is Ada?", "cave", (3,), 4),))
    assert pieces[2] == Story(3, LONG.statements[2:6], (Question("Where is Bo?", "cave", (3,), 4),))
    assert cut_story(LONG, 6) == [LONG]


def test_questions_that_lose_sentences_are_reported():
    vocabulary = Vocabulary.build([LONG])
    encoded = EncodedStories([LONG], vocabulary, name="test", max_sentences=4)
    assert encoded.report == [
        "test, task 3: with at most 4 sentences, 2 of 4 questions lose early sentences, 1 of them a supporting fact"
    ]
    rows = [row for batch in encoded.batches(1) for row in contents(batch)]
    assert rows == [(task, seen[-4:], *rest) for task, seen, *rest in expected(LONG, vocabulary)]
    assert EncodedStories([LONG], vocabulary, max_sentences=6).report == []
    with pytest.raises(InputError, match="max_sentences must be a whole number"):
        EncodedStories([LONG], vocabulary, max_sentences=0)


def test_published_questions_that_seventy_sentences_cut():
    tests = published_babi("RELATIONAL_RNN_BABI", "en-10k").test
    report = EncodedStories([s for task in tests for s in tests[task]], BABI, name="test", max_sentences=70).report
    losses = {line.split(":")[0]: line.split(", ")[2].split(" ")[0] for line in report}
    assert losses == {"test, task 2": "5", "test, task 3": "240", "test, task 5": "4"}
