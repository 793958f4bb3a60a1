"""Associative recall against a slow reading of its sequences."""

from __future__ import annotations

import numpy as np
import pytest

from relational_rnn import InputError
from relational_rnn.tasks.associative_recall import AssociativeRecall
from relational_rnn.tasks.contract import NO_ANSWER, draw_batch


@pytest.mark.parametrize(("vocabulary", "groups"), [(30, 2), (40, 3)])
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_every_key_is_asked_once_for_the_value_that_followed_it(split, vocabulary, groups):
    task = AssociativeRecall(pairs=4, length=30, vocabulary=vocabulary)
    keys_end = vocabulary // 2
    batch = draw_batch(task, split, 0, seed=0, size=100)
    seen = set()
    for i in range(100):
        length = 30 if batch.lengths is None else int(batch.lengths[i])
        tokens, targets = batch.inputs[i].tolist(), batch.targets[i].tolist()
        assert not any(tokens[length:])
        assert all(tokens[:length])
        group = task.shape.groups[batch.groups[i]]
        pairs = {30: 4, 60: 8, 120: 16}[length]
        assert group == f"{pairs} pairs in {length}"
        seen.add(group)
        keys, values = tokens[: 2 * pairs : 2], tokens[1 : 2 * pairs : 2]
        assert all(1 <= key <= keys_end for key in keys)
        assert all(keys_end < value <= vocabulary for value in values)
        assert len(set(keys)) == len(set(values)) == pairs
        asked = [(t, target) for t, target in enumerate(targets) if target != NO_ANSWER]
        assert sorted(tokens[t] for t, _ in asked) == sorted(keys)
        for t, target in asked:
            assert t >= 2 * pairs
            assert t % 2 == 0
            assert target == values[keys.index(tokens[t])] - keys_end - 1
    assert len(seen) == (groups if split == "test" else 1)


def test_lessons_have_fewer_pairs_in_fewer_steps():
    task = AssociativeRecall(pairs=6, length=40, vocabulary=26, curriculum="lessons")
    assert task.lessons == [(1, 6), (2, 12), (4, 26), (6, 40)]
    for level, (pairs, length) in enumerate(task.lessons):
        batch = draw_batch(task, "train", 0, seed=1, size=9, level=level)
        assert batch.inputs.shape == (9, length)
        assert batch.asked.sum(1).tolist() == [pairs] * 9
    assert draw_batch(task, "train", 0, seed=1, size=9).inputs.shape == (9, 40)
    assert draw_batch(task, "valid", 0, seed=1, size=9, level=0).inputs.shape == (9, 40)
    whole = AssociativeRecall(pairs=6, length=40, vocabulary=26)
    assert draw_batch(whole, "train", 0, seed=1, size=9, level=0).inputs.shape == (9, 40)
    curriculum = task.make_curriculum()
    assert curriculum is not None
    assert curriculum.levels == 4
    assert whole.make_curriculum() is None
    assert AssociativeRecall(pairs=1, length=4, vocabulary=4).lessons == [(1, 4)]


@pytest.mark.parametrize("power", [0.01, 0.5, 1.0])
def test_the_first_places_are_drawn_with_the_stated_weights(power):
    """With one pair the place of its query has the distribution itself."""
    task = AssociativeRecall(pairs=1, length=22, vocabulary=8, power=power)
    batch = draw_batch(task, "train", 0, seed=0, size=40_000)
    places = (batch.asked.long().argmax(1) - 2).numpy() // 2
    weights = np.arange(1, 11) ** (power - 1)
    assert np.abs(np.bincount(places, minlength=10) / 40_000 - weights / weights.sum()).max() < 0.01


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pairs": 0}, "pairs must be a whole number"),
        ({"length": 0}, "length must be a whole number"),
        ({"length": 30}, "the sequence does not hold pairs and queries"),
        ({"length": 65}, "the sequence does not hold pairs and queries"),
        ({"vocabulary": 30}, "the vocabulary does not hold the keys"),
        ({"vocabulary": 65}, "the vocabulary does not hold the keys"),
        ({"power": 0}, "power must be above 0"),
        ({"curriculum": "hard"}, "curriculum is not a known choice"),
        ({"mastered": 0.2}, "mastered would have no effect"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(InputError, match=f"AssociativeRecall: {message}"):
        AssociativeRecall(**wrong)
