"""A step followed by hand through a made-up trace, and the figure that shows it."""

import xml.etree.ElementTree as ElementTree

import pytest
import torch

from relational_rnn import InputError, RelationalMemory
from relational_rnn.inspection import ReferenceExample, follow, reference_section
from relational_rnn.ops.relational_scan import Trace

T, S, H, N, M = 4, 2, 3, 3, 5


def made_up(reference: int, gates: bool = True) -> Trace:
    """Slot 2 looks at the input most, but its gate is nearly shut: slot 1 takes the reference."""
    attention = torch.zeros(T, S, H, N + 1, N + 1)
    attention[..., 0] = 1.0
    attention[reference, ..., 0] = 0.0
    attention[reference, :, :, :N, N] = torch.tensor([0.2, 0.6, 0.9])
    attention[reference + 1 :, 0, 0, 0, 1] = 0.6  # in one block and head of six
    gate = torch.full((T, N, M), 0.5)
    gate[:, 2] = 0.01
    return Trace(
        attention=attention,
        input_gate=gate if gates else None,
        forget_gate=gate if gates else None,
        candidate=torch.zeros(T, N, M),
        memory=torch.zeros(T, N, M),
    )


def test_the_slot_is_the_one_that_looked_and_let_in():
    found = follow(made_up(1), 1)
    assert found.writing.tolist() == pytest.approx([0.1, 0.3, 0.009])
    assert found.slot == 1
    assert found.looks.shape == (T, N)
    assert found.looks[2:, 0].tolist() == pytest.approx([0.1, 0.1])
    assert found.looks[0].tolist() == [0.0] * N
    assert follow(made_up(1, gates=False), 1).slot == 2


def test_the_figure_has_a_matrix_for_every_step_and_frames_what_matters():
    examples = [ReferenceExample(trace=made_up(at), reference=at, caption=f"<at {at}>") for at in (0, 2)]
    section = reference_section(examples)
    svg = section.html[section.html.index("<svg") : section.html.index("</svg>") + 6]
    frames = [r for r in ElementTree.fromstring(svg).iter() if r.get("stroke") == "#d55e00"]
    thick = [float(r.get("x")) for r in frames if r.get("stroke-width") == "2.5"]
    assert len(thick) == 2
    assert len(frames) - len(thick) == 3 + 1  # the slot's column, once for every step after the reference
    texts = [r.text for r in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["<at 0>", "1", "2", "3", "4", "<at 2>", "1", "2", "3", "4"]
    assert "&lt;at 0&gt;: step 1 goes mostly to slot 2; slots then give it 0.03 of their attention." in section.html


def test_a_real_trace_of_a_batch_of_one_is_taken_and_others_are_refused():
    layer = RelationalMemory(input_size=5, mem_slots=3, head_size=2, input_rows=2)
    assert follow(layer.trace(torch.randn(1, 6, 2, 5)), 5).looks.shape == (6, 3)
    layer = RelationalMemory(input_size=5, mem_slots=3, head_size=2, gate_style="competitive")
    trace = layer.trace(torch.randn(6, 5))
    moved = (3 * trace.share[4] * trace.input_gate[4]).clamp(max=1).mean(-1)
    torch.testing.assert_close(follow(trace, 4).writing, trace.attention[4, 0, 0, :3, 3] * moved)
    layer = RelationalMemory(input_size=5, mem_slots=3, head_size=2, input_rows=2)
    with pytest.raises(InputError, match="the trace must be of one sequence"):
        follow(layer.trace(torch.randn(2, 6, 2, 5)), 0)
    with pytest.raises(InputError, match="there is no such step"):
        follow(made_up(1), T)
    with pytest.raises(InputError, match="there is no example"):
        reference_section([])
