"""Where the memory starts, what is read out of it, and what follows from the equations."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from relational_rnn import RelationalMemory
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell, warn_once

INPUTS, N, W = 5, 3, 8


def build(**changes):
    torch.manual_seed(0)
    sizes = {"input_size": INPUTS, "mem_slots": N, "head_size": 4, "num_heads": 2, "dtype": torch.float64}
    return RelationalMemory(**{**sizes, **changes})


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_zeros_warn_once_and_are_right():
    warn_once.cache_clear()
    with pytest.warns(UserWarning, match="slots that start equal stay equal for ever"):
        layer = build(initial_memory="zeros", num_layers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = build(initial_memory="zeros")
    assert not layer.initial_state(4).any()
    for start, spread in (("zeros", 0.0), ("identity", 0.1)):
        _, memory = build(initial_memory=start)(draw(4, 20, INPUTS))
        apart = (memory - memory[:, :1]).abs().max()
        assert (apart < 1e-12) if spread == 0 else (apart > spread)


def test_a_random_start_is_small_fixed_and_stored():
    layer = build(initial_memory="random", mem_slots=50)
    start = layer.initial_state(4)
    assert torch.equal(start[0], start[3])
    assert torch.equal(start, layer.initial_state(4))
    assert 0.08 < start[0].std() < 0.12
    assert "cells.0.initial" in layer.state_dict()
    assert "cells.0.initial" not in dict(layer.named_parameters())
    other = RelationalMemory(INPUTS, 50, 4, num_heads=2, initial_memory="random").double()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.initial_state(4), start)


def test_a_learned_start_is_a_parameter_that_begins_as_the_identity():
    layer = build(initial_memory="learned")
    assert torch.equal(layer.initial_state(2)[1], torch.eye(N, W, dtype=torch.float64))
    y, _ = layer(draw(4, 6, INPUTS))
    y.square().sum().backward()
    assert layer.cell().initial.grad.abs().max() > 0


@pytest.mark.parametrize("start", ["identity", "random", "learned"])
def test_the_initial_state_is_the_callers_own(start):
    layer = build(initial_memory=start)
    before = layer.initial_state(1).clone()
    with torch.no_grad():
        layer.initial_state(1).add_(1)
        layer.initial_state(2)[0] = 7
    assert torch.equal(layer.initial_state(1), before)


def test_read_heads_follow_their_formulas():
    x = draw(4, 6, INPUTS)
    memory = build().trace(x).memory
    close(build(read_head="flatten")(x)[0], memory.flatten(2))
    close(build(read_head="mean")(x)[0], sum(memory[:, :, i] for i in range(N)) / N)

    weighted = build(read_head="weighted")
    close(weighted(x)[0], memory.mean(2))
    with torch.no_grad():
        weighted.read_head.weights.copy_(torch.tensor([0.5, -2.0, 3.0]))
    close(weighted(x)[0], 0.5 * memory[:, :, 0] - 2 * memory[:, :, 1] + 3 * memory[:, :, 2])

    attention = build(read_head="attention")
    close(attention(x)[0], attended(memory, attention.read_head.query.detach().expand(4, 6, W)))
    assert attention.output_size == W


def attended(memory, query):
    """Slot by slot, with nothing but sums."""
    batch, steps = memory.shape[:2]
    y = torch.zeros(batch, steps, W, dtype=memory.dtype)
    for b in range(batch):
        for t in range(steps):
            weights = [math.exp(torch.dot(query[b, t], slot).item() / math.sqrt(W)) for slot in memory[b, t]]
            y[b, t] = sum(w / sum(weights) * slot for w, slot in zip(weights, memory[b, t], strict=True))
    return y


def test_the_caller_may_ask_with_a_query():
    layer = build(read_head="attention")
    x, once, always = draw(4, 6, INPUTS), draw(4, W, seed=1), draw(4, 6, W, seed=2)
    memory = layer.trace(x).memory.detach()
    close(layer(x, query=once)[0].detach(), attended(memory, once[:, None].expand(4, 6, W)))
    close(layer(x, query=always)[0].detach(), attended(memory, always))
    close(layer(x[1], query=once[1])[0], layer(x, query=once)[0][1])
    close(layer(x[1], query=always[1])[0], layer(x, query=always)[0][1])
    y_t, _ = layer.step(x[:, 0], layer.initial_state(4), query=once)
    close(y_t, layer(x, query=once)[0][:, 0])
    assert layer(x[:, :0], query=once)[0].shape == (4, 0, W)


@pytest.mark.parametrize("rows", [None, 2])
def test_the_input_head_gives_what_the_input_found(rows):
    """Written out from the trace's attention would repeat the block, so the two rows are swapped with a slot instead:
    the input's attended row is what a slot becomes that holds the projected input."""
    layer = build(read_head="input", gate_style=None, input_rows=rows)
    cell = layer.cell()
    x, memory = draw(4, rows or 1, INPUTS), draw(4, N, W, seed=1)
    y, _ = layer.step(x if rows else x[:, 0], memory)
    table = torch.cat([memory, cell.input(x)], 1)  # every row is a slot; the input then is one slot of `memory`
    swapped = RelationalMemoryCell(W, N + (rows or 1) - 1, 4, num_heads=2, gate_style=None).double()
    swapped.load_state_dict({**cell.state_dict(), "input.weight": torch.eye(W), "input.bias": torch.zeros(W)})
    after = swapped(table[:, 0], table[:, 1:])
    close(y, after[:, N - 1 :].mean(1))


@pytest.mark.parametrize("head", ["flatten", "mean", "weighted", "attention", "input"])
def test_output_size_projects(head):
    layer = build(read_head=head, output_size=7)
    plain = build(read_head=head)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if not k.startswith("projection")})
    x = draw(4, 6, INPUTS)
    assert plain.output_size == (N * W if head == "flatten" else W)
    assert layer.output_size == 7
    close(layer(x)[0], plain(x)[0] @ layer.projection.weight.T + layer.projection.bias)


def test_a_projection_starts_like_every_other_weight():
    weight = build(read_head="mean", output_size=500).projection.weight
    assert 1.95 < weight.abs().max() * W**0.5 <= 2.0


@pytest.mark.parametrize("head", ["flatten", "mean", "weighted", "attention", "input"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_every_parameter_is_used(head, num_layers):
    layer = build(read_head=head, num_layers=num_layers, initial_memory="learned", output_size=7)
    layer(draw(4, 6, INPUTS))[0].square().sum().backward()
    assert [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.any()] == []


# Properties that follow from the equations.


@pytest.mark.parametrize("gate_style", ["unit", "memory"])
def test_infinite_biases_keep_the_memory_bit_for_bit(gate_style):
    layer = build(gate_style=gate_style, forget_bias=math.inf, input_bias=-math.inf)
    memory = draw(4, N, W, seed=1)
    y, final = layer(draw(4, 6, INPUTS), memory)
    assert torch.equal(final, memory)
    assert torch.equal(y, memory.flatten(1)[:, None].expand(-1, 6, -1))


@pytest.mark.parametrize("gate_style", ["unit", "memory"])
def test_infinite_biases_replace_the_memory_bit_for_bit(gate_style):
    layer = build(gate_style=gate_style, forget_bias=-math.inf, input_bias=math.inf)
    trace = layer.trace(draw(4, 6, INPUTS), draw(4, N, W, seed=1))
    assert torch.equal(trace.memory, torch.tanh(trace.candidate))
    assert torch.equal(trace.input_gate, torch.ones_like(trace.input_gate))
    assert torch.equal(trace.forget_gate, torch.zeros_like(trace.forget_gate))


@pytest.mark.parametrize("gate_style", ["unit", "memory", None])
@pytest.mark.parametrize("head", ["flatten", "mean", "attention", "input"])
def test_permuting_slots_permutes_everything(gate_style, head):
    layer = build(gate_style=gate_style, num_blocks=2, read_head=head)
    x, memory, order = draw(4, 6, INPUTS), draw(4, N, W, seed=1), torch.tensor([2, 0, 1])
    y, final = layer(x, memory)
    y_permuted, final_permuted = layer(x, memory[:, order])
    close(final_permuted, final[:, order])
    close(y_permuted, y.unflatten(-1, (N, W))[:, :, order].flatten(2) if head == "flatten" else y)
    trace, permuted = layer.trace(x, memory), layer.trace(x, memory[:, order])
    everyone = torch.cat([order, torch.tensor([N])])
    close(permuted.attention, trace.attention[..., everyone, :][..., everyone])


def test_a_single_slot_works():
    layer = build(mem_slots=1)
    y, memory = layer(draw(4, 6, INPUTS))
    assert y.shape == (4, 6, W)
    assert torch.equal(y[:, -1], memory[:, 0])
    assert layer.trace(draw(4, 6, INPUTS)).attention.shape == (4, 6, 1, 2, 2, 2)


@pytest.mark.parametrize("head", ["flatten", "mean", "attention", "input"])
def test_parameters_do_not_depend_on_the_slots(head):
    few, many = build(mem_slots=1, read_head=head), build(mem_slots=9, read_head=head)
    many.load_state_dict(few.state_dict())
