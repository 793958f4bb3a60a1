"""Gradients that PyTorch transforms: batched, Jacobians, Hessians, `torch.func`; whatever computed the forward pass."""

from __future__ import annotations

import pytest
import torch

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn import FastWeightMemory
from relational_rnn.ops.relational_scan.cpu import kernels_report

B, T, FEATURES = 2, 4, 3
LAYERS = {
    "unit": lambda: RelationalMemory(FEATURES, 2, 3, num_heads=2, num_blocks=2),
    "memory": lambda: RelationalMemory(FEATURES, 3, 5, gate_style="memory", input_rows=2, read_head="input"),
    "competitive": lambda: RelationalMemory(FEATURES, 3, 4, gate_style="competitive"),
    "no gates": lambda: RelationalMemory(FEATURES, 2, 5, gate_style=None, activations="recompute"),
    "chapter": lambda: RelationalMemory(FEATURES, 2, 5, gate_style=None, formulation="chapter", num_layers=2),
    "fast weights": lambda: FastWeightMemory(FEATURES, 5, num_heads=2, key_size=2, value_size=3),
}
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own use of it


@pytest.fixture(params=["kernels", "loop"])
def computed(request, monkeypatch):
    """Without kernels "auto" runs the plain loop."""
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "auto" if request.param == "kernels" else "off")
    if request.param == "kernels" and not kernels_report().startswith("compiled"):
        pytest.skip(kernels_report())
    return request.param


def given(name, rng):
    """The layer, the same one by plain operations, and an input."""
    layer = LAYERS[name]().double()
    plain = LAYERS[name]().double()
    plain.load_state_dict(layer.state_dict())
    plain.backend = "reference"
    if isinstance(plain, RelationalMemory):
        plain.activations = "store"
    rows = getattr(layer, "input_rows", None)
    x = torch.randn(B, T, *([] if rows is None else [rows]), FEATURES, generator=rng, dtype=torch.float64)
    return layer, plain, x


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_a_jacobian_row_by_row_or_all_at_once(name, computed, rng):
    layer, plain, x = given(name, rng)

    def final(model):
        return lambda x: model(x)[0][:, -1]

    expected = torch.autograd.functional.jacobian(final(plain), x)
    assert expected.abs().max() > 1e-6
    for vectorize in (False, True):
        close(torch.autograd.functional.jacobian(final(layer), x, vectorize=vectorize), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_batched_gradients_of_everything(name, computed, rng):
    """Into the input, the state and every parameter, from both results."""
    layer, plain, x = given(name, rng)
    found = []
    for model in (layer, plain):
        state = model.initial_state(B)
        leaves = [x.clone().requires_grad_(), *([state] if isinstance(state, torch.Tensor) else state.values())]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        given_state = leaves[1] if isinstance(state, torch.Tensor) else dict(zip(state, leaves[1:], strict=True))
        y, after = model(leaves[0], given_state)
        results = [y, *([after] if isinstance(after, torch.Tensor) else after.values())]
        draw = torch.Generator().manual_seed(5)
        cotangents = [torch.randn(3, *r.shape, generator=draw, dtype=r.dtype) for r in results]
        wanted = [*leaves, *model.parameters()]
        options = {"retain_graph": True, "materialize_grads": True}
        batched = torch.autograd.grad(results, wanted, cotangents, is_grads_batched=True, **options)
        found.append(batched)
        for i in range(3):
            alone = torch.autograd.grad(results, wanted, [d[i] for d in cotangents], **options)
            for one, many in zip(alone, batched, strict=True):
                close(many[i], one)
    for got, expected in zip(*found, strict=True):
        close(got, expected)


@FORWARD_MODE
@pytest.mark.parametrize("name", LAYERS)
def test_torch_func(name, rng):
    """`auto` works under every transform; a backend that was named and cannot follow is refused in the forward pass."""
    layer, plain, x = given(name, rng)
    if isinstance(layer, RelationalMemory):
        layer.activations = "store"

    def loss(model):
        return lambda x: model(x)[0][:, -1].sin().sum()

    for transform in (torch.func.jacrev, torch.func.jacfwd, torch.func.grad, torch.func.hessian):
        close(transform(loss(layer))(x), transform(loss(plain))(x))
    close(torch.func.vmap(lambda x: layer(x[None])[0][0])(x), plain(x)[0])
    seen = torch.autograd.functional.jacobian(loss(layer), x, vectorize=True, strategy="forward-mode")
    close(seen, torch.func.jacrev(loss(plain))(x))
    if layer.backend_report().runs == "cpu":
        layer.backend = "cpu"
        with pytest.raises(InputError, match=r"backend 'cpu' cannot run here: it does not work under the transforms"):
            torch.func.jacrev(loss(layer))(x)


@pytest.mark.parametrize("name", LAYERS)
def test_a_hessian_all_at_once(name, computed, rng):
    layer, plain, x = given(name, rng)
    x = x[:, :2]
    found = [
        torch.autograd.functional.hessian(lambda x, m=model: m(x)[0].sin().sum(), x, vectorize=vectorize)
        for model, vectorize in ((layer, True), (plain, False))
    ]
    close(*found)


@FORWARD_MODE
@pytest.mark.parametrize("name", ["unit", "fast weights"])
def test_forward_mode_over_a_backward_pass(name, rng):
    """The derivative of the gradients in the direction of a cotangent is their value for that direction."""
    layer, _, x = given(name, rng)
    x.requires_grad_()
    y = layer(x)[0]
    d, direction = (torch.randn(y.shape, generator=rng, dtype=y.dtype) for _ in range(2))
    (expected,) = torch.autograd.grad(y, x, direction, retain_graph=True)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(d, direction)
        (gradient,) = torch.autograd.grad(y, x, dual)
        close(torch.autograd.forward_ad.unpack_dual(gradient).tangent, expected)


@pytest.mark.parametrize("name", ["unit", "competitive", "fast weights"])
def test_what_watches_operations_sees_them(name, rng):
    """A counter of operations counts those of the plain loop; kernels that were named are refused."""
    from torch.utils.flop_counter import FlopCounterMode

    layer, plain, x = given(name, rng)
    counts = []
    for model in (layer, plain):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(x)
            model(x[:, :1])
        counts.append(counter.get_total_flops())
    assert 0 < counts[1] <= counts[0] < 1.1 * counts[1]  # whether the input is projected twice is the layer's to choose
    layer.backend = "cpu"
    refused = r"a dispatch mode of PyTorch is on|all modules have hooks"
    with FlopCounterMode(display=False), pytest.raises(InputError, match=refused):
        layer(x)
