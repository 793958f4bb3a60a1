"""A trained model asked one question at a time answers as it does in a batch."""

import pytest
import torch

from relational_rnn import InputError
from relational_rnn.nn.cores import CORE_NAMES, FastWeightSizes, MemorySizes
from relational_rnn.tasks.babi.answering import StoryReader, influence
from relational_rnn.tasks.babi.batching import EncodedStories
from relational_rnn.tasks.babi.encoding import BABI
from relational_rnn.tasks.babi.model import ModelConfig, StoryModel
from relational_rnn.tasks.babi.story import Question, Story

FAST = FastWeightSizes(num_heads=2, key_size=3, value_size=4)
SIZES = MemorySizes(mem_slots=3, head_size=5, num_heads=2)
CONFIG = ModelConfig(embedding_size=24, head_size=12, read_heads=3, dropout=0.5)
LONG = Story(
    1,
    ("Mary went to the garden.", "John got the apple there.", "Mary travelled to the office."),
    (Question("Where is Mary?", "garden", (0,), 1), Question("Where is the apple?", "office", (1,), 3)),
)
SHORT = Story(1, ("Sandra is in the hallway.", "Mary left."), (Question("Where is Sandra?", "hallway", (0,), 2),))


def read(core: str) -> StoryReader:
    torch.manual_seed(3)
    return StoryReader(StoryModel.build(BABI, core, SIZES, CONFIG, fast=FAST.of(core)), BABI)


@pytest.mark.parametrize("core", CORE_NAMES)
def test_one_question_is_answered_as_in_a_padded_batch(core):
    reader = read(core)
    with torch.inference_mode():
        batched = reader.model(EncodedStories([SHORT, LONG], BABI).batch([0, 1])).softmax(-1)
    asked = [(SHORT, SHORT.questions[0]), *((LONG, question) for question in LONG.questions)]
    for row, (story, question) in zip(batched, asked, strict=True):
        answers = reader(story.statements[: question.at], question.text)
        assert torch.tensor(list(answers.values())) == pytest.approx(row.double(), abs=1e-6)
        assert tuple(answers) == BABI.answers


@pytest.mark.parametrize("core", CORE_NAMES)
def test_without_its_only_sentence_a_story_is_answered_from_the_start_of_the_memory(core):
    reader = read(core)
    empty = reader([], "Where is Mary?")
    assert sum(empty.values()) == pytest.approx(1.0)
    found = influence(reader.together, ["Mary went to the garden."], "Where is Mary?")
    assert found.effects[0].drop == pytest.approx(found.probability - empty[found.answer])
    assert found.effects[0].drop != 0


def test_unknown_words_are_named_with_words_like_them():
    with pytest.raises(InputError) as error:
        read("lstm")(["Marry went to the kitchin."], "Where is Mary?")
    assert "the story: unknown words: marry, kitchin" in str(error.value)
    assert "for 'marry' try 'mary" in str(error.value)
    assert "for 'kitchin' try 'kitchen" in str(error.value)
    with pytest.raises(InputError, match="the question: unknown word: xylophone"):
        read("lstm")(["Mary left."], "Where is the xylophone?")
