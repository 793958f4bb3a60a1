"""Precisions, files and copies."""

import copy
import io
import pickle

import pytest
import torch
from cores_table import BATCH, INPUTS, STEPS, assert_close, assert_same_state, draw
from safetensors.torch import load, save

from relational_rnn.nn.core import map_state


def floats(state):
    values = state.values() if isinstance(state, dict) else [state]
    return [tensor for tensor in values if tensor.dtype.is_floating_point]


def test_float32_is_close_to_float64(case, rng):
    """Within four times what one rounding of every weight and input changes, whatever the processor adds up first."""
    x = draw(BATCH, STEPS, INPUTS)
    y, _ = case.core()(x)
    y_low, final_low = case.core(torch.float32)(x.float())
    assert y_low.dtype == torch.float32
    assert {tensor.dtype for tensor in floats(final_low)} == {torch.float32}

    def rounded(tensor):
        return tensor * (1 + torch.finfo(torch.float32).eps * torch.randn(tensor.shape, generator=rng))

    changes = []
    for _ in range(3):
        core = case.core()
        with torch.no_grad():
            for parameter in core.parameters():
                parameter.copy_(rounded(parameter))
            changes.append((core(rounded(x))[0] - y).abs().max().item())
    torch.testing.assert_close(y_low.double(), y, rtol=0, atol=4 * max(changes))


def test_the_initial_state_follows_the_parameters_or_the_wish(case):
    core = case.core(torch.float32)
    assert {tensor.dtype for tensor in floats(core.initial_state(2))} == {torch.float32}
    assert {tensor.dtype for tensor in floats(core.initial_state(2, dtype=torch.float64))} == {torch.float64}
    on_meta = core.initial_state(2, device="meta")
    on_meta = on_meta.values() if isinstance(on_meta, dict) else [on_meta]
    assert {tensor.device.type for tensor in on_meta} == {"meta"}
    assert {tensor.shape[0] for tensor in on_meta} == {2}


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 0.03), (torch.float16, 0.008)], ids=["bf16", "fp16"])
def test_autocast_is_close_to_float32(case, dtype, error):
    core, x = case.core(torch.float32), draw(BATCH, STEPS, INPUTS, dtype=torch.float32)
    lengths = torch.tensor([4, 7, 0, 1, 6])
    reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[1, 3] = True
    y, _ = core(x, lengths=lengths, reset=reset)
    with torch.autocast("cpu", dtype=dtype):
        y_low, final = core(x, lengths=lengths, reset=reset)
        y_step, after_step = core.step(x[:, 0], final)
        _, whole = core(x)
    for state in (final, after_step, whole):  # the state keeps its precision
        assert {tensor.dtype for tensor in floats(state)} == {torch.float32}
    assert (y_low - y).abs().max() < error * case.autocast_error * y.abs().max()
    assert (y_low - y).abs().max() > 0  # it did run in low precision
    assert torch.isfinite(y_step).all()
    (y_low.float() * draw(*y.shape, seed=3, dtype=torch.float32)).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in core.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_zeros_give_numbers_in_every_precision(case, dtype):
    torch.manual_seed(0)
    core = case.create().to(dtype)
    y, final = core(torch.zeros(2, 4, INPUTS, dtype=dtype))
    y.sum().backward()
    assert {tensor.dtype for tensor in floats(final)} == {y.dtype} == {dtype}
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in core.parameters() if parameter.grad is not None)


def test_weights_survive_a_file(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    other = case.create().double()
    assert not torch.allclose(other(x)[0], core(x)[0])
    other.load_state_dict(load(save(core.state_dict())), strict=True)
    assert torch.equal(other(x)[0], core(x)[0])


def test_a_state_survives_a_file(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    _, state = core(x)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert torch.equal(core(x, loaded)[0], core(x, state)[0])


def test_copies_are_independent(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    y, _ = core(x)
    for other in (copy.deepcopy(core), pickle.loads(pickle.dumps(core))):
        assert torch.equal(other(x)[0], y)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.1)
        assert not torch.allclose(other(x)[0], y)
    assert torch.equal(core(x)[0], y)


def test_the_same_seed_gives_the_same_core(case):
    def built(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return case.create().state_dict()

    first, again, other = built(1), built(1), built(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_and_evaluation_mode_agree(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    y, final = core.train()(x)
    y_eval, final_eval = core.eval()(x)
    assert_close(y_eval, y)
    assert_same_state(core, final_eval, final)


def test_inference_mode_streams(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    y, _ = core(x)
    with torch.inference_mode():
        state = core.initial_state(BATCH)
        for t in range(STEPS):
            y_t, state = core.step(x[:, t], state)
            assert_close(y_t, y[:, t])


def test_a_detached_state_cuts_the_gradient(case):
    core = case.core()
    x = draw(BATCH, STEPS, INPUTS).requires_grad_()
    for cut in (False, True):
        _, state = core(x[:, :3])
        y, _ = core(x[:, 3:], map_state(torch.Tensor.detach, state) if cut else state)
        (gradient,) = torch.autograd.grad((y * draw(*y.shape, seed=3)).sum(), x)
        assert (gradient[:, :3].abs().max() == 0) == cut
