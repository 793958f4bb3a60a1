"""The rule by which a curriculum advances, against the rule said plainly."""

from __future__ import annotations

import pytest
import torch

from relational_rnn import InputError
from relational_rnn.tasks.curriculum import Curriculum


def levels(losses: list[float], **arguments) -> list[int]:
    """The level after every update."""
    curriculum = Curriculum(**arguments)
    found = []
    for loss in losses:
        curriculum.update(torch.tensor(loss))
        found.append(curriculum.level)
    return found


def plain(losses: list[float], *, levels: int, window: int, improvement: float) -> list[int]:
    level, before, found = 0, None, []
    current: list[float] = []
    for loss in losses:
        current.append(loss)
        if len(current) == window:
            mean = sum(current) / window
            if before is not None and mean > before * (1 - improvement):
                level, before = min(level + 1, levels - 1), None
            else:
                before = mean
            current = []
        found.append(level)
    return found


@pytest.mark.parametrize("window", [1, 3, 10])
@pytest.mark.parametrize("improvement", [0.01, 0.2])
def test_the_level_rises_when_the_loss_no_longer_falls(window, improvement, rng):
    losses = (2.0 + torch.rand(200, generator=rng)).mul(torch.linspace(1, 0.3, 200)).tolist()
    arguments = {"levels": 4, "window": window, "improvement": improvement}
    assert levels(losses, **arguments) == plain(losses, **arguments)
    assert max(levels(losses, **arguments)) == 3 or window == 10


def test_the_level_rises_when_the_loss_is_low_enough():
    losses = [3.0, 1.0, 1.2, 1.0, 0.9, 1.1, 0.2, 3.0, 0.1, 0.1, 0.1, 0.1]  # windows 2, 1.1, 1, 1.6, 0.1, 0.1
    assert levels(losses, levels=3, window=2, mastered=1.0) == [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert levels(losses, levels=3, window=2, mastered=[1.0, 1.7, 0.0001]) == [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2]


def test_the_state_is_saved_and_goes_on():
    one, two = (Curriculum(5, window=3, improvement=0.05) for _ in range(2))
    for loss in (2.0, 2.0, 2.0, 2.0):
        one.update(torch.tensor(loss))
    two.load_state_dict(one.state_dict())
    for curriculum in (one, two):
        for loss in (2.0, 2.0):
            curriculum.update(torch.tensor(loss))
    assert (one.level, two.level) == (1, 1)
    assert list(one.parameters()) == []


def test_a_loss_with_gradient_is_not_kept():
    curriculum = Curriculum(2, window=5, improvement=0.05)
    curriculum.update(torch.tensor(1.0, requires_grad=True) * 2)
    assert not curriculum.total.requires_grad


@pytest.mark.parametrize("rules", [{}, {"improvement": 0.1, "mastered": 0.1}])
def test_there_is_one_rule(rules):
    with pytest.raises(InputError, match="Curriculum: improvement or mastered must be given, and not both"):
        Curriculum(3, window=2, **rules)


def test_a_loss_that_is_never_reached_is_refused():
    with pytest.raises(InputError, match="Curriculum: mastered must be a loss above 0"):
        Curriculum(3, window=2, mastered=0.0)
    with pytest.raises(InputError, match=r"one for each level\n  got       2 losses\n  expected  3"):
        Curriculum(3, window=2, mastered=[0.1, 0.2])


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"window": 0}, {"improvement": 0.0}, {"improvement": 1.0}])
def test_rules_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match=f"Curriculum: {next(iter(wrong))} must be"):
        Curriculum(**{"levels": 2, "window": 2, "improvement": 0.1, **wrong})
