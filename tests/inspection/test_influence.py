"""Leave-one-out influence, on a judge whose answer can be worked out by hand."""

import pytest

from relational_rnn import InputError
from relational_rnn.tasks.babi.answering import influence

STORY = ["Mary went to the kitchen.", "John went to the garden.", "Mary went to the hallway.", "Sandra laughed."]


def each(answer):
    """The same for several stories."""
    return lambda stories, question: [answer(story, question) for story in stories]


def last_seen(statements, question):
    """The last place of the person asked for gets 0.7, an earlier one 0.2; the rest is shared."""
    places = [s.split()[-1].strip(".") for s in statements if s.startswith(question.split()[-1].strip("?"))]
    scores = dict.fromkeys(["garden", "hallway", "kitchen"], 0.1)
    for weight, place in zip((0.7, 0.2), reversed(places), strict=False):
        scores[place] = weight
    return scores


def test_the_sentence_that_decides_has_the_largest_drop_and_says_what_the_answer_becomes():
    found = influence(each(last_seen), STORY, "Where is Mary?")
    assert (found.answer, found.probability) == ("hallway", 0.7)
    assert (found.runner_up, found.runner_up_probability) == ("kitchen", 0.2)
    assert [round(effect.drop, 10) for effect in found.effects] == [0.0, 0.0, 0.6, 0.0]
    assert [effect.answer_without for effect in found.effects] == ["hallway", "hallway", "kitchen", "hallway"]
    assert [effect.sentence for effect in found.strongest(0.01)] == ["Mary went to the hallway."]


def test_a_sentence_that_misleads_has_a_negative_drop_and_comes_last():
    def unsure(statements, question):
        doubt = 0.3 if "John went to the garden." in statements else 0.0
        known = 0.2 if "Mary went to the hallway." in statements else 0.0
        return {"hallway": 0.6 + known - doubt, "garden": 0.1}

    found = influence(each(unsure), STORY, "Where is Mary?")
    assert [(effect.index, round(effect.drop, 10)) for effect in found.strongest(0.05)] == [(2, 0.2), (1, -0.3)]


def test_each_sentence_is_left_out_once_and_the_order_is_kept():
    asked = []

    def record(statements, question):
        asked.append(list(statements))
        return {"yes": 1.0}

    found = influence(each(record), STORY, "Is it?")
    assert asked == [STORY, STORY[1:], [STORY[0], *STORY[2:]], [*STORY[:2], STORY[3]], STORY[:3]]
    assert (found.runner_up, found.runner_up_probability) == (None, 0.0)


def test_a_question_without_a_story_is_refused():
    with pytest.raises(InputError, match="a question needs a story before it"):
        influence(each(last_seen), [], "Where is Mary?")


@pytest.mark.parametrize("when", ["at once", "without a sentence"])
def test_a_judge_without_answers_is_refused(when):
    def silent(statements, question):
        return {} if when == "at once" or len(statements) < len(STORY) else {"yes": 1.0}

    with pytest.raises(InputError, match="no answer has a probability"):
        influence(each(silent), STORY, "Is it?")
