"""The comparison of two sets of stories, on sets small enough to count by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from relational_rnn._check import InputError
from relational_rnn.tasks.babi.generation import generate
from relational_rnn.tasks.babi.likeness import (
    POINTS,
    SETS,
    SHARES,
    Verdict,
    bootstrap_errors,
    compare_sets,
    compare_shares,
    compare_stories,
    count_by_story,
)
from relational_rnn.tasks.babi.story import Question, Story

MANY = 200_000
"""Resamples that leave a bootstrap error within 1 % of its exact value."""


def story(*answers: str, at: int = 3, supports: tuple[int, ...] = (0,)) -> Story:
    """One question for each answer, all after the same statements."""
    statements = tuple(f"Ada ran to the {place}." for place in ("attic", "barn", "cave", "dock", "exit")[:at])
    return Story(1, statements, tuple(Question("Where is Ada?", answer, supports, at) for answer in answers))


def test_counts_of_each_story():
    counts = count_by_story([["no", "yes", "no"], [], ["yes"]], among=["maybe", "no", "yes"])
    assert counts.tolist() == [[0, 2, 1], [0, 0, 0], [0, 0, 1]]


def test_the_error_of_independent_questions_is_the_binomial_one():
    counts = np.array([[1, 0]] * 30 + [[0, 1]] * 10)
    np.testing.assert_allclose(bootstrap_errors(counts, resamples=MANY), np.sqrt(0.75 * 0.25 / 40), rtol=0.01)


def test_questions_that_hang_together_are_no_more_than_one():
    """Five equal answers in every story: as uncertain as one answer each, not as 200 would be."""
    counts = 5 * np.array([[1, 0]] * 30 + [[0, 1]] * 10)
    np.testing.assert_allclose(bootstrap_errors(counts, resamples=MANY), np.sqrt(0.75 * 0.25 / 40), rtol=0.01)


def test_answers_that_even_out_within_a_story_leave_no_error():
    np.testing.assert_array_equal(bootstrap_errors(np.array([[1, 1]] * 7)), 0)


def test_longer_stories_weigh_more():
    """Of a story with 3 times yes and one with 1 no: shares of yes 1, 3/4 (twice as often) and 0, variance 9/64."""
    counts = np.array([[3, 0], [0, 1]])
    np.testing.assert_allclose(bootstrap_errors(counts, resamples=MANY), 0.375, rtol=0.01)


def test_an_order_adds_the_errors_of_at_most():
    counts = np.array([[1, 0, 0]] * 20 + [[0, 1, 0]] * 20 + [[0, 0, 1]] * 40)
    errors = bootstrap_errors(counts, ordered=True, resamples=MANY)
    exact = [np.sqrt(share * (1 - share) / 80) for share in (0.25, 0.25, 0.5, 0.25, 0.5)]
    np.testing.assert_allclose(errors[:5], exact, rtol=0.01)
    assert errors[5] < 1e-12
    np.testing.assert_array_equal(bootstrap_errors(counts, resamples=MANY), errors[:3])


def test_the_bootstrap_is_seeded():
    counts = np.array([[1, 0]] * 5 + [[0, 1]] * 5)
    np.testing.assert_array_equal(bootstrap_errors(counts, seed=4), bootstrap_errors(counts, seed=4))
    assert (bootstrap_errors(counts, seed=4) != bootstrap_errors(counts, seed=5)).all()


def test_what_cannot_be_resampled_is_refused():
    with pytest.raises(InputError, match="resamples must be a whole number of at least 1"):
        bootstrap_errors(np.array([[1]]), resamples=0)
    for counts in (np.zeros((0, 2), dtype=int), np.array([[1, 0], [0, 0]])):
        with pytest.raises(InputError, match="every story must count something"):
            bootstrap_errors(counts)


def test_two_points_are_allowed_where_the_published_share_is_certain():
    published = [story("yes", "no")] * 50
    generated = [story("yes", "no")] * 24 + [story("yes", "yes")] * 1  # 26 to 24
    verdict = compare_shares("answer shares", published, generated)
    assert (verdict.published, verdict.generated, verdict.bound) == (0.5, pytest.approx(0.48), POINTS)
    assert verdict.deviation == pytest.approx(0.02)
    verdict = compare_shares("answer shares", published, [*generated, story("yes", "yes")])  # 28 to 24
    assert verdict.deviation == pytest.approx(28 / 52 - 0.5)
    assert not verdict.holds


def test_three_errors_are_allowed_where_that_is_more():
    published = [story("yes")] * 30 + [story("no")] * 10
    bound = 3 * np.sqrt(0.75 * 0.25 / 40)  # 0.205
    for yes, holds in ((9, True), (19, False)):  # of 10 and of 20: 0.15 and 0.2 above
        verdict = compare_shares("answer shares", published, [story("yes")] * yes + [story("no")], resamples=MANY)
        assert verdict.bound == pytest.approx(bound, rel=0.01)
        assert verdict.deviation == pytest.approx(yes / (yes + 1) - 0.75)
        assert verdict.holds or not holds
    verdict = compare_shares("answer shares", published, [story("yes")], resamples=MANY)
    assert not verdict.holds


def test_the_worst_is_the_worst_for_its_bound():
    """A quarter of every story is c, which may be 2 points off; a and b vary from story to story, so 18 points."""
    published = [story("a", "a", "a", "c")] * 20 + [story("b", "b", "b", "c")] * 20
    generated = [story(*["a"] * 47, *["b"] * 31, *["c"] * 22)]
    verdict = compare_shares("answer shares", published, generated)
    assert (verdict.where, verdict.published, verdict.generated, verdict.bound) == ("c", 0.25, 0.22, POINTS)
    assert not verdict.holds


def test_a_value_of_one_side_only_counts():
    published, generated = [story("yes")] * 9, [story("yes")] * 9 + [story("maybe")]
    verdict = compare_shares("answer shares", published, generated)
    assert (verdict.published, verdict.bound) in ((0.0, POINTS), (1.0, POINTS))
    assert verdict.deviation == pytest.approx(0.1)
    verdict = compare_shares("answer shares", generated, published)
    assert verdict.deviation == pytest.approx(0.1)


def test_many_small_shifts_to_one_side_are_seen():
    """1 % of the questions each after 1 to 100 sentences, against 4 sentences more: no share is 2 points off."""
    published = [replace(story("yes"), questions=(Question("Who?", "yes", (0,), at),)) for at in range(1, 101)] * 100
    generated = [replace(s, questions=(replace(s.questions[0], at=s.questions[0].at + 4),)) for s in published]
    verdict = compare_shares("sentences before", published, generated)
    assert verdict.where.startswith("at most ")
    assert verdict.deviation == pytest.approx(0.04)
    assert not verdict.holds


def test_positions_count_back_from_the_question():
    published = [story("yes", at=5, supports=(4, 1))]
    verdict = compare_shares("support positions", published, [story("yes", at=5, supports=(4, 4))])
    assert (verdict.where, verdict.published, verdict.generated) == ("1", 0.5, 1.0)
    verdict = compare_shares("support positions", published, [story("yes", at=5, supports=(1, 1))])
    assert (verdict.where, verdict.published, verdict.generated) == ("1", 0.5, 0.0)


def test_sets_name_what_only_one_side_has():
    verdict = compare_sets("answers", [story("yes"), story("maybe")], [story("yes"), story("no"), story("a,b")])
    assert verdict == Verdict("answers", "only published: maybe; only generated: a,b no", 2, 3, 3, 0)
    assert not verdict.holds
    assert compare_sets("answers", [story("no")], [story("no", "no")]) == Verdict("answers", "", 1, 1, 0, 0)
    verdict = compare_sets("words", [story("yes", at=3)], [story("yes", at=2)])
    assert verdict.where == "only published: cave"
    other = replace(story("no"), questions=(Question("Where was Ada?", "no", (0,), 3),))
    assert compare_sets("words", [story("no")], [other]).where == "only published: is; only generated: was"


def first_question(change):
    """A change of the first question of every story."""
    return lambda s: replace(s, questions=(change(s.questions[0]), *s.questions[1:]))


DISTORTIONS = {
    "words": lambda s: replace(s, statements=(s.statements[0].replace(" to ", " into "), *s.statements[1:])),
    "answers": first_question(lambda q: replace(q, answer="garden,office") if q.answer == "garden" else q),
    "answer shares": first_question(lambda q: replace(q, answer="garden") if q.answer == "office" else q),
    "sentences before": first_question(lambda q: replace(q, at=1, supports=(0,)) if q.supports == (1,) else q),
    "supports": lambda s: replace(s, questions=tuple(replace(q, supports=q.supports * 2) for q in s.questions)),
    "support positions": first_question(lambda q: replace(q, supports=(0,))),
}


@pytest.mark.parametrize("quantity", [*SETS, *SHARES])
def test_every_quantity_can_fail(quantity):
    published, generated = (generate(1, seed, questions=5_000) for seed in (1, 2))
    assert all(verdict.holds for verdict in compare_stories(published, generated))
    verdicts = compare_stories(published, [DISTORTIONS[quantity](s) for s in generated])
    wrong = {verdict.quantity for verdict in verdicts if not verdict.holds}
    also = {"answers": {"answer shares"}}.get(quantity, set())
    assert wrong == {quantity} | also


def test_the_verdicts_come_in_order_and_depend_on_the_seed_of_the_bootstrap_alone():
    published, generated = (generate(18, seed, questions=300) for seed in (1, 2))
    verdicts = compare_stories(published, generated)
    assert [verdict.quantity for verdict in verdicts] == [*SETS, *SHARES]
    assert compare_stories(published, generated) == verdicts
    assert compare_stories(published, generated, seed=1) != verdicts


def test_stories_of_one_task_are_wanted():
    one, two = generate(1, 0, stories=2), generate(2, 0, stories=2)
    for published, generated in (([], one), (one, []), (one, two), (one + two, one)):
        with pytest.raises(InputError, match="both sides must be stories of the same task"):
            compare_stories(published, generated)
