"""Both ways to look at a state against their definitions."""

from __future__ import annotations

import math
import re

import pytest
import torch
from cores_table import assert_close, draw

from relational_rnn import InputError
from relational_rnn.nn import GatedDeltaNet, MatrixReader, RowReader
from relational_rnn.nn.cores import CORE_NAMES, READ_AS_MATRICES, MemorySizes, build_core


def test_a_look_at_rows_is_attention():
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    rows, question = draw(3, 5, 7), draw(3, 6, seed=1)
    reader = RowReader(lambda state: (state, mask), 7, size=6, looks=4, heads=2).double()
    before = draw(3, 6, seed=2)
    found, read, weights = reader.look(3, question, reader.open(rows), before)
    assert weights.shape == (3, 2, 5)
    with torch.no_grad():
        keys, values = reader.keys_values(rows).chunk(2, -1)
        queries = reader.queries[3](question) + before
        for m in range(3):
            heads = []
            there = mask[m].nonzero().flatten()
            for part in (slice(0, 3), slice(3, 6)):
                scores = keys[m, there, part] @ queries[m, part] / math.sqrt(3)
                heads.append(scores.softmax(0) @ values[m, there, part])
                assert_close(weights[m, len(heads) - 1, there], scores.softmax(0))
            assert_close(read[m], torch.cat(heads))
            assert_close(found[m], reader.outputs[3](torch.cat(heads)))
    assert weights.masked_select(~mask[:, None].expand(-1, 2, -1)).eq(0).all()


def test_rows_that_do_not_exist_are_not_read():
    rows, question = draw(3, 5, 7), draw(3, 6, seed=1)
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    reader = RowReader(lambda rows: (rows, mask), 7, size=6, looks=1, heads=2).double()
    plain = reader.look(0, question, reader.open(rows)).found
    other = reader.look(0, question, reader.open(rows.masked_fill(~mask[..., None], 1e3))).found
    assert torch.equal(plain, other)
    assert_close(plain[2], reader.outputs[0].bias)  # a state without any row


@pytest.mark.parametrize("values", [2, 4])
def test_a_look_into_matrices_is_a_product_with_a_query_of_length_one(values):
    matrices, question, before = draw(5, 3, 4, values), draw(5, 6, seed=1), draw(5, 3 * values, seed=2)
    reader = MatrixReader(lambda state: state, (3, 4, values), size=6, looks=2).double()
    found, read, queries = reader.look(1, question, reader.open(matrices), before)
    assert queries.shape == (5, 3, 4)
    with torch.no_grad():
        asked = reader.queries[1](question)
        if values == 4:  # as large as a key, so that what was read is the next thing to ask for
            asked = asked + before
        for m in range(5):
            heads = []
            for h in range(3):
                query = asked[m, 4 * h : 4 * h + 4]
                query = query / math.sqrt(sum(q * q for q in query.tolist()))
                assert_close(queries[m, h], query)
                heads.append(matrices[m, h].T @ query)
            assert_close(read[m], torch.cat(heads))
            assert_close(found[m], reader.outputs[1](torch.cat(heads)))


def test_the_matrices_of_a_gated_delta_net_are_those_of_its_layers_and_heads():
    core = GatedDeltaNet(3, 10, num_layers=3, num_heads=2)
    state = draw(7, 3, 2, 5, 5).float()
    opened = core.reader(6, looks=1, heads=4).open(state)
    assert opened.shape == (7, 6, 5, 5)
    assert torch.equal(opened[4, 3], state[4, 1, 1])  # [key, value]


@pytest.mark.parametrize("name", ["row_size", "size", "looks", "heads"])
def test_sizes_of_a_reader_of_rows_are_checked(name):
    with pytest.raises(InputError, match=f"RowReader: {name} must be a whole number of at least 1"):
        RowReader(lambda rows: (rows, None), **{"row_size": 7, "size": 6, "looks": 1, "heads": 2, name: 0})


def test_heads_share_the_size():
    with pytest.raises(InputError, match="RowReader: heads must divide size\n  got       4, 6"):
        RowReader(lambda rows: (rows, None), 7, size=6, looks=1, heads=4)


@pytest.mark.parametrize("index", [-1, 2, 0.0, True])
def test_a_look_that_is_not_there_is_refused(index):
    rows = RowReader(lambda rows: (rows, None), 7, size=6, looks=2, heads=2).double()
    matrices = MatrixReader(lambda state: state, (3, 4, 2), size=6, looks=2).double()
    for reader, state in ((rows, draw(5, 1, 7)), (matrices, draw(5, 3, 4, 2))):
        sentence = f"{type(reader).__name__}: there is no such look\n  got       {index!r}\n  expected  0 to 1"
        with pytest.raises(InputError, match=re.escape(sentence)):
            reader.look(index, draw(5, 6, seed=1), reader.open(state))
        with pytest.raises(InputError, match=f"{type(reader).__name__}: question has the wrong size on axis S"):
            reader.look(1, draw(5, 7, seed=1), reader.open(state))
        with pytest.raises(InputError, match=f"{type(reader).__name__}: before has the wrong size on axis F"):
            reader.look(1, draw(5, 6, seed=1), reader.open(state), draw(5, 7))


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2, 1), 3])
def test_a_shape_of_matrices_is_three_numbers(shape):
    with pytest.raises(InputError, match="MatrixReader: shape must be three numbers"):
        MatrixReader(lambda state: state, shape, size=6, looks=1)


@pytest.mark.parametrize("name", CORE_NAMES)
def test_the_cores_that_are_read_as_matrices_are_named(name):
    core = build_core(name, 4, MemorySizes(mem_slots=2, head_size=9, num_heads=2))
    assert isinstance(core.reader(6, looks=1, heads=2), MatrixReader) == (name in READ_AS_MATRICES)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"looks": 0}, {"shape": (0, 4, 2)}, {"shape": (3, 0, 2)}])
def test_sizes_of_a_reader_of_matrices_are_checked(wrong):
    with pytest.raises(InputError, match=r"MatrixReader: .* must be a whole number of at least 1"):
        MatrixReader(lambda state: state, **{"shape": (3, 4, 2), "size": 6, "looks": 1, **wrong})
