"""Writes that a fast-weight memory holds and reads: the sum of them is the memory, and `origins` goes the other way."""

import json
import re

import pytest
import torch
from unpacking import unpack

from relational_rnn import InputError
from relational_rnn.inspection import fast_page
from relational_rnn.inspection.fast_page import held_writes, shares_read
from relational_rnn.nn import FastWeightMemory

T, H, K, V, L = 6, 2, 4, 3, 5


@pytest.fixture(scope="module", params=[1.0, 2.0])
def traced(request):
    torch.manual_seed(6)
    core = FastWeightMemory(5, 8, num_heads=H, key_size=K, value_size=V, max_strength=request.param).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        return core.trace(3 * torch.randn(1, T, 5, dtype=torch.float64))


def test_the_writes_held_make_up_the_memory(traced):
    held = held_writes(traced)
    for t in range(T):
        memory = torch.einsum("shk,shv->hkv", held[t], traced.values[0])
        torch.testing.assert_close(memory, traced.memory[0, t], rtol=0, atol=1e-12)
        assert not held[t, t + 1 :].any()


def test_a_read_takes_of_each_write_what_origins_says(traced):
    held = held_writes(traced)
    query = torch.randn(1, H, K, dtype=torch.float64)
    for t in range(T):
        weights = torch.einsum("shk,hk->sh", held[t], query[0])
        torch.testing.assert_close(weights, traced.origins(query, after=t + 1)[0], rtol=0, atol=1e-12)


def test_shares_are_of_the_length_that_each_write_gives_signed_by_its_direction(traced):
    looks = torch.randn(T, L, H, K, dtype=torch.float64)
    share = shares_read(traced, held_writes(traced), looks)
    assert share.shape == (T, T, L)
    torch.testing.assert_close(share.abs().sum(1), torch.ones(T, L, dtype=torch.float64))
    signs = set()
    for t in range(T):
        for n in range(L):
            weights = traced.origins(looks[t, n][None], after=t + 1)[0]  # [T, H]
            given = (weights.unsqueeze(-1) * traced.values[0]).flatten(1)
            read = torch.einsum("hk,hkv->hv", looks[t, n], traced.memory[0, t]).flatten()
            torch.testing.assert_close(given.sum(0), read, rtol=0, atol=1e-12)
            expected = given.norm(dim=-1) / given.norm(dim=-1).sum() * torch.sign(given @ read)
            torch.testing.assert_close(share[t, :, n], expected, rtol=0, atol=1e-12)
            signs |= set(torch.sign(expected).tolist())
    assert signs == {-1, 0, 1}


def test_the_page_has_strengths_what_is_held_and_what_is_read(traced):
    looks = torch.randn(T, L, H, K, dtype=torch.float64)
    shown = fast_page(traced, looks, [f"Sentence {t}." for t in range(T)], title="Six").html
    data = json.loads(re.search(r'id="data">(.*?)</script>', shown, re.S)[1])
    strength, held, read = data["opening"]["panels"]
    most = 1 if traced.strengths.max() <= 1 else 2
    assert (strength["most"], held["most"], read["most"]) == (most, most, 1)
    assert unpack(strength["values"]) == pytest.approx(traced.strengths[0].numpy(), abs=2e-5)
    assert unpack(held["values"]) == pytest.approx(held_writes(traced).norm(dim=-1).numpy(), abs=2e-5)
    share = shares_read(traced, held_writes(traced), looks)
    assert unpack(read["values"]) == pytest.approx(share.numpy(), abs=2e-5)
    for t in range(T):
        for n, (label, step, value, _) in enumerate(data["opening"]["named"][t]):
            assert label == f"look {n + 1}"
            assert step == share[t, :, n].abs().argmax()
            assert value == pytest.approx(share[t, step, n].item(), rel=1e-3)


def test_what_does_not_fit_is_refused(traced):
    looks, tokens = torch.zeros(T, L, H, K), ["word"] * T
    with pytest.raises(InputError, match="looks"):
        fast_page(traced, looks[:, :, :1], tokens, title="T")
    with pytest.raises(InputError, match="a token for every step"):
        fast_page(traced, looks, tokens[1:], title="T")
    core = FastWeightMemory(5, 8, num_heads=H, key_size=K, value_size=V)
    with pytest.raises(InputError, match="of one sequence"):
        fast_page(core.trace(torch.zeros(2, T, 5)), looks, tokens, title="T")
    with pytest.raises(InputError, match="has no step"):
        fast_page(core.trace(torch.zeros(1, 0, 5)), looks[:0], [], title="T")
