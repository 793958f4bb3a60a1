"""The gated delta rule against its definition (Yang et al., 2024), and in chunks against itself by steps."""

import pytest
import torch
from cores_table import INPUTS, assert_close, draw
from torch import nn

from relational_rnn import InputError
from relational_rnn.nn.gated_delta_net import GatedDeltaNet, delta_step, solve_chunks

B, T, H, K = 3, 11, 2, 4


def rule_inputs():
    q, k = (nn.functional.normalize(draw(B, T, H, K, seed=seed), dim=-1) for seed in (1, 2))
    strength, log_decay = torch.sigmoid(draw(B, T, H, seed=4)), -draw(B, T, H, seed=5).exp()
    return q, k, draw(B, T, H, K, seed=3), strength, log_decay, draw(B, H, K, K, seed=6)


def slow_rule(q, k, v, strength, log_decay, memory, resets=()):
    """Equation 10 for one row and head, with matrices: S_t = S_{t-1} alpha (I - beta k k') + beta v k'; o_t = S_t q."""
    s, reads, memories = memory.T, [], [memory]
    for t in range(len(q)):
        if t in resets:
            s = torch.zeros_like(s)
        eye = torch.eye(K, dtype=torch.float64)
        s = log_decay[t].exp() * s @ (eye - strength[t] * torch.outer(k[t], k[t])) + strength[t] * torch.outer(
            v[t], k[t]
        )
        reads.append(s @ q[t])
        memories.append(s.T)
    return torch.stack(reads), torch.stack(memories)


def by_definition(inputs, resets=None):
    *over_time, memory = inputs
    rows = []
    for b in range(B):
        when = () if resets is None else torch.nonzero(resets[b]).flatten().tolist()
        rows.append([slow_rule(*(tensor[b, :, h] for tensor in over_time), memory[b, h], when) for h in range(H)])
    reads = torch.stack([torch.stack([reads for reads, _ in row], 1) for row in rows])
    memories = torch.stack([torch.stack([memories for _, memories in row], 1) for row in rows])
    return reads, memories  # [B, T, H, K], [B, T + 1, H, K, K]


def test_a_step_follows_the_definition():
    *over_time, memory = inputs = rule_inputs()
    reads, memories = by_definition(inputs)
    for t in range(T):
        read, memory = delta_step(*(tensor[:, t] for tensor in over_time), memory)
        assert_close(read, reads[:, t])
        assert_close(memory, memories[:, t + 1])


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 11, 64])
@pytest.mark.parametrize("with_resets", [False, True])
def test_chunks_follow_the_definition(chunk_size, with_resets):
    inputs = rule_inputs()
    resets = None
    if with_resets:
        resets = torch.zeros(B, T, dtype=torch.bool)
        resets[0, 0] = resets[1, 4] = resets[1, 5] = resets[2, 3] = resets[2, 9] = True
    reads, memories = by_definition(inputs, resets)
    rows, at = torch.tensor([2, 0, 1]).repeat_interleave(T + 1), torch.arange(T + 1).repeat(3)
    got, after = solve_chunks(*inputs, reset=resets, chunk_size=chunk_size, rows=rows, at=at)
    assert_close(got, reads)
    assert_close(after, memories[rows, at])


def test_a_chunk_forgets_much_without_overflow():
    q, k, v, strength, _, memory = (tensor.float() for tensor in rule_inputs())
    log_decay = torch.full((B, T, H), -60.0)  # exp(60 * 10) is not a number of float32
    inputs, end = (q, k, v, strength, log_decay.requires_grad_(), memory), torch.full((B,), T)
    reads, _ = solve_chunks(*inputs, reset=None, chunk_size=64, rows=torch.arange(B), at=end)
    expected = (strength * (q * k).sum(-1)).unsqueeze(-1) * v  # only what the step itself has written
    torch.testing.assert_close(reads, expected)
    (gradient,) = torch.autograd.grad(reads.sum(), log_decay)
    assert torch.isfinite(gradient).all()


def test_a_full_write_replaces_what_a_key_holds():
    key = nn.functional.normalize(draw(1, 1, K), dim=-1)
    one, kept = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    first, second = draw(1, 1, K, seed=1), draw(1, 1, K, seed=2)
    _, memory = delta_step(key, key, first, one, kept, torch.zeros(1, 1, K, K).double())
    read, _ = delta_step(key, key, second, one, kept, memory)
    assert_close(read, second)


def test_the_first_step_sizes_of_forgetting_are_those_of_the_authors():
    core = GatedDeltaNet(INPUTS, 512, num_heads=128)
    for layer in core.layers:
        step = nn.functional.softplus(layer.strength_decay.bias[128:])
        assert step.min() >= 0.999e-3
        assert step.max() <= 0.1001
        assert step.log().std() > 1  # spread over the two orders of magnitude
        assert layer.log_rate.exp().min() >= 1
        assert layer.log_rate.exp().max() <= 16


@pytest.mark.parametrize(
    "size", ["input_size", "hidden_size", "num_layers", "num_heads", "feedforward_size", "chunk_size"]
)
def test_sizes_are_checked(size):
    with pytest.raises(InputError, match=f"GatedDeltaNet: {size} must be a whole number of at least 1"):
        GatedDeltaNet(**{"input_size": 3, "hidden_size": 8, size: 0})


def test_heads_share_the_width():
    with pytest.raises(InputError, match="hidden_size must be a multiple of num_heads"):
        GatedDeltaNet(3, 10, num_heads=4)
