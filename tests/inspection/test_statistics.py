"""Statistics of attention that can be worked out by hand, and means over steps that happened alone."""

import math

import pytest
import torch

from relational_rnn import InputError, RelationalMemory
from relational_rnn.inspection import attention_statistics, statistics_section
from relational_rnn.ops.relational_scan import Trace

N, M = 3, 4


def made_up(attention: torch.Tensor, memory: torch.Tensor, gate: float = 0.25) -> Trace:
    """A trace of one sequence, one step and one head."""
    gates = torch.full((1, 1, N, M), gate)
    return Trace(
        attention=attention.view(1, 1, 1, 1, N + 1, N + 1),
        input_gate=gates,
        forget_gate=1 - gates,
        candidate=memory.view(1, 1, N, M),
        memory=memory.view(1, 1, N, M),
    )


def test_each_figure_is_what_its_name_says():
    looks = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1.0]])
    memory = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0], [0, 3.0, 0, 0]])
    found = attention_statistics([(made_up(looks, memory), None)])
    assert found.entropy.item() == pytest.approx(1 / 3)  # one slot of three looks at all rows alike
    assert found.to_itself.item() == pytest.approx((1 + 0 + 0.25) / 3)
    assert found.to_others.item() == pytest.approx((0 + 1 + 0.5) / 3)
    assert found.to_input.item() == pytest.approx(0.25 / 3)
    # Distances 0, 1 and (2 + 1 + 0) / 4, over the weight that lies on slots.
    assert found.distance.item() == pytest.approx((0 + 1 + 0.75) / (1 + 1 + 0.75))
    assert found.input_gate.tolist() == [[0.25] * N]
    assert found.forget_gate.tolist() == [[0.75] * N]
    assert found.likeness.item() == pytest.approx(1 / 3)  # one pair of three is parallel, the others are orthogonal


def test_uniform_attention_has_entropy_1_and_the_distance_of_the_docstring():
    found = attention_statistics([(made_up(torch.full((N + 1, N + 1), 1 / (N + 1)), torch.eye(N, M)), None)])
    assert found.entropy.item() == pytest.approx(1)
    assert found.distance.item() == pytest.approx((N * N - 1) / (3 * N))
    assert found.likeness.item() == pytest.approx(0)


def test_padding_does_not_count_and_empty_sequences_are_left_out():
    torch.manual_seed(0)
    layer = RelationalMemory(input_size=5, mem_slots=N, head_size=2, num_heads=2)
    x, lengths = torch.randn(3, 6, 5), torch.tensor([6, 0, 2])
    found = attention_statistics([(layer.trace(x, lengths=lengths), lengths)])
    alone = [attention_statistics([(layer.trace(x[i : i + 1, :n]), None)]) for i, n in ((0, 6), (2, 2))]
    for name in ("entropy", "to_input", "distance", "input_gate", "likeness"):
        expected = torch.cat([getattr(part, name) for part in alone])
        assert torch.allclose(getattr(found, name), expected, atol=1e-6), name


def first_of(trace: Trace) -> Trace:
    return trace.map(lambda tensor: tensor[0])


def test_a_memory_without_gates_has_no_means_of_them():
    layer = RelationalMemory(input_size=5, mem_slots=N, head_size=2, gate_style=None)
    trace = layer.trace(torch.randn(2, 4, 5))
    found = attention_statistics([(trace, None)])
    assert found.input_gate is None
    assert found.forget_gate is None
    assert "Gates" not in statistics_section(first_of(trace), found, what="two").html


def test_slots_that_compete_have_what_came_in_and_what_stayed():
    layer = RelationalMemory(input_size=5, mem_slots=N, head_size=2, gate_style="competitive")
    trace = layer.trace(torch.randn(2, 4, 5))
    found = attention_statistics([(trace, None)])
    moved = (N * trace.share * trace.input_gate).clamp(max=1)
    torch.testing.assert_close(found.input_gate, moved.mean((1, 3)).double(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.forget_gate, 1 - found.input_gate, rtol=1e-6, atol=1e-7)
    assert "Gates" in statistics_section(first_of(trace), found, what="two").html


def test_the_section_sets_one_beside_many():
    layer = RelationalMemory(input_size=5, mem_slots=N, head_size=2, num_heads=2)
    many = attention_statistics([(layer.trace(torch.randn(4, 6, 5)), None)])
    trace = layer.trace(torch.randn(1, 6, 5))
    one = attention_statistics([(trace, None)])
    section = statistics_section(trace, many, what="4 <sequences>")
    assert section.text.startswith("Here: this page's sequence. All: mean over 4 <sequences>, ±")
    here, values = one.to_input[0, 0, 1].item(), many.to_input[:, 0, 1]
    row = section.html.split(">1, 2<")[1].split("</tr>")[0]
    assert f">{here:.3f}<" in row
    assert f">{values.mean():.3f} ± {values.std():.3f}<" in row
    assert math.isfinite(here)


def test_a_single_slot_is_not_compared_with_others():
    layer = RelationalMemory(input_size=5, mem_slots=1, head_size=2, num_heads=2)
    trace = layer.trace(torch.randn(4, 6, 5))
    html = statistics_section(first_of(trace), attention_statistics([(trace, None)]), what="four").html
    assert "to itself: here" in html
    assert not any(words in html for words in ("other slots", "distance", "Likeness"))


def test_no_step_at_all_is_refused():
    layer = RelationalMemory(input_size=5, mem_slots=N, head_size=2)
    lengths = torch.tensor([0, 0])
    with pytest.raises(InputError, match="there is no sequence with a step"):
        attention_statistics([(layer.trace(torch.randn(2, 4, 5), lengths=lengths), lengths)])
    with pytest.raises(InputError, match="there is no sequence with a step"):
        attention_statistics([])
    with pytest.raises(InputError, match="the attention of a batch must have 6 axes"):
        attention_statistics([(layer.trace(torch.randn(4, 5)), None)])
