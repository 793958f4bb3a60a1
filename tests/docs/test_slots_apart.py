"""The experiment of experiments/slots_apart.py: slots that do not see one another."""

from pathlib import Path

import pytest
import torch
from scripts import load

from relational_rnn import RelationalMemory


@pytest.fixture(scope="module")
def slots_apart():
    return load(Path(__file__).parents[2] / "experiments" / "slots_apart.py")


def test_each_slot_is_a_memory_of_its_own_with_the_same_parameters(slots_apart):
    torch.manual_seed(0)
    memory = RelationalMemory(5, 3, 4, num_heads=2, gate_style="memory")
    apart = slots_apart.SlotsApart(memory)
    assert {name for name, _ in apart.alone.named_parameters()} == {name for name, _ in memory.named_parameters()}
    x = torch.randn(2, 6, 5)
    lengths = torch.tensor([6, 4])
    y, last = apart(x, lengths=lengths)
    assert y.shape == memory(x)[0].shape
    assert last.shape == memory.initial_state(2).shape
    one = memory.alike(mem_slots=1)
    one.load_state_dict(memory.state_dict())
    for slot in range(3):
        start = memory.initial_state(2)[:, slot : slot + 1]
        expected, memory_after = one(x, start, lengths=lengths)
        torch.testing.assert_close(y[..., 8 * slot : 8 * slot + 8], expected)
        torch.testing.assert_close(last[:, slot], memory_after[:, 0])
    assert not torch.allclose(y, memory(x, lengths=lengths)[0])  # with the others in sight it is another memory
