"""The Neural Turing Machine against its equations, written out number by number (Graves et al., 2014)."""

import numpy as np
import pytest
import torch
from cores_table import assert_close, draw
from machines import answer, controller, cut, lookup, sigmoid, softmax, softplus, weights_of

from relational_rnn import InputError
from relational_rnn.nn.ntm import NTM, sharpen, shift, write

B, N, W, READ, WRITE, RANGE = 3, 7, 4, 2, 3, 2


def slow_shift(weights, by):
    """Equation 8: circular convolution."""
    new, reach = np.zeros(len(weights)), len(by) // 2
    for n in range(len(weights)):
        for d in range(-reach, reach + 1):
            new[n] += by[d + reach] * weights[(n - d) % len(weights)]
    return new


def slow_sharpen(weights, power):
    """Equation 9."""
    return weights**power / sum(w**power for w in weights)


def slow_write(memory, weights, erase, add):
    """Equations 3 and 4, head by head: all erase, then all add."""
    memory = memory.copy()
    for w, e in zip(weights, erase, strict=True):
        for n in range(len(memory)):
            memory[n] *= 1 - w[n] * e
    for w, a in zip(weights, add, strict=True):
        for n in range(len(memory)):
            memory[n] += w[n] * a
    return memory


def slow_step(core, x, state):
    """One step of one row, from the weights of the core and the equations alone."""
    parameters = weights_of(core)
    state = {name: tensor[0].numpy() for name, tensor in state.items()}
    h, c, interface = controller(parameters, x, state["h"], state["c"], state["reads"])
    every, shifts = WRITE + READ, 2 * RANGE + 1
    keys, strengths, gates, by, power, erase, add = cut(
        interface, every * W, every, every, every * shifts, every, WRITE * W, WRITE * W
    )
    keys, by = keys.reshape(every, W), by.reshape(every, shifts)
    weights = np.zeros((every, N))
    for head in range(every):
        by_content = lookup(state["memory"], keys[head], softplus(strengths[head]))
        gate = sigmoid(gates[head])
        mixed = gate * by_content + (1 - gate) * state["weights"][head]
        weights[head] = slow_sharpen(slow_shift(mixed, softmax(by[head])), 1 + softplus(power[head]))
    memory = slow_write(state["memory"], weights[:WRITE], sigmoid(erase).reshape(WRITE, W), add.reshape(WRITE, W))
    reads = weights[WRITE:] @ memory
    return answer(parameters, h, reads), {"h": h, "c": c, "memory": memory, "reads": reads, "weights": weights}


def test_shift():
    weights, by = draw(B, 2, N).softmax(-1), draw(B, 2, 5, seed=1).softmax(-1)
    moved = shift(weights, by)
    for b in range(B):
        for head in range(2):
            expected = slow_shift(weights[b, head].numpy(), by[b, head].numpy())
            assert_close(moved[b, head], torch.from_numpy(expected))
    one_on = shift(torch.eye(4).unsqueeze(0), torch.tensor([0.0, 0.0, 1.0]).expand(1, 4, 3))
    assert one_on[0].argmax(1).tolist() == [1, 2, 3, 0]


def test_sharpen():
    weights, power = draw(B, 2, N).softmax(-1), 1 + draw(B, 2, seed=1).exp()
    sharp = sharpen(weights, power)
    for b in range(B):
        for head in range(2):
            expected = slow_sharpen(weights[b, head].numpy(), power[b, head].numpy())
            assert_close(sharp[b, head], torch.from_numpy(expected))
    assert_close(sharpen(weights, torch.ones(B, 2).double()), weights)


def test_sharpening_of_weights_that_vanish_is_finite():
    weights = torch.tensor([[[1e-30, 1e-31, 0.0, 1e-30]]]).requires_grad_()
    power = torch.tensor([[30.0]]).requires_grad_()
    sharp = sharpen(weights, power)
    torch.testing.assert_close(sharp.detach(), torch.tensor([[[0.5, 0.0, 0.0, 0.5]]]))
    for gradient in torch.autograd.grad((sharp * torch.tensor([1.0, 2.0, 3.0, -1.0])).sum(), [weights, power]):
        assert torch.isfinite(gradient).all()


def test_write():
    memory, weights = draw(B, N, W), draw(B, 2, N, seed=1).softmax(-1)
    erase, add = torch.sigmoid(draw(B, 2, W, seed=2)), draw(B, 2, W, seed=3)
    written = write(memory, weights, erase, add)
    for b in range(B):
        expected = slow_write(*(tensor[b].numpy() for tensor in (memory, weights, erase, add)))
        assert_close(written[b], torch.from_numpy(expected))
    # Focused and erasing everything, a write replaces one slot and leaves the others bit for bit.
    focus = torch.nn.functional.one_hot(torch.tensor([[4]]), N).double().expand(B, 1, N)
    replaced = write(memory, focus, torch.ones(B, 1, W).double(), add[:, :1])
    assert torch.equal(replaced[:, 4], add[:, 0])
    keep = torch.arange(N) != 4
    assert torch.equal(replaced[:, keep], memory[:, keep])


def test_every_step_follows_the_equations():
    torch.manual_seed(5)
    core = NTM(
        3, 8, memory_slots=N, word_size=W, read_heads=READ, write_heads=WRITE, shift_range=RANGE, output_size=5
    ).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.5 * draw(*parameter.shape, seed=8))
    x, state = draw(1, 12, 3), core.initial_state(1)
    y, _ = core(x)
    for t in range(12):
        expected, expected_state = slow_step(core, x[0, t].numpy(), state)
        with torch.no_grad():
            y_t, state = core.step(x[:, t], state)
        assert_close(y_t[0], torch.from_numpy(expected))
        assert_close(y[0, t], torch.from_numpy(expected))
        for name, tensor in expected_state.items():
            assert_close(state[name][0], torch.from_numpy(tensor))


def test_the_start_is_constant():
    state = NTM(3, 8, memory_slots=N, word_size=W, read_heads=READ, write_heads=WRITE).double().initial_state(B)
    assert (state["memory"] == 1e-6).all()
    assert torch.equal(state["weights"].argmax(-1), torch.zeros(B, WRITE + READ, dtype=torch.int64))
    assert_close(state["weights"].sum(-1), torch.ones(B, WRITE + READ).double())
    assert not any(state[name].any() for name in ("h", "c", "reads"))


@pytest.mark.parametrize(
    "size",
    [
        "input_size",
        "hidden_size",
        "memory_slots",
        "word_size",
        "read_heads",
        "write_heads",
        "shift_range",
        "output_size",
    ],
)
def test_sizes_are_checked(size):
    with pytest.raises(InputError, match=f"NTM: {size} must be a whole number of at least 1"):
        NTM(**{"input_size": 3, "hidden_size": 4, size: 0})


def test_more_shifts_than_slots_are_refused():
    NTM(3, 4, memory_slots=5, shift_range=2)
    with pytest.raises(
        InputError, match="shift_range would count some twice\n  got       shift_range=2, memory_slots=4"
    ):
        NTM(3, 4, memory_slots=4, shift_range=2)
