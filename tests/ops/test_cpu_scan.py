"""The CPU scan against the definition, in everything a call can be, and what it refuses."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from functools import cache, partial

import numpy as np
import pytest
import torch

from relational_rnn import InputError
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import cpu as module
from relational_rnn.ops.relational_scan import relational_scan_reference
from relational_rnn.ops.relational_scan.cpu import relational_scan_cpu, unsupported
from relational_rnn.testing import assert_as_good_as

B, T, INPUTS = 5, 7, 4
# Every size differs on every axis. The small ones take the elementwise form of attention, the "wide" ones products.
SIZES = {
    "unit": dict(mem_slots=3, head_size=9, num_heads=4),
    "unit, wide": dict(mem_slots=6, head_size=11, num_heads=3, key_size=13),
    "unit, 3 blocks": dict(mem_slots=3, head_size=8, num_heads=3, num_blocks=3, key_size=5),
    "unit, 2 blocks, wide": dict(mem_slots=6, head_size=11, num_heads=2, num_blocks=2, key_size=12, input_rows=2),
    "unit, one slot": dict(mem_slots=1, head_size=13, num_heads=2, key_size=6, attention_mlp_layers=3),
    "unit, mixed forms": dict(mem_slots=5, head_size=12, num_heads=2, num_blocks=2, key_size=13),
    "memory, matrix": dict(mem_slots=4, head_size=10, num_heads=3, gate_style="memory", input_rows=2),
    "memory, biases": dict(
        mem_slots=2, head_size=23, num_heads=1, gate_style="memory", forget_bias=-0.5, input_bias=2.0
    ),
    "no gates": dict(mem_slots=2, head_size=11, num_heads=3, gate_style=None, attention_mlp_layers=1),
    "no gates, 2 blocks": dict(mem_slots=3, head_size=12, num_heads=2, gate_style=None, num_blocks=2, input_rows=2),
    "chapter": dict(mem_slots=3, head_size=11, num_heads=4, key_size=7, gate_style=None, formulation="chapter"),
    "chapter, wide": dict(mem_slots=6, head_size=11, num_heads=2, gate_style=None, formulation="chapter"),
    "chapter, 2 blocks, matrix": dict(
        mem_slots=3, head_size=9, num_heads=4, gate_style=None, formulation="chapter", num_blocks=2, input_rows=2
    ),
}
# Rows per tile and rows per chunk: one of each as a rule, and several, the last of them shorter.
CUTS = {"whole": (512, 4096), "cut": (11, 29)}
OPTIONS = ["plain", "lengths", "reset", "both"]


def cell_and_input(sizes, rng, steps=T, batch=B):
    """A cell with biases and norms away from 0 and 1, so that none can be left out; small weights keep it tame.

    All values are float32 numbers, so that the same problem can be given in float32.
    """
    cell = RelationalMemoryCell(INPUTS, **sizes, dtype=torch.float64)
    with torch.no_grad():
        for p in cell.parameters():
            p.copy_(
                torch.randn(p.shape, generator=rng, dtype=p.dtype) * (0.5 * p.shape[-1] ** -0.5 if p.dim() > 1 else 0.3)
            )
        for name, p in cell.named_parameters():
            if "norm.weight" in name:
                p.add_(1)
    x = torch.randn(batch, steps, cell.input_rows or 1, INPUTS, generator=rng)
    memory = torch.randn(batch, cell.mem_slots, cell.width, generator=rng)
    return cell.float().double(), x.double(), memory.double()


def options_for(option, cell, x, rng, per_sequence=False):
    """Keyword arguments of a scan; lengths put NaN past every length, which is never looked at."""
    chosen = {}
    batch, steps = x.shape[:2]
    if option in ("lengths", "both"):
        chosen["lengths"] = torch.tensor([7, 3, 0, 6, 1])[:batch].clamp(max=steps)
        for row, length in enumerate(chosen["lengths"]):
            x[row, length:] = math.nan
    if option in ("reset", "both"):
        chosen["reset"] = torch.rand(batch, steps, generator=rng) < 0.3
        shape = (batch,) * per_sequence + (cell.mem_slots, cell.width)
        chosen["initial"] = torch.randn(shape, generator=rng).to(x.dtype)
    return chosen


def run(scan, cell, x, memory, dtype=torch.float64, input_rows=False, **options):
    """Names and values of everything a scan returns, and of all gradients, for random signed cotangents."""
    cell = copy.deepcopy(cell).to(dtype)
    rng = torch.Generator().manual_seed(1)
    options = {k: v.to(dtype) if k == "initial" else v for k, v in options.items()}
    leaves = {"x": x, "memory": memory} | ({"initial": options["initial"]} if "initial" in options else {})
    leaves = {name: leaf.to(dtype, copy=True).requires_grad_() for name, leaf in leaves.items()}
    if "initial" in options:
        options["initial"] = leaves["initial"]
    scanned = scan(leaves["x"], leaves["memory"], cell.scan_parameters(), **options)._asdict()
    results = {name: y for name, y in scanned.items() if name != "input_rows" or input_rows}
    cotangents = [torch.randn(y.shape, generator=rng).to(dtype) for y in results.values()]
    wanted = leaves | dict(cell.named_parameters())
    found = torch.autograd.grad(list(results.values()), list(wanted.values()), cotangents)
    result = {name: y.detach() for name, y in results.items()}
    return result | {f"gradient of {name}": g for name, g in zip(wanted, found, strict=True)}


@cache
def problem(name, option, per_sequence=False, seed=20180605, input_rows=False):
    """A cell with its input, the options, and what the definition makes of them in float64."""
    rng = torch.Generator().manual_seed(seed)
    given = cell, x, _ = cell_and_input(SIZES[name], rng)
    chosen = options_for(option, cell, x, rng, per_sequence)
    return given, chosen, run(relational_scan_reference, *given, input_rows=input_rows, **chosen)


def check_exact(name, option, per_sequence=False, input_rows=False, **arguments):
    given, chosen, oracle = problem(name, option, per_sequence, input_rows=input_rows)
    scan = partial(relational_scan_cpu, input_rows=input_rows, **arguments)
    got = run(scan, *given, input_rows=input_rows, **chosen)
    for what, value in got.items():
        assert_as_good_as(what, value, oracle[what], oracle[what])


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("activations", ["store", "recompute"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", SIZES)
def test_it_is_the_definition(name, cut, activations, option, monkeypatch):
    monkeypatch.setattr(module, "_TILE_ROWS", CUTS[cut][0])
    monkeypatch.setattr(module, "_CHUNK_ROWS", CUTS[cut][1])
    check_exact(name, option, activations=activations)


@pytest.mark.parametrize(("option", "activations", "cut"), [("plain", "store", "whole"), ("both", "recompute", "cut")])
@pytest.mark.parametrize("name", SIZES)
def test_attended_input_rows(name, option, activations, cut, monkeypatch):
    monkeypatch.setattr(module, "_TILE_ROWS", CUTS[cut][0])
    monkeypatch.setattr(module, "_CHUNK_ROWS", CUTS[cut][1])
    check_exact(name, option, activations=activations, input_rows=True)


@pytest.mark.parametrize(("option", "activations"), [("plain", "store"), ("both", "recompute")])
@pytest.mark.parametrize("name", SIZES)
def test_single_precision_is_as_good_as_that_of_the_definition(name, option, activations):
    """Four problems are judged as one, so that a peer's good luck in one of them does not decide."""
    scan = partial(relational_scan_cpu, activations=activations)
    results = {"got": [], "reference": [], "oracle": []}
    for seed in range(4):
        given, chosen, oracle = problem(name, option, seed=seed)
        results["got"].append(run(scan, *given, torch.float32, **chosen))
        results["reference"].append(run(relational_scan_reference, *given, torch.float32, **chosen))
        results["oracle"].append(oracle)
    for what in results["oracle"][0]:
        assert_as_good_as(what, *(torch.stack([r[what] for r in results[kind]]) for kind in results))


def test_the_cuts_cut(rng, monkeypatch):
    """The sizes above do straddle: several tiles, several chunks, unequal ones of both."""
    cell, x, memory = cell_and_input(SIZES["unit"], rng)
    sizes = module.sizes_of(cell.scan_parameters(), x, memory, False)
    monkeypatch.setattr(module, "_TILE_ROWS", CUTS["cut"][0])
    monkeypatch.setattr(module, "_CHUNK_ROWS", CUTS["cut"][1])
    tiles = module.plan(sizes, "store")
    assert [tile[0].sizes.batch for tile in tiles] == [3, 2]
    assert [chunk.sizes.steps for chunk in tiles[0]] == [2, 2, 2, 1]
    forms = {s.products(0) for s in (sizes_of_case(name) for name in SIZES)}
    assert forms == {True, False}
    mixed = sizes_of_case("unit, mixed forms")
    assert (mixed.products(0), mixed.products(1)) == (True, False)


def sizes_of_case(name):
    cell = RelationalMemoryCell(INPUTS, **SIZES[name])
    x, memory = torch.empty(B, T, cell.input_rows or 1, INPUTS), torch.empty(B, cell.mem_slots, cell.width)
    return module.sizes_of(cell.scan_parameters(), x, memory, False)


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


def test_memory_that_was_never_written_is_never_read(monkeypatch):
    """Fresh memory is full of NaN: whatever the scan reads it must have written."""
    for name in SIZES:
        problem(name, "both")
        problem(name, "both", input_rows=True)  # the definition is not what is poisoned

    def poisoned(function):
        def filled(*args, **kwargs):
            made = function(*args, **kwargs)
            if isinstance(made, np.ndarray):
                made.fill(math.nan)
            elif made.is_floating_point():
                made.detach().fill_(math.nan)
            return made

        return filled

    for owner, name in [
        (torch, "empty"),
        (torch, "empty_like"),
        (torch.Tensor, "new_empty"),
        (np, "empty"),
    ]:
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
    assert torch.empty(2).isnan().all()
    monkeypatch.setattr("relational_rnn.ops.relational_scan._cpu_memory._HUGE", 1 << 12)
    monkeypatch.setattr(module, "_TILE_ROWS", CUTS["cut"][0])
    for name in SIZES:
        for activations in ("store", "recompute"):
            check_exact(name, "both", activations=activations)
            check_exact(name, "both", activations=activations, input_rows=True)


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
    sizes = [module.sizes_of(cell.scan_parameters(), x[:, :n], memory, False) for n in (36, 576)]
    short, long = (bytes_kept(cell, x[:, :n], memory, "recompute") for n in (36, 576))
    assert long == 4 * short == 24 * memory.nbytes
    longest = [max(c.sizes.steps for tile in module.plan(s, "recompute") for c in tile) for s in sizes]
    assert longest == [6, 24]
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
        relational_scan_cpu(x.float(), memory, p)
    assert str(error.value) == (
        "relational_scan_cpu: cannot be used here: it needs one dtype throughout, not float32, float64\n"
        "  hint      backend='reference' computes the same, and so does 'auto'."
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
        relational_scan_cpu(x, memory, p, activations="keep")


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
