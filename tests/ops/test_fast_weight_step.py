"""One step of a fast-weight memory: by the kernels where no gradient is wanted, else by the definition; both agree."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from relational_rnn.nn.fast_weight_memory import FastWeightMemory
from relational_rnn.ops.fast_weight_scan.step import ReadyStep
from relational_rnn.testing import assert_as_good_as

SIZES = {
    "one read": dict(hidden_size=13, num_heads=3, key_size=5, value_size=9),
    "two reads, strong": dict(hidden_size=70, num_heads=2, key_size=18, value_size=41, reads=2, max_strength=2.0),
    "no carry": dict(hidden_size=11, num_heads=2, key_size=7, value_size=5, carry=False),
}


@pytest.fixture
def ran(monkeypatch, compiled):
    """The steps that the kernels took."""
    calls = []
    original = ReadyStep.__call__

    def noted(*args):
        calls.append("kernels")
        return original(*args)

    monkeypatch.setattr(ReadyStep, "__call__", noted)
    return calls


def made(rng, batch=3, **sizes):
    """A memory in the middle of a stream, with norms away from 1 and 0: (layer, x [B, I], state)."""
    layer = FastWeightMemory(4, **{**SIZES["one read"], **sizes})
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
        _, state = layer(torch.randn(batch, 6, 4, generator=rng))
    return layer, torch.randn(batch, 4, generator=rng), state


def by_definition(layer, x, state):
    plain = copy.deepcopy(layer)
    plain.backend = "reference"
    return plain.step(x, state)


@pytest.mark.parametrize("batch", [1, 4, 5, 40])
@pytest.mark.parametrize("name", SIZES)
def test_it_is_the_definition(name, batch, rng, ran):
    """Few sequences read the weights as they are, more have them arranged; both dtypes, and two steps in a row."""
    layer, x, state = made(rng, batch, **SIZES[name])
    double = copy.deepcopy(layer).double()
    with torch.no_grad():
        exact, far = {key: t.double() for key, t in state.items()}, {}
        for _ in range(2):
            truth, far = by_definition(double, x.double(), exact)
            peer, after = by_definition(layer, x, {key: t.float() for key, t in exact.items()})
            got, state = layer.step(x, {key: t.float() for key, t in exact.items()})
            twin, same = double.step(x.double(), exact)
            assert_as_good_as("output", got, peer, truth)
            assert_as_good_as("output", twin, truth, truth)
            assert set(state) == set(after) == set(exact)
            for key in state:
                assert_as_good_as(key, state[key], after[key], far[key])
                assert_as_good_as(key, same[key], far[key], far[key])
            exact = far
    assert len(ran) == 4
    assert got.data_ptr() not in [t.data_ptr() for t in state.values()]  # the output is no view of the state


def test_the_definition_computes_what_the_kernels_do_not_take(rng, ran):
    layer, x, state = made(rng)
    y, _ = layer.step(x, state)
    assert y.requires_grad
    with torch.no_grad():
        with torch.autocast("cpu"):
            layer.step(x, state)
        by_definition(layer, x, state)
        copy.deepcopy(layer).bfloat16().step(x.bfloat16(), {key: t.bfloat16() for key, t in state.items()})
        layer.step(x[:0], {key: t[:0] for key, t in state.items()})
        assert ran == []
        layer.step(x, state)
    assert ran == ["kernels"]


def test_a_reset_starts_from_the_initial_state(rng, ran):
    layer, x, state = made(rng)
    reset = torch.tensor([False, True, False])
    with torch.no_grad():
        fresh = layer.step(x, layer.initial_state(3))
        going = layer.step(x, state)
        y, after = layer.step(x, state, reset=reset)
    assert len(ran) == 3
    torch.testing.assert_close(y, torch.where(reset[:, None], fresh[0], going[0]), rtol=0, atol=0)
    torch.testing.assert_close(after["carried"], torch.where(reset[:, None], fresh[1]["carried"], going[1]["carried"]))


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def train(layer):
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    with torch.enable_grad():
        layer(torch.ones(2, 3, 4))[0].square().sum().backward()
    optimizer.step()


def load(layer, assign):
    other = {name: torch.full_like(value, 0.1) for name, value in layer.state_dict().items()}
    layer.load_state_dict(other, assign=assign)


def transpose(layer):
    layer.mlp_in.weight.data = layer.mlp_in.weight.data.t()


def narrow(layer):
    layer.write_key = nn.Linear(4, 15)


def triple(layer):
    layer.input.register_forward_hook(lambda module, arguments, result: 3 * result)


CHANGES = {
    "optimizer": train,
    "load_state_dict": lambda layer: load(layer, assign=False),
    "load_state_dict, assigned": lambda layer: load(layer, assign=True),
    "written into": lambda layer: layer.write.bias.fill_(0.5),
    "the input's weight": lambda layer: layer.input.weight.mul_(-1),
    "the data transposed": transpose,
    "another layer": narrow,
    "another parameter": lambda layer: setattr(layer.out_norm, "weight", nn.Parameter(torch.ones(13))),
    "a parametrization": lambda layer: nn.utils.parametrize.register_parametrization(layer.out, "weight", Doubled()),
    "a hook": triple,
    "another strength": lambda layer: setattr(layer, "max_strength", 0.2),
    "drawn anew": lambda layer: layer.reset_parameters(),
    "a read's norm": lambda layer: layer.read_norm[0].bias.add_(2.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_ready_never_outlives_a_change(change, rng, ran):
    layer, x, state = made(rng)
    with torch.no_grad():
        before, _ = layer.step(x, state)
        layer.step(x, state)
        assert len(ran) == 2
        CHANGES[change](layer)
        expected = by_definition(layer, x, state)
        assert not torch.allclose(expected[0], before, atol=1e-4)
        for _ in range(2):
            torch.testing.assert_close(layer.step(x, state), expected, rtol=1e-5, atol=1e-5)


def test_copies_and_files_leave_behind_what_is_ready(rng, ran):
    layer, x, state = made(rng)
    with torch.no_grad():
        expected = layer.step(x, state)
        for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert not other._steps._ready
            torch.testing.assert_close(other.step(x, state), expected, rtol=0, atol=0)


def test_inference_mode_and_the_lack_of_it_share_a_step(rng, ran):
    layer, x, state = made(rng)
    with torch.inference_mode():
        inside = layer.step(x, state)
    with torch.no_grad():
        outside = layer.step(x, state)
    with torch.inference_mode():
        layer.step(x, state)
    assert len(ran) == 3
    assert torch.equal(inside[0], outside[0])


def test_wrong_tensors_are_refused_after_right_ones(rng, ran):
    layer, x, state = made(rng)
    with torch.no_grad():
        layer.step(x, state)
        for wrong in (x[:, :3], x.double(), x[0]):
            with pytest.raises(ValueError, match="FastWeightMemory"):
                layer.step(wrong, state)
        for wrong in ({"fast": state["fast"]}, {**state, "more": x}, {**state, "fast": state["fast"][:2]}):
            with pytest.raises(ValueError, match="FastWeightMemory"):
                layer.step(x, wrong)


def test_threads_do_not_share_what_a_step_works_in(rng, ran):
    layer, _, state = made(rng)
    with torch.no_grad():
        xs = [torch.randn(3, 4, generator=rng) for _ in range(4)]

        def walk(start):
            with torch.no_grad():
                y, now = start, state
                for _ in range(200):
                    y, now = layer.step(start, now)
            return y

        alone = [walk(start) for start in xs]
        with ThreadPoolExecutor(4) as pool:
            for together in (list(pool.map(walk, xs)) for _ in range(3)):
                torch.testing.assert_close(together, alone, rtol=0, atol=0)
