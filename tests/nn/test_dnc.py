"""The Differentiable Neural Computer against its equations, written out number by number (Graves et al., 2016)."""

import itertools

import numpy as np
import pytest
import torch
from cores_table import assert_close, draw
from machines import answer, controller, cut, lookup, sigmoid, softmax, softplus, weights_of

from relational_rnn import InputError
from relational_rnn.nn._matrix_memory import content_weights
from relational_rnn.nn.dnc import DNC, allocation, linked, used

B, N, W, R = 3, 6, 4, 2


def some_weights(*shape, seed=0):
    """Weightings: not negative, sums of at most 1."""
    share = torch.sigmoid(draw(*shape[:-1], 1, seed=seed + 50))
    return share * draw(*shape, seed=seed).softmax(-1)


# The equations, one row at a time.


def slow_usage(usage, written, read, free):
    new = np.zeros(N)
    for n in range(N):
        retained = 1.0
        for i in range(len(read)):
            retained *= 1 - free[i] * read[i][n]
        new[n] = (usage[n] + written[n] - usage[n] * written[n]) * retained
    return new


def slow_allocation(usage):
    """With a list that is really sorted; equal usages stay in their order."""
    order = sorted(range(len(usage)), key=lambda n: usage[n])
    weights, product = np.zeros(len(usage)), 1.0
    for n in order:
        weights[n] = (1 - usage[n]) * product
        product *= usage[n]
    return weights


def slow_link(link, precedence, written):
    new = np.zeros((N, N))
    for i in range(N):
        for j in range(N):
            if i != j:
                new[i, j] = (1 - written[i] - written[j]) * link[i, j] + written[i] * precedence[j]
    return new


def slow_precedence(precedence, written):
    return np.array([(1 - sum(written)) * precedence[n] + written[n] for n in range(N)])


def slow_memory(memory, written, erase, vector):
    new = np.zeros_like(memory)
    for n in range(memory.shape[0]):
        for k in range(memory.shape[1]):
            new[n, k] = memory[n, k] * (1 - written[n] * erase[k]) + written[n] * vector[k]
    return new


def slow_read_weights(link, read, by_content, modes):
    new = np.zeros(N)
    for n in range(N):
        backward = sum(link[m, n] * read[m] for m in range(N))
        forward = sum(link[n, m] * read[m] for m in range(N))
        new[n] = modes[0] * backward + modes[1] * by_content[n] + modes[2] * forward
    return new


def slow_step(core, x, state):
    """One step of one row, from the weights of the core and the equations above alone."""
    weights = weights_of(core)
    state = {name: tensor[0].numpy() for name, tensor in state.items()}
    h, c, interface = controller(weights, x, state["h"], state["c"], state["reads"])
    keys, strengths, erase, vector, free, allocate, write, modes = cut(
        interface, (1 + R) * W, 1 + R, W, W, R, 1, 1, 3 * R
    )
    keys, strengths, modes = keys.reshape(1 + R, W), 1 + softplus(strengths), modes.reshape(R, 3)
    usage = slow_usage(state["usage"], state["write_weights"], state["read_weights"], sigmoid(free))
    by_content = lookup(state["memory"], keys[0], strengths[0])
    gate = sigmoid(allocate)
    written = sigmoid(write) * (gate * slow_allocation(usage) + (1 - gate) * by_content)
    memory = slow_memory(state["memory"], written, sigmoid(erase), vector)
    link = slow_link(state["link"], state["precedence"], written)
    read = np.stack(
        [
            slow_read_weights(
                link, state["read_weights"][i], lookup(memory, keys[1 + i], strengths[1 + i]), softmax(modes[i])
            )
            for i in range(R)
        ]
    )
    reads = read @ memory
    return answer(weights, h, reads), {
        "h": h,
        "c": c,
        "memory": memory,
        "reads": reads,
        "usage": usage,
        "precedence": slow_precedence(state["precedence"], written),
        "link": link,
        "write_weights": written,
        "read_weights": read,
    }


def rowwise(slow, *tensors):
    return torch.stack([torch.from_numpy(slow(*(t[b].numpy() for t in tensors))) for b in range(B)])


def test_usage():
    usage, written = torch.sigmoid(draw(B, N)), some_weights(B, N, seed=1)
    read, free = some_weights(B, R, N, seed=2), torch.sigmoid(draw(B, R, seed=3))
    assert_close(used(usage, written, read, free), rowwise(slow_usage, usage, written, read, free))


def test_a_slot_that_is_read_and_freed_is_free():
    usage, written = torch.ones(1, 3), torch.tensor([[0.0, 1.0, 0.0]])
    read = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    assert used(usage, written, read, torch.tensor([[1.0, 0.0]])).tolist() == [[0.0, 1.0, 1.0]]


def test_allocation():
    usage = torch.sigmoid(draw(B, N))
    assert_close(allocation(usage), rowwise(slow_allocation, usage))
    usage[0, 2] = usage[1, 4] = 0  # a slot that is quite free takes all that is left, and none come after it
    usage[2, 1] = 1
    assert_close(allocation(usage), rowwise(slow_allocation, usage))
    assert torch.equal(allocation(usage)[2, 1], torch.tensor(0.0, dtype=torch.float64))


def test_slots_of_equal_usage_are_allocated_in_their_order():
    assert allocation(torch.zeros(1, N)).tolist() == [[1.0] + [0.0] * (N - 1)]
    noise = 1e-7 * torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    torch.testing.assert_close(allocation(0.5 + noise), torch.tensor([[0.5, 0.25, 0.125, 0.0625]]), rtol=0, atol=1e-6)


def test_links_and_precedence_follow_the_order_of_writing():
    link, precedence = torch.zeros(B, N, N).double(), torch.zeros(B, N).double()
    for seed in range(4):
        written = some_weights(B, N, seed=seed)
        expected = rowwise(slow_link, link, precedence, written)
        link = linked(link, precedence, written)
        assert_close(link, expected)
        precedence = rowwise(slow_precedence, precedence, written)
    assert (link >= 0).all()
    assert (link.sum(1) <= 1).all()
    assert (link.sum(2) <= 1).all()
    order = [2, 0, 3, 1]
    link, precedence = torch.zeros(1, 4, 4), torch.zeros(1, 4)
    for slot in order:
        written = torch.nn.functional.one_hot(torch.tensor([slot]), 4).float()
        link, precedence = linked(link, precedence, written), (1 - written.sum(1)) * precedence + written
    steps = {(i, j) for i, j in torch.nonzero(link[0]).tolist()}
    assert steps == {(later, earlier) for earlier, later in itertools.pairwise(order)}


def test_content():
    memory, keys, strengths = draw(B, N, W), draw(B, R, W, seed=1), draw(B, R, seed=2).exp()
    weights = content_weights(memory, keys, strengths)
    for b in range(B):
        for i in range(R):
            expected = lookup(memory[b].numpy(), keys[b, i].numpy(), strengths[b, i].item())
            assert_close(weights[b, i], torch.from_numpy(expected))
    sharp = content_weights(memory, memory[:, 2:3], torch.full((B, 1), 200.0).double())
    assert sharp.argmax(-1).flatten().tolist() == [2] * B
    assert_close(
        content_weights(torch.zeros(1, N, W), keys[:1].float(), strengths[:1].float()), torch.full((1, R, N), 1 / N)
    )


def test_every_step_follows_the_equations():
    torch.manual_seed(5)
    core = DNC(3, 7, memory_slots=N, word_size=W, read_heads=R, output_size=5).double()
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
            assert_close(state[name][0], torch.from_numpy(np.asarray(tensor)))
    assert (state["usage"] > 0.3).any()
    assert (state["link"] > 0.01).any()


def test_weights_and_usage_stay_in_their_ranges():
    core = DNC(3, 7, memory_slots=N, word_size=W, read_heads=R).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(draw(*parameter.shape, seed=9))
        _, state = core(draw(B, 60, 3))
    assert isinstance(state, dict)
    for name in ("usage", "precedence", "link", "write_weights", "read_weights"):
        assert (state[name] >= 0).all()
        assert (state[name] <= 1).all()
    assert (state["write_weights"].sum(-1) <= 1).all()
    assert (state["read_weights"].sum(-1) <= 1).all()


@pytest.mark.parametrize(
    "size", ["input_size", "hidden_size", "memory_slots", "word_size", "read_heads", "output_size"]
)
def test_sizes_are_checked(size):
    with pytest.raises(InputError, match=f"DNC: {size} must be a whole number of at least 1"):
        DNC(**{"input_size": 3, "hidden_size": 4, size: 0})
