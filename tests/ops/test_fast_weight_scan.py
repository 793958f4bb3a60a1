"""The fast-weight scan: its definition, the compiled kernels against it, and what they refuse."""

from __future__ import annotations

import ctypes
import math
from functools import partial

import pytest
import torch
from fast_weight_cases import OPTIONS, SIZES, B, T, check_exact, check_single, draw, problem, results_of, run, told

from relational_rnn import InputError
from relational_rnn.ops.fast_weight_scan import (
    FastWeightState,
    Linear,
    choose,
    cpu,
    fast_weight_scan,
    fast_weight_scan_reference,
)
from relational_rnn.ops.fast_weight_scan.cpu import FastCall, fast_weight_scan_cpu, unsupported
from relational_rnn.ops.relational_scan import _native
from relational_rnn.ops.relational_scan.spec import flatten, refill
from relational_rnn.testing import assert_as_good_as

INSTANCES = ["avx512", "avx2", "baseline"]


@pytest.fixture
def cut(monkeypatch, compiled):
    """Three threads, and tiles of two sequences, the last of them shorter."""
    monkeypatch.setattr(cpu, "TILE_SEQUENCES", 2)
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def use(instance, monkeypatch):
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", instance)
    try:
        _native.find()
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("option", "carry"), [("all", False), ("both", True)])
def test_gradients_of_the_definition(option, carry, rng):
    p, state, params, initial = draw(rng, width=3, heads=2, key=2, value=3, reads=1, carry=carry, batch=2, steps=3)
    options = told(option, p, initial, rng)
    p = p.nan_to_num(0.5)
    initial = options.pop("initial", None)
    leaves = [p, *state, *(initial or ()), *flatten(params)]
    leaves = [leaf.requires_grad_() for leaf in leaves if leaf is not None]

    def scan(p, *tensors):
        tensors = list(tensors)
        first, *more = (
            FastWeightState(tensors.pop(0), tensors.pop(0) if carry else None) for _ in range(1 + (initial is not None))
        )
        given = refill(params, iter(tensors))
        made = fast_weight_scan_reference(p, first, given, initial=more[0] if more else None, **options)
        return tuple(results_of(made).values())

    assert torch.autograd.gradcheck(scan, leaves)


def test_the_definition_written_out(rng):
    """Sequence by sequence, head by head, with vectors and matrices alone."""
    p, state, params, _ = draw(rng, width=7, heads=2, key=3, value=5, reads=1, max_strength=1.5)
    made = fast_weight_scan_reference(p, state, params)

    def norm(h, n):
        return (h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt() * n.weight + n.bias

    def key(z):
        return z / (z @ z + 1e-6).sqrt()

    one = params.reads[0]
    for b in range(B):
        memory, y = [state.fast[b, h].clone() for h in range(2)], state.carried[b]
        for t in range(T):
            h, keys = (p[b, t] + params.recurrent @ y).split([7, 6])
            q = one.key.weight @ h + one.key.bias
            found = torch.cat([memory[i].T @ key(q[3 * i : 3 * i + 3]) for i in range(2)])
            h = norm(h + one.value.weight @ found + one.value.bias, one.norm)
            hidden = (params.mlp_in.weight @ h + params.mlp_in.bias).clamp(min=0)
            h = norm(h + params.mlp_out.weight @ hidden + params.mlp_out.bias, params.mlp_norm)
            z = params.write.weight @ h + params.write.bias
            found = []
            for i in range(2):
                k, q = (key(x[3 * i : 3 * i + 3]) for x in (keys, z))
                v, beta, alpha = z[6 + 5 * i : 11 + 5 * i], 1.5 * z[16 + i].sigmoid(), z[18 + i].sigmoid()
                kept = alpha * memory[i]
                memory[i] = kept + torch.outer(k, beta * (v - kept.T @ k))
                found.append(memory[i].T @ q)
            y = norm(h + params.out.weight @ torch.cat(found) + params.out.bias, params.out_norm)
            torch.testing.assert_close(made.outputs[b, t], y)
        torch.testing.assert_close(made.final.fast[b], torch.stack(memory))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", SIZES)
def test_the_kernels_are_the_definition(name, option, compiled):
    check_exact(name, option)


@pytest.mark.parametrize("option", ["all", "states", "both"])
@pytest.mark.parametrize("name", SIZES)
def test_they_are_the_definition_in_pieces(name, option, cut):
    check_exact(name, option)


@pytest.mark.parametrize("option", ["states", "both"])
def test_past_a_tile_and_past_a_chain_of_sums(option, compiled):
    """More sequences than a tile has, more rows than are summed in one go."""
    assert cpu.TILE_SEQUENCES < 67
    check_exact("two reads", option, batch=67, steps=11)


@pytest.mark.parametrize("instance", INSTANCES)
def test_every_instance_is_the_definition(instance, monkeypatch, cut):
    use(instance, monkeypatch)
    for name in SIZES:
        check_exact(name, "both")
        check_single(name, "both")


@pytest.mark.parametrize("name", SIZES)
def test_single_precision_is_as_good_as_that_of_the_definition(name, compiled):
    check_single(name, "all")


@pytest.mark.parametrize("instance", INSTANCES)
@pytest.mark.parametrize("value", [1, 4, 8, 15, 16, 31, 32, 33, 64])
def test_values_around_those_of_vectors(value, instance, rng, monkeypatch):
    use(instance, monkeypatch)
    p, state, params, _ = draw(rng, width=17, heads=2, key=3, value=value, reads=1, steps=3)
    expected = run(fast_weight_scan_reference, p, state, params)
    for name, got in run(fast_weight_scan_cpu, p, state, params).items():
        assert_as_good_as(name, got, expected[name], expected[name])


def test_memory_that_was_never_written_is_never_read(monkeypatch, cut):
    """Fresh memory is full of NaN: whatever the kernels read they must have written."""
    for name in SIZES:
        for option in OPTIONS:
            problem(name, option)  # the definition is not what is poisoned

    def poisoned(function):
        def filled(*args, **kwargs):
            made = function(*args, **kwargs)
            if made.is_floating_point():
                made.detach().fill_(math.nan)
            return made

        return filled

    for owner, name in [
        (torch, "empty"),
        (torch, "empty_like"),
        (torch.Tensor, "new_empty"),
        (_native._Memory, "take"),
    ]:
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
    assert torch.empty(2).isnan().all()
    monkeypatch.setattr("relational_rnn.ops.relational_scan._native._HUGE", 1 << 12)
    for name in SIZES:
        for option in OPTIONS:
            check_exact(name, option)


def test_threads_change_nothing_but_the_order_of_sums(compiled):
    """Outputs, memories and the gradients of single sequences are equal bit by bit, whatever the number of threads."""
    given, options, _ = problem("wide", "both", batch=9)
    found = {}
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            found[threads] = run(fast_weight_scan_cpu, *given, torch.float32, **options)
    finally:
        torch.set_num_threads(1)
    shared = {"p", "state", "carried", "initial", "initial carried"}
    for other in found.values():
        for name, value in other.items():
            if not name.startswith("gradient of ") or name[12:] in shared:
                assert torch.equal(value, found[1][name]), name
            torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-4)


def test_threads_of_python_do_the_same_as_those_of_torch(monkeypatch, cut):
    """Where no OpenMP is at hand."""
    kernels = _native.find()
    lonely = type(kernels)(kernels.library, kernels.instance, kernels.name, None)
    monkeypatch.setattr(cpu, "find", lambda: lonely)
    check_exact("two reads", "both")


@pytest.mark.parametrize("option", OPTIONS)
def test_without_gradients_results_are_the_same_and_nothing_is_kept(option, compiled, monkeypatch):
    (p, state, params), options, oracle = problem("two reads", option)
    make, taken = cpu.Tables, []
    monkeypatch.setattr(cpu, "Tables", lambda *sizes: taken.append(make(*sizes)) or taken[-1])
    for name, value in results_of(fast_weight_scan_cpu(p, state, params, **options)).items():
        assert value.grad_fn is None
        assert_as_good_as(name, value, oracle[name], oracle[name])
    s = cpu.sizes_of(p, state, params, options["outputs_wanted"])
    row = sum(cpu.activation_widths(s).values())
    assert taken[0].memory.numel() < s.batch * (row + 16 * len(taken[0].widths)) < s.steps * s.batch * row


@pytest.mark.parametrize("wanted", ["p", "state", "initial", "write", "norm"])
@pytest.mark.parametrize("which", ["outputs", "states", "final"])
def test_only_some_gradients(wanted, which, compiled):
    """Whatever alone asks for a gradient gets it, from either result alone."""
    (p, state, params), options, _ = problem("no reads", "reset")
    leaves = {"p": p, "state": state.fast, "initial": options["initial"].fast, "write": params.write.weight}
    leaf = leaves.get(wanted, params.mlp_norm.bias)
    gradients = []
    leaf.requires_grad_()
    try:
        for scan in (fast_weight_scan_cpu, fast_weight_scan_reference):
            y = results_of(scan(p, state, params, **options))[which]
            d = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).double()
            gradients.append(torch.autograd.grad((y * d).sum(), leaf)[0])
    finally:
        leaf.requires_grad_(False)
    assert_as_good_as(wanted, *gradients, gradients[1])


def test_inputs_need_not_be_contiguous(compiled):
    (p, state, params), _, _ = problem("two reads", "all")
    expected = results_of(fast_weight_scan_reference(p, state, params))
    spread = p.transpose(0, 2).contiguous().transpose(0, 2)
    turned = FastWeightState(state.fast.transpose(1, 3).contiguous().transpose(1, 3), state.carried)
    lain = refill(params, (t.transpose(0, -1).contiguous().transpose(0, -1) for t in flatten(params)))
    for name, value in results_of(fast_weight_scan_cpu(spread, turned, lain)).items():
        assert_as_good_as(name, value, expected[name], expected[name])


def test_cotangents_past_a_length_are_never_looked_at(compiled):
    (p, state, params), options, _ = problem("two reads", "both")
    p = p.clone().requires_grad_()
    made = fast_weight_scan_cpu(p, state, params, **options)
    happens = torch.arange(T) < options["lengths"][:, None]
    found = []
    for past in (0.0, math.nan):
        d_y = torch.ones_like(made.outputs).where(happens[:, :, None], past)
        d_s = torch.ones_like(made.states).where(happens[:, :, None, None, None], past)
        found.append(torch.autograd.grad([made.outputs, made.states], p, [d_y, d_s], retain_graph=True)[0])
    assert torch.equal(*found)
    assert found[0].isfinite().all()


def test_gradients_of_gradients(compiled):
    (p, state, params), _, _ = problem("two reads", "all", batch=2, steps=3)
    tensors = [t.clone().requires_grad_() for t in flatten(params)]
    params = refill(params, iter(tensors))
    found = []
    for scan in (fast_weight_scan_cpu, fast_weight_scan_reference):
        leaf = p.clone().requires_grad_()
        made = scan(leaf, state, params, states_wanted=True)
        loss = made.outputs.pow(3).sum() + made.states.pow(3).sum()
        (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), [leaf, *tensors]))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12 * expected.abs().max().item())


@pytest.mark.parametrize("shape", [(0, T), (B, 0)])
def test_nothing_to_do(shape, rng, compiled):
    p, state, params, _ = draw(rng, **SIZES["two reads"], batch=shape[0], steps=shape[1])
    made = fast_weight_scan(p, state, params, states_wanted=True, backend="cpu")
    assert made.outputs.shape == (*shape, 13)
    assert made.states.shape == (*shape, 3, 5, 9)
    assert torch.equal(made.final.fast, state.fast)


def test_a_parameter_of_another_size_is_named_and_not_read_beyond_its_end(compiled):
    (p, state, params), options, _ = problem("two reads", "reset")
    scan = partial(fast_weight_scan, backend="cpu")
    named = []
    tensors = flatten(params)
    for i, whole in enumerate(tensors):
        short = [*tensors[:i], whole[:-1], *tensors[i + 1 :]]
        with pytest.raises(InputError, match="where the other sizes need") as error:
            scan(p, state, refill(params, iter(short)), **options)
        named.append(str(error.value).split(" has ")[0].split(": ")[-1])
    assert len(set(named)) == len(tensors)
    assert {"recurrent", "write.bias", "reads[1].key.weight", "out_norm.bias"} <= set(named)
    initial = FastWeightState(options["initial"].fast[1:], options["initial"].carried)
    with pytest.raises(InputError, match=r"initial\.fast has \[4, 3, 5, 9\] where the other sizes need \[5, 3, 5, 9\]"):
        scan(p, state, params, **options | {"initial": initial})
    with pytest.raises(InputError, match=r"state\.carried is missing"):
        scan(p, FastWeightState(state.fast), params)
    with pytest.raises(InputError, match=r"num_heads is 2 where state\.fast has 3 heads"):
        scan(p, state, params._replace(num_heads=2))


def test_what_is_refused_and_what_runs(compiled, monkeypatch):
    (p, state, params), _, _ = problem("two reads", "all")
    assert str(choose("auto", p, state, params)) == ("backend='auto' runs 'cpu': it is the fastest that can run here")
    assert str(choose("auto", p.float(), state, params)) == (
        "backend='auto' runs 'reference': the CPU scan cannot run here: it needs one dtype throughout, "
        "not float32, float64"
    )
    assert choose("reference", p, state, params).runs == "reference"
    with pytest.raises(InputError) as error:
        fast_weight_scan(p.float(), state, params, backend="cpu")
    assert str(error.value) == (
        "fast_weight_scan: backend 'cpu' cannot run here: it needs one dtype throughout, not float32, float64\n"
        "  hint      backend='reference' can run here, and so can 'auto'."
    )
    with pytest.raises(InputError, match="backend is not a known choice"):
        choose("triton", p, state, params)
    with torch.autocast("cpu"):
        assert unsupported(p, state, params) == "it does not follow autocast"
    reasons = []
    torch.func.vmap(lambda row: reasons.append(unsupported(p, state, params)) or row)(p)
    with torch.autograd.forward_ad.dual_level():
        reasons.append(unsupported(p, state, params))
    assert reasons == ["it does not work under the transforms of torch.func", "it has no forward-mode derivative"]
    half = params._replace(write=Linear(params.write.weight.bfloat16(), params.write.bias))
    assert unsupported(p, state, half) == "it needs one dtype throughout, not bfloat16, float64"
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "off")
    why = "it needs the compiled kernels, and RELATIONAL_RNN_KERNELS=off"
    assert unsupported(p, state, params) == why
    assert choose("auto", p, state, params).runs == "reference"


def test_both_sides_mean_the_same_struct(compiled):
    assert _native.find().library.fast_call_bytes() == ctypes.sizeof(FastCall)


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lengths": torch.tensor([3])}, "lengths"),
        ({"lengths": torch.tensor([3.0, 1.0, 2.0, 0.5, 1.0])}, "lengths must be whole numbers"),
        ({"lengths": torch.tensor([3, 1, 2, 0, 99])}, "lengths are out of range"),
        ({"lengths": torch.tensor([3, 1, 2, 0, -1])}, "lengths are out of range"),
        ({"lengths": torch.ones(5, dtype=torch.int64, device="meta")}, "lengths is on another device"),
        ({"reset": torch.zeros(5, 7, dtype=torch.bool, device="meta")}, "reset is on another device"),
        ({"reset": torch.zeros(5, 2, dtype=torch.bool)}, "reset"),
        ({"reset": torch.zeros(5, 7)}, "reset must be booleans"),
    ],
)
def test_lengths_and_resets_that_do_not_fit_are_refused(backend, given, message):
    (p, state, params), _, _ = problem("two reads", "reset")
    assert p.shape[:2] == (5, 7)
    with pytest.raises(InputError, match=message):
        fast_weight_scan(p, state, params, backend=backend, **given)
