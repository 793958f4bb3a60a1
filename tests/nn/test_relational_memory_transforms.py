"""What PyTorch does to modules: copies, files, autocast, torch.func, double backward, torch.compile."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from relational_rnn import InputError, RelationalMemory
from relational_rnn.ops.relational_scan import compiled as operator_module
from relational_rnn.ops.relational_scan.cpu import kernels_report

INPUTS, N, W = 5, 3, 8
OPTIONS = {
    "unit": dict(num_blocks=2, initial_memory="learned"),
    "matrix": dict(input_rows=2, gate_style="memory", read_head="input"),
    "chapter": dict(formulation="chapter", gate_style=None, read_head="attention", output_size=7, num_layers=2),
}


def build(name="unit", dtype=torch.float64, seed=0, **changes):
    torch.manual_seed(seed)
    layer = RelationalMemory(INPUTS, N, 4, num_heads=2, dtype=dtype, **{**OPTIONS[name], **changes})
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn(p.shape, dtype=p.dtype))
    return layer


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def input_for(layer, batch=4, steps=6, dtype=torch.float64):
    return draw(batch, steps, *([] if layer.input_rows is None else [layer.input_rows]), layer.input_size, dtype=dtype)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def gradients_of(layer, y, memory):
    """Of every parameter, for fixed signed cotangents."""
    cotangents = [draw(*y.shape, seed=8, dtype=y.dtype), draw(*memory.shape, seed=9, dtype=memory.dtype)]
    return torch.autograd.grad([y, memory], list(layer.parameters()), cotangents, materialize_grads=True)


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_compute_the_same_and_share_nothing(name, duplicate):
    layer = build(name)
    x = input_for(layer)
    y, _ = layer(x)
    twin = duplicate(layer)
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
    assert torch.equal(twin(x)[0], y)


def test_steps_of_a_shallow_copy_with_other_modules_are_its_own():
    layer = RelationalMemory(5, 3, 4)
    x, state = torch.randn(7, 5), layer.initial_state(7)
    with torch.no_grad():
        before = layer.step(x, state)[1]
        other = copy.copy(layer.cell())
        other._modules = {**other._modules, "input": nn.Linear(5, 4)}
        after = other(x, state)
        assert not torch.allclose(after, before)
        assert torch.equal(layer.step(x, state)[1], before)
    torch.testing.assert_close(after, other(x, state).detach())  # with gradients the definition computes it


def test_a_state_without_values_is_taken():
    layer = RelationalMemory(5, 3, 4)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        state = mode.from_tensor(layer.initial_state(7))
        y, _ = layer(mode.from_tensor(torch.zeros(7, 6, 5)), state)
    assert y.shape == (7, 6, 12)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_call_twice_is_equal_to_the_last_bit(name):
    layer = build(name, torch.float32)
    x = input_for(layer, dtype=torch.float32)
    first, second = ((*out, *gradients_of(layer, *out)) for out in (layer(x), layer(x)))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OPTIONS)
def test_autocast(name, dtype):
    """The memory stays in its dtype; outputs and gradients are those of float32 up to the precision asked for."""
    layer = build(name, torch.float32)
    x = input_for(layer, dtype=torch.float32)
    y, memory = layer(x)
    with torch.autocast("cpu", dtype):
        y_low, memory_low = layer(x)
        y_half, _ = layer(x.to(dtype))
        state = layer.initial_state(4)
        for t in range(6):
            y_t, state = layer.step(x[:, t], state)
    assert memory_low.dtype == state.dtype == torch.float32
    assert not torch.equal(memory_low, memory)
    bound = 12 * torch.finfo(dtype).eps
    for low, full in ((y_low, y), (memory_low, memory), (y_half, y), (y_t, y[:, -1]), (state, memory)):
        assert (low - full).abs().max() <= bound * full.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_under_autocast(name, dtype):
    """Close to those of float32 over two steps (errors grow with steps); the middle one of five layers counts."""
    errors = []
    for seed in range(5):
        layer = build(name, torch.float32, seed)
        x = input_for(layer, steps=2, dtype=torch.float32)
        full = gradients_of(layer, *layer(x))
        with torch.autocast("cpu", dtype):
            y, memory = layer(x)
        low = gradients_of(layer, y.float(), memory)
        assert {g.dtype for g in low} == {torch.float32}
        errors.append((flat(low) - flat(full)).norm() / flat(full).norm())
    assert sorted(errors)[2] <= 6 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_parameters(dtype):
    layer = build(dtype=torch.float32)
    x = input_for(layer, dtype=torch.float32)
    y, _ = layer(x)
    y_low, memory_low = layer.to(dtype)(x.to(dtype))
    assert y_low.dtype == memory_low.dtype == dtype
    assert (y_low - y).abs().max() <= 30 * torch.finfo(dtype).eps * y.abs().max()


@pytest.mark.parametrize("name", OPTIONS)
def test_functional_call_and_its_gradients(name):
    layer, other = build(name), build(name, seed=1)
    x = input_for(layer)
    weights = dict(other.named_parameters())

    def loss(weights):
        y, memory = torch.func.functional_call(layer, weights, (x,))
        return (y * draw(*y.shape, seed=8)).sum() + (memory * draw(*memory.shape, seed=9)).sum()

    gradients = torch.func.grad(loss)({name: p.detach() for name, p in weights.items()})
    for g, e in zip(gradients.values(), gradients_of(other, *other(x)), strict=True):
        close(g, e)


@pytest.mark.parametrize("name", OPTIONS)
def test_vmap_over_the_batch(name):
    layer = build(name)
    x, reset = input_for(layer), draw(4, 6, seed=2) > 0.6
    y, memory = layer(x, reset=reset)
    y_each, memory_each = torch.func.vmap(lambda x, reset: layer(x, reset=reset), out_dims=(0, -3))(x, reset)
    close(y_each, y)
    close(memory_each, memory)
    state = layer.initial_state(4)
    stepped, _ = torch.func.vmap(layer.step, in_dims=(0, -3), out_dims=(0, -3))(x[:, 0], state)
    close(stepped, layer.step(x[:, 0], state)[0])


def test_gradients_for_every_row_of_the_batch():
    layer = build()
    x = input_for(layer)
    weights = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(weights, x):
        return torch.func.functional_call(layer, weights, (x,))[0].square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    for b in range(4):
        alone = torch.autograd.grad(layer(x[b])[0].square().sum(), list(layer.parameters()))
        for g, e in zip(each.values(), alone, strict=True):
            close(g[b], e)


@pytest.mark.parametrize("name", OPTIONS)
def test_vmap_over_an_ensemble_of_weights(name):
    layers = [build(name, seed=seed) for seed in range(3)]
    x = input_for(layers[0])
    weights, buffers = torch.func.stack_module_state(layers)
    skeleton = copy.deepcopy(layers[0]).to("meta")

    def call(weights, buffers, x):
        return torch.func.functional_call(skeleton, (weights, buffers), (x,))

    ys, memories = torch.func.vmap(call, in_dims=(0, 0, None))(weights, buffers, x)
    for i, layer in enumerate(layers):
        y, memory = layer(x)
        close(ys[i], y)
        close(memories[i], memory)


@pytest.mark.parametrize("name", OPTIONS)
def test_double_backward(name):
    layer = build(name)
    x = input_for(layer, batch=2, steps=2).requires_grad_()
    reset = torch.tensor([[False, True], [False, False]])
    assert torch.autograd.gradgradcheck(lambda x: layer(x, reset=reset)[0], (x,), fast_mode=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own use of it
def test_forward_mode():
    layer = build()
    x, direction = input_for(layer), draw(4, 6, INPUTS, seed=3)
    _, tangent = torch.func.jvp(lambda x: layer(x)[0], (x,), (direction,))
    ahead, behind = (layer(x + sign * 1e-6 * direction)[0] for sign in (1, -1))
    torch.testing.assert_close(tangent, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-8)


# torch.export: the step is plain operations, the sequence is one operator of this package whatever its length.


class OneStep(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x_t, state):
        return self.layer.step(x_t, state)


def test_exported_step_takes_any_batch():
    layer, batch = build(), torch.export.Dim("batch")
    sizes = {"x_t": {0: batch}, "state": {0: batch}}
    program = torch.export.export(OneStep(layer), (draw(4, INPUTS), draw(4, N, W)), dynamic_shapes=sizes)
    assert not [node for node in program.graph.nodes if "relational_rnn" in str(node.target)]
    x_t, state = draw(7, INPUTS), draw(7, N, W, seed=1)
    for found, expected in zip(program.module()(x_t, state), layer.step(x_t, state), strict=True):
        close(found, expected)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # torch.export.load of PyTorch 2.11
def test_exported_sequence_takes_any_batch_and_length(tmp_path):
    layer, batch, steps = build(), torch.export.Dim("batch"), torch.export.Dim("steps")
    sizes = {"x": {0: batch, 1: steps}, "state": {0: batch}}
    program = torch.export.export(layer, (input_for(layer), draw(4, N, W)), dynamic_shapes=sizes)
    assert len([node for node in program.graph.nodes if "relational_rnn" in str(node.target)]) == 1
    torch.export.save(program, tmp_path / "layer.pt2")
    again = torch.export.load(tmp_path / "layer.pt2").module()
    x, state = input_for(layer, batch=7, steps=9), draw(7, N, W, seed=1)
    for found, expected in zip(again(x, state), layer(x, state), strict=True):
        close(found, expected)


# torch.compile. "aot_eager" traces forward and backward as every backend does, without the minutes of code generation.


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    yield CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()


def assert_compiled_is_eager(layer, compiled, bound=1e-12, **options):
    """Outputs, memory and gradients of a compiled call against the same call in eager mode."""
    y, memory = layer(**options)
    y_compiled, memory_compiled = compiled(**options)
    found = [y_compiled, memory_compiled]
    expected = [y, memory]
    if torch.is_grad_enabled():
        found += gradients_of(layer, y_compiled, memory_compiled)
        expected += gradients_of(layer, y, memory)
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == e.dtype
        torch.testing.assert_close(f, e, rtol=bound, atol=bound)


@pytest.mark.parametrize("name", ["unit", *(pytest.param(n, marks=pytest.mark.slow) for n in ("matrix", "chapter"))])
def test_one_graph_per_grad_mode_and_none_per_length(name, compiler):
    layer = build(name)
    compiled = torch.compile(layer, backend=compiler, fullgraph=True)
    for graphs, grad in ((1, True), (2, False)):
        for steps in (4, 7, 6, 13):
            x, reset = input_for(layer, steps=steps), draw(4, steps, seed=2) > 0.6
            options = {"x": x, "lengths": torch.tensor([steps, 1, 0, 2]), "reset": reset}
            torch._dynamo.mark_dynamic(x, 1)
            torch._dynamo.mark_dynamic(reset, 1)
            with torch.set_grad_enabled(grad):
                assert_compiled_is_eager(layer, compiled, **options)
            assert compiler.frame_count == graphs


def test_unmarked_lengths_cost_one_graph_more(compiler):
    layer = build()
    compiled = torch.compile(layer, backend=compiler, fullgraph=True)
    for steps in (4, 7, 6, 13):
        with torch.no_grad():  # tracing backward passes takes most of the time
            assert_compiled_is_eager(layer, compiled, x=input_for(layer, steps=steps))
    assert compiler.frame_count == 2


def test_steps_snapshots_and_traces_compile(compiler):
    layer = build()
    x, state = input_for(layer), draw(4, N, W, seed=1)
    for method, arguments in (
        (layer.step, (x[:, 0], state)),
        (layer.cell(), (x[:, 0], state)),
        (layer.snapshots, (x, torch.tensor([2, 0]), torch.tensor([6, 3]), state)),
        (layer.trace, (x[:, :2], state)),
    ):
        with torch.set_grad_enabled(method == layer.step):  # tracing backward passes takes most of the time
            found, expected = torch.compile(method, backend=compiler, fullgraph=True)(*arguments), method(*arguments)
        if method == layer.trace:
            found, expected = (found.memory, found.attention), (expected.memory, expected.attention)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_compiled_layer_runs_the_backend_it_was_given(backend, compiler, monkeypatch):
    """What one operator hides is the compiled kernels with "auto", and plain operations with "reference"."""
    ran = []
    for name in ("loop", "relational_scan_cpu"):
        original = getattr(operator_module, name)
        monkeypatch.setattr(operator_module, name, lambda *a, n=name, f=original, **o: (ran.append(n), f(*a, **o))[1])
    layer = build(backend=backend)
    y, _ = torch.compile(layer, backend=compiler, fullgraph=True)(input_for(layer))
    y.sum().backward()
    kernels = backend == "auto" and kernels_report().startswith("compiled")
    assert ran == ["relational_scan_cpu" if kernels else "loop"] * 2


def test_compiled_autocast(compiler):
    """The operator carries autocast along."""
    layer = build(dtype=torch.float32)
    x = input_for(layer, dtype=torch.float32)
    compiled = torch.compile(layer, backend=compiler, fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        y, memory = layer(x)
        y_compiled, memory_compiled = compiled(x)
    assert torch.equal(y_compiled, y)
    assert torch.equal(memory_compiled, memory)
    low, full = flat(gradients_of(layer, y_compiled, memory_compiled)), flat(gradients_of(layer, *layer(x)))
    assert 0 < (low - full).norm() <= 12 * torch.finfo(torch.bfloat16).eps * full.norm()


def test_a_compiled_layer_looks_at_lengths_when_it_runs(compiler):
    layer = build()
    compiled = torch.compile(layer, backend=compiler, fullgraph=True)
    with pytest.raises(InputError, match="lengths is out of range\n  got       values from 0 to 7\n  expected  0 to 6"):
        compiled(input_for(layer), lengths=torch.tensor([0, 7, 1, 2]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # code generation warns about the machine it runs on
@pytest.mark.parametrize("name", OPTIONS)
def test_generated_code(name):
    """The default backend: float64 outputs and gradients, with and without lengths and resets."""
    torch._dynamo.reset()
    layer = build(name)
    compiled = torch.compile(layer, fullgraph=True)
    for steps in (4, 7, 13):
        x, reset = input_for(layer, steps=steps), draw(4, steps, seed=2) > 0.6
        lengths = torch.tensor([steps, 1, 0, 2])
        assert_compiled_is_eager(layer, compiled, 1e-10, x=x)
        assert_compiled_is_eager(layer, compiled, 1e-10, x=x, lengths=lengths, reset=reset)
