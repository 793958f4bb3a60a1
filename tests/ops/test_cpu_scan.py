"""What the CPU scan does besides computing, and what it refuses."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from functools import partial

import pytest
import torch
from cpu_scan_cases import SIZES, B, T, cell_and_input, check_exact, options_for, relational_scan_cpu, run

from relational_rnn import InputError
from relational_rnn.ops.relational_scan import relational_scan, relational_scan_reference
from relational_rnn.ops.relational_scan.cpu import unsupported
from relational_rnn.testing import assert_as_good_as

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.mark.parametrize("option", ["reset", "both"])
def test_every_sequence_may_have_its_own_initial_memory(option):
    check_exact("unit", option, per_sequence=True)


@pytest.mark.parametrize("axis", ["B", "T", "both"])
def test_single_sequences_and_steps(axis, rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    if axis in ("B", "both"):
        x, memory = x[:1], memory[:1]
    if axis in ("T", "both"):
        x = x[:, :1]
    got = run(relational_scan_cpu, cell, x, memory)
    for name, expected in run(relational_scan_reference, cell, x, memory).items():
        assert_as_good_as(name, got[name], expected, expected)


@pytest.mark.parametrize("shape", [(0, 7), (5, 0)])
def test_nothing_to_do(shape, rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng, steps=shape[1], batch=shape[0])
    memory.requires_grad_()
    outputs, final, _ = relational_scan_cpu(x, memory, cell.scan_parameters())
    assert outputs.shape == (*shape, 3, 36)
    assert torch.equal(final, memory)
    (final.sum() + outputs.sum()).backward()
    assert torch.equal(memory.grad, torch.ones_like(memory))


@pytest.mark.parametrize("kind", ["unit, 2 blocks, wide", "memory, matrix", "chapter", "no gates"])
def test_a_parameter_of_another_size_is_named_and_not_read_beyond_its_end(kind, rng):
    cell, x, memory = cell_and_input(SIZES[kind], rng)
    relational_scan_cpu(x, memory, cell.scan_parameters())
    refused = []
    for name, module in cell.named_modules():
        for kept in ("weight", "bias"):
            whole = getattr(module, kept, None)
            if whole is None:
                continue
            setattr(module, kept, torch.nn.Parameter(whole[:-1].detach().clone()))
            with pytest.raises(InputError, match="where the other sizes need") as error:
                relational_scan_cpu(x, memory, cell.scan_parameters())
            refused.append((name, str(error.value).split(" has ")[0]))
            setattr(module, kept, whole)
    assert {name for name, _ in refused} == {name.rpartition(".")[0] for name, _ in cell.named_parameters()}
    assert ("mlp.0", "relational_scan: mlp[0]") in refused
    assert cell.gate_style is None or ("gate_memory", "relational_scan: gate_memory") in refused
    relational_scan_cpu(x, memory, cell.scan_parameters())


@pytest.mark.parametrize("activations", ["store", "recompute"])
def test_repeats_are_equal(activations, rng):
    cell, x, memory = cell_and_input(SIZES["unit, 2 blocks, wide"], rng)
    chosen = options_for("both", cell, x, rng)
    scan = partial(relational_scan_cpu, activations=activations)
    first = run(scan, cell, x, memory, torch.float32, **chosen)
    for _ in range(3):
        for name, value in run(scan, cell, x, memory, torch.float32, **chosen).items():
            assert torch.equal(value, first[name]), name


def test_both_activation_modes_give_equal_outputs(rng):
    cell, x, memory = cell_and_input(SIZES["unit, wide"], rng)
    outputs = [
        relational_scan_cpu(x, memory, cell.scan_parameters(), activations=mode)[0] for mode in ("store", "recompute")
    ]
    with torch.no_grad():
        outputs.append(relational_scan_cpu(x, memory, cell.scan_parameters())[0])
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("wanted", ["x", "memory", "initial", "weight", "norm"])
@pytest.mark.parametrize("which", ["outputs", "final"])
def test_only_some_gradients(wanted, which, rng):
    """Whatever alone asks for a gradient gets it, from either result alone."""
    gradients = []
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    initial = torch.randn(3, 36, generator=rng, dtype=x.dtype)
    reset = torch.rand(B, T, generator=rng) < 0.3
    d = torch.randn(B, T, 3, 36, generator=rng, dtype=x.dtype)
    for p in cell.parameters():
        p.requires_grad_(False)
    leaves = {"x": x, "memory": memory, "initial": initial, "weight": cell.mlp[1].weight}
    leaf = leaves.get(wanted, cell.blocks[0].qkv_norm.bias).requires_grad_()
    for scan in (relational_scan_cpu, relational_scan_reference):
        outputs, final, _ = scan(x, memory, cell.scan_parameters(), reset=reset, initial=initial)
        loss = (outputs * d).sum() if which == "outputs" else (final * d[:, 0]).sum()
        gradients.append(torch.autograd.grad(loss, leaf)[0])
    assert_as_good_as(wanted, *gradients, gradients[1])


def test_inputs_need_not_be_contiguous(rng):
    cell, x, memory = cell_and_input(SIZES["memory, matrix"], rng)
    spread = x.transpose(0, 3).contiguous().transpose(0, 3)
    assert not spread.is_contiguous()
    expected = run(relational_scan_reference, cell, x, memory)
    got = run(relational_scan_cpu, cell, spread, memory.transpose(0, 2).contiguous().transpose(0, 2))
    for name, value in got.items():
        assert_as_good_as(name, value, expected[name], expected[name])


def test_gradients_of_gradients(rng):
    """A gradient penalty: the gradient itself is differentiated."""
    cell, x, memory = cell_and_input(SIZES["unit"], rng, steps=3, batch=2)
    d = torch.randn(2, 3, 3, 36, generator=rng, dtype=x.dtype)
    x.requires_grad_()
    found = []
    for scan in (relational_scan_cpu, relational_scan_reference):
        outputs, *_ = scan(x, memory, cell.scan_parameters())
        (g,) = torch.autograd.grad((outputs.square() * d).sum(), x, create_graph=True)
        # The last layer's gate and mlp norm take part; every parameter that the first gradient depends on is reached.
        found.append(torch.autograd.grad(g.square().sum(), [x, *cell.parameters()], allow_unused=True))
    for got, expected in zip(*found, strict=True):
        assert (got is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12 * expected.abs().max().item())


def bytes_kept(cell, x, memory, activations):
    """Bytes that the graph of one call holds, beyond the tensors that the caller gave."""
    own = {t.untyped_storage().data_ptr() for t in (x, memory, *cell.parameters())}
    kept = {}

    def pack(t):
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        outputs, *_ = relational_scan_cpu(x, memory, cell.scan_parameters(), activations=activations)
    assert outputs.requires_grad == (activations is not None and torch.is_grad_enabled())
    return sum(kept.values())


def test_recompute_keeps_memory_like_the_square_root_of_time(rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng, steps=576, batch=2)
    short, long = (bytes_kept(cell, x[:, :n], memory, "recompute") for n in (36, 576))
    assert long == 4 * short == 24 * memory.nbytes
    assert bytes_kept(cell, x, memory, "store") > 100 * long


def test_nothing_is_kept_without_gradients(rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            outputs, final, _ = relational_scan_cpu(x, memory, cell.scan_parameters())
            assert outputs.grad_fn is None
            assert final.grad_fn is None
            assert bytes_kept(cell, x, memory, "store") == 0
    for p in cell.parameters():
        p.requires_grad_(False)
    outputs, *_ = relational_scan_cpu(x, memory, cell.scan_parameters())
    assert not outputs.requires_grad


def test_the_graph_goes_away_with_its_outputs(rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    outputs, final, _ = relational_scan_cpu(x, memory, cell.scan_parameters())
    node = weakref.ref(outputs.grad_fn)
    gc.disable()  # by reference counts alone: nothing refers to itself
    try:
        del outputs, final
        assert node() is None
    finally:
        gc.enable()


def test_a_parameter_changed_in_between_is_noticed(rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    outputs, *_ = relational_scan_cpu(x, memory, cell.scan_parameters())
    with torch.no_grad():
        cell.mlp[0].weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


def test_gates_at_infinity_leave_the_memory_bit_for_bit(rng):
    sizes = SIZES["unit"] | dict(forget_bias=math.inf, input_bias=-math.inf)
    cell, x, memory = cell_and_input(sizes, rng)
    outputs, final, _ = relational_scan_cpu(x, memory, cell.scan_parameters())
    assert torch.equal(final, memory)
    assert torch.equal(outputs[:, 3], memory)


def test_what_is_refused(rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    p = cell.scan_parameters()
    assert unsupported(x, memory, p) is None
    with pytest.raises(InputError) as error:
        relational_scan(x.float(), memory, p, backend="cpu")
    assert str(error.value) == (
        "relational_scan: backend 'cpu' cannot run here: it needs one dtype throughout, not float32, float64\n"
        "  hint      backend='reference' can run here, and so can 'auto'."
    )
    half = copy.deepcopy(cell).to(torch.bfloat16).scan_parameters()
    assert unsupported(x.bfloat16(), memory.bfloat16(), half) == "it computes in float32 or float64, not in bfloat16"
    assert unsupported(x.to("meta"), memory, p) == "it runs on the CPU, not on meta"
    with torch.autocast("cpu"):
        assert unsupported(x, memory, p) == "it does not follow autocast"
    reasons = []
    torch.func.vmap(lambda row: reasons.append(unsupported(x, memory, p)) or row)(x)
    with torch.autograd.forward_ad.dual_level():
        reasons.append(unsupported(x, memory, p))
    assert reasons == ["it does not work under the transforms of torch.func", "it has no forward-mode derivative"]
    with pytest.raises(InputError, match="activations is not a known choice"):
        relational_scan(x, memory, p, backend="cpu", activations="keep")


@pytest.mark.parametrize("activations", ["store", "recompute"])
def test_cotangents_past_a_length_are_never_looked_at(activations, rng):
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    lengths = options_for("lengths", cell, x, rng)["lengths"]
    scan = relational_scan_cpu(
        x, memory, cell.scan_parameters(), lengths=lengths, input_rows=True, activations=activations
    )
    happens = (torch.arange(T) < lengths[:, None])[:, :, None, None]
    results = [scan.memories, scan.input_rows]
    cotangents = [torch.randn(y.shape, generator=rng, dtype=y.dtype) for y in results]
    found = [
        torch.autograd.grad(
            results, list(cell.parameters()), [d.where(happens, past) for d in cotangents], retain_graph=True
        )
        for past in (0.0, math.nan)
    ]
    for got, expected in zip(*found, strict=True):
        assert torch.equal(got, expected)
