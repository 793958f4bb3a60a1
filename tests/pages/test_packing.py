"""Numbers inside a page come back within the precision that stands beside them."""

import json

import numpy as np
import pytest
from unpacking import unpack

from relational_rnn import InputError
from relational_rnn.pages import pack


@pytest.mark.parametrize("limits", [{}, {"low": -4.0, "high": 5.0}], ids=["as found", "given"])
def test_numbers_come_back_within_the_stated_precision(limits):
    values = np.random.default_rng(3).uniform(-3, 4, (5, 7, 2))
    packed = json.loads(json.dumps(pack(values, name="values", **limits)))
    back = unpack(packed)
    assert back.shape == (5, 7, 2)
    error = np.abs(back - values).max()
    assert 0 < error <= packed["precision"] * (1 + 1e-9)
    width = 9 if limits else values.max() - values.min()
    assert packed["precision"] == pytest.approx(width / 65535 / 2)
    assert len(packed["data"]) == pytest.approx(70 * 2 * 4 / 3, abs=4)


def test_the_ends_of_the_range_come_back_exactly():
    assert unpack(pack(np.array([0.0, 1.0]), name="weights", low=0, high=1)).tolist() == [0.0, 1.0]
    assert unpack(pack(np.array([2.5, 2.5]), name="equal")).tolist() == [2.5, 2.5]
    assert unpack(pack(np.zeros((0, 3)), name="none")).shape == (0, 3)


def test_a_softmax_that_ends_a_rounding_step_above_1_is_1():
    assert unpack(pack(np.array([1 + 1e-7]), name="weights", low=0, high=1)).tolist() == [1.0]


@pytest.mark.parametrize(
    ("values", "limits", "message"),
    [
        ([0.5, float("nan"), float("inf")], {}, "2 NaN or infinite"),
        ([0.5, 1.1], {"low": 0, "high": 1}, "a number is out of range"),
        ([-0.1], {"low": 0, "high": 1}, "a number is out of range"),
    ],
)
def test_what_cannot_be_drawn_is_refused(values, limits, message):
    with pytest.raises(InputError, match=message) as error:
        pack(np.array(values), name="the attention", **limits)
    assert str(error.value).startswith("the attention: ")
