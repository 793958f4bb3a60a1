"""What a caller may not do, and the sentence that says so."""

import re

import numpy as np
import pytest
import torch
from cores_table import BATCH, INPUTS, STEPS, draw

from relational_rnn import InputError

X = draw(BATCH, STEPS, INPUTS)


def refused(case, problem, call):
    """`call(core)` raises with the core's name and `problem`, in the pinned layout."""
    core = case.core()
    with pytest.raises(InputError, match=re.escape(problem)) as error:
        call(core)
    first, *rest = str(error.value).splitlines()
    assert first.startswith(f"{type(core).__name__}: ")
    assert all(re.match(r"  (got      |expected |hint     ) \S", line) for line in rest)


def test_x_of_the_wrong_rank(case):
    refused(case, "x must have 3 axes, not 2", lambda core: core(X[0]))
    refused(case, "x_t must have 2 axes, not 3", lambda core: core.step(X, core.initial_state(BATCH)))


def test_x_of_the_wrong_width(case):
    refused(case, "x has the wrong size on axis I", lambda core: core(X[:, :, :-1]))
    refused(case, "x_t has the wrong size on axis I", lambda core: core.step(X[:, 0, 1:], core.initial_state(BATCH)))
    none = torch.zeros(0, dtype=torch.int64)
    refused(case, "x has the wrong size on axis I", lambda core: core.snapshots(X[:, :, :-1], none, none))


def test_x_of_another_dtype(case):
    refused(case, "x has another dtype than the parameters", lambda core: core(X.float()))
    refused(case, "x has another dtype than the parameters", lambda core: core(X.long()))


def test_x_on_another_device(case):
    refused(case, "x is on another device", lambda core: core(X.to("meta")))


def test_a_state_for_another_batch(case):
    refused(case, "has the wrong size on axis B", lambda core: core(X, core.initial_state(BATCH + 1)))
    refused(case, "has the wrong size on axis B", lambda core: core.step(X[:, 0], core.initial_state(BATCH - 1)))


def test_a_state_of_the_wrong_kind(case):
    refused(case, "state must be", lambda core: core(X, [1, 2]))

    def other_kind(core):
        state = core.initial_state(BATCH)
        core(X, state["h"] if isinstance(state, dict) and "h" in state else {"memory": torch.zeros(BATCH, 6)})

    refused(case, "state must be", other_kind)


def test_a_state_of_another_dtype(case):
    refused(
        case,
        "has another dtype than the parameters",
        lambda core: core(X, core.initial_state(BATCH, dtype=torch.float32)),
    )


def test_every_tensor_of_a_state_has_its_own_kind(case):
    state = case.core().initial_state(BATCH)
    for name in state if isinstance(state, dict) else [None]:
        tensor = state if name is None else state[name]
        mask = tensor.dtype == torch.bool
        problem = "must be booleans" if mask else "has another dtype than the parameters"
        for dtype in (torch.int64, torch.float64 if mask else torch.bool):
            wrong = tensor.to(dtype) if name is None else {**state, name: tensor.to(dtype)}
            refused(case, problem, lambda core, wrong=wrong: core(X, wrong))
            refused(case, problem, lambda core, wrong=wrong: core.step(X[:, 0], wrong))


def test_lengths_out_of_range(case):
    for values, got in (([7, 7, 8, 1, 2], "values from 1 to 8"), ([7, -1, 3, 1, 2], "values from -1 to 7")):
        problem = f"lengths is out of range\n  got       {got}\n  expected  0 to 7"
        refused(case, problem, lambda core, values=values: core(X, lengths=torch.tensor(values)))


def test_lengths_of_the_wrong_kind(case):
    refused(case, "lengths must be whole numbers", lambda core: core(X, lengths=torch.ones(BATCH)))
    refused(case, "lengths has the wrong size on axis B", lambda core: core(X, lengths=torch.tensor([1, 2])))
    for lengths in ([1.0] * BATCH, [True] * BATCH, ["1"] * BATCH, [10**30] * BATCH, "11111", 3, {1, 2, 3, 4, 5}):
        refused(case, "lengths must be whole numbers", lambda core, lengths=lengths: core(X, lengths=lengths))
    refused(case, "lengths has the wrong size on axis B", lambda core: core(X, lengths=[1, 2]))
    refused(case, "lengths is out of range", lambda core: core(X, lengths=[7, 7, 8, 1, 2]))
    refused(case, "lengths must be whole numbers", lambda core: core(X, lengths=np.ones(BATCH)))


def test_a_reset_that_is_not_boolean(case):
    refused(case, "reset must be booleans", lambda core: core(X, reset=torch.zeros(BATCH, STEPS)))
    refused(case, "reset must be booleans", lambda core: core(X, reset=torch.zeros(BATCH, STEPS, dtype=torch.int64)))


def test_a_reset_of_the_wrong_shape(case):
    refused(
        case, "reset has the wrong size on axis T", lambda core: core(X, reset=torch.zeros(BATCH, 2, dtype=torch.bool))
    )
    refused(case, "reset must have 2 axes", lambda core: core(X, reset=torch.zeros(BATCH, dtype=torch.bool)))


def test_snapshots_outside_the_sequence(case):
    row = torch.tensor([0, 1])
    refused(case, "rows is out of range", lambda core: core.snapshots(X, torch.tensor([0, BATCH]), row))
    refused(case, "rows is out of range", lambda core: core.snapshots(X, torch.tensor([-1, 0]), row))
    refused(case, "at is out of range", lambda core: core.snapshots(X, row, torch.tensor([0, STEPS + 1])))
    refused(case, "at has the wrong size on axis M", lambda core: core.snapshots(X, row, torch.tensor([0])))
