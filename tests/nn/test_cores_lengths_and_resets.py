"""Rows of different lengths, and rows that start anew in the middle: each equals its own run, alone, by steps."""

import torch
from cores_table import (
    BATCH,
    INPUTS,
    STEPS,
    assert_close,
    assert_same_row,
    assert_same_state,
    draw,
    one_row_by_steps,
    row_of,
    some_state,
)

LENGTHS = torch.tensor([4, 7, 0, 1, 6])
RESET = torch.zeros(BATCH, STEPS, dtype=torch.bool)
RESET[0, 2] = RESET[0, 5] = True  # the second one lies past the length of row 0
RESET[1, 0] = RESET[1, 3] = RESET[1, 4] = True
RESET[2, 1] = True  # row 2 has no valid step at all
RESET[3, 0] = True


def check(core, x, start, lengths, reset):
    """Every row of the batch equals the row alone."""
    y, final = core(x, start, lengths=lengths, reset=reset)
    for row in range(BATCH):
        length = STEPS if lengths is None else int(lengths[row])
        alone = None if start is None else row_of(core, start, row)
        y_alone, final_alone = one_row_by_steps(core, x[row], alone, length, None if reset is None else reset[row])
        assert_close(y[row], y_alone)
        assert_same_row(core, final, row, final_alone, 0)
    return y, final


def test_padded_rows_equal_the_rows_alone(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    check(core, x, None, LENGTHS, None)
    y, final = check(core, x, some_state(core), LENGTHS, None)
    for row, length in enumerate(LENGTHS):
        assert torch.equal(y[row, length:], torch.zeros_like(y[row, length:]))
    assert_same_row(core, final, 2, some_state(core), 2)


def test_padding_reaches_neither_values_nor_gradients(case):
    core = case.core()
    clean, start = draw(BATCH, STEPS, INPUTS), some_state(core)
    padding = torch.arange(STEPS) >= LENGTHS.unsqueeze(1)
    results = []
    for filling in (0.0, torch.nan):
        x = clean.masked_fill(padding.unsqueeze(2), filling).requires_grad_()
        y, final = core(x, start, lengths=LENGTHS)
        cotangent = draw(*y.shape, seed=3)
        loss = (y * cotangent).sum() + sum(
            (tensor * draw(*tensor.shape, seed=4)).sum()
            for tensor in (row_of(core, final, 1), row_of(core, final, 4))
            for tensor in (tensor.values() if isinstance(tensor, dict) else [tensor])
        )
        gradients = torch.autograd.grad(loss, [x, *core.parameters()])
        assert torch.equal(gradients[0][padding], torch.zeros_like(gradients[0][padding]))
        results.append((y, gradients))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


def test_chunks_of_padded_rows_equal_the_whole(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    y, final = core(x, lengths=LENGTHS, reset=RESET)
    first, state = core(x[:, :3], lengths=LENGTHS.clamp(max=3), reset=RESET[:, :3])
    second, state = core(x[:, 3:], state, lengths=(LENGTHS - 3).clamp(min=0), reset=RESET[:, 3:])
    assert_close(torch.cat([first, second], 1), y)
    assert_same_state(core, state, final)


def test_a_reset_is_a_fresh_start(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    check(core, x, None, None, RESET)
    check(core, x, some_state(core), None, RESET)


def test_a_reset_comes_before_its_step(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[:, 3] = True
    y, final = core(x, some_state(core), reset=reset)
    y_fresh, final_fresh = core(x[:, 3:])
    assert_close(y[:, 3:], y_fresh)
    assert_close(y[:, :3], core(x[:, :3], some_state(core))[0])
    assert_same_state(core, final, final_fresh)


def test_no_reset_is_no_change(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    start = some_state(core)
    y, final = core(x, start)
    y_same, final_same = core(x, start, reset=torch.zeros(BATCH, STEPS, dtype=torch.bool))
    assert_close(y_same, y)
    assert_same_state(core, final_same, final)


def test_lengths_and_resets_together(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    check(core, x, None, LENGTHS, RESET)
    y, final = check(core, x, some_state(core), LENGTHS, RESET)
    # What a batch of ragged rows leaves behind can be carried on, each row from its own last valid step.
    more = draw(BATCH, STEPS, INPUTS, seed=8)
    y, _ = core(more, final, lengths=LENGTHS.flip(0))
    for row in range(BATCH):
        y_alone, _ = one_row_by_steps(core, more[row], row_of(core, final, row), int(LENGTHS.flip(0)[row]))
        assert_close(y[row], y_alone)


def test_no_gradient_passes_a_reset(case):
    core = case.core()
    x = draw(BATCH, STEPS, INPUTS).requires_grad_()
    reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[1, 4] = True
    y, _ = core(x, reset=reset)
    (gradient,) = torch.autograd.grad((y[:, 4:] * draw(BATCH, 3, core.output_size, seed=5)).sum(), x)
    assert torch.equal(gradient[1, :4], torch.zeros(4, INPUTS, dtype=torch.float64))
    assert (gradient[0, :4].abs().amax(1) > 0).all()
