"""Slots that compete for the input: the definition against sums written out, and what it promises."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import pytest
import torch

from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import relational_scan
from relational_rnn.ops.relational_scan.cpu import kernels_report
from relational_rnn.ops.relational_scan.reference import (
    ScanParameters,
    relational_scan_reference,
    relational_step,
    update_rate,
)
from relational_rnn.ops.relational_scan.spec import flatten, spec_of, unflatten
from relational_rnn.testing import assert_as_good_as

# Every size differs on every axis; B 7, I 4.
SIZES = {
    "one row": dict(mem_slots=5, head_size=2, num_heads=3, num_blocks=2, key_size=4),
    "matrix": dict(mem_slots=3, head_size=4, num_heads=2, input_rows=2),
    "few slots": dict(mem_slots=2, head_size=3, num_heads=1, input_rows=4),
    "one slot": dict(mem_slots=1, head_size=3, num_heads=2),
}


def competing(params: ScanParameters) -> ScanParameters:
    """The same tensors, read as those of slots that compete; their sizes are those of a gate per number."""
    return params._replace(settings=dataclasses.replace(params.settings, competitive=True, input_bias=0.3))


def parameters_and_input(name, rng):
    cell = RelationalMemoryCell(4, **SIZES[name], dtype=torch.float64)
    with torch.no_grad():
        for p in cell.parameters():  # biases and norms away from 0 and 1, so that none can be left out
            p.add_(0.3 * torch.randn(p.shape, generator=rng, dtype=p.dtype))
    cell.requires_grad_(False)
    x = torch.randn(7, cell.input_rows or 1, 4, generator=rng, dtype=torch.float64)
    memory = torch.randn(7, cell.mem_slots, cell.width, generator=rng, dtype=torch.float64)
    return cell.scan_parameters(), x, memory


@pytest.mark.parametrize("name", SIZES)
def test_the_equations_written_out(name, rng):
    """One loop per sequence, slot, row and number; the candidate is the one of a memory with gates."""
    gated, x, memory = parameters_and_input(name, rng)
    params = competing(gated)
    step = relational_step(x, memory, params)
    plain = relational_step(x, memory, gated)
    assert torch.equal(step.candidate, plain.candidate)
    assert torch.equal(step.input_rows, plain.input_rows)
    assert all(torch.equal(a, b) for a, b in zip(step.attention, plain.attention, strict=True))
    assert step.forget_gate is None

    (_, slots, width), rows = memory.shape, x.shape[1]
    from_input, from_memory = params.gate_input, params.gate_memory
    for b in range(7):
        seen = [params.input.weight @ x[b, r] + params.input.bias for r in range(rows)]
        queries = [
            from_input.weight[width:, r * width : (r + 1) * width] @ seen[r] + from_input.bias[width:]
            for r in range(rows)
        ]
        held = [torch.tanh(memory[b, i]) for i in range(slots)]
        keys = [from_memory.weight[width:] @ memory[b, i] + from_memory.bias[width:] for i in range(slots)]
        powers = [[math.exp(torch.dot(k, q).item() / math.sqrt(width)) for q in queries] for k in keys]
        for i in range(slots):
            shares = [powers[i][r] / sum(powers[j][r] for j in range(slots)) for r in range(rows)]
            taken = min(slots, 4) * sum(shares) / rows
            for number in range(width):
                logit = 0.3 + from_input.bias[number] + from_memory.bias[number]
                logit += torch.dot(from_input.weight[number], torch.cat(seen))
                logit += torch.dot(from_memory.weight[number], held[i])
                gate = 1 / (1 + math.exp(-logit.item()))
                before, candidate = memory[b, i, number].item(), math.tanh(step.candidate[b, i, number].item())
                rate = min(1.0, taken * gate)
                after = (1 - rate) * before + rate * candidate
                assert step.memory[b, i, number].item() == pytest.approx(after, rel=1e-12, abs=1e-12)
                assert step.input_gate[b, i, number].item() == pytest.approx(gate, rel=1e-12)
            assert step.share[b, i].tolist() == pytest.approx(shares, rel=1e-11)


@pytest.mark.parametrize("name", SIZES)
def test_every_row_is_shared_out_among_the_slots(name, rng):
    params, x, memory = parameters_and_input(name, rng)
    share = relational_step(x, memory, competing(params)).share
    assert share.shape == (7, memory.shape[1], x.shape[1])
    torch.testing.assert_close(share.sum(1), torch.ones(7, x.shape[1], dtype=torch.float64), rtol=0, atol=1e-14)
    assert (share > 0).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_a_slot_that_takes_nothing_keeps_its_memory_bit_for_bit(rows, rng):
    """Keys a billion times as long: the softmax over slots is 1 for one of them and exactly 0 for the others."""
    cell = RelationalMemoryCell(4, mem_slots=9, head_size=2, num_heads=3, input_rows=rows, dtype=torch.float64)
    params = competing(cell.scan_parameters())
    with torch.no_grad():
        params.gate_memory.weight[6:].mul_(1e9)
        x = torch.randn(11, rows, 4, generator=rng, dtype=torch.float64)
        memory = torch.randn(11, 9, 6, generator=rng, dtype=torch.float64)
        step = relational_step(x, memory, params)
    winners = step.share.argmax(1)  # [B, n]
    assert len(winners.unique()) > 3
    took = torch.zeros(11, 9, dtype=torch.bool).scatter(1, winners, True)
    assert torch.equal(step.share.sum(2) == 0, ~took)
    assert torch.equal(step.memory[~took], memory[~took])
    rate = (4 * step.share.mean(2, keepdim=True) * step.input_gate).clamp(max=1)
    moved = (rate * (step.candidate.tanh() - memory))[took]
    torch.testing.assert_close((step.memory - memory)[took], moved, rtol=1e-12, atol=1e-14)
    assert moved.abs().amin(1).min() > 1e-6


def test_rows_count_by_their_mean_and_nothing_moves_further_than_to_its_candidate():
    share = torch.tensor([[0.03, 0.05], [0.17, 0.2], [0.8, 0.75]]).unsqueeze(0)  # three slots, two rows
    gate = torch.tensor([[0.5, 1.0], [0.5, 1.0], [0.5, 1.0]]).unsqueeze(0)
    expected = torch.tensor([[3 * 0.04 * 0.5, 3 * 0.04], [3 * 0.185 * 0.5, 3 * 0.185], [1.0, 1.0]]).unsqueeze(0)
    torch.testing.assert_close(update_rate(share, gate), expected)
    many = share.new_full((1, 40, 1), 1 / 40)  # the scale stays 4: forty slots with equal shares move a tenth
    torch.testing.assert_close(update_rate(many, torch.ones(1, 40, 2)), torch.full((1, 40, 2), 0.1))


@pytest.mark.parametrize("name", ["one row", "matrix"])
def test_permuted_slots_permute_everything(name, rng):
    params, x, memory = parameters_and_input(name, rng)
    params, order = competing(params), torch.randperm(memory.shape[1], generator=rng)
    assert not torch.equal(order, torch.arange(len(order)))
    step, permuted = (relational_step(x, m, params) for m in (memory, memory[:, order]))
    rows = torch.cat([order, torch.arange(len(order), len(order) + x.shape[1])])
    pairs = [(getattr(step, n)[:, order], getattr(permuted, n)) for n in ("memory", "candidate", "input_gate", "share")]
    pairs += [(a[:, :, rows][..., rows], b) for a, b in zip(step.attention, permuted.attention, strict=True)]
    pairs.append((step.input_rows, permuted.input_rows))
    for expected, found in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["one row", "matrix", "one slot"])
def test_gradients_into_every_tensor(name, rng):
    """Against differences, over two steps; and none of them is zero but where it has to be."""
    params, x, memory = parameters_and_input(name, rng)
    params = competing(params)
    settings, spec = params.settings, spec_of(params, input_rows=False)

    def scan(x, memory, *tensors):
        return relational_scan_reference(x, memory, unflatten(tensors, spec)._replace(settings=settings))[:2]

    x = torch.randn(2, 2, *x.shape[1:], generator=rng, dtype=torch.float64)
    leaves = [t.clone().requires_grad_() for t in (x, memory[:2], *flatten(params))]
    assert torch.autograd.gradcheck(scan, leaves, fast_mode=True)
    outputs = scan(*leaves)
    cotangents = [torch.randn(out.shape, generator=rng, dtype=out.dtype) for out in outputs]
    gradients = torch.autograd.grad(outputs, leaves, cotangents)
    assert all(gradient.isfinite().all() for gradient in gradients)
    width, after = memory.shape[2], 2 + 2 + 2 * len(params.mlp)  # x, memory, input and MLP come before the gates
    for halves in gradients[after : after + 4]:  # weight and bias of gate_input, of gate_memory
        assert halves[:width].abs().max() > 1e-6
    alone = memory.shape[1] == 1  # one slot has nobody to compete with
    for halves in gradients[after : after + 3]:  # the bias of all keys alike changes no share
        assert (halves[width:].abs().max() > 1e-6) == (not alone)


@pytest.mark.parametrize("name", SIZES)
def test_kernels_with_biased_keys_wide_shares_and_rates_that_are_cut(name, rng):
    """What the layer's parameters cannot hold or rarely do; keys' bias and weight are one tensor with the gate's."""
    if not kernels_report().startswith("compiled"):
        pytest.skip(kernels_report())
    params, x, memory = parameters_and_input(name, rng)
    params = competing(params)
    params = params._replace(settings=dataclasses.replace(params.settings, input_bias=2.0))
    width, spec = memory.shape[2], spec_of(params, input_rows=False)
    params.gate_memory.weight[width:].mul_(4)
    assert params.gate_memory.bias[width:].abs().min() > 1e-3
    step = relational_step(x, memory, params)
    cut = (min(memory.shape[1], 4) * step.share.mean(-1, keepdim=True) * step.input_gate > 1).double().mean()
    assert 0.02 < cut < 0.98 or memory.shape[1] == 1  # alone a slot takes all, and never more

    x = torch.randn(7, 3, *x.shape[1:], generator=rng, dtype=torch.float64)
    leaves = [t.clone().requires_grad_() for t in (x, memory, *flatten(params))]
    cotangents = [
        torch.randn(y.shape, generator=rng, dtype=y.dtype) for y in (x.new_empty(7, 3, *memory.shape[1:]), memory)
    ]
    found = []
    for scan in (partial(relational_scan, backend="cpu"), relational_scan_reference):
        outputs = scan(leaves[0], leaves[1], unflatten(leaves[2:], spec))[:2]
        found.append([*outputs, *torch.autograd.grad(outputs, leaves, cotangents)])
    for i, (got, expected) in enumerate(zip(*found, strict=True)):
        assert_as_good_as(f"result {i}", got, expected, expected)
