"""What kernels read by address: nothing may be left to be done, and nothing else be read than the tensor's numbers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from cpu_scan_cases import SIZES, cell_and_input
from fast_weight_cases import SIZES as FAST_SIZES
from fast_weight_cases import draw, results_of

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn import FastWeightMemory
from relational_rnn.ops.fast_weight_scan import FastWeightState, fast_weight_scan, fast_weight_scan_reference
from relational_rnn.ops.relational_scan import relational_scan, relational_scan_reference, relational_step_after
from relational_rnn.ops.relational_scan.cpu import kernels_report
from relational_rnn.ops.relational_scan.spec import flatten, refill


@pytest.fixture(autouse=True, params=["kernels", "loop"])
def computed(request, monkeypatch):
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "auto" if request.param == "kernels" else "off")
    if request.param == "kernels" and not kernels_report().startswith("compiled"):
        pytest.skip(kernels_report())
    return request.param


def negative(t):
    """The same numbers with a minus sign that is still to be applied, laid out as they were."""
    waiting = torch._neg_view(-t.detach())
    assert waiting.is_neg()
    return waiting


def spread(t):
    """The same numbers with gaps between them."""
    wide = torch.full((*t.shape, 2), math.nan, dtype=t.dtype)
    wide[..., 0] = t.detach()
    return wide[..., 0]


def turned(t):
    """The same numbers, the last axis the slowest."""
    return t.detach().transpose(0, -1).contiguous().transpose(0, -1)


LAYOUTS = {"negative": negative, "spread": spread, "turned": turned}


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["unit", "chapter", "competitive"])
def test_every_tensor_of_a_scan_in_every_layout(name, layout, computed, rng):
    change = LAYOUTS[layout]
    cell, x, memory = cell_and_input(SIZES[name], rng)
    params = cell.scan_parameters()
    initial = torch.randn(memory.shape, generator=rng, dtype=x.dtype)
    reset = torch.rand(x.shape[:2], generator=rng) < 0.3
    expected = relational_scan_reference(x, memory, params, reset=reset, initial=initial)
    changed = refill(params, map(change, flatten(params)))
    for activations in ("store", "recompute"):
        for wanted in (False, True):
            leaves = change(x).requires_grad_(wanted), change(memory), change(initial)
            made = relational_scan(
                leaves[0], leaves[1], changed, reset=reset, initial=leaves[2], activations=activations
            )
            close(made.memories, expected.memories)
            close(made.final, expected.final)
    cotangent = torch.randn(expected.memories.shape, generator=rng, dtype=x.dtype)
    (found,) = torch.autograd.grad(made.memories, leaves[0], change(cotangent), retain_graph=True)
    (straight,) = torch.autograd.grad(made.memories, leaves[0], cotangent, retain_graph=True)
    close(found, straight)
    (found,) = torch.autograd.grad(made.final, leaves[0], change(cotangent[:, 0]), retain_graph=True)
    close(found, torch.autograd.grad(made.final, leaves[0], cotangent[:, 0])[0])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["unit", "competitive"])
def test_every_tensor_of_a_step_in_every_layout(name, layout, rng):
    change = LAYOUTS[layout]
    cell, x, memory = cell_and_input(SIZES[name], rng, steps=1)
    x, params = x[:, 0], cell.scan_parameters()
    changed = refill(params, map(change, flatten(params)))
    with torch.no_grad():
        expected = relational_step_after(x, memory, params, backend="reference").memory
        close(relational_step_after(change(x), change(memory), changed).memory, expected)
        for _ in range(2):  # the second one would be ready
            close(cell(change(x).squeeze(1), change(memory)), expected)


def test_the_imaginary_part_of_a_conjugate(rng):
    """As small as it gets: one number, contiguous, with its minus sign pending."""
    for layer in (RelationalMemory(1, 1, 1), FastWeightMemory(1, 1, num_heads=1, key_size=1, value_size=1)):
        a, b = torch.randn(2, 1, 1, 1, generator=rng).unbind(0)
        x = torch.complex(a, b).conj().imag
        assert x.is_neg()
        plain = copy.deepcopy(layer)
        plain.backend = "reference"
        expected, _ = plain(-b)
        for guard in (torch.no_grad, torch.enable_grad):
            with guard():
                for _ in range(2):
                    torch.testing.assert_close(layer(x)[0], expected)
                    torch.testing.assert_close(layer.step(x[:, 0], layer.initial_state(1))[0], expected[:, 0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_of_fast_weights_in_every_layout(layout, computed, rng):
    change = LAYOUTS[layout]
    p, state, params, initial = draw(rng, **FAST_SIZES["two reads"])
    reset = torch.rand(p.shape[:2], generator=rng) < 0.3
    expected = fast_weight_scan_reference(p, state, params, reset=reset, initial=initial)
    states = [FastWeightState(*map(change, one)) for one in (state, initial)]
    changed = refill(params, map(change, flatten(params)))
    leaf = change(p).requires_grad_()
    made = fast_weight_scan(leaf, states[0], changed, reset=reset, initial=states[1])
    for name, value in results_of(made).items():
        close(value, results_of(expected)[name])
    for y in results_of(made).values():
        d = torch.randn(y.shape, generator=rng, dtype=y.dtype)
        found = [torch.autograd.grad(y, leaf, one, retain_graph=True)[0] for one in (change(d), d)]
        close(*found)


def test_zeros_without_memory(rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    nothing = torch._efficientzerotensor(x.shape, dtype=x.dtype)
    params = cell.scan_parameters()
    expected = relational_scan_reference(torch.zeros_like(x), memory, params)
    close(relational_scan(nothing, memory, params).memories, expected.memories)
    with torch.no_grad():
        close(relational_step_after(nothing[:, 0], memory, params).memory, expected.memories[:, 0])
    x.requires_grad_()
    scan = relational_scan(x, memory, params)
    zeros = torch._efficientzerotensor(scan.memories.shape, dtype=x.dtype)
    (gradient,) = torch.autograd.grad(scan.memories, x, zeros)
    assert torch.equal(gradient, torch.zeros_like(x))


@pytest.mark.parametrize("name", ["unit", "competitive"])
def test_expanded_and_overlapping_inputs(name, rng):
    cell, x, memory = cell_and_input(SIZES[name], rng)
    params = cell.scan_parameters()
    windows = torch.randn(5 + 3 * 7 + 3, generator=rng, dtype=x.dtype)
    for given in (
        (x[:1].expand_as(x), memory[:1].expand_as(memory)),
        (x[:, :1].expand_as(x), memory[:, :1].expand_as(memory)),
        (x[..., :1].expand_as(x), memory[..., :1].expand_as(memory)),
        (windows.as_strided((5, 7, 1, 4), (1, 3, 4, 1)), memory),
    ):
        expected = relational_scan_reference(*given, params)
        close(relational_scan(*given, params).memories, expected.memories)
        with torch.no_grad():
            close(relational_step_after(given[0][:, 0], given[1], params).memory, expected.memories[:, 0])


class Labelled(torch.Tensor):
    """A subclass that PyTorch's operations keep."""


def test_subclasses_go_to_operations_that_see_them(computed, rng):
    layer = RelationalMemory(4, 3, 5)
    x = torch.randn(2, 6, 4, generator=rng)
    given = x.as_subclass(Labelled)
    assert layer.backend_report(given).runs == "reference"
    y, _ = layer(given)
    assert isinstance(y, Labelled)
    torch.testing.assert_close(y.as_subclass(torch.Tensor), layer(x)[0])
    layer.backend = "cpu"
    refused = "it takes plain tensors only" if computed == "kernels" else "RELATIONAL_RNN_KERNELS=off"
    with pytest.raises(InputError, match=refused):
        layer(given)


def test_a_gradient_that_is_a_subclass(rng):
    layer = RelationalMemory(4, 3, 5)
    x = torch.randn(2, 6, 4, generator=rng).requires_grad_()
    y, _ = layer(x)
    d = torch.randn(y.shape, generator=rng)
    found = [torch.autograd.grad(y, x, one, retain_graph=True)[0] for one in (d.as_subclass(Labelled), d)]
    torch.testing.assert_close(found[0].as_subclass(torch.Tensor), found[1])


@pytest.mark.parametrize("make", [lambda: RelationalMemory(4, 3, 5), lambda: FastWeightMemory(4, 6, key_size=3)])
@pytest.mark.parametrize("default", ["meta"])
def test_another_default_device_changes_nothing(make, default, rng):
    """PyTorch's default device is for new tensors; those that kernels work in are on the CPU whatever it is."""
    layer, x = make(), torch.randn(2, 6, 4, generator=rng, requires_grad=True)
    y, _ = layer(x)
    state = layer.initial_state(2)
    (expected,) = torch.autograd.grad(y.sum(), x)
    with torch.device(default):
        again, _ = layer(x)
        (gradient,) = torch.autograd.grad(again.sum(), x)
        with torch.no_grad():
            quiet, _ = layer(x)
            first, _ = layer.step(x[:, 0], state)
    for got, wanted in ((again, y), (quiet, y), (gradient, expected), (first, y[:, 0])):
        torch.testing.assert_close(got, wanted)


def test_fake_tensors_have_shapes_alone(rng):
    from torch._subclasses.fake_tensor import FakeTensorMode

    for layer in (RelationalMemory(4, 3, 5), FastWeightMemory(4, 6, key_size=3)):
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            for steps in (1, 6):
                y, _ = layer(torch.randn(2, steps, 4))
                assert y.shape == (2, steps, layer.output_size)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(lengths=torch.tensor([1, 2])), "lengths has the wrong size on axis B"),
        (dict(lengths=torch.ones(5)), "lengths must be whole numbers"),
        (dict(lengths=torch.tensor([7, 1, 8, 0, 2])), "lengths are out of range"),
        (dict(lengths=torch.tensor([7, 1, -1, 0, 2])), "lengths are out of range"),
        (dict(lengths=torch.ones(5, dtype=torch.int64, device="meta")), "lengths is on another device"),
        (dict(reset=torch.zeros(5, 7, dtype=torch.bool, device="meta")), "reset is on another device"),
        (dict(reset=torch.zeros(5, 6, dtype=torch.bool)), "reset has the wrong size on axis T"),
        (dict(reset=torch.zeros(5, 7, dtype=torch.uint8)), "reset must be booleans"),
        (dict(initial=torch.zeros(3, 35).double()), "initial has the wrong size on axis M"),
        (dict(initial=torch.zeros(4, 3, 36).double()), "initial has the wrong size on axis B"),
        (dict(initial=torch.zeros(3, 36)), "initial cannot be used here: it needs one dtype throughout"),
        (dict(memory=torch.zeros(4, 3, 36).double()), "memory has the wrong size on axis B"),
    ],
)
def test_what_would_be_read_beyond_its_end_is_refused(wrong, message, compiled, rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    given = {"memory": memory} | {"reset": torch.zeros(5, 7, dtype=torch.bool), "initial": memory[0]} | wrong
    with pytest.raises(InputError, match=message):
        relational_scan(x, params=cell.scan_parameters(), backend="cpu", **given)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_lengths_may_be_whole_numbers_of_any_type(dtype, compiled, rng, monkeypatch):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    lengths = torch.tensor([7, 3, 0, 5, 1])
    given = {"memory": memory, "params": cell.scan_parameters()}
    found = relational_scan(x, lengths=lengths.to(dtype), backend="cpu", **given)
    wanted = relational_scan_reference(x, lengths=lengths, **given)
    torch.testing.assert_close(found.memories, wanted.memories)
    torch.testing.assert_close(found.final, wanted.final)
    monkeypatch.setattr("relational_rnn.ops.relational_scan.loop._PIECE_ROWS", 40)  # pieces of two steps
    with torch.no_grad():
        found = relational_scan(x, lengths=lengths.to(dtype), backend="reference", **given)
    torch.testing.assert_close(found.memories, wanted.memories)
