"""`torch.compile`: the sequence is one graph, forward and backward, with and without lengths and resets."""

import pytest
import torch
from cores_table import BATCH, INPUTS, STEPS, assert_close, draw


@pytest.mark.slow
def test_compile_is_one_graph(case):
    core, x = case.core(), draw(BATCH, STEPS, INPUTS)
    lengths = torch.tensor([4, 7, 0, 1, 6])
    reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[1, 3] = True
    torch.compiler.reset()  # or graphs of other cores would count against the limit of recompilations
    compiled = torch.compile(core, fullgraph=True, backend="aot_eager")
    for keywords in ({}, {"lengths": lengths}, {"reset": reset}, {"lengths": lengths, "reset": reset}):
        y, _ = compiled(x, **keywords)
        expected, _ = core(x, **keywords)
        assert_close(y, expected)
        cotangent = draw(*y.shape, seed=3)
        gradients = torch.autograd.grad(y, list(core.parameters()), cotangent)
        gradients_expected = torch.autograd.grad(expected, list(core.parameters()), cotangent)
        for gradient, other in zip(gradients, gradients_expected, strict=True):
            assert_close(gradient, other, rtol=0.0, atol=1e-12 * max(1.0, other.abs().max().item()))
