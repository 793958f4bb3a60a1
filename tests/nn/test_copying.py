"""The machines with a memory matrix learn to copy (Graves et al., 2014, section 4.1), at toy size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from relational_rnn.nn.dnc import DNC
from relational_rnn.nn.ntm import NTM

BITS, LONGEST = 4, 4


def copying(size, length, generator):
    """`length` words of random bits, a mark, then silence while they are to be repeated."""
    words = torch.randint(0, 2, (size, length, BITS), generator=generator).float()
    x = torch.zeros(size, 2 * length + 1, BITS + 1)
    x[:, :length, :BITS] = words
    x[:, length, BITS] = 1
    return x, words


def share_of_right_bits(core, head):
    x, words = copying(64, LONGEST, torch.Generator().manual_seed(99))
    with torch.no_grad():
        said = head(core(x)[0][:, LONGEST + 1 :]) > 0
    return (said == (words > 0.5)).float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", [NTM, DNC])
def test_learns_to_copy(kind, seed):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    core = kind(BITS + 1, 32, memory_slots=12, word_size=8)
    head = nn.Linear(core.output_size, BITS)
    parameters = [*core.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.005)
    curve = []
    for step in range(1, 2501):
        length = int(torch.randint(1, LONGEST + 1, (), generator=generator))
        x, words = copying(32, length, generator)
        loss = F.binary_cross_entropy_with_logits(head(core(x)[0][:, length + 1 :]), words)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        if step % 250 == 0:
            curve.append(round(share_of_right_bits(core, head), 3))
            if curve[-1] > 0.999:
                break
    print(f"{kind.__name__}, seed {seed}: right bits every 250 steps: {curve}")
    assert curve[-1] > 0.999, curve
