"""Snapshots: the states in the middle of a sequence, as if it had ended there."""

import torch
from cores_table import BATCH, INPUTS, STEPS, assert_close, assert_same_row, draw, one_row_by_steps, row_of, some_state

from relational_rnn.nn.core import map_state

# A row asked twice at one point, a row never asked, the start and the end of a sequence.
ROWS = torch.tensor([4, 1, 1, 0, 2, 1, 4, 2])
AT = torch.tensor([3, 7, 2, 0, 5, 2, 4, 0])


def test_a_snapshot_is_the_state_after_that_many_steps(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    for start in (None, some_state(core)):
        snapshots = core.snapshots(x, ROWS, AT, start)
        for m, (row, at) in enumerate(zip(ROWS.tolist(), AT.tolist(), strict=True)):
            alone = None if start is None else row_of(core, start, row)
            _, expected = one_row_by_steps(core, x[row], alone, at)
            assert_same_row(core, snapshots, m, expected, 0)


def test_a_snapshot_of_ragged_rows_starts_from_their_own_ends(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    lengths = torch.tensor([2, 6, 0, 3, 7])
    _, start = core(draw(BATCH, STEPS, INPUTS, seed=6), lengths=lengths)
    snapshots = core.snapshots(x, ROWS, AT, start)
    for m, (row, at) in enumerate(zip(ROWS.tolist(), AT.tolist(), strict=True)):
        _, expected = one_row_by_steps(core, x[row], row_of(core, start, row), at)
        assert_same_row(core, snapshots, m, expected, 0)


def test_a_question_sees_its_own_past_only(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    question = draw(len(ROWS), INPUTS, seed=2)
    y, asked = core.step(question, core.snapshots(x, ROWS, AT))
    y_again, _ = core.step(question + 1, asked)  # a second step on the copy
    for m, (row, at) in enumerate(zip(ROWS.tolist(), AT.tolist(), strict=True)):
        with_question = torch.cat([x[row, :at], question[m : m + 1], question[m : m + 1] + 1])
        expected, _ = one_row_by_steps(core, with_question, None, at + 2)
        assert_close(y[m], expected[at])
        assert_close(y_again[m], expected[at + 1])


def test_asking_changes_nothing_else(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    snapshots = core.snapshots(x, ROWS, AT)
    before = map_state(torch.clone, snapshots)
    y, _ = core.step(draw(len(ROWS), INPUTS, seed=2), snapshots)
    torch.testing.assert_close(snapshots, before, rtol=0, atol=0)
    other = draw(len(ROWS), INPUTS, seed=2)
    other[3] += 1
    keep = torch.arange(len(ROWS)) != 3
    assert_close(core.step(other, snapshots)[0][keep], y[keep])


def test_steps_after_the_last_question_reach_neither_values_nor_gradients(case):
    core = case.core()
    rows, at = torch.tensor([0, 2, 0]), torch.tensor([1, 4, 3])
    last = torch.tensor([3, 0, 4, 0, 0])
    unseen = torch.arange(STEPS) >= last.unsqueeze(1)
    question, results = draw(3, INPUTS, seed=2), []
    for filling in (0.0, torch.nan):
        x = draw(BATCH, STEPS, INPUTS).masked_fill(unseen.unsqueeze(2), filling).requires_grad_()
        y, _ = core.step(question, core.snapshots(x, rows, at))
        gradients = torch.autograd.grad((y * draw(*y.shape, seed=3)).sum(), [x, *core.parameters()], allow_unused=True)
        assert torch.equal(gradients[0][unseen], torch.zeros_like(gradients[0][unseen]))
        results.append((y, [g for g in gradients if g is not None]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


def test_no_question_gives_no_state(case):
    core, none = case.core(), torch.zeros(0, dtype=torch.int64)
    snapshots = core.snapshots(draw(BATCH, STEPS, INPUTS), none, none)
    y, _ = core.step(draw(0, INPUTS), snapshots)
    assert y.shape == (0, core.output_size)


def test_the_read_out_of_a_snapshot_is_that_of_the_row_alone(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    rows, mask = core.rows(core.snapshots(x, ROWS, AT))
    for m, (row, at) in enumerate(zip(ROWS.tolist(), AT.tolist(), strict=True)):
        expected, expected_mask = core.rows(one_row_by_steps(core, x[row], None, at)[1])
        seen = rows[m] if mask is None else rows[m][mask[m]]
        assert_close(seen, expected[0] if expected_mask is None else expected[0][expected_mask[0]])
