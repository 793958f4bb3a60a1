"""Whatever a core returns is the caller's alone: changing it in place changes nothing else."""

from __future__ import annotations

import pytest
import torch
from cores_table import CASES, INPUTS, Case
from torch import Tensor

from relational_rnn import RelationalMemory


def named(what, state):
    """A state's tensors by name."""
    return {what: state} if isinstance(state, Tensor) else {f"{what}.{name}": t for name, t in state.items()}


def assert_apart(tensors):
    """Fill each in turn, and look at all others."""
    tensors = {name: t.detach() for name, t in tensors.items() if t.numel() > 0}
    for name, tensor in tensors.items():
        before = {other: t.clone() for other, t in tensors.items()}
        tensor.fill_(True if tensor.dtype == torch.bool else 77)
        for other, t in tensors.items():
            assert other == name or torch.equal(t, before[other]), f"{other} changes with {name}"
        tensor.copy_(before[name])


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_step_and_sequences(case: Case, grad, rng):
    core = case.core()
    for batch in (1, 2):
        x = torch.randn(batch, 3, INPUTS, generator=rng, dtype=torch.float64)
        with torch.set_grad_enabled(grad):
            state = core.initial_state(batch)
            for _ in range(2):  # the second one may be prepared, or have something to append to
                y, after = core.step(x[:, 0], state)
                assert_apart({"x": x, "output": y} | named("before", state) | named("after", after))
                state = after
            for steps in (0, 1, 3):
                y, after = core(x[:, :steps], state)
                assert_apart({"x": x, "output": y} | named("before", state) | named("after", after))
                lengths = torch.tensor([steps, 0][:batch])
                y, after = core(x[:, :steps], state, lengths=lengths)
                assert_apart({"x": x, "output": y} | named("before", state) | named("after", after))
            y, after = core(x[:, :1])
            assert_apart({"x": x, "output": y} | named("after", after))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(gate_style="competitive", num_layers=2),
        dict(gate_style=None, read_head="input"),
        dict(gate_style=None, formulation="chapter", read_head="mean"),
        dict(output_size=7, initial_memory="learned"),
    ],
    ids=str,
)
def test_every_form_of_the_relational_memory(options, backend, kernels, grad, rng, monkeypatch):
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", kernels)
    layer = RelationalMemory(INPUTS, 3, 4, num_heads=2, backend=backend, **options)
    for batched in (True, False):
        x = torch.randn(*([2] if batched else []), 3, INPUTS, generator=rng)
        with torch.set_grad_enabled(grad):
            state = layer.initial_state(2)
            state = state if batched else state.select(-3, 0).clone()
            for _ in range(2):
                y, after = layer.step(x[..., 0, :], state)
                assert_apart({"x": x, "output": y, "before": state, "after": after})
                for steps in (0, 1, 3):
                    y, after = layer(x[..., :steps, :], state)
                    assert_apart({"x": x, "output": y, "before": state, "after": after})
    memory = layer.cell()(x[0], None if not grad else layer.cell().initial_memory(1)[0])
    assert_apart({"x": x, "memory": memory})


def test_what_a_user_would_do(rng):
    """An activation in place on the output of a step."""
    layer = RelationalMemory(5, 3, 4)
    state = layer.initial_state(2)
    with torch.no_grad():
        y, after = layer.step(torch.randn(2, 5, generator=rng), state)
        expected = after.clone()
        assert expected.min() < 0
        torch.relu_(y)
        assert torch.equal(after, expected)
