"""The fast-weight memory: its step against loops over its equations, the delta rule, and what a read rests on."""

import dataclasses

import pytest
import torch
from cores_table import assert_close, draw
from torch import nn

from relational_rnn import InputError
from relational_rnn.nn.core import state_bytes
from relational_rnn.nn.fast_weight_memory import FastWeightMemory, write_and_read
from relational_rnn.ops.fast_weight_scan.reference import KEY_EPSILON as EPSILON
from relational_rnn.ops.fast_weight_scan.reference import unit

B, T, I, W, H, K, V, R = 5, 8, 3, 11, 2, 4, 6, 3  # noqa: E741  (the axis is called so everywhere)


def some_core(**changes):
    """In float64, with nothing left at a special starting value."""
    torch.manual_seed(4)
    sizes = {"num_heads": H, "key_size": K, "value_size": V, "reads": R, "max_strength": 1.7, **changes}
    core = FastWeightMemory(I, W, **sizes).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.1 * draw(*parameter.shape, seed=8))
    return core


def some_start(core):
    with torch.no_grad():
        return core(draw(B, 3, I, seed=5))[1]


def layer_norm(h, norm):
    centred = h - h.mean()
    return centred / (centred.square().mean() + norm.eps) ** 0.5 * norm.weight + norm.bias


def slow_step(core, x, memory, carried):
    """One row's step, head by head: x [I], memory [H, K, V], carried [W] or None."""

    def apply(linear, vector):
        return linear.weight @ vector + (0 if linear.bias is None else linear.bias)

    def length_one(vector):
        return vector / (sum(number**2 for number in vector) + EPSILON) ** 0.5

    h, keys = apply(core.input, x), apply(core.write_key, x)
    if carried is not None:
        from_h, from_key = apply(core.recurrent, carried).split([W, H * K])
        h, keys = h + from_h, keys + from_key
    read_keys, reads = [], []
    for j in range(R):
        queries = [length_one(q) for q in apply(core.read_key[j], h).view(H, K)]
        found = [memory[head].T @ queries[head] for head in range(H)]
        read_keys.append(torch.stack(queries))
        reads.append(torch.stack(found))
        h = layer_norm(h + apply(core.read_value[j], torch.cat(found)), core.read_norm[j])
    h = layer_norm(h + apply(core.mlp_out, apply(core.mlp_in, h).clamp(min=0)), core.mlp_norm)
    numbers = apply(core.write, h)
    keys, asked = keys.view(H, K), numbers[: H * K].view(H, K)
    values, rest = numbers[H * K : -2 * H].view(H, V), numbers[-2 * H :]
    after, found = [], []
    for head in range(H):
        k, q = length_one(keys[head]), length_one(asked[head])
        beta, alpha = core.max_strength / (1 + (-rest[head]).exp()), 1 / (1 + (-rest[H + head]).exp())
        s = alpha * memory[head]
        s = s + torch.outer(k, beta * (values[head] - s.T @ k))
        after.append(s)
        found.append(s.T @ q)
    y = layer_norm(h + apply(core.out, torch.cat(found)), core.out_norm)
    return y, torch.stack(after), torch.stack(read_keys), torch.stack(reads)


@pytest.mark.parametrize("carry", [True, False])
def test_every_step_follows_the_equations(carry):
    core = some_core(carry=carry)
    x, state = draw(B, T, I), some_start(core)
    y, _ = core(x, state)
    trace = core.trace(x, state)
    for b in range(B):
        memory, carried = state["fast"][b], state["carried"][b] if carry else None
        for t in range(T):
            expected, memory, read_keys, reads = slow_step(core, x[b, t], memory, carried)
            carried = expected if carry else None
            assert_close(y[b, t], expected)
            assert_close(trace.memory[b, t], memory)
            assert_close(trace.read_keys[b, t], read_keys)
            assert_close(trace.read[b, t], reads)


def write(memory, key, value, strength, keep):
    """The memory after one write of every head, and what `key` reads there then."""
    ones = torch.ones(H, 1, 1, dtype=torch.float64)
    keys = torch.cat([key, key], 1)
    return write_and_read(memory, keys, value, strength * ones, keep * ones)


def test_a_full_write_replaces_what_a_key_holds_and_leaves_the_rest():
    basis = torch.linalg.qr(draw(H, K, K)).Q
    key, other = basis[:, :1], basis[:, 1:2]
    first, second, third = (draw(H, 1, V, seed=seed) for seed in (1, 2, 3))
    memory, _ = write(draw(H, K, V, seed=4), key, first, 1.0, 1.0)
    memory, _ = write(memory, other, third, 1.0, 1.0)
    memory, found = write(memory, key, second, 1.0, 1.0)
    assert_close(found, second)
    assert_close(key @ memory, second)
    assert_close(other @ memory, third)
    turned, _ = write(memory, key, torch.zeros_like(second), 2.0, 1.0)  # twice the correction: a reflection
    assert_close(key @ turned, -second)
    assert_close(other @ turned, third)


def test_no_strength_and_all_kept_changes_no_bit():
    memory = draw(H, K, V)
    after, found = write(memory, unit(draw(H, 1, K, seed=1)), draw(H, 1, V, seed=2), 0.0, 1.0)
    assert torch.equal(after, memory)
    assert_close(found, unit(draw(H, 1, K, seed=1)) @ memory)


def test_a_key_of_zeros_reads_nothing_and_has_slopes():
    z = torch.zeros(2, K, dtype=torch.float64, requires_grad=True)
    key = unit(z)
    assert not key.any()
    (slope,) = torch.autograd.grad((key * draw(2, K)).sum(), z, create_graph=True)
    assert_close(slope, draw(2, K) / EPSILON**0.5, rtol=1e-12, atol=0.0)
    (second,) = torch.autograd.grad(slope.square().sum(), z)
    assert torch.isfinite(second).all()
    assert_close(unit(draw(2, K)).norm(dim=-1), torch.ones(2).double(), rtol=0.0, atol=1e-6)


def test_an_empty_memory_gives_nothing():
    core = some_core(carry=False)
    trace = core.trace(draw(B, 1, I))
    assert not trace.read.any()
    assert trace.output_read.abs().min() > 0  # what the step itself has written


def test_lengths_and_resets_of_a_trace_are_those_of_a_call():
    core, x = some_core(), draw(B, T, I)
    start, lengths = some_start(core), torch.tensor([3, 8, 0, 1, 6])
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[0, 2] = reset[0, 5] = reset[1, 4] = reset[4, 0] = True  # the second lies past its row's length
    _, state = core(x, start, lengths=lengths, reset=reset)
    filled = x.masked_fill((torch.arange(T) >= lengths.unsqueeze(1)).unsqueeze(2), torch.nan)
    trace = core.trace(filled, start, lengths=lengths, reset=reset)
    assert_close(trace.memory[:, -1], state["fast"])
    for b in range(B):
        alone = core.trace(x[b : b + 1, : lengths[b]], {name: s[b : b + 1] for name, s in start.items()})
        assert alone.read.shape == (1, lengths[b], R, H, V)
        if not reset[b, : lengths[b]].any():
            for field in dataclasses.fields(trace):
                if field.name != "start":
                    whole, own = getattr(trace, field.name)[b, : lengths[b]], getattr(alone, field.name)[0]
                    assert_close(whole, own)
    past = torch.arange(T) >= lengths.unsqueeze(1)
    assert (trace.keeps[past] == 1).all()
    assert not trace.strengths[past].any()
    assert not trace.keeps[0, 2].any()


@pytest.mark.parametrize("max_strength", [1.0, 2.0])
def test_a_read_is_the_sum_of_what_was_written(max_strength):
    core, x, query = some_core(max_strength=max_strength), draw(B, T, I), draw(B, H, K, seed=6)
    trace = core.trace(x)
    weights = trace.origins(query)
    assert weights.shape == (B, T, H)
    assert_close((weights.unsqueeze(-1) * trace.values).sum(1), (query.unsqueeze(-2) @ trace.memory[:, -1])[..., 0, :])
    assert not trace.left_of_start(query).any()
    for t in range(T):  # what each read before the write rests on: the steps before it
        for j in range(R):
            earlier = trace.origins(trace.read_keys[:, t, j], after=t)
            assert not earlier[:, t:].any()
            assert_close((earlier.unsqueeze(-1) * trace.values).sum(1), trace.read[:, t, j])


def test_a_read_rests_on_the_start_too_and_on_nothing_before_a_reset():
    core, x, query = some_core(), draw(B, T, I), draw(B, H, K, seed=6)
    start, lengths = some_start(core), torch.tensor([3, 8, 0, 1, 6])
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[0, 2] = reset[0, 5] = reset[1, 4] = True
    _, state = core(x, start, lengths=lengths, reset=reset)
    trace = core.trace(x, start, lengths=lengths, reset=reset)
    weights, left = trace.origins(query), trace.left_of_start(query)
    read = (query.unsqueeze(-2) @ state["fast"]).squeeze(-2)
    assert_close((weights.unsqueeze(-1) * trace.values).sum(1) + left, read)
    assert (left.abs().amax((1, 2)) > 0).tolist() == [False, False, True, True, True]
    rests_on = (weights != 0).all(2)
    expected = [range(2, 3), range(4, 8), range(0), range(1), range(6)]
    assert [torch.nonzero(row).flatten().tolist() for row in rests_on] == [list(steps) for steps in expected]


def test_a_trace_has_slopes():
    core = some_core()
    x = draw(B, T, I).requires_grad_()
    trace = core.trace(x)
    (gradient,) = torch.autograd.grad(trace.origins(draw(B, H, K, seed=6))[:, 2].sum(), x)
    assert (gradient.abs().amax((0, 2)) > 0).all()  # of later steps too, which write over it


def test_a_trace_of_nothing_has_the_shapes():
    trace = some_core().trace(draw(B, 0, I))
    assert trace.read_keys.shape == (B, 0, R, H, K)
    assert trace.memory.shape == (B, 0, H, K, V)
    assert trace.origins(draw(B, H, K)).shape == (B, 0, H)


def test_without_carry_the_state_is_the_memory_alone():
    core, x = some_core(carry=False), draw(B, T, I)
    _, state = core(x)
    _, ragged = core(x, lengths=torch.tensor([3, 8, 0, 1, 6]))
    _, stepped = core.step(x[:, 0], state)
    asked = core.snapshots(x, torch.tensor([1, 4, 1]), torch.tensor([2, 8, 0]))
    for found, rows in ((core.initial_state(B), B), (state, B), (ragged, B), (stepped, B), (asked, 3)):
        assert list(found) == ["fast"]
        assert state_bytes(found) == rows * H * K * V * 8
    assert state_bytes(some_core().initial_state(B)) == B * (H * K * V + W) * 8


def test_snapshots_also_compile():
    core, x = some_core(), draw(B, T, I)
    rows, at = torch.tensor([4, 1, 1, 0]), torch.tensor([2, 8, 0, 2])
    compiled = torch.compile(core.snapshots, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, rows, at), core.snapshots(x, rows, at), rtol=0.0, atol=1e-12)


def test_initial_weights_are_those_of_the_relational_memory_and_facts_are_written_whole_and_kept():
    core = FastWeightMemory(64, 100)
    for name, module in core.named_modules():
        if name.startswith("read_value."):
            assert not module.weight.any()
            assert not module.bias.any()
        elif isinstance(module, nn.Linear):
            std = module.in_features**-0.5
            assert module.weight.abs().max() <= 2 * std
            assert module.weight.std().item() == pytest.approx(0.88 * std, rel=0.05)  # cut at two, not rescaled
            if name == "write":
                assert module.bias.tolist() == [0.0] * (len(module.bias) - 8) + [4.0] * 4 + [8.0] * 4
            else:
                assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("size", ["input_size", "hidden_size", "num_heads", "key_size", "value_size", "reads"])
def test_sizes_are_checked(size):
    with pytest.raises(InputError, match=f"FastWeightMemory: {size} must be a whole number of at least 1"):
        FastWeightMemory(**{"input_size": 3, "hidden_size": 8, size: 0})


@pytest.mark.parametrize("strength", [0.0, -1.0, 2.5, float("nan"), True, "1"])
def test_a_strength_outside_of_its_range_is_refused(strength):
    with pytest.raises(InputError) as error:
        FastWeightMemory(3, 8, max_strength=strength)
    assert str(error.value) == (
        "FastWeightMemory: max_strength is out of range\n"
        f"  got       {strength!r}\n"
        "  expected  a number above 0 and at most 2"
    )


def test_a_read_that_cannot_be_is_refused():
    trace = some_core().trace(draw(B, T, I))
    with pytest.raises(InputError, match="FastWeightTrace: query has the wrong size on axis K"):
        trace.origins(draw(B, H, V))
    with pytest.raises(InputError, match=r"query has another dtype than the trace\n  got       torch\.float32\n"):
        trace.origins(draw(B, H, K).float())
    with pytest.raises(InputError, match="query is on another device\n  got       meta\n  expected  cpu"):
        trace.left_of_start(draw(B, H, K).to("meta"))
    with pytest.raises(
        InputError, match="after must be a number of steps of the trace\n  got       9\n  expected  0 to"
    ):
        trace.origins(draw(B, H, K), after=9)


def every_result(backend, carry):
    """Outputs, states, snapshots and all gradients of one layer by one backend, with lengths and resets."""
    core = some_core(carry=carry, backend=backend)
    x = draw(B, T, I, seed=13).requires_grad_()  # of some others, gradients magnify roundings a thousandfold
    state = {name: tensor.requires_grad_() for name, tensor in some_start(core).items()}
    lengths, reset = torch.tensor([T, 0, 3, 6, 1]), draw(B, T, seed=2) > 1
    y, last = core(x, state, lengths=lengths, reset=reset)
    seen = core.snapshots(x, torch.tensor([4, 0, 0, 2]), torch.tensor([0, T, 2, 3]), state)
    made = [y, *last.values(), *seen.values()]
    loss = sum((tensor * draw(*tensor.shape, seed=i)).sum() for i, tensor in enumerate(made))
    return [*made, *torch.autograd.grad(loss, [x, *state.values(), *core.parameters()])]


@pytest.mark.parametrize("carry", [True, False])
def test_kernels_compute_what_the_steps_define(carry):
    if "cpu" not in str(FastWeightMemory(3, 7).backend_report()):
        pytest.skip("the compiled kernels were not built")
    for by_kernels, by_steps in zip(every_result("cpu", carry), every_result("reference", carry), strict=True):
        torch.testing.assert_close(by_kernels, by_steps, rtol=0, atol=1e-11)


def test_a_backend_is_obeyed_or_refused(compiled):
    assert FastWeightMemory(3, 7, backend="reference").backend_report().runs == "reference"
    with pytest.raises(InputError, match="FastWeightMemory: backend is not a known choice"):
        FastWeightMemory(3, 7, backend="triton")
    core = FastWeightMemory(3, 7, backend="cpu")
    with torch.autocast("cpu"), pytest.raises(InputError, match=r"backend 'cpu' cannot run here: .*autocast"):
        core(torch.zeros(2, 4, 3))
    with torch.autocast("cpu"):
        assert FastWeightMemory(3, 7).backend_report().runs == "reference"


def with_hook(core):
    core.write.register_forward_hook(lambda module, given, made: made)


def with_another_layer(core):
    core.mlp_in = nn.Sequential(nn.Linear(W, 3), nn.Linear(3, W)).double()


def with_another_size(core):
    core.mlp_in, core.mlp_out = nn.Linear(W, 20).double(), nn.Linear(20, W).double()


def with_another_epsilon(core):
    core.mlp_norm.eps = 1.0


@pytest.mark.parametrize("change", [with_hook, with_another_layer, with_another_size, with_another_epsilon])
def test_what_kernels_cannot_know_runs_step_by_step_or_is_refused_by_name(change):
    cores = {backend: some_core(backend=backend) for backend in ("auto", "reference", "cpu")}
    for core in cores.values():
        torch.manual_seed(6)
        change(core)
    x = draw(B, T, I, seed=1)
    assert torch.equal(cores["auto"](x)[0], cores["reference"](x)[0])
    assert cores["auto"].backend_report().runs == "reference"
    with pytest.raises(InputError, match="backend 'cpu' cannot run here"):
        cores["cpu"](x)
