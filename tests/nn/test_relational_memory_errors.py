"""What the layer refuses, word for word where the sentence is its own."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn import LSTM
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell

X = torch.zeros(7, 11, 5)


def layer(**changes):
    return RelationalMemory(**{"input_size": 5, "mem_slots": 3, "head_size": 4, "num_heads": 2, **changes})


def test_x_of_the_wrong_rank():
    with pytest.raises(InputError) as error:
        layer()(X[None])
    assert str(error.value) == (
        "RelationalMemory: x must have 3 axes, not 4\n  got       (1, 7, 11, 5)\n  expected  (B=any, T=any, I=5)"
    )
    with pytest.raises(
        InputError, match=r"x must have 4 axes, not 2\n  got .*\n  expected  \(T=any, B=any, n=2, I=5\)"
    ):
        layer(input_rows=2, batch_first=False)(X[0])
    with pytest.raises(InputError, match="x must be a tensor"):
        layer()([1.0])


def test_x_of_the_wrong_width():
    with pytest.raises(InputError) as error:
        layer(input_rows=2)(torch.zeros(7, 11, 3, 6))
    assert str(error.value) == (
        "RelationalMemory: x has the wrong size on axes n, I\n"
        "  got       (B=7, T=11, n=3, I=6)\n"
        "  expected  (B=any, T=any, n=2, I=5)"
    )
    with pytest.raises(InputError, match="x_t has the wrong size on axis I"):
        layer().step(torch.zeros(7, 6), torch.zeros(7, 3, 8))
    with pytest.raises(InputError, match=r"x has the wrong size on axis I\n  got       \(B=2, T=2, I=4\)"):
        layer()(pack_sequence([torch.zeros(2, 4), torch.zeros(1, 4)]))


def test_a_state_of_the_wrong_size():
    with pytest.raises(InputError) as error:
        layer(num_layers=2)(X, torch.zeros(2, 6, 3, 8))
    assert str(error.value) == (
        "RelationalMemory: state has the wrong size on axis B\n"
        "  got       (L=2, B=6, N=3, W=8)\n"
        "  expected  (L=2, B=7, N=3, W=8)\n"
        "  hint      start a sequence with core.initial_state(batch_size), or pass state=None."
    )
    with pytest.raises(InputError, match="state must have 2 axes, not 3"):
        layer()(X[0], torch.zeros(1, 3, 8))
    with pytest.raises(InputError, match="state must be a tensor\n  got       tuple"):
        layer()(X, (torch.zeros(7, 3, 8), torch.zeros(7, 3, 8)))


def test_mixed_dtypes_and_devices():
    with pytest.raises(InputError) as error:
        layer()(X.double())
    assert str(error.value) == (
        "RelationalMemory: x has another dtype than the parameters\n"
        "  got       torch.float64\n"
        "  expected  torch.float32\n"
        "  hint      convert one of them, for example x.to(torch.float32)."
    )
    with pytest.raises(InputError, match="state has another dtype than the parameters"):
        layer()(X, torch.zeros(7, 3, 8, dtype=torch.float16))
    with pytest.raises(InputError) as error:
        layer()(X.to("meta"))
    assert str(error.value) == "RelationalMemory: x is on another device\n  got       meta\n  expected  cpu"
    with pytest.raises(InputError, match="state is on another device"):
        layer()(X, torch.zeros(7, 3, 8, device="meta"))
    with pytest.raises(InputError, match="reset is on another device"):
        layer()(X, reset=torch.zeros(7, 11, dtype=torch.bool, device="meta"))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="x has another dtype"):
        layer()(X.long())


@pytest.mark.parametrize(
    "parts",
    [
        (torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)),
        (torch.zeros(5, 5), torch.tensor([2, 3])),
        (torch.zeros(4, 5), torch.tensor([3, 2])),
        (torch.zeros(5, 5), torch.tensor([3, 2]), torch.tensor([0, 0, 7]), torch.tensor([0, 5, 5])),
        (torch.zeros(5, 5), torch.tensor([3.0, 2.0])),
    ],
)
def test_a_packed_sequence_whose_parts_do_not_fit(parts):
    with pytest.raises(InputError, match=r"the parts of this PackedSequence do not fit"):
        layer()(PackedSequence(*parts))


@pytest.mark.filterwarnings("ignore")
def test_a_recording_that_would_fix_the_batch():
    for core in (layer(), LSTM(5, 8)):
        with pytest.raises(InputError, match=r"torch\.jit\.trace would fix the size of the batch"):
            torch.jit.trace(core, (X,))


def test_lengths_and_resets():
    with pytest.raises(InputError) as error:
        layer()(X, lengths=torch.tensor([1, 2, 3, 4, 5, 6, 12]))
    assert str(error.value) == (
        "RelationalMemory: lengths is out of range\n  got       values from 1 to 12\n  expected  0 to 11"
    )
    with pytest.raises(InputError, match="lengths must be whole numbers"):
        layer()(X, lengths=torch.ones(7))
    with pytest.raises(InputError) as error:
        layer()(X, reset=torch.zeros(7, 11))
    assert str(error.value) == (
        "RelationalMemory: reset must be booleans\n"
        "  got       torch.float32\n"
        "  expected  torch.bool\n"
        "  hint      compare first, for example reset=(episode_start != 0)."
    )
    with pytest.raises(InputError, match=r"expected  \(T=11, B=7\)"):
        layer(batch_first=False)(X.transpose(0, 1), reset=torch.zeros(7, 11, dtype=torch.bool))
    with pytest.raises(InputError, match="a single sequence has no lengths"):
        layer()(X[0], lengths=torch.tensor([3]))
    with pytest.raises(InputError, match="a PackedSequence has its own lengths"):
        layer()(pack_sequence([X[0]]), lengths=torch.tensor([3]))
    with pytest.raises(InputError, match=r"expected  \(B=1, T=11\)"):
        layer()(pack_sequence([X[0]]), reset=torch.zeros(1, 12, dtype=torch.bool))


def test_queries():
    with pytest.raises(InputError) as error:
        layer(read_head="mean")(X, query=torch.zeros(7, 8))
    assert str(error.value) == (
        "RelationalMemory: this read head takes no query\n"
        "  got       read_head='mean'\n"
        "  expected  read_head='attention'"
    )
    asking = layer(read_head="attention")
    with pytest.raises(InputError, match=r"query has the wrong size on axis W\n  got       \(B=7, W=9\)"):
        asking(X, query=torch.zeros(7, 9))
    with pytest.raises(InputError, match=r"query has the wrong size on axis T\n  got       \(B=7, T=10, W=8\)"):
        asking(X, query=torch.zeros(7, 10, 8))
    with pytest.raises(InputError, match="query has the wrong size on axis B"):
        asking.step(X[:, 0], asking.initial_state(7), query=torch.zeros(6, 8))
    with pytest.raises(InputError, match="query has another dtype"):
        asking(X, query=torch.zeros(7, 8, dtype=torch.float64))


def test_values_that_are_not_finite_when_asked():
    x, checked = X.clone(), layer(check_finite=True)
    x[4, 9, 2], x[5, 3, 0] = math.nan, math.inf
    layer()(x)  # not asked
    with pytest.raises(InputError) as error:
        checked(x)
    assert str(error.value) == "RelationalMemory: x is not finite at step 9 of batch row 4"
    lengths = torch.tensor([11, 11, 11, 11, 9, 11, 11])
    with pytest.raises(InputError, match="x is not finite at step 3 of batch row 5"):
        checked(x, lengths=lengths)
    checked(x[:5], lengths=lengths[:5])  # NaN in the padding is nobody's business
    state = torch.ones(2, 7, 3, 8)
    state[1, 6, 0, 0] = math.nan
    with pytest.raises(InputError) as error:
        layer(check_finite=True, num_layers=2)(X, state)
    assert str(error.value) == "RelationalMemory: state of layer 1 is not finite in batch row 6"
    with pytest.raises(InputError, match="state is not finite in batch row 6"):
        checked.step(X[:, 0], state[1])
    with pytest.raises(InputError, match="x is not finite at step 0 of batch row 5"):
        checked.step(x[:, 3], state[0])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (dict(num_layers=0), "num_layers must be a whole number of at least 1"),
        (dict(output_size=0), "output_size must be a whole number of at least 1"),
        (dict(read_head="last"), "read_head is not a known choice"),
        (dict(initial_memory="ones"), "initial_memory is not a known choice"),
        (dict(dropout=1.0, num_layers=2), "dropout must be a probability"),
        (dict(dropout="0.1", num_layers=2), "dropout must be a probability"),
        (dict(dropout=0.1), "dropout needs more than one layer"),
        (dict(check_finite=None), "check_finite must be True or False"),
        (dict(forget_bias="1"), "forget_bias must be a number"),
        (dict(input_bias=math.nan), "input_bias must be a number"),
        (dict(input_bias=-(10**400)), "input_bias must be a number"),
    ],
)
def test_arguments(change, problem):
    with pytest.raises(InputError, match=f"RelationalMemory: {problem}"):
        layer(**change)


def test_the_cell():
    cell = RelationalMemoryCell(5, 3, 4, num_heads=2)
    with pytest.raises(InputError) as error:
        cell(torch.zeros(7, 5), torch.zeros(7, 4, 8))
    assert str(error.value) == (
        "RelationalMemoryCell: memory has the wrong size on axis N\n"
        "  got       (B=7, N=4, M=8)\n"
        "  expected  (B=7, N=3, M=8)\n"
        "  hint      start with cell.initial_memory(batch_size), or pass memory=None."
    )
    with pytest.raises(InputError, match="RelationalMemoryCell: x has the wrong size on axis I"):
        cell(torch.zeros(7, 6))
    with pytest.raises(InputError, match="RelationalMemoryCell: x has another dtype"):
        cell(torch.zeros(7, 5, dtype=torch.float64))
    with pytest.raises(InputError, match="RelationalMemoryCell: memory is on another device"):
        cell(torch.zeros(7, 5), torch.zeros(7, 3, 8, device="meta"))
