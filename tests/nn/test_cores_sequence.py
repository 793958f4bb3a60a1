"""A sequence is its steps: in one call, in chunks, or one at a time."""

import torch
from cores_table import BATCH, INPUTS, STEPS, assert_close, assert_same_state, draw, some_state

from relational_rnn.nn.core import map_state


def test_steps_equal_the_sequence(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    start = some_state(core)
    y, final = core(x, start)
    assert y.shape == (BATCH, STEPS, core.output_size)
    state = start
    for t in range(STEPS):
        y_t, state = core.step(x[:, t], state)
        assert_close(y_t, y[:, t])
    assert_same_state(core, state, final)


def test_no_state_means_the_initial_state(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    y, final = core(x)
    y_again, final_again = core(x, core.initial_state(BATCH))
    assert_close(y, y_again)
    assert_same_state(core, final, final_again)
    assert not torch.allclose(y, core(x, some_state(core))[0])  # the state that is passed in matters


def test_chunks_equal_the_whole(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    whole, final = core(x)
    chunks, state = [], None
    for chunk in x.split((3, 1, 0, 3), 1):
        y, state = core(chunk, state)
        chunks.append(y)
    assert_close(torch.cat(chunks, 1), whole)
    assert_same_state(core, state, final)


def test_a_state_is_not_changed_by_use(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    state = some_state(core)
    before = map_state(torch.clone, state)
    core(x, state)
    core.step(x[:, 0], state)
    core.snapshots(x, torch.tensor([1]), torch.tensor([2]), state)
    torch.testing.assert_close(state, before, rtol=0, atol=0)


def test_rows_do_not_see_one_another(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    state = some_state(core)
    y, _ = core(x, state)
    other = x.clone()
    other[2] += 1
    y_other, _ = core(other, state)
    keep = torch.arange(BATCH) != 2
    assert_close(y_other[keep], y[keep])
    assert not torch.allclose(y_other[2], y[2])


def test_no_step_sees_a_later_one(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    y, _ = core(x)
    later = x.clone()
    later[:, 4:] += 1
    y_later, _ = core(later)
    assert_close(y_later[:, :4], y[:, :4])
    assert (y_later[:, 4:] - y[:, 4:]).abs().amax((0, 2)).min() > 1e-6


def test_an_early_step_reaches_the_last_output(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    changed = x.clone()
    changed[:, 0] += 1
    assert (core(changed)[0][:, -1] - core(x)[0][:, -1]).abs().max() > 1e-6


def test_an_empty_batch_gives_an_empty_output(case):
    core = case.core()
    x = torch.zeros(0, STEPS, INPUTS, dtype=torch.float64)
    y, state = core(x, lengths=torch.zeros(0, dtype=torch.int64), reset=torch.zeros(0, STEPS, dtype=torch.bool))
    assert y.shape == (0, STEPS, core.output_size)
    y_t, _ = core.step(x[:, 0], state)
    assert y_t.shape == (0, core.output_size)


def test_zero_steps_leave_the_state_alone(case):
    core = case.core()
    start = some_state(core)
    none = torch.zeros(BATCH, 0, dtype=torch.bool)
    for keywords in ({}, {"lengths": torch.zeros(BATCH, dtype=torch.int64)}, {"reset": none}):
        y, state = core(draw(BATCH, 0, INPUTS), start, **keywords)
        assert y.shape == (BATCH, 0, core.output_size)
        assert_same_state(core, state, start)
        kept = map_state(torch.clone, start)
        with torch.no_grad():
            map_state(torch.Tensor.zero_, state)
        assert_same_state(core, start, kept, rtol=0.0, atol=0.0)  # the state that came in is another tensor


def test_rows_for_a_read_out_have_the_batch_of_the_state(case):
    core = case.core()
    state = some_state(core)
    rows, mask = core.rows(state)
    assert rows.shape[0] == BATCH
    assert rows.dim() == 3
    assert rows.shape[1] > 0
    assert mask is None or (mask.shape == rows.shape[:2] and mask.dtype == torch.bool)
