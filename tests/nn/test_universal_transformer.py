"""The Universal Transformer against its equations (Dehghani et al., 2019)."""

import math

import pytest
import torch
from cores_table import INPUTS, STEPS, assert_close, draw
from torch import nn

from relational_rnn import InputError
from relational_rnn.nn.cores import count_parameters
from relational_rnn.nn.universal_transformer import UniversalTransformer, waves

HEADS, SIZE, PASSES = 2, 4, 3


def small(passes=PASSES):
    torch.manual_seed(4)
    core = UniversalTransformer(INPUTS, HEADS * SIZE, num_passes=passes, num_heads=HEADS, feedforward_size=10).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.1 * draw(*parameter.shape, seed=6))
    return core


def test_follows_its_formula():
    """Position by position, head by head and place by place."""
    core, x, width = small(), draw(STEPS, INPUTS), HEADS * SIZE
    stream = core.embed(x)
    for time in range(1, PASSES + 1):
        p = stream.clone()
        for i in range(STEPS):
            for place in range(width):
                wave = math.cos if place % 2 else math.sin
                speed = 10_000 ** (-(place - place % 2) / width)
                p[i, place] += wave(i * speed) + wave(time * speed)
        q, k, v = core.query_key_value(p).view(STEPS, 3, HEADS, SIZE).unbind(1)
        read = torch.zeros(STEPS, width, dtype=torch.float64)
        for head in range(HEADS):
            for t in range(STEPS):
                weights = (k[: t + 1, head] @ q[t, head] / SIZE**0.5).softmax(0)
                read[t, head * SIZE : (head + 1) * SIZE] = weights @ v[: t + 1, head]
        a = core.attention_norm(p + core.attention_out(read))
        stream = core.transition_norm(a + core.transition_out(nn.functional.relu(core.transition_in(a))))
    assert_close(core(x.unsqueeze(0))[0][0], stream)


def test_more_passes_are_no_more_parameters():
    assert count_parameters(small(1)) == count_parameters(small(5))
    x = draw(1, STEPS, INPUTS)
    assert not torch.allclose(small(1)(x)[0], small(5)(x)[0])


def test_positions_start_again_at_a_reset():
    core, x = small(), draw(2, STEPS, INPUTS)
    reset = torch.zeros(2, STEPS, dtype=torch.bool)
    reset[:, 3] = True
    assert_close(core(x, reset=reset)[0][:, 3:], core(x[:, 3:])[0])
    assert not torch.allclose(core(x.flip(1))[0][:, -1], core(x)[0][:, -1])  # the order matters


def test_waves_are_accurate_far_out():
    count = torch.tensor([10_000])
    assert (waves(count, 8, torch.float32) - waves(count, 8, torch.float64)).abs().max() < 1e-3
    assert (waves(count, 8, torch.bfloat16) - waves(count, 8, torch.float64)).abs().max() < 1e-2


@pytest.mark.parametrize("size", ["input_size", "hidden_size", "num_passes", "num_heads", "feedforward_size"])
def test_sizes_are_checked(size):
    with pytest.raises(InputError, match=f"UniversalTransformer: {size} must be a whole number of at least 1"):
        UniversalTransformer(**{"input_size": 3, "hidden_size": 8, size: 0})


def test_heads_need_an_even_share_of_the_width():
    with pytest.raises(InputError, match=r"hidden_size must be a multiple of 2 \* num_heads"):
        UniversalTransformer(3, 12, num_heads=4)
