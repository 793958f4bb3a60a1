"""Memorization against a slow definition."""

from __future__ import annotations

import pytest

from relational_rnn import InputError
from relational_rnn.tasks.contract import NO_ANSWER, draw_batch
from relational_rnn.tasks.memorize import MEMORIZE_MODES, Memorize

RIGHT = {"copy": lambda given: given, "reverse": lambda given: given[::-1], "double": lambda given: given * 2}


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("mode", MEMORIZE_MODES)
def test_targets_are_those_of_the_definition(mode, split):
    task = Memorize(mode=mode, length=6, symbols=4)
    batch = draw_batch(task, split, 0, seed=0, size=200)
    lengths = set()
    for tokens, length, targets, group in zip(batch.inputs, batch.lengths, batch.targets, batch.groups, strict=True):
        given = [token - 1 for token in tokens.tolist() if token]
        assert len(given) == length
        assert targets[targets != NO_ANSWER].tolist() == [*RIGHT[mode](given), 4]
        if split != "train":
            assert task.shape.groups[group] == f"length {length}"
        lengths.add(int(length))
    assert lengths == {"train": {1, 2, 3, 4, 5, 6}, "valid": {6}, "test": {6, 8, 9, 12}}[split]


def test_lengths_beyond_training_are_groups_of_their_own():
    shape = Memorize(length=60).shape
    assert shape.groups == ("length 60", "length 75", "length 90", "length 120")
    assert shape.beyond == shape.groups[1:]
    assert Memorize(length=1).shape.groups == ("length 1", "length 2")  # no length twice


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"length": 0}, "length must be a whole number of at least 1"),
        ({"symbols": 1}, "there must be two different symbols"),
        ({"mode": "forget"}, "mode is not a known choice"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(InputError, match=f"Memorize: {message}"):
        Memorize(**wrong)
