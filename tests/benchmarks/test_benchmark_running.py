"""How the budget is shared out, and what is said about the time left, by a clock that the test moves."""

import pytest

from relational_rnn import InputError
from relational_rnn.benchmarks.measuring import peak_memory
from relational_rnn.benchmarks.record import Measured, Record
from relational_rnn.benchmarks.running import LEAST, WINDOW, Progress
from relational_rnn.benchmarks.shapes import QUICK, Benchmark, Case

PLAN = [Case(name=name, shape=QUICK, run="infer") for name in "abcd"]


def progress(tmp_path, budget, *, done=(), seconds=0.0, stages=None):
    """Progress over four equal cases, of which some are done; and the hand of its clock."""
    record = Record(about={}, date="2026-01-31", path=tmp_path / "results.json", seconds=seconds)
    for case in PLAN[: len(done)]:
        record.cases[case.key] = done[PLAN.index(case)]
    hand = [50.0]
    stages = [] if stages is None else stages
    return Progress(PLAN, record, budget, stages.append, clock=lambda: hand[0]), hand


def took(seconds, *, rounds=LEAST, each=0.0):
    return Measured(done=True, seconds=seconds, samples={"x": [each] * rounds})


def test_what_cases_took_tells_what_is_left(tmp_path):
    stages = []
    clock, _ = progress(tmp_path, 1000.0, done=[took(7.0), took(9.0)], stages=stages)
    clock.tell("c: timing")
    (stage,) = stages
    assert (stage.done, stage.cases, stage.what) == (2, 4, "c: timing")
    assert stage.seconds_left == pytest.approx(16.0)


def test_rounds_that_only_the_budget_allowed_do_not_count_as_needed(tmp_path):
    stages = []
    clock, _ = progress(tmp_path, 1000.0, done=[took(14.0, rounds=10, each=1.0)], stages=stages)
    clock.tell("b: timing")
    assert stages[0].seconds_left == pytest.approx(3 * (14.0 - 7.0))


def test_what_the_budget_leaves_is_shared_by_the_cases_to_come(tmp_path):
    clock, hand = progress(tmp_path, 40.0, done=[took(8.0), took(8.0)], seconds=16.0)
    assert clock.rounds().seconds == pytest.approx((40 - 16 - 2 * 8) / 2)
    hand[0] += 6.0
    assert clock.rounds().seconds == pytest.approx((40 - 22 - 2 * 8) / 2)
    hand[0] += 100.0
    assert clock.rounds().seconds == 0.0
    assert clock.rounds().least == LEAST
    generous, _ = progress(tmp_path, 1e6)
    assert generous.rounds().seconds == WINDOW


def test_it_saves_every_few_seconds_and_counts_all_sittings(tmp_path):
    clock, hand = progress(tmp_path, 40.0, seconds=16.0)
    hand[0] += 4.0
    clock.save_now_and_then()
    assert not list(tmp_path.iterdir())
    hand[0] += 2.0
    clock.save_now_and_then()
    assert [path.name for path in tmp_path.iterdir()] == ["results.partial.json"]
    assert clock.seconds == 22.0


def test_a_process_that_dies_is_reported_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"nobody ended with exit code 1 at a, infer, before its memory could"):
        peak_memory(PLAN[0], Benchmark(), "nobody")
