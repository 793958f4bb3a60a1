"""Function transforms: weights as arguments, vmap over the batch, double backward."""

import pytest
import torch
from cores_table import BATCH, INPUTS, STEPS, assert_close, draw
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel


@pytest.fixture(autouse=True)
def attention_that_can_be_transformed():
    """PyTorch's fused attention has no rule for vmap and no second derivative; its plain one has both."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def test_functional_call_takes_other_weights(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    zeros = {name: torch.zeros_like(parameter) for name, parameter in core.named_parameters()}
    y, _ = functional_call(core, dict(core.named_parameters()), (x,))
    assert_close(y, core(x)[0])
    assert not torch.allclose(functional_call(core, zeros, (x,))[0], y)


def test_vmap_over_the_batch(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    weights = dict(core.named_parameters())

    def one(row):
        return functional_call(core, weights, (row.unsqueeze(0),))[0].squeeze(0)

    assert_close(vmap(one)(x), core(x)[0])


def test_vmap_over_an_ensemble(case):
    cores = [case.create().double() for _ in range(4)]
    x = draw(BATCH, STEPS, INPUTS)
    parameters, buffers = stack_module_state(cores)

    def one(weights, other):
        return functional_call(cores[0], (weights, other), (x,))[0]

    y = vmap(one)(parameters, buffers)
    assert_close(y, torch.stack([core(x)[0] for core in cores]))


def test_gradients_of_every_row_on_its_own(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS, seed=3)  # of others gradients are large, and roundings with them
    weights = {name: parameter.detach() for name, parameter in core.named_parameters()}
    cotangent = draw(STEPS, core.output_size, seed=3)

    def loss(new, row):
        return (functional_call(core, new, (row.unsqueeze(0),))[0].squeeze(0) * cotangent).sum()

    by_vmap = vmap(grad(loss), in_dims=(None, 0))(weights, x)
    for row in range(BATCH):
        alone = grad(loss)(weights, x[row])
        for name in weights:
            assert_close(by_vmap[name][row], alone[name])


def test_double_backward(case):
    core, x = case.core(), draw(2, 3, INPUTS).requires_grad_()
    cotangent = draw(2, 3, core.output_size, seed=3)

    def slope(x):
        (gradient,) = torch.autograd.grad((core(x)[0] * cotangent).sum(), x, create_graph=True)
        return gradient

    assert torch.autograd.gradcheck(slope, x, fast_mode=True)
