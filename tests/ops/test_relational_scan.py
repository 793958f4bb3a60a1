"""`relational_scan` against the definition, and the definition against equations transcribed independently."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F

from relational_rnn import InputError
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import (
    compiled,
    relational_scan,
    relational_scan_reference,
    relational_step,
    relational_trace,
)
from relational_rnn.ops.relational_scan.compiled import scan_as_operator
from relational_rnn.ops.relational_scan.cpu import kernels_report
from relational_rnn.ops.relational_scan.spec import flatten, spec_of

# Every size differs on every axis; B 5, T 7, I 4.
SIZES = {
    "unit": dict(mem_slots=3, head_size=2, num_heads=3, num_blocks=2, key_size=5),
    "memory, matrix": dict(mem_slots=4, head_size=3, num_heads=2, gate_style="memory", input_rows=2),
    "no gates": dict(mem_slots=2, head_size=4, num_heads=1, gate_style=None, attention_mlp_layers=3),
    "competitive": dict(mem_slots=6, head_size=2, num_heads=2, num_blocks=2, gate_style="competitive"),
    "competitive, matrix": dict(mem_slots=3, head_size=4, num_heads=2, gate_style="competitive", input_rows=2),
    "chapter": dict(mem_slots=3, head_size=2, num_heads=4, key_size=3, gate_style=None, formulation="chapter"),
}


def cell_and_input(name, rng, dtype=torch.float64, steps=7):
    torch.manual_seed(
        20180605
    )  # of the initial weights: without gates rounding grows, with some of them past the bound
    cell = RelationalMemoryCell(4, **SIZES[name], dtype=dtype)
    with torch.no_grad():
        for p in cell.parameters():  # biases and norms away from 0 and 1, so that none can be left out
            p.add_(0.3 * torch.randn(p.shape, generator=rng, dtype=dtype))
    x = torch.randn(5, steps, cell.input_rows or 1, 4, generator=rng, dtype=dtype)
    memory = torch.randn(5, cell.mem_slots, cell.width, generator=rng, dtype=dtype)
    return cell, x, memory


def run(scan, cell, x, memory, rng_seed, **options):
    """Memories, final memory, input rows and the gradients of everything, for random signed cotangents."""
    rng = torch.Generator().manual_seed(rng_seed)
    leaves = [x.clone().requires_grad_(), memory.clone().requires_grad_()]
    if options.get("initial") is not None:
        leaves.append(options["initial"].clone().requires_grad_())
        options["initial"] = leaves[-1]
    outputs = scan(leaves[0], leaves[1], cell.scan_parameters(), **options)
    assert len(outputs) == 3
    assert all(isinstance(out, torch.Tensor) for out in outputs)
    cotangents = [torch.randn(out.shape, generator=rng, dtype=out.dtype) for out in outputs]
    gradients = torch.autograd.grad(outputs, [*leaves, *cell.parameters()], cotangents)
    return [out.detach() for out in outputs] + list(gradients)


def options_for(cell, x, rng, options):
    chosen = {}
    if options in ("lengths", "both"):
        chosen["lengths"] = torch.tensor([7, 3, 0, 6, 1])
        x[1, 3:] = math.nan  # what lies past a length is never looked at
    if options in ("reset", "both"):
        chosen["reset"] = torch.rand(5, 7, generator=rng) < 0.3
        chosen["initial"] = torch.randn(cell.mem_slots, cell.width, generator=rng, dtype=x.dtype)
    return chosen


scan_by_kernels = functools.partial(scan_as_operator, kernels=True)


@pytest.mark.parametrize(
    "scan", [relational_scan, scan_as_operator, scan_by_kernels], ids=["eager", "operator", "operator, kernels"]
)
@pytest.mark.parametrize("options", ["plain", "lengths", "reset", "both"])
@pytest.mark.parametrize("name", SIZES)
def test_scan_is_the_definition(name, options, scan, rng):
    cell, x, memory = cell_and_input(name, rng)
    chosen = options_for(cell, x, rng, options)
    if scan is not relational_scan:
        chosen = {"lengths": None, "reset": None, "initial": None, **chosen}
    got = run(scan, cell, x, memory, 1, **chosen, input_rows=True)
    expected = run(relational_scan_reference, cell, x, memory, 1, **chosen)
    for g, e in zip(got, expected, strict=True):
        assert torch.isfinite(e).all()
        torch.testing.assert_close(g, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scan", [relational_scan, relational_scan_reference])
def test_no_steps_leave_the_memory(scan, rng):
    cell, x, memory = cell_and_input("unit", rng, steps=0)
    memories, final, _ = scan(x, memory, cell.scan_parameters())
    assert memories.shape == (5, 0, 3, 6)
    assert torch.equal(final, memory)


@pytest.mark.parametrize("name", SIZES)
def test_gradients_of_the_definition_are_gradients(name, rng):
    cell, x, memory = cell_and_input(name, rng, steps=2)
    x, memory = x[:2].requires_grad_(), memory[:2].requires_grad_()
    names, values = zip(*cell.named_parameters(), strict=True)

    def scan(x, memory, *values):
        class Wrapped(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.cell = cell

            def forward(self):
                return relational_scan_reference(x, memory, self.cell.scan_parameters())

        named = {f"cell.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Wrapped(), named, ())

    assert torch.autograd.gradcheck(scan, (x, memory, *values), fast_mode=True)


def test_chapter_formulation_written_out(rng):
    """X = [x; M]; M' = MultiHead(X, X, X); M = LayerNorm(M' + FF(M')), with one loop per row, head and sum."""
    cell, x, memory = cell_and_input("chapter", rng, steps=1)
    p = {name: value.detach() for name, value in cell.named_parameters()}
    heads, key, value_size = 4, 3, 2
    per_head = 2 * key + value_size
    got = relational_step(x[:, 0], memory, cell.scan_parameters())
    for b in range(5):
        table = torch.cat([p["input.weight"] @ x[b, 0, 0][:, None] + p["input.bias"][:, None], memory[b].T], dim=1).T
        new = []
        for row in table[1:]:  # the input's own row is cut off
            joined = []
            for head in range(heads):
                w = p["blocks.0.qkv.weight"][head * per_head : (head + 1) * per_head]
                c = p["blocks.0.qkv.bias"][head * per_head : (head + 1) * per_head]
                q = w[:key] @ row + c[:key]
                keys = [w[key : 2 * key] @ other + c[key : 2 * key] for other in table]
                values = [w[2 * key :] @ other + c[2 * key :] for other in table]
                scores = [math.exp(torch.dot(q, k).item() / math.sqrt(key)) for k in keys]
                joined.append(sum(s / sum(scores) * v for s, v in zip(scores, values, strict=True)))
            attended = p["blocks.0.out.weight"] @ torch.cat(joined) + p["blocks.0.out.bias"]
            hidden = (p["mlp.0.weight"] @ attended + p["mlp.0.bias"]).clamp(min=0)
            total = attended + p["mlp.1.weight"] @ hidden + p["mlp.1.bias"]
            centred = total - total.mean()
            scale = torch.sqrt((centred**2).mean() + 1e-5)
            new.append(p["blocks.0.mlp_norm.weight"] * centred / scale + p["blocks.0.mlp_norm.bias"])
        torch.testing.assert_close(got.memory[b].detach(), torch.stack(new), rtol=1e-12, atol=1e-12)


def test_chapter_attention_is_that_of_torch(rng):
    """With keys as wide as values it is `multi_head_attention_forward`, whose weights are laid out q | k | v first."""
    cell = RelationalMemoryCell(
        4, mem_slots=3, head_size=2, num_heads=3, gate_style=None, formulation="chapter", dtype=torch.float64
    )
    x = torch.randn(5, 4, generator=rng, dtype=torch.float64)
    memory = torch.randn(5, 3, 6, generator=rng, dtype=torch.float64)
    block = cell.blocks[0]
    torch.nn.init.normal_(block.qkv.bias, generator=rng)
    rows = torch.cat([cell.input(x)[:, None], memory], dim=1).transpose(0, 1)
    by_kind = block.qkv.weight.view(3, 3, 2, 6).transpose(0, 1).reshape(18, 6)  # head, kind, K, M -> kind, head, K, M
    bias_by_kind = block.qkv.bias.view(3, 3, 2).transpose(0, 1).reshape(18)
    attended, weights = F.multi_head_attention_forward(
        rows, rows, rows, 6, 3, by_kind, bias_by_kind, None, None, False, 0.0, block.out.weight, block.out.bias,
        average_attn_weights=False,
    )  # fmt: skip
    attended = attended.transpose(0, 1)
    new = block.mlp_norm(attended + cell.mlp[1](torch.relu(cell.mlp[0](attended))))
    step = relational_step(x[:, None], memory, cell.scan_parameters())
    torch.testing.assert_close(step.memory, new[:, 1:], rtol=1e-12, atol=1e-12)
    order = [1, 2, 3, 0]  # torch's rows have the input first, ours last
    torch.testing.assert_close(step.attention[0], weights[:, :, order][..., order], rtol=1e-12, atol=1e-12)


def test_operator_without_steps_copies_the_memory(rng):
    cell, x, memory = cell_and_input("unit", rng, steps=0)
    got = run(scan_as_operator, cell, x, memory, 1, lengths=None, reset=None, initial=None, input_rows=True)
    assert torch.equal(got[1], memory)
    assert got[1].data_ptr() != memory.data_ptr()


CHECKS = ["test_schema", "test_autograd_registration", "test_faketensor"]


@pytest.mark.parametrize(
    ("kernels", "checks"),
    [
        (False, CHECKS[:2]),  # how it is traced does not depend on what runs it
        (True, CHECKS),
        # compiled layers of any length are traced in the same way: tests/nn/test_relational_memory_transforms.py
        pytest.param(True, ["test_aot_dispatch_dynamic"], marks=pytest.mark.slow),
    ],
)
def test_operator_keeps_the_rules_of_operators(kernels, checks, rng):
    """Schema, fake tensors, autograd registration and dynamic shapes, as `torch.library.opcheck` sees them."""
    cell, x, memory = cell_and_input("unit", rng, steps=2)  # every operation of every step is checked
    x.requires_grad_()
    spec = spec_of(cell.scan_parameters(), input_rows=False).flat()
    arguments = (x, memory, flatten(cell.scan_parameters()), torch.tensor([2, 1, 0, 2, 1]), None, None)
    torch.library.opcheck(torch.ops.relational_rnn.scan, (*arguments, kernels, *spec), test_utils=checks)


def test_operator_runs_the_kernels_where_they_were_asked_for_and_can(rng, monkeypatch):
    """Forward, and forward again in the backward pass; under autocast, and in bfloat16, the loop."""
    if not kernels_report().startswith("compiled"):
        pytest.skip(kernels_report())
    ran = []
    for name in ("loop", "relational_scan_cpu"):
        original = getattr(compiled, name)
        monkeypatch.setattr(compiled, name, lambda *a, n=name, f=original, **o: (ran.append(n), f(*a, **o))[1])
    cell, x, memory = cell_and_input("unit", rng, torch.float32)
    nothing = (None, None, None, False)

    def both_ways(cell, x, memory, **options):
        ran.clear()
        memories, *_ = scan_as_operator(x.requires_grad_(), memory, cell.scan_parameters(), *nothing, **options)
        memories.sum().backward()
        return ran

    assert both_ways(cell, x, memory, kernels=True) == ["relational_scan_cpu"] * 2
    assert both_ways(cell, x, memory) == ["loop"] * 2
    with torch.autocast("cpu", torch.bfloat16):
        assert both_ways(cell, x, memory, kernels=True) == ["loop"] * 2
    assert both_ways(cell.bfloat16(), x.detach().bfloat16(), memory.bfloat16(), kernels=True) == ["loop"] * 2


def test_operator_has_no_double_backward_and_says_so(rng):
    cell, x, memory = cell_and_input("unit", rng)
    x.requires_grad_()
    memories, _, _ = scan_as_operator(x, memory, cell.scan_parameters(), None, None, None, False)
    with pytest.raises(RuntimeError, match="has no double backward"):
        torch.autograd.grad(memories.square().sum(), x, create_graph=True)


def test_operator_refuses_lengths_out_of_range(rng):
    """The layer looks at the values of lengths, but not while it is traced; then the operator does."""
    cell, x, memory = cell_and_input("unit", rng)
    with pytest.raises(InputError) as error:
        scan_as_operator(x, memory, cell.scan_parameters(), torch.tensor([7, 3, 0, 8, 1]), None, None, False)
    assert str(error.value) == (
        "relational_scan: lengths is out of range\n  got       values from 0 to 8\n  expected  0 to 7"
    )


@pytest.mark.parametrize("options", ["plain", "both"])
@pytest.mark.parametrize("name", SIZES)
def test_trace_is_the_scan_with_nothing_thrown_away(name, options, rng):
    cell, x, memory = cell_and_input(name, rng)
    chosen = options_for(cell, x, rng, options)
    params = cell.scan_parameters()
    scan = relational_scan(x, memory, params, **chosen, backend="reference")
    trace = relational_trace(x, memory, params, **chosen)
    assert torch.equal(trace.memory, scan.memories)
    rows = cell.mem_slots + x.shape[2]
    blocks, heads = len(cell.blocks), cell.settings.num_heads
    assert trace.attention.shape == (5, 7, blocks, heads, rows, rows)
    happens = trace.memory.flatten(2).abs().sum(-1) > 0
    sums = trace.attention.sum(-1)
    torch.testing.assert_close(sums[happens], torch.ones_like(sums[happens]))
    assert not sums[~happens].any()
    gate_width = {None: None, "memory": 1}.get(cell.gate_style, cell.width)
    if gate_width is None:
        assert trace.input_gate is trace.forget_gate is trace.share is trace.update() is None
        assert torch.equal(trace.candidate, trace.memory)
        return
    assert trace.input_gate.shape == (5, 7, cell.mem_slots, gate_width)
    came_in, stayed = trace.update()
    if cell.gate_style == "competitive":
        assert trace.forget_gate is None
        assert trace.share.shape == (5, 7, cell.mem_slots, x.shape[2])
        sums = trace.share.sum(2)
        torch.testing.assert_close(sums[happens], torch.ones_like(sums[happens]))
        assert not trace.share[~happens].any()
        assert not torch.equal(came_in, trace.input_gate)
    else:
        assert trace.share is None
        assert (came_in is trace.input_gate, stayed is trace.forget_gate) == (True, True)
        assert stayed.shape == came_in.shape
    before = torch.cat([memory[:, None], trace.memory[:, :-1]], 1)
    if "reset" in chosen:
        before = torch.where(chosen["reset"][:, :, None, None], chosen["initial"], before)
    again = came_in * trace.candidate.tanh() + stayed * before
    torch.testing.assert_close(again[happens], trace.memory[happens], rtol=1e-12, atol=1e-12)


def test_a_trace_of_no_steps_has_the_shapes(rng):
    cell, x, memory = cell_and_input("memory, matrix", rng, steps=0)
    trace = relational_trace(x, memory, cell.scan_parameters())
    assert trace.attention.shape == (5, 0, 1, 2, 6, 6)
    assert trace.forget_gate.shape == (5, 0, 4, 1)
    assert trace.memory.shape == (5, 0, 4, 6)
    cell, x, memory = cell_and_input("competitive, matrix", rng, steps=0)
    assert relational_trace(x, memory, cell.scan_parameters()).share.shape == (5, 0, 3, 2)


@pytest.mark.parametrize("name", SIZES)
def test_autocast_is_as_good_as_that_of_the_definition(name, rng):
    """In bfloat16 each rounds in its own order; over eight cells none is better than another."""
    errors = {relational_scan_reference: 0.0, relational_scan: 0.0, scan_as_operator: 0.0}
    nothing = {"lengths": None, "reset": None, "initial": None}
    for _ in range(8):
        cell, x, memory = cell_and_input(name, rng, torch.float32, steps=4)
        full = run(relational_scan_reference, cell, x, memory, 1)
        for scan in errors:
            chosen = nothing if scan is relational_scan_reference else {**nothing, "input_rows": True}
            with torch.autocast("cpu", torch.bfloat16):
                found = run(scan, cell, x, memory, 1, **chosen)
            assert [f.dtype for f in found] == [torch.float32] * len(full)
            pairs = zip(found, full, strict=True)
            errors[scan] += sum(((f - e).norm() / (1e-6 + e.norm())).item() ** 2 for f, e in pairs)
    for scan in (relational_scan, scan_as_operator):
        assert 0 < errors[scan] <= 1.2 * errors[relational_scan_reference]
