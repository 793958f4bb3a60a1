"""What a page keeps of a trace, read back from the file, and what it refuses."""

import json
import re

import numpy as np
import pytest
import torch
from unpacking import unpack

from relational_rnn import InputError, RelationalMemory
from relational_rnn.inspection import Section, TokenValues, page
from relational_rnn.inspection.page import MOST_ANSWERS

T, N, H, M = 5, 3, 2, 8
WORDS = ["Mary", "went", "to", "the", "garden"]


def layer(**choices) -> RelationalMemory:
    torch.manual_seed(2)
    return RelationalMemory(input_size=6, mem_slots=N, head_size=4, num_heads=H, **choices)


def data_of(html: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"gate_style": "memory", "num_blocks": 2},
        {"gate_style": None, "input_rows": 3},
        {"gate_style": "competitive"},
        {"num_layers": 2},
    ],
    ids=lambda choices: "-".join(choices) or "plain",
)
def test_the_numbers_of_the_file_are_those_of_the_trace(choices):
    memory = layer(**choices)
    x = torch.randn(1, T, *([3] if "input_rows" in choices else []), 6)
    trace = memory.trace(x)
    before = memory.initial_state(1).view(-1, N, M)[-1]
    html = page(trace, WORDS, before=before).html
    data, (came_in, stayed) = data_of(html), trace.update() or (None, None)
    assert ("slots compete for the input" in html) == (choices.get("gate_style") == "competitive")
    expected = {
        "attention": trace.attention[0, ..., :N, :],
        "inputGate": came_in,
        "forgetGate": stayed,
        "memory": torch.cat([before[None], trace.memory[0]]),
    }
    for name, values in expected.items():
        if values is None:
            assert data[name] is None
        else:
            values = values.detach().view(data[name]["shape"]).double().numpy()
            assert np.abs(unpack(data[name]) - values).max() <= data[name]["precision"] + 1e-7
    sizes = [data[name] for name in ("steps", "blocks", "heads", "slots", "inputs", "width", "gateWidth")]
    gates = {None: 0, "memory": 1}.get(choices.get("gate_style", "unit"), M)
    assert sizes == [T, choices.get("num_blocks", 1), H, N, choices.get("input_rows", 1), M, gates]


def test_a_sequence_without_a_batch_gives_the_same_page():
    memory = layer()
    x = torch.randn(T, 6)
    assert page(memory.trace(x), WORDS).html == page(memory.trace(x[None]), WORDS).html


def test_without_the_memory_before_the_first_step_its_change_is_left_open():
    memory = layer()
    trace = memory.trace(torch.randn(T, 6))
    assert data_of(page(trace, WORDS).html)["tokenValues"][-1]["values"][0] is None
    changes = data_of(page(trace, WORDS, before=memory.initial_state(1)[0]).html)["tokenValues"][-1]["values"]
    held = torch.cat([memory.initial_state(1), trace.memory])
    assert changes == pytest.approx((held[1:] - held[:-1]).flatten(1).norm(dim=1).tolist(), rel=1e-5)


def test_the_answers_that_are_drawn_are_those_that_ever_mattered_the_last_and_the_right_one():
    trace = layer().trace(torch.randn(T, 6))
    answers = {f"a{i}": [0.01 * i] * T for i in range(20)}
    answers["once"] = [0.0, 0.9, 0.0, 0.0, None]
    drawn = data_of(page(trace, WORDS, answers=answers, right="a0").html)["answers"]
    assert drawn["names"] == ["a19", "a18", "a17", "a16", "a0", "once"]
    assert len(drawn["names"]) == MOST_ANSWERS
    assert drawn["values"][5] == [0.0, 0.9, 0.0, 0.0, None]


def test_words_flow_and_sentences_stand_in_lines():
    trace = layer().trace(torch.randn(T, 6))
    assert 'class="tokens flow"' in page(trace, WORDS).html
    assert 'class="tokens sorts"' in page(trace, ["Mary went home.", *WORDS[1:]]).html
    assert 'class="tokens sorts"' in page(trace, WORDS, layout="lines").html


def test_sections_and_notes_are_on_the_page():
    trace = layer().trace(torch.randn(T, 6))
    html = page(trace, WORDS, sections=[Section("More & more", "a <b> c", "<table></table>")], notes=["<i>"]).html
    assert "<h2>More &amp; more</h2><p>a &lt;b&gt; c</p><table></table>" in html
    assert "<li><bdi>&lt;i&gt;</bdi></li>" in html


def test_an_argument_that_no_page_has_is_refused():
    with pytest.raises(TypeError, match="a page has no argument 'note'"):
        page(layer().trace(torch.randn(T, 6)), WORDS, note=["nobody would see it"])


@pytest.mark.parametrize("known", [True, False])
def test_a_sequence_may_have_a_single_step(known):
    memory = layer()
    before = memory.initial_state(1)[0] if known else None
    html = page(memory.trace(torch.randn(1, 6)), ["Mary"], before=before).html
    assert [value is not None for value in data_of(html)["tokenValues"][0]["values"]] == [known]


def test_a_page_is_saved_into_a_new_folder(tmp_path):
    shown = page(layer().trace(torch.randn(T, 6)), WORDS)
    assert shown.save(tmp_path / "new" / "page.html").read_text(encoding="utf-8") == shown.html


def sized(steps: int, slots: int, heads: int) -> int:
    memory = RelationalMemory(input_size=9, mem_slots=slots, head_size=32, num_heads=heads)
    tokens = [f"Mary travelled to the kitchen with John {t}." for t in range(steps)]
    values = TokenValues(name="left out", description="falls", values=[0.123456] * steps)
    answers = {f"answer {i}": [0.1234567] * steps for i in range(60)}
    trace = memory.trace(torch.randn(steps, 9))
    before = memory.initial_state(1)[0]
    return len(page(trace, tokens, before=before, answers=answers, token_values=[values] * 2).html.encode())


def test_a_long_story_takes_less_than_8_megabytes_and_a_short_one_less_than_2():
    assert sized(228, slots=8, heads=4) < 8e6
    assert sized(10, slots=8, heads=4) < 2e6


def refused(message: str, *args, **kwargs):
    with pytest.raises(InputError, match=message) as error:
        page(*args, **kwargs)
    return str(error.value)


def test_what_cannot_be_shown_is_refused():
    memory = layer()
    trace = memory.trace(torch.randn(T, 6))
    refused("trace must be what RelationalMemory.trace returns", torch.zeros(3), WORDS)
    said = refused("the trace must be of one sequence", memory.trace(torch.randn(2, T, 6)), WORDS)
    assert "trace.map(lambda tensor: tensor[i])" in said
    refused("the sequence has no step", memory.trace(torch.randn(1, 0, 6)), [])
    assert "got       4" in refused("there must be a token for every step", trace, WORDS[:4])
    refused("before must be the memory of one sequence", trace, WORDS, before=memory.initial_state(1))
    refused("layout is not a known choice", trace, WORDS, layout="tree")
    refused("answers 'yes' must have a value for every step", trace, WORDS, answers={"yes": [0.5]})
    refused("answers 'yes' has a value that is not finite", trace, WORDS, answers={"yes": [0.5] * 4 + [float("nan")]})
    bad = TokenValues(name="left out", description="", values=[1.0])
    refused("token_values 'left out' must have a value for every step", trace, WORDS, token_values=[bad])
    broken = trace.map(lambda tensor: tensor.detach().clone())
    broken.memory[2, 1, 0] = float("nan")
    refused("the memory: there are numbers that cannot be drawn", broken, WORDS)
