"""The error pattern, word for word."""

import pytest
import torch

from relational_rnn._check import InputError, MissingExtraError, check_choice, check_positive, check_shape, need_extra


def test_a_wrong_size_names_the_axis_and_the_way_out():
    with pytest.raises(InputError) as error:
        check_shape("Layer", "state", torch.zeros(7, 4, 8), {"B": 7, "N": 3, "D": 8}, hint="pass state=None.")
    assert str(error.value) == (
        "Layer: state has the wrong size on axis N\n"
        "  got       (B=7, N=4, D=8)\n"
        "  expected  (B=7, N=3, D=8)\n"
        "  hint      pass state=None."
    )


def test_two_wrong_sizes_are_named_together():
    with pytest.raises(InputError, match="x has the wrong size on axes T, I"):
        check_shape("Layer", "x", torch.zeros(7, 4, 8), {"B": None, "T": 3, "I": 2})


def test_a_wrong_rank_is_refused():
    with pytest.raises(
        InputError, match=r"x must have 3 axes, not 2\n  got       \(7, 4\)\n  expected  \(B=any, T=any"
    ):
        check_shape("Layer", "x", torch.zeros(7, 4), {"B": None, "T": None, "I": 8})


def test_something_that_is_no_tensor_is_refused():
    with pytest.raises(InputError, match=r"x must be a tensor\n  got       list"):
        check_shape("Layer", "x", [[1.0]], {"B": None, "I": None})


def test_a_right_shape_passes():
    check_shape("Layer", "x", torch.zeros(7, 4), {"B": None, "I": 4})


def test_an_unknown_choice_lists_the_known_ones():
    with pytest.raises(InputError) as error:
        check_choice("Layer", "gate_style", "units", ("unit", "memory", None))
    assert str(error.value) == (
        "Layer: gate_style is not a known choice\n  got       'units'\n  expected  one of 'unit', 'memory', None"
    )


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_sizes_are_whole_numbers_of_at_least_one(value):
    with pytest.raises(InputError, match="mem_slots must be a whole number of at least 1"):
        check_positive("Layer", num_heads=2, mem_slots=value)


def test_a_missing_extra_is_named_with_the_command_that_brings_it():
    with pytest.raises(MissingExtraError) as error:
        need_extra("no_such_module_here", "train", "Training")
    assert str(error.value) == (
        "Training needs the package 'no_such_module_here', which is not installed: "
        'pip install "relational-rnn[train]"'
    )
