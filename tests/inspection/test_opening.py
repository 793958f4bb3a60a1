"""What a slot holds of each sentence: by the gates that brought it in and kept it."""

import numpy as np
import pytest
import torch
from unpacking import unpack

from relational_rnn import RelationalMemory
from relational_rnn.inspection import Named, Opening, Panel, slots_opening
from relational_rnn.inspection.opening import what_is_left

T, L, N = 6, 2, 3


def traced(gate_style, heads=1):
    torch.manual_seed(2)
    layer = RelationalMemory(4, N, 5, num_heads=heads, gate_style=gate_style).double()
    with torch.no_grad():
        return layer.trace(torch.randn(T, 4, dtype=torch.float64)), layer.initial_state(1)[0].double()


def test_what_is_left_of_every_step_makes_up_the_memory():
    trace, start = traced("memory")  # a gate for a slot, so that what is left is one number per slot
    came_in, stayed = trace.update()
    for t, left in enumerate(what_is_left(came_in, stayed)):
        from_steps = torch.einsum("sn,snm->nm", left, torch.tanh(trace.candidate))
        memory = from_steps + stayed[: t + 1].prod(0) * start
        torch.testing.assert_close(memory, trace.memory[t], rtol=0, atol=1e-12)
        assert not left[t + 1 :].any()


@pytest.mark.parametrize("gate_style", ["unit", "competitive"])
def test_what_is_left_is_the_mean_over_the_numbers_of_a_slot(gate_style):
    trace, _ = traced(gate_style)
    came_in, stayed = trace.update()
    left = what_is_left(came_in, stayed)[-1]
    for s in range(T):
        expected = (came_in[s] * stayed[s + 1 :].prod(0)).mean(-1)
        torch.testing.assert_close(left[s], expected, rtol=0, atol=1e-12)


def test_the_figure_shows_gates_shares_and_looks_and_names_what_is_held():
    trace, _ = traced("competitive")
    looks = torch.rand(T, L, N, generator=torch.Generator().manual_seed(3)).softmax(-1)
    opening = slots_opening(trace, looks)
    data = opening.data()
    replaced, share = data["panels"]
    assert (replaced["name"], share["name"]) == ("replaced in slot", "share taken by slot")
    assert unpack(replaced["values"]) == pytest.approx(trace.update()[0].mean(-1).numpy(), abs=1e-5)
    assert unpack(share["values"]) == pytest.approx(trace.share.mean(-1).numpy(), abs=1e-5)
    assert unpack(share["values"]).sum(-1) == pytest.approx(np.ones(T), abs=1e-4)
    assert unpack(replaced["looks"]) == pytest.approx(looks.numpy(), abs=1e-5)
    left, step = what_is_left(*trace.update())[3].max(0)
    for i, (label, named, value, note) in enumerate(data["named"][3]):
        assert (label, named, value) == (f"slot {i + 1}", step[i].item(), pytest.approx(left[i].item(), rel=1e-3))
        readers = [str(n + 1) for n in range(L) if looks[3, n].argmax() == i]
        assert [word.strip(",") for word in note.split()[1:]] == readers


def test_a_memory_without_gates_is_replaced_by_every_step():
    trace, _ = traced(None)
    opening = slots_opening(trace, torch.full((T, L, N), 1 / N))
    assert (opening.panels[0].values == 1).all()
    assert [[line.step for line in lines] for lines in opening.named] == [[t] * N for t in range(T)]
    assert "no gates" in opening.caption
    assert len(opening.panels) == 1


def test_words_from_outside_are_escaped():
    panel = Panel(name="<b>", values=np.zeros((1, 2)))
    named = [[Named(label="<i>", step=0, value=0.5)]]
    html = Opening(heading="<a>", caption="<u>", panels=[panel], head=["<p>"], named=named).html()
    assert not any(tag in html for tag in ("<a>", "<u>", "<p>"))
