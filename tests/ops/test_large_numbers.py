"""Numbers at the end of their range: where the definition gives a number, so does everything else.

PyTorch's layer norm gives NaN for some rows of such numbers and not for others, as their length happens to be; the
lengths here are among those for which it does not.
"""

from __future__ import annotations

import math

import pytest
import torch

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn import FastWeightMemory
from relational_rnn.ops.relational_scan import _native, relational_scan_reference

LARGE = 3e38
STYLES = {
    "unit": dict(gate_style="unit"),
    "memory": dict(gate_style="memory"),
    "competitive": dict(gate_style="competitive"),
    "no gates": dict(gate_style=None),
    "two blocks": dict(num_blocks=2),
}


@pytest.fixture(params=["avx512", "avx2", "baseline", "off"])
def computed(request, monkeypatch):
    """By every instance of the kernels, and by the plain loop."""
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", request.param)
    try:
        _native.find()
    except InputError as error:
        pytest.skip(str(error))
    return request.param


@pytest.mark.parametrize("large", [LARGE, -LARGE, 2e19])
@pytest.mark.parametrize("style", STYLES)
def test_a_state_with_one_large_number(style, large, computed, rng):
    """Every place of it, in a sequence and in a step, with gradients and without."""
    torch.manual_seed(3)
    layer = RelationalMemory(5, 3, 11, **STYLES[style])
    state = layer.initial_state(3 * 11)
    state.flatten(1).fill_diagonal_(large)
    x = torch.zeros(3 * 11, 6, 5)
    params = layer.cell().scan_parameters()
    expected = relational_scan_reference(x.unsqueeze(2), state, params)
    sure = expected.memories.isfinite().flatten(1).all(1)
    assert sure.float().mean() > 0.9
    y, after = layer(x, state)
    close(after[sure], expected.final[sure])
    with torch.no_grad():
        quiet, _ = layer(x, state)
        close(quiet[sure], expected.memories.flatten(2)[sure])
        stepped, _ = layer.step(x[:, 0], state)
        close(stepped[sure], expected.memories[sure, 0].flatten(1))
    weight = layer.cell().mlp[0].weight
    (wanted,) = torch.autograd.grad(expected.memories.flatten(2)[sure].clamp(-2, 2).sum(), weight)
    (gradient,) = torch.autograd.grad(y[sure].clamp(-2, 2).sum(), weight)
    assert gradient.isfinite().all() or not wanted.isfinite().all()


def close(got, expected):
    """Relative to each number: what is large must not hide the others."""
    assert got.isfinite().all()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("style", STYLES)
def test_a_row_of_large_numbers_never_makes_nan_of_itself(style, compiled, rng):
    """The kernels' norms give their bias for a finite row whose variance is beyond the range, whatever its length."""
    for width in (3, 8, 16, 20, 33):
        layer = RelationalMemory(5, 3, width, **STYLES[style])
        with torch.no_grad():
            for linear in (layer.cell().blocks[0].qkv, *layer.cell().mlp, layer.cell().share_key):
                if linear is not None:
                    linear.weight.mul_(0.1)  # sums of the rows themselves stay in range
        state = layer.initial_state(2)
        state[0] = 0.5 * LARGE
        state[1, 1] = torch.where(torch.arange(width) % 2 == 0, 0.2 * LARGE, -0.2 * LARGE)
        y, _ = layer(torch.randn(2, 4, 5, generator=rng), state)
        assert y.isfinite().all()


def test_infinities_stay_what_they_are(compiled):
    layer = RelationalMemory(5, 3, 11)
    for bad in (math.inf, -math.inf, math.nan):
        state = layer.initial_state(2)
        state[1, 2, 4] = bad
        y, _ = layer(torch.zeros(2, 3, 5), state)
        assert y[0].isfinite().all()
        assert y[1].isnan().all()


@pytest.mark.parametrize("bad", [LARGE, math.inf, math.nan])
def test_steps_that_do_not_happen_leave_anything_as_it_is(bad, computed):
    """Past a length no number is computed with, not even multiplied by 0."""
    layer = RelationalMemory(5, 3, 16)
    state = layer.initial_state(4)
    state[1:3, 1, 2] = bad
    x = torch.zeros(4, 6, 5)
    lengths = torch.tensor([6, 0, 0, 3])
    y, after = layer(x, state, lengths=lengths)
    assert torch.equal(after[1:3].nan_to_num(7.0), state[1:3].nan_to_num(7.0))
    assert torch.equal(y[1:3], torch.zeros_like(y[1:3]))
    assert y[[0, 3]].isfinite().all()


def test_scores_whose_sums_are_too_large_only_in_between(compiled):
    """Attention without a norm before it: q k^T is beyond the range, q k^T / sqrt(K) is not, and neither is the sum
    of terms that cancel."""
    layer = RelationalMemory(4, 2, 4, gate_style=None, formulation="chapter")
    block = layer.cell().blocks[0]
    for keys in ([1.2e19, 1.2e19, 0.9e19, 1.0e19], [1.6e19, 1.6e19, -1.6e19, -1.5e19]):
        with torch.no_grad():
            block.qkv.weight.zero_()
            block.qkv.bias.copy_(
                torch.cat([torch.full((4,), 1.3e19), torch.tensor(keys), torch.tensor([1.0, 2, 3, 4])])
            )
            state = layer.initial_state(1)
            x = torch.zeros(1, 3, 4)
            expected = relational_scan_reference(
                x.double().unsqueeze(2), state.double(), layer.double().cell().scan_parameters()
            )
            y, _ = layer.float()(x, state)
            close(y.double(), expected.memories.flatten(2))
            close(layer.step(x[:, 0], state)[0].double(), expected.memories[:, 0].flatten(1))


def test_shares_whose_sums_are_too_large_only_in_between(compiled, rng):
    """Terms that cancel: the shares are those of a number too large for a norm, too, whose scores are in range."""
    layer = RelationalMemory(4, 3, 6, gate_style="competitive")
    cell = layer.cell()
    with torch.no_grad():
        cell.share_query.weight.zero_()
        cell.share_query.bias.copy_(torch.tensor([1.5, 1.5, 1.5, -1.5, -1.5, -1.5]))
        cell.share_key.weight.copy_(torch.eye(6))
        cell.blocks[0].qkv.weight.mul_(0.1)  # whose sums stay in range
        state, x = torch.randn(1, 3, 6, generator=rng), torch.zeros(1, 1, 4)
        after = []
        for large in (2.0**127, 2.0**83):  # powers of 2: their terms cancel exactly
            state[0, 1] = large
            after.append(layer(x, state)[1][0, [0, 2]])
            assert (after[-1] - state[0, [0, 2]]).abs().max() > 1e-3
    close(*after)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_fast_weights_that_are_large(backend, compiled, rng):
    """What is kept of a memory is read, not the memory: it may be half of what is too large for a sum."""
    layer = FastWeightMemory(5, 11, num_heads=2, key_size=4, value_size=3, backend=backend)
    with torch.no_grad():
        layer.read_key[0].weight.zero_()
        layer.read_key[0].bias.copy_(torch.tensor([1.0, -1, 1, -1] * 2))  # finds nothing where rows are equal
        layer.write.weight[:16] = 0
        layer.write.bias[:16] = 1  # adds up rows
        layer.write.bias[-2:] = -1.0  # keeps a quarter
    plain = FastWeightMemory(5, 11, num_heads=2, key_size=4, value_size=3, backend="reference")
    plain.load_state_dict(layer.state_dict())
    state = layer.initial_state(1)
    state["fast"][0, 0] = 2.2e38
    x = torch.randn(1, 1, 5, generator=rng)
    y, after = layer(x, state)
    assert after["fast"].isfinite().all()
    _, kept = plain.double()(x.double(), {name: t.double() for name, t in state.items()})
    close((after["fast"] / 1e38).double(), kept["fast"] / 1e38)
    assert y.isfinite().all()
