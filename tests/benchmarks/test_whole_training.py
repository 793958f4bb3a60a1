"""Whole training runs: the core's own time, and the same result whoever computes."""

from dataclasses import replace

import pytest
import torch

from relational_rnn.benchmarks.shapes import Benchmark
from relational_rnn.benchmarks.whole_training import CoreClock, recipe_run, time_training
from relational_rnn.nn import RelationalMemory
from relational_rnn.tasks.babi.problem import training_stories


class Ticking:
    """Every look at the clock takes a second."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("way", ["snapshots", "forward"])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_core_is_watched_forward_and_backward_and_computes_the_same(backend, way):
    torch.manual_seed(0)
    core = RelationalMemory(5, 3, 4, num_heads=2, backend=backend)
    x, rows, at = torch.randn(2, 6, 5, requires_grad=True), torch.tensor([0, 1, 1]), torch.tensor([2, 6, 3])

    def states():
        return core.snapshots(x, rows, at) if way == "snapshots" else core(x, lengths=torch.tensor([4, 6]))[1]

    expected = states()
    gradient = torch.autograd.grad(expected.sum(), x)[0]
    clock = CoreClock(core, Ticking())
    state = states()
    assert clock.seconds == 1.0  # forward
    torch.testing.assert_close(torch.autograd.grad(state.sum(), x)[0], gradient)
    assert clock.seconds == 2.0  # and backward
    with torch.no_grad():
        states()
    assert clock.seconds == 2.0


def test_two_backends_train_to_the_same_accuracy_and_report_their_shares():
    config = recipe_run(Benchmark(recipe="demo", recipe_steps=4, quick=True, threads=1))
    config = replace(config, model=replace(config.model, embedding_size=20, head_size=16))
    stories = training_stories(config.data)
    found = [time_training(config, backend, stories) for backend in ("reference", "cpu")]
    for figures in found:
        assert figures["steps"] == 4
        assert 0 < figures["core_share"] < 1
        assert 0 < figures["data_share"] < 1
        assert figures["min_ms"] <= figures["median_ms"] <= figures["max_ms"]
    assert found[0]["valid_accuracy"] == pytest.approx(found[1]["valid_accuracy"], abs=0.1)
    assert found[0]["valid_loss"] == pytest.approx(found[1]["valid_loss"], abs=1e-3)
