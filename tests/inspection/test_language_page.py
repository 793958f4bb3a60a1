"""A text through a memory: its columns, and the reactions, each computed a second way."""

import json
import re

import pytest
import torch

from relational_rnn import InputError, RelationalMemory
from relational_rnn.tasks.language.language_page import language_page

T, N, H, M = 6, 2, 3, 12
WORDS = ["the", " ", "cat", "\n", "<b>sat</b>", "the"]
BITS = [None, 1.5, 7.25, 0.0, 12.5, 2.0]


def traced(**choices):
    torch.manual_seed(6)
    layer = RelationalMemory(input_size=5, mem_slots=N, head_size=M // H, num_heads=H, input_rows=2, **choices)
    return layer.trace(torch.randn(1, T, 2, 5)), layer.initial_state(1)[0]


def data_of(html: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])


def reactions(html: str) -> list[list[str]]:
    body = html[html.index("Strongest reactions") :].split("<tbody>")[1].split("</tbody>")[0]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in body.split("\n")]


def test_the_columns_are_the_surprise_and_what_the_memory_did():
    trace, before = traced()
    columns = {
        c["name"]: c["values"] for c in data_of(language_page(trace, WORDS, BITS, before=before).html)["tokenValues"]
    }
    assert list(columns) == ["surprise", "attention to it", "input gate", "memory's change"]
    assert columns["surprise"] == BITS
    for t in range(T):
        weights = trace.attention[0, t, :, :, :N]  # the rows that look are the slots
        assert columns["attention to it"][t] == pytest.approx(weights[..., N:].sum(-1).mean().item(), rel=1e-5)
        assert columns["input gate"][t] == pytest.approx(trace.input_gate[0, t].mean().item(), rel=1e-5)
        last = before if t == 0 else trace.memory[0, t - 1]
        assert columns["memory's change"][t] == pytest.approx((trace.memory[0, t] - last).norm().item(), rel=1e-5)


@pytest.mark.parametrize("known", [True, False])
def test_the_strongest_reactions_stand_in_order_and_what_is_not_known_is_left_out(known):
    trace, before = traced()
    html = language_page(trace, WORDS, BITS, before=before if known else None, strongest=4).html
    held = torch.cat([before[None], trace.memory[0]]) if known else trace.memory[0]
    moved = held.diff(dim=0).flatten(1).norm(dim=1)
    first = 0 if known else 1
    expected = [int(t) + first for t in moved.argsort(descending=True)[:4]]
    rows = reactions(html)
    assert [int(row[0]) - 1 for row in rows] == expected
    assert [row[3] for row in rows] == [f"{moved[t - first]:.3f}" for t in expected]
    assert [row[2] for row in rows] == ["" if BITS[t] is None else f"{BITS[t]:.2f}" for t in expected]
    shown = {1: "␣", 3: "⏎", 4: "&lt;b&gt;sat&lt;/b&gt;"}
    assert [row[1] for row in rows] == [shown.get(t, WORDS[t]) for t in expected]
    bits, lengths = torch.tensor(BITS[1:]), moved[-5:]
    a, b = bits - bits.mean(), lengths - lengths.mean()
    together = (a @ b / a.norm() / b.norm()).item()
    assert (
        f"Over the 5 tokens with a surprise, surprise and the memory's change have a correlation of {together:.2f}"
        in (html.replace("&#39;", "'"))
    )


def test_without_gates_or_surprises_the_page_says_less():
    trace, _ = traced(gate_style=None)
    html = language_page(trace, WORDS, [None] * T).html
    assert [c["name"] for c in data_of(html)["tokenValues"]] == ["surprise", "attention to it", "memory's change"]
    assert "correlation" not in html


def test_what_does_not_fit_is_refused():
    trace, before = traced()
    for message, words, bits, more in (
        ("surprise must have a value for every step", WORDS, BITS[1:], {}),
        ("a surprise is below 0", WORDS, [*BITS[1:], -0.5], {}),
        ("surprise has a value that is not finite", WORDS, [*BITS[1:], float("inf")], {}),
        ("there must be a token for every step", WORDS[1:], BITS, {}),
        ("before must be the memory of one sequence", WORDS, BITS, {"before": before[None]}),
        ("strongest must be a whole number", WORDS, BITS, {"strongest": 0}),
    ):
        with pytest.raises(InputError, match=message):
            language_page(trace, words, bits, **more)
