"""Turns, rounds and statistics, by a clock that the test moves."""

import pytest
import torch

from relational_rnn.benchmarks.measuring import Rounds, matmul_rate, take_turns


class FakeClock:
    """Seconds that pass only when something is called."""

    def __init__(self):
        self.now = 100.0
        self.calls = []

    def __call__(self):
        return self.now

    def task(self, name, *durations):
        """A call that takes these seconds, the last one from then on."""
        left = list(durations)

        def call():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_contenders_alternate_and_their_own_time_counts():
    clock, samples = FakeClock(), {}
    contenders = {"a": clock.task("a", 1.0, 2.0, 5.0), "b": clock.task("b", 0.25)}
    take_turns(contenders, samples, Rounds(seconds=0.0, least=3, most=9), clock=clock)
    assert clock.calls == ["a", "b"] * 3
    assert samples == {"a": [1.0, 2.0, 5.0], "b": [0.25] * 3}


def test_the_seconds_of_a_part_are_kept_and_the_window_is_that_of_whole_calls():
    clock, samples = FakeClock(), {}
    rounds = Rounds(seconds=7.0, least=1, most=9)
    take_turns({"a": clock.task("a", 3.0)}, samples, rounds, parts=4, clock=clock)
    assert samples == {"a": [0.75] * 3}


def test_waiting_for_a_device_counts():
    clock, samples = FakeClock(), {}
    pending = []

    def call():
        pending.append(3.0)

    def wait():
        while pending:
            clock.now += pending.pop()

    pending.append(50.0)  # of somebody before
    take_turns({"a": call}, samples, Rounds(seconds=0.0, least=2, most=9), clock=clock, wait=wait)
    assert samples == {"a": [3.0, 3.0]}


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        (Rounds(seconds=0.0, least=3, most=50), 3),
        (Rounds(seconds=10.0, least=3, most=50), 5),  # two seconds a round
        (Rounds(seconds=9.0, least=3, most=50), 5),
        (Rounds(seconds=1000.0, least=3, most=7), 7),
        (Rounds(seconds=1000.0, least=1, most=1), 1),
    ],
)
def test_rounds_go_on_until_there_were_enough(rounds, expected):
    clock, samples = FakeClock(), {}
    take_turns({"a": clock.task("a", 0.5), "b": clock.task("b", 1.5)}, samples, rounds, clock=clock)
    assert {name: len(times) for name, times in samples.items()} == {"a": expected, "b": expected}


def test_rounds_of_an_earlier_sitting_count():
    clock, samples = FakeClock(), {"a": [7.0, 8.0, 9.0], "b": [7.0, 8.0]}  # stopped within a round
    contenders = {"a": clock.task("a", 1.0), "b": clock.task("b", 1.0)}
    seen = []
    rounds = Rounds(seconds=0.0, least=3, most=9)
    take_turns(contenders, samples, rounds, clock=clock, on_round=lambda: seen.append(len(samples["b"])))
    assert samples == {"a": [7.0, 8.0, 9.0, 1.0], "b": [7.0, 8.0, 1.0]}
    assert seen == [3]


def test_the_yardstick_is_the_best_product_after_the_first():
    ticks = iter([0.0, 10.0, 14.0, 20.0, 22.0, 30.0, 33.0])  # the start; then products of 4, 2 and 3
    rate = matmul_rate(50, device="cpu", dtype=torch.float32, clock=lambda: next(ticks))
    assert rate == pytest.approx(2 * 50**3 / 2 / 1e9)
