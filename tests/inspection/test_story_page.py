"""A story through a small model: every number of the page has a second way to be computed."""

import json
import re

import pytest
import torch

from relational_rnn import InputError
from relational_rnn.nn.cores import FastWeightSizes, MemorySizes
from relational_rnn.runs import Asked
from relational_rnn.tasks.babi.answering import StoryReader, influence
from relational_rnn.tasks.babi.encoding import BABI
from relational_rnn.tasks.babi.model import ModelConfig, StoryModel
from relational_rnn.tasks.babi.story import Question, Story
from relational_rnn.tasks.babi.story_page import (
    numbered_questions,
    split_text,
    story_page,
    story_statistics,
    trace_story,
    worst_questions,
)

STORY = ("Mary went to the garden.", "John got the apple there.", "Mary travelled to the office.")
ASKED = "Where is Mary?"
STORIES = [
    Story(1, STORY, (Question(ASKED, "garden", (0,), 1), Question("Where is the apple?", "office", (1,), 3))),
    Story(1, ("Sandra is in the hallway.", "Mary left."), (Question("Where is Sandra?", "attic", (0,), 2),)),
]


def reader_of(core: str = "rmc", *, max_sentences: int | None = None) -> StoryReader:
    torch.manual_seed(3)
    sizes = MemorySizes(mem_slots=3, head_size=12, num_heads=2)
    config = ModelConfig(embedding_size=24, head_size=12, read_heads=3)
    fast = FastWeightSizes(num_heads=2, key_size=7, value_size=7).of(core)
    model = StoryModel.build(BABI, core, sizes, config, fast=fast)
    with torch.no_grad():
        for parameter in model.parameters():  # an untrained model hardly tells one story from another
            parameter.mul_(1.7)
    return StoryReader(model, BABI, max_sentences=max_sentences)


def test_answers_along_the_story_are_those_of_the_shorter_stories():
    reader = reader_of()
    traced = trace_story(reader, STORY, ASKED)
    assert traced.probabilities.shape == (4, len(BABI.answers))
    for n in range(4):
        expected = list(reader(STORY[:n], ASKED).values())
        assert traced.probabilities[n].tolist() == pytest.approx(expected, abs=1e-6)
    found = influence(reader.together, STORY, ASKED)
    assert traced.influence.answer == found.answer
    drops = [effect.drop for effect in found.effects]
    assert [effect.drop for effect in traced.influence.effects] == pytest.approx(drops, abs=1e-6)


def test_the_trace_is_that_of_the_sentences_the_model_reads():
    reader = reader_of()
    reader.model.double()
    traced = trace_story(reader, STORY, ASKED)
    with torch.no_grad():
        batch = reader.batch([STORY], ASKED)
        sentences = reader.model.encoder.statements(batch.statements)
        before = reader.model.core.initial_state(1)
        y, memory = reader.model.core(sentences, before)
    assert torch.allclose(traced.trace.memory[-1], memory[0], atol=1e-12)
    assert torch.allclose(traced.trace.memory.flatten(1), y[0], atol=1e-12)
    assert torch.allclose(traced.before, before[0], atol=1e-12)


@pytest.mark.parametrize("core", ["rmc", "competitive", "fastweights"])
def test_looks_after_each_sentence_are_those_at_the_shorter_stories(core):
    reader = reader_of(core)
    traced = trace_story(reader, STORY, ASKED)
    hops = reader.model.config.read_hops
    for n in (1, 2, 3):
        batch = reader.batch([STORY[:n]], ASKED)
        with torch.no_grad():
            encoder, core_of = reader.model.encoder, reader.model.core
            _, state = core_of(encoder.statements(batch.statements))
            _, seen = reader.model.head.looks(encoder.questions(batch.questions), state)
        for look in range(hops):
            expected = seen[look][0] if core == "fastweights" else seen[look][0].mean(0)
            assert torch.allclose(traced.looks[n - 1, look], expected, atol=1e-5)
    assert traced.looks.shape[:2] == (3, hops)


def test_a_fast_weight_memory_has_its_own_page():
    traced = trace_story(reader_of("fastweights"), STORY, ASKED)
    html = story_page(traced, right="garden", title="A story").html
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])
    assert [panel["name"] for panel in data["opening"]["panels"]] == [
        "strength of head", "still held in head", "read by look",
    ]  # fmt: skip
    names = [column["name"] for column in data["tokenValues"]]
    assert names == ["left out", "kept", "memory's change"]
    assert data["tokenValues"][1]["values"] == pytest.approx(traced.trace.keeps[0].mean(-1).tolist(), rel=1e-4)
    moved = traced.trace.memory[0].diff(dim=0, prepend=traced.trace.start).flatten(1).norm(dim=-1)
    assert data["tokenValues"][2]["values"] == pytest.approx(moved.tolist(), rel=1e-4)
    assert f"The model answers &#39;{traced.influence.answer}&#39;" in html


def test_leaving_out_is_drawn_on_a_scale_from_0_to_1():
    traced = trace_story(reader_of(), STORY, ASKED)
    html = story_page(traced, title="T").html
    rows = re.findall(r'data-value="([-\d.e]+)"><span class="track"><span class="bar \w+" style="width:([\d.]+)%', html)
    drops = [effect.drop for effect in traced.influence.effects]
    drawn = rows[:: len(rows) // 3]  # the first column of every sentence
    assert [float(value) for value, _ in drawn] == pytest.approx(drops, abs=1e-5)
    assert [float(width) for _, width in drawn] == pytest.approx([100 * abs(drop) for drop in drops], abs=0.06)
    assert max(map(abs, drops)) < 0.9  # else the largest of the page would do as well


def test_the_page_has_the_numbers_of_the_trace():
    reader = reader_of()
    traced = trace_story(reader, STORY, ASKED)
    html = story_page(traced, right="garden", title="A story").html
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])
    assert data["tokens"] == [*STORY]
    answer = traced.influence.answer
    values = data["answers"]["values"][data["answers"]["names"].index(answer)]
    assert values == [pytest.approx(reader(STORY[:n], ASKED)[answer], abs=1e-5) for n in (1, 2, 3)]
    assert data["tokenValues"][0]["values"] == [pytest.approx(e.drop, abs=1e-6) for e in traced.influence.effects]


def test_the_page_says_what_was_answered_and_what_is_right():
    traced = trace_story(reader_of(), STORY, ASKED)
    answer = traced.influence.answer
    wrong = next(name for name in BABI.answers if name != answer and "," not in name)
    assert "; right would be &#39;" + wrong in story_page(traced, right=wrong, title="T").html
    assert ", which is right." in story_page(traced, right=answer, title="T").html
    assert "right" not in story_page(traced, title="T").html.split("<h2>")[0].split("<h1>")[1]


def test_a_model_that_reads_only_the_last_sentences_shows_only_those():
    traced = trace_story(reader_of(max_sentences=2), STORY, ASKED)
    assert traced.statements == STORY[1:]
    assert traced.trace.attention.shape[0] == 2


def test_a_core_without_slots_is_refused_with_what_works():
    with pytest.raises(
        InputError, match="only a relational memory or a fast-weight memory can be looked into"
    ) as error:
        trace_story(reader_of("lstm"), STORY, ASKED)
    assert "relational-rnn ask RUN" in str(error.value)


def test_statistics_are_of_slots():
    with pytest.raises(InputError, match="only a relational memory has attention and gates"):
        story_statistics(reader_of("fastweights"), STORIES)


def test_statistics_of_stories_are_those_of_each_read_alone():
    reader = reader_of()
    found = story_statistics(reader, STORIES, at_once=2)
    short, long = (story_statistics(reader, [STORIES[i]]) for i in (1, 0))
    assert torch.allclose(found.entropy, torch.cat([short.entropy, long.entropy]), atol=1e-6)


@pytest.mark.parametrize("max_sentences", [None, 1])
def test_the_worst_questions_are_those_with_the_least_probable_right_answers(max_sentences):
    reader = reader_of(max_sentences=max_sentences)
    worst = worst_questions(reader, STORIES, 10)
    asked = [(story.statements[: question.at], question) for story in STORIES for question in story.questions]
    assert numbered_questions(STORIES) == asked
    assert {place for place, _, _ in worst} == {0, 1, 2}
    for place, answer, chance in worst:
        statements, question = asked[place]
        answers = reader(statements, question.text)
        assert chance == pytest.approx(answers.get(question.answer, 0.0), abs=1e-6)
        assert answer == max(answers, key=lambda name: answers[name])
    assert [chance for _, _, chance in worst] == sorted(chance for _, _, chance in worst)
    assert worst[0][0] == 2  # nobody knows an attic
    assert worst_questions(reader, STORIES, 1) == worst[:1]


def test_there_is_no_question_zero():
    with pytest.raises(InputError, match="there is no such example"):
        Asked(example=0).number(3)
    with pytest.raises(InputError, match="1 to 3"):
        Asked(example=4).number(3)
    with pytest.raises(InputError, match="count must be a whole number"):
        worst_questions(reader_of(), STORIES, 0)


def test_a_text_is_cut_into_sentences():
    assert split_text("Mary left\nJohn  went home.Sandra slept!  Where is she?\n") == (
        ("Mary left", "John  went home.", "Sandra slept!"),
        "Where is she?",
    )
    with pytest.raises(InputError, match="must end with a question"):
        split_text("Mary left.")
    with pytest.raises(InputError, match="must end with a question"):
        split_text(" ... ")
    with pytest.raises(InputError, match="a question needs a story before it"):
        split_text("Where is Mary?")
