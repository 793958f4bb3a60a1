"""Large pieces of memory are used again, never by two at once, and never more of it than one pass has used."""

import itertools
import threading

import pytest
import torch

from relational_rnn import RelationalMemory
from relational_rnn.ops.relational_scan import _native, free_memory

MIB = 1 << 20


@pytest.fixture
def memory(monkeypatch):
    found = _native._Memory()
    monkeypatch.setattr(_native, "_MEMORY", found)
    return found


def take(mib, dtype=torch.float32):
    return _native.fresh(mib * MIB // dtype.itemsize, dtype)


def test_what_nobody_uses_any_more_is_used_again(memory):
    first = take(8)
    place = first.data_ptr()
    view = first[5:].view(-1)
    del first
    other = take(8)
    assert other.data_ptr() != place  # a view still lies there
    del view
    again = take(8, torch.float64)
    assert again.data_ptr() == place
    assert again.shape == (MIB,)


def test_pieces_in_use_do_not_overlap(memory):
    pieces = [take(size) for size in (3, 5, 3, 8, 4)]
    ranges = sorted((p.data_ptr(), p.data_ptr() + 4 * p.numel()) for p in pieces)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))
    for number, piece in enumerate(pieces):
        piece.fill_(number)
    assert [piece.unique().item() for piece in pieces] == [0, 1, 2, 3, 4]


def test_what_is_kept_is_never_more_than_what_was_in_use(memory):
    for sizes in ((8, 8), (30,), (3, 3, 3), (12,), (2, 40)):
        held = [take(size) for size in sizes]
        reserved = memory._used + sum(block.nbytes for block in memory._spare)
        assert reserved <= memory._most
        del held
    assert memory._used == 0
    assert memory._most == 42 * MIB
    memory.give_back()
    assert memory._spare == []


def test_small_pieces_are_torchs_own(memory):
    assert len(_native.fresh(100, torch.float32)) == 100
    assert memory._most == 0


def test_threads_share_it(memory):
    def work(number):
        for _ in range(200):
            piece = take(2)
            piece[:: MIB // 8].fill_(number)
            assert (piece[:: MIB // 8] == number).all()

    failed = []

    def watched(number):
        try:
            work(number)
        except AssertionError as error:
            failed.append(error)

    threads = [threading.Thread(target=watched, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_training_gives_the_same_in_memory_that_was_used_before(memory, compiled):
    layer = RelationalMemory(16, mem_slots=4, head_size=8, num_heads=2)
    x = torch.randn(64, 40, 16, generator=torch.Generator().manual_seed(0))

    def gradients():
        return torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))

    first = gradients()
    assert memory._spare
    assert memory._used == 0
    places = {block.ctypes.data for block in memory._spare}
    for a, b in zip(gradients(), first, strict=True):
        assert torch.equal(a, b)
    assert {block.ctypes.data for block in memory._spare} == places
    free_memory()
    assert memory._spare == []
