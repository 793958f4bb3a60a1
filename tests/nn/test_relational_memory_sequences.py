"""What users of `nn.LSTM` expect: stacked layers, packed and single sequences, lengths, resets, a cell."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

from relational_rnn import RelationalMemory
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell

INPUTS, N, W = 5, 3, 8


def build(**changes):
    torch.manual_seed(0)
    layer = RelationalMemory(INPUTS, N, 4, num_heads=2, **changes).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn(p.shape, dtype=p.dtype))
    return layer


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_stacked_layers_are_layers_on_top_of_each_other():
    layer = build(num_layers=3, output_size=7, read_head="mean")
    x, state = draw(4, 6, INPUTS), draw(3, 4, N, W, seed=1)
    y, final = layer(x, state)
    assert y.shape == (4, 6, 7)
    rows, finals = x, []
    for cell, memory in zip(layer.cells, state, strict=True):
        memories = []
        for t in range(6):
            memory = cell(rows[:, t], memory)
            memories.append(memory)
        rows = torch.stack(memories, 1).flatten(2)
        finals.append(memory)
    close(final, torch.stack(finals))
    close(y, layer.projection(rows.unflatten(-1, (N, W)).mean(-2)))
    assert torch.equal(layer.rows(final)[0], final[-1])


def test_stacked_layers_step_snapshot_and_start():
    layer = build(num_layers=2)
    x = draw(4, 6, INPUTS)
    y, final = layer(x)
    state = layer.initial_state(4)
    assert state.shape == (2, 4, N, W)
    for t in range(6):
        y_t, state = layer.step(x[:, t], state)
        close(y_t, y[:, t])
    close(state, final)
    rows, at = torch.tensor([2, 0, 3]), torch.tensor([6, 0, 3])
    found = layer.snapshots(x, rows, at)
    for m, (row, steps) in enumerate(zip(rows, at, strict=True)):
        close(found[:, m], layer(x[row : row + 1, :steps])[1][:, 0])


def test_dropout_acts_between_layers_in_training_only():
    layer = build(num_layers=2, dropout=0.5)
    x = draw(4, 6, INPUTS)
    torch.manual_seed(1)
    first, second = layer(x)[0], layer(x)[0]
    assert not torch.equal(first, second)
    y, final = layer(x)
    assert torch.equal(y[:, -1], final[-1].flatten(1))  # nor after the last
    y_t, after = layer.step(x[:, 0], final)
    assert torch.equal(y_t, after[-1].flatten(1))
    lower = layer.trace(x, layer=0).memory
    close(lower, layer.eval().trace(x, layer=0).memory)  # nothing is dropped below the first layer
    close(layer(x)[0], layer(x)[0])
    torch.manual_seed(1)
    state = layer.train().initial_state(4)
    assert not torch.equal(layer.step(x[:, 0], state)[0], layer.step(x[:, 0], state)[0])


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("input_rows", [None, 2])
def test_a_single_sequence_has_no_batch_axis(num_layers, input_rows):
    layer = build(num_layers=num_layers, input_rows=input_rows)
    x = draw(1, 6, *([] if input_rows is None else [2]), INPUTS)
    state = draw(*([2] if num_layers == 2 else []), 1, N, W, seed=1)
    reset = torch.tensor([[False, True, False, False, True, False]])
    y, final = layer(x, state, reset=reset)
    y_single, final_single = layer(x[0], state.squeeze(-3), reset=reset[0])
    close(y_single, y[0])
    close(final_single, final.squeeze(-3))
    assert layer(x[0])[1].shape == final_single.shape
    y_t, after = layer.step(x[0, 0], state.squeeze(-3))
    close(y_t, layer.step(x[:, 0], state)[0][0])
    assert after.shape == final_single.shape
    close(layer.trace(x[0], state.squeeze(-3)).attention, layer.trace(x, state).attention[0])


def test_time_may_come_first():
    layer = build(read_head="attention")
    x, lengths, reset = draw(4, 6, INPUTS), torch.tensor([6, 2, 0, 5]), draw(4, 6, seed=2) > 0.7
    query = draw(4, 6, W, seed=3)
    y, final = layer(x, lengths=lengths, reset=reset, query=query)
    layer.batch_first = False
    y_t, final_t = layer(x.transpose(0, 1), lengths=lengths, reset=reset.T, query=query.transpose(0, 1))
    close(y_t.transpose(0, 1), y)
    close(final_t, final)
    trace = layer.trace(x.transpose(0, 1), lengths=lengths)
    assert trace.memory.shape == (6, 4, N, W)
    close(layer.snapshots(x.transpose(0, 1), torch.tensor([3]), torch.tensor([5])), layer(x[3, :5])[1][None])


@pytest.mark.parametrize("options", [dict(), dict(num_layers=2, output_size=7), dict(read_head="input")], ids=str)
def test_padded_is_alone_and_a_reset_is_a_fresh_start(options):
    layer = build(**options)
    lengths, x = torch.tensor([6, 3, 0, 5, 1]), draw(5, 6, INPUTS)
    x[1, 3:], x[2], x[4, 1:] = math.nan, math.inf, 1e300
    reset = torch.zeros(5, 6, dtype=torch.bool)
    reset[0, 2] = reset[0, 4] = reset[1, 0] = reset[3, 3] = reset[1, 5] = True  # the last one lies past the length
    start = draw(*layer.initial_state(5).shape, seed=1)
    y, final = layer(x, start, lengths=lengths, reset=reset)
    for b, length in enumerate(lengths.tolist()):
        state, outputs = start[..., b : b + 1, :, :], []
        for t in range(length):
            if reset[b, t]:
                state = layer.initial_state(1)
            y_t, state = layer.step(x[b : b + 1, t], state)
            outputs.append(y_t)
        expected = torch.cat([*outputs, torch.zeros(6 - length, layer.output_size, dtype=x.dtype)])
        close(y[b], expected)
        close(final[..., b, :, :], state[..., 0, :, :])
    gradients = torch.autograd.grad((y * draw(*y.shape, seed=5)).sum() + final.sum(), list(layer.parameters()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_resets_restore_a_learned_start_and_train_it():
    layer = build(initial_memory="learned")
    x, start = draw(4, 6, INPUTS), draw(4, N, W, seed=1)
    reset = torch.zeros(4, 6, dtype=torch.bool)
    reset[2, 5] = True
    y, _ = layer(x, start, reset=reset)
    (gradient,) = torch.autograd.grad(y[2, 5].square().sum(), layer.cell().initial)
    (alone,) = torch.autograd.grad(layer(x[2:3, 5:])[0].square().sum(), layer.cell().initial)
    close(gradient, alone)


@pytest.mark.parametrize("sorted_first", [True, False])
@pytest.mark.parametrize("input_rows", [None, 2])
def test_packed_in_packed_out(sorted_first, input_rows):
    layer = build(input_rows=input_rows)
    lengths = [6, 5, 2, 2] if sorted_first else [2, 6, 5, 2]
    tail = [INPUTS] if input_rows is None else [2, INPUTS]
    sequences = [draw(n, *tail, seed=10 + i) for i, n in enumerate(lengths)]
    packed = pack_sequence(sequences, enforce_sorted=sorted_first)
    state = draw(4, N, W, seed=1)
    reset = draw(4, 6, seed=2) > 0.6
    y, final = layer(packed, state, reset=reset)
    assert isinstance(y, PackedSequence)
    assert torch.equal(y.batch_sizes, packed.batch_sizes)
    assert y.unsorted_indices is packed.unsorted_indices
    padded, out_lengths = pad_packed_sequence(y, batch_first=True)
    assert out_lengths.tolist() == lengths
    for b, sequence in enumerate(sequences):
        y_alone, final_alone = layer(sequence, state[b], reset=reset[b, : lengths[b]])
        close(padded[b, : lengths[b]], y_alone)
        close(final[b], final_alone)


def test_packing_agrees_with_lstm_on_the_order_of_the_state():
    layer, lstm = build(), torch.nn.LSTM(INPUTS, 4, batch_first=True).double()
    x, lengths = draw(4, 6, INPUTS), torch.tensor([2, 6, 5, 2])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y_lstm, (h, _) = lstm(packed)
    y, final = layer(packed)
    assert torch.equal(y.sorted_indices, y_lstm.sorted_indices)
    padded, _ = pad_packed_sequence(y, batch_first=True)
    padded_lstm, _ = pad_packed_sequence(y_lstm, batch_first=True)
    for b, length in enumerate(lengths.tolist()):
        close(padded[b, length - 1], final[b].flatten())
        close(padded_lstm[b, length - 1], h[0, b])


def test_a_trace_of_packed_sequences_is_padded():
    layer = build()
    sequences = [draw(2, INPUTS), draw(6, INPUTS, seed=1)]
    trace = layer.trace(pack_sequence(sequences, enforce_sorted=False))
    close(trace.memory[0, :2], layer.trace(sequences[0]).memory)
    assert not trace.attention[0, 2:].any()


def test_a_trace_of_stacked_layers_is_of_the_top_one_unless_asked():
    layer = build(num_layers=2, gate_style="memory")
    x = draw(4, 6, INPUTS)
    y, final = layer(x)
    top, bottom = layer.trace(x), layer.trace(x, layer=0)
    close(top.memory.flatten(2), y)
    close(bottom.memory[:, -1], final[0])
    assert top.forget_gate.shape == (4, 6, N, 1)
    with pytest.raises(ValueError, match="layer is not a known choice"):
        layer.trace(x, layer=2)


def test_a_cell_is_a_step():
    layer = build()
    cell = layer.cell()
    assert isinstance(cell, RelationalMemoryCell)
    x, memory = draw(4, INPUTS), draw(4, N, W, seed=1)
    close(cell(x, memory), layer.step(x, memory)[1])
    close(cell(x[0], memory[0]), cell(x, memory)[0])
    close(cell(x), cell(x, cell.initial_memory(4)))
    close(cell(x[0]), cell(x)[0])


@pytest.mark.parametrize("shape", [(0, 6, INPUTS), (4, 0, INPUTS), (0, 0, INPUTS)])
def test_nothing_in_nothing_out(shape):
    layer = build(read_head="input", output_size=7)
    y, final = layer(draw(*shape), lengths=torch.zeros(shape[0], dtype=torch.int64))
    assert y.shape == (*shape[:2], 7)
    close(final, layer.initial_state(shape[0]))


LONG_STREAM = """
import gc, os
from pathlib import Path
import torch
from relational_rnn import RelationalMemory

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

layer = RelationalMemory(5, 3, 4, num_heads=2)
x, state = torch.randn(100, 2, 5), layer.initial_state(2)
with torch.inference_mode():
    for t in range(10_000):
        _, state = layer.step(x[t % 100], state)
        if t == 2_000:
            before = resident()
grown = resident() - before
assert grown < 2**20, grown
assert torch.isfinite(state).all()
"""


def test_a_long_stream_keeps_nothing():
    """8,000 steps one by one: the process does not grow, and the memory stays finite.

    In a process of its own: what other tests have left behind grows and shrinks.
    """
    subprocess.run([sys.executable, "-c", LONG_STREAM], check=True)


def test_streaming_is_the_sequence_call():
    """A thousand steps in inference mode, one by one and in chunks; nothing is left on the module."""
    layer = build()
    x = draw(2, 1000, INPUTS)
    with torch.inference_mode():
        y, final = layer(x)
        state = layer.initial_state(2)
        for t in range(1000):
            y_t, state = layer.step(x[:, t], state)
            assert y_t.grad_fn is None
            close(y_t, y[:, t])
        close(state, final)
        chunked = None
        for part in x.split(130, dim=1):
            _, chunked = layer(part, chunked)
        close(chunked, final)
    assert not [name for name, value in vars(layer).items() if isinstance(value, torch.Tensor)]
    assert [name for name, _ in layer.named_buffers()] == []
