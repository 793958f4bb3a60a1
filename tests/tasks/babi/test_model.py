"""The story model: questions stay apart, batching changes nothing, every core fits, sizes match, it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from made_up import made_up_story
from stub_core import StubCore
from torch import Tensor

from relational_rnn._check import InputError
from relational_rnn.nn.cores import CORE_NAMES, MemorySizes, count_parameters
from relational_rnn.tasks.babi.batching import BabiData, Batch, EncodedStories
from relational_rnn.tasks.babi.encoding import BABI, Vocabulary
from relational_rnn.tasks.babi.model import (
    AnswerHead,
    ModelConfig,
    SentenceEncoder,
    StoryModel,
    answer_loss,
    count_correct,
)
from relational_rnn.tasks.babi.story import Story

CONFIG = ModelConfig(embedding_size=12, question_steps=2, read_hops=2, read_heads=3, head_size=15, head_layers=1)
SIZES = MemorySizes(mem_slots=3, head_size=7, num_heads=2)
STORIES = [made_up_story(task, number) for task, number in ((1, 0), (2, 3), (7, 11), (19, 6), (4, 2))]
VOCABULARY = Vocabulary.build(STORIES)


def make_model(core: str = "stub", config: ModelConfig = CONFIG, vocabulary: Vocabulary = VOCABULARY) -> StoryModel:
    """A model in float64 whose every parameter is random, so that nothing cancels."""
    torch.manual_seed(7)
    if core == "stub":
        sizes = len(vocabulary.words), len(vocabulary.answers)
        model = StoryModel(*sizes, StubCore(config.embedding_size, 10), config, max_words=vocabulary.max_words)
    else:
        model = StoryModel.build(vocabulary, core, SIZES, config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval()


def ask(model: StoryModel, *stories: Story, vocabulary: Vocabulary = VOCABULARY) -> Tensor:
    with torch.no_grad():
        return model(EncodedStories(stories, vocabulary).batch(range(len(stories))))


CORES = pytest.mark.parametrize("core", ["stub", *CORE_NAMES])
FIRST = replace(CONFIG, question_first=True)
TWICE = replace(FIRST, reads=2)
WORDS = replace(TWICE, match_words=True, linked_words=2, recalled_words=3)
CONFIGS = pytest.mark.parametrize(
    "config", [CONFIG, FIRST, TWICE, WORDS], ids=["question after", "question first", "twice", "words"]
)


def told_before(model: StoryModel, batch: Batch, m: int) -> tuple[Tensor, Tensor]:
    """The vector of question m [1, E], and the sentences before it as it scales them [1, T, E]."""
    assert model.scale is not None
    question = model.encoder.questions(batch.questions[m : m + 1])
    sentences = model.encoder.statements(batch.statements[:, : int(batch.at[m])])
    return question, sentences * (1 + model.scale(question))[:, None]


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=1e-12)


@CONFIGS
@CORES
def test_a_question_is_never_seen_by_what_follows(core, config):
    story = max(STORIES, key=lambda story: len(story.statements))
    first, last = story.questions
    assert first.at < last.at
    changed = replace(first, text="Where is Ada or Bo?")
    vocabulary = Vocabulary.build(STORIES, [replace(story, questions=(changed, last))])
    model = make_model(core, config, vocabulary)
    both = ask(model, story, vocabulary=vocabulary)
    other = ask(model, replace(story, questions=(changed, last)), vocabulary=vocabulary)
    assert not close(both[0], other[0])
    assert close(both[1], other[1])
    assert close(ask(model, replace(story, questions=(last,)), vocabulary=vocabulary)[0], both[1])
    assert close(ask(model, replace(story, questions=(first, first, last)), vocabulary=vocabulary)[2], both[1])


@CONFIGS
@CORES
def test_a_question_sees_every_statement_before_it_and_none_after(core, config):
    model = make_model(core, config)
    story = max(STORIES, key=lambda story: len(story.statements))
    plain = ask(model, story)
    at = [question.at for question in story.questions]
    for i in range(len(story.statements)):
        statements = list(story.statements)
        statements[i] = "Cy ran to Ada." if i % 2 else "Di is the attic."
        changed = ask(model, replace(story, statements=tuple(statements)))
        for m, before in enumerate(at):
            # A GRU forgets slowly, and attention sees all: nothing here has lost the statement entirely.
            assert close(changed[m], plain[m]) == (i >= before), (i, before)
    cut = replace(story, statements=story.statements[: at[0]], questions=story.questions[:1])
    assert close(ask(model, cut)[0], plain[0])


@CONFIGS
@CORES
def test_a_story_gets_the_same_answers_alone_and_in_a_batch(core, config):
    model = make_model(core, config)
    together = ask(model, *STORIES)
    alone = torch.cat([ask(model, story) for story in STORIES])
    assert together.shape == (sum(len(story.questions) for story in STORIES), len(VOCABULARY.answers))
    assert close(together, alone)
    assert not close(together[0], together[1])


@pytest.mark.parametrize(
    "change",
    [
        {"question_steps": 0},
        {"question_steps": 1},
        {"read_hops": 0},
        {"read_hops": 1, "read_heads": 1},
        {"head_layers": 0},
        {"question_first": True},
        {"question_first": True, "reads": 3},
        {"question_first": True, "match_words": True},
        {"question_first": True, "linked_words": 2},
        {"question_first": True, "reads": 3, "recalled_words": 2},
    ],
)
@pytest.mark.parametrize("core", ["stub", "rmc", "transformer"])
def test_every_choice_of_the_head_answers_and_trains_every_parameter(core, change):
    model = make_model(core, replace(CONFIG, **change)).train()
    logits = model(EncodedStories(STORIES, VOCABULARY).batch(range(len(STORIES))))
    torch.manual_seed(3)
    (logits * torch.randn_like(logits)).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # The last step of the question leaves only its output to a head that reads no rows.
    assert idle == []


def test_a_story_read_twice_is_read_on_from_what_the_first_reading_left():
    model = make_model("stub", replace(TWICE, question_steps=0))
    story = max(STORIES, key=lambda story: len(story.statements))
    batch = EncodedStories([story], VOCABULARY).batch([0])
    assert model.reading is not None
    for m in range(len(batch.at)):
        question, told = told_before(model, batch, m)
        state = model.core.initial_state(1)
        for mark in model.reading.weight:
            _, state = model.core(told + mark, state)
        assert close(model.head(question, None, *model.core.rows(state))[0], ask(model, story)[m])


def test_a_second_reading_knows_the_words_that_the_first_brought_up():
    model = make_model("stub", replace(WORDS, question_steps=0))
    story = max(STORIES, key=lambda story: len(story.statements))
    batch = EncodedStories([story], VOCABULARY).batch([0])
    assert model.reading is not None
    assert model.matches is not None
    for m, at in enumerate(batch.at.tolist()):
        words = batch.statements[:, :at]
        question, told = told_before(model, batch, m)
        assert model.linked is not None
        told = told + model.matches(words, batch.questions[m : m + 1])
        told = told + model.linked(words, batch.questions[m : m + 1])
        _, state = model.core(told + model.reading.weight[0])
        found = model.head.look(question, None, *model.core.rows(state))
        recalled = model.recalls[0](found, model.encoder.embedding, words)
        assert recalled.abs().sum() > 0
        _, state = model.core(told + model.reading.weight[1] + recalled, state)
        assert close(model.head(question, None, *model.core.rows(state))[0], ask(model, story)[m])


def test_readings_are_told_to_look_for_the_supporting_facts_in_turn():
    model = make_model("rmc", replace(WORDS, reads=3))
    stories = [story_with_supports(STORIES[i], n) for i, n in ((0, 1), (1, 2), (2, 3), (4, 0))]
    batch = EncodedStories(stories, VOCABULARY).batch(range(4))
    with torch.no_grad():
        logits, losses = model.with_support_losses(batch)
        vectors = model.encoder.statements(batch.statements), model.encoder.questions(batch.questions)
        found = [found for _, found, _ in model._readings(batch, *vectors) if found is not None]
    assert close(logits, ask(model, *stories))
    asked = [(story, question) for story in stories for question in story.questions]
    assert {len(question.supports) for _, question in asked} == {0, 1, 2, 3}
    for m, (story, question) in enumerate(asked):
        expected = torch.zeros((), dtype=torch.float64)
        for recall, u, support in zip(model.recalls, found, question.supports, strict=False):
            words = torch.tensor([VOCABULARY.encode(story.statements[support])])
            expected += recall.target_losses(u[m : m + 1], model.encoder.embedding, words)[0]
        assert close(losses[m], expected)
    assert losses[-len(stories[-1].questions) :].eq(0).all()


def story_with_supports(story: Story, count: int) -> Story:
    """The same story, every question with so many supporting facts, the latest first."""
    questions = (replace(q, supports=tuple(range(q.at - 1, q.at - 1 - count, -1))) for q in story.questions)
    return replace(story, questions=tuple(q for q in questions if q.at >= count))


def test_a_model_that_recalls_no_words_has_no_support_losses():
    model = make_model("stub", TWICE)
    logits, losses = model.with_support_losses(EncodedStories(STORIES, VOCABULARY).batch([0, 2]))
    assert logits.shape[0] == losses.shape[0]
    assert not losses.any()


def test_a_question_that_comes_first_scales_every_sentence_before_it():
    model = make_model("rmc", replace(FIRST, question_steps=0))
    story = max(STORIES, key=lambda story: len(story.statements))
    batch = EncodedStories([story], VOCABULARY).batch([0])
    answers = ask(model, story)
    assert model.scale is not None
    with torch.no_grad():
        for m, question in enumerate(story.questions):
            asked = model.encoder.questions(batch.questions[m : m + 1])
            state = model.core.initial_state(1)
            for t in range(question.at):
                sentence = model.encoder.statements(batch.statements[:, t])
                _, state = model.core.step(
                    sentence * (1 + F.linear(asked, model.scale.weight, model.scale.bias)), state
                )
            rows, mask = model.core.rows(state)
            assert close(answers[m], model.head(asked, None, rows, mask)[0])


def test_further_question_steps_and_hops_change_the_answer():
    answers = [ask(make_model("rmc", replace(CONFIG, question_steps=n)), STORIES[0]) for n in (1, 2, 3)]
    assert not close(answers[0], answers[1])
    assert not close(answers[1], answers[2])


def test_a_sentence_is_the_normalised_sum_of_its_words_times_their_positions(rng):
    encoder = SentenceEncoder(words=9, max_words=5, size=6).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    numbers = torch.tensor([[[3, 9, 1, 0], [7, 0, 0, 0]], [[2, 2, 5, 4], [0, 0, 0, 0]]])
    for positions, norm, got in (
        (encoder.statement_positions, encoder.statement_norm, encoder.statements(numbers)),
        (encoder.question_positions, encoder.question_norm, encoder.questions(numbers)),
    ):
        assert got.shape == (2, 2, 6)
        for b in range(2):
            for t in range(2):
                total = torch.zeros(6, dtype=torch.float64)
                for w, number in enumerate(numbers[b, t].tolist()):
                    if number:
                        total = total + positions[w] * encoder.embedding[number - 1]
                assert close(got[b, t], F.layer_norm(total, (6,), norm.weight, norm.bias))
    with pytest.raises(InputError, match="more words than the model has positions"):
        encoder.statements(torch.ones(1, 1, 6, dtype=torch.long))


def test_the_order_of_words_counts_after_training_of_the_positions():
    model = make_model()
    swapped = replace(
        STORIES[0], statements=(" ".join(STORIES[0].statements[0].split()[::-1]), *STORIES[0].statements[1:])
    )
    assert not close(ask(model, STORIES[0]), ask(model, swapped))


def test_rows_that_do_not_exist_are_not_read(rng):
    head = AnswerHead(CONFIG, output_size=5, row_size=7, answers=4).double()
    question, output, rows = (
        torch.randn(3, *size, generator=rng, dtype=torch.float64) for size in ((12,), (5,), (6, 7))
    )
    mask = torch.tensor([[1, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    plain = head(question, output, rows, mask)
    assert torch.equal(head(question, output, rows.masked_fill(~mask[..., None], 1e3), mask), plain)
    assert close(head(question[:1], output[:1], rows[:1, [0, 1, 3]], None), plain[:1])
    assert torch.isfinite(plain).all()
    assert not close(head(question, output, rows, None), plain)


@pytest.mark.parametrize("sizes", [MemorySizes(), MemorySizes(mem_slots=4, head_size=16, num_heads=2), SIZES])
def test_the_whole_models_of_all_cores_have_the_same_number_of_parameters(sizes):
    counts = {name: count_parameters(StoryModel.build(BABI, name, sizes)) for name in CORE_NAMES}
    assert all(abs(count - counts["rmc"]) <= 0.1 * counts["rmc"] for count in counts.values()), counts


def test_equal_seeds_build_equal_models():
    def build() -> dict[str, Tensor]:
        torch.manual_seed(5)
        return StoryModel.build(BABI, "gru", SIZES, CONFIG).state_dict()

    one, two = build(), build()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_mistaken_configuration_is_refused():
    for wrong, message in (
        ({"read_heads": 4}, "read_heads must divide head_size"),
        ({"question_steps": 0, "read_hops": 0}, "nothing reads the core's state"),
        ({"question_steps": -1}, "question_steps must be a whole number of at least 0"),
        ({"embedding_size": 0}, "embedding_size must be a whole number of at least 1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"reads": 0, "question_first": True}, "reads must be a whole number of at least 1"),
        ({"reads": 2}, "only with question_first can a story be read more than once"),
        ({"match_words": 1}, "match_words must be True or False"),
        ({"match_words": True}, "a question that is known while they are read"),
        ({"linked_words": -1}, "linked_words must be a whole number of at least 0"),
        ({"linked_words": 2}, "linked_words are counted from a question that is known"),
        ({"recalled_words": -1}, "recalled_words must be a whole number of at least 0"),
        ({"recalled_words": 2, "question_first": True}, "between two readings"),
        ({"recalled_words": 2, "question_first": True, "reads": 2, "read_hops": 0}, "between two readings"),
    ):
        with pytest.raises(InputError, match=message):
            replace(CONFIG, **wrong)
    with pytest.raises(InputError, match="the core's input size is not the embedding size"):
        StoryModel(9, 4, StubCore(5, 8), CONFIG, max_words=5)
    with pytest.raises(InputError, match="core_name is not a known choice"):
        StoryModel.build(BABI, "ltsm", SIZES)


def batch_of(answers: list[int], tasks: list[int]) -> Batch:
    zeros = torch.zeros(len(answers), dtype=torch.long)
    return Batch(
        zeros[:1, None, None],
        zeros[:1],
        zeros[:, None],
        zeros,
        zeros,
        torch.tensor(answers),
        torch.tensor(tasks),
        zeros[:, None] - 1,
    )


def test_loss_and_counts_take_an_unknown_answer_as_wrong(rng):
    logits = torch.randn(5, 3, generator=rng, requires_grad=True)
    best = logits.argmax(-1).tolist()
    answers = [best[0], (best[1] + 1) % 3, 3, best[3], best[4]]
    batch = batch_of(answers, [2, 2, 2, 20, 1])
    correct, count = count_correct(logits, batch)
    assert (correct.shape, correct.dtype, count.dtype) == ((21,), torch.int64, torch.int64)
    assert {t: (int(correct[t]), int(count[t])) for t in range(21) if count[t]} == {1: (1, 1), 2: (1, 3), 20: (1, 1)}
    known = torch.tensor([0, 1, 3, 4])
    loss = answer_loss(logits, batch.answers)
    assert torch.allclose(loss, F.cross_entropy(logits[known], batch.answers[known]))
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[2] == 0).all()
    assert answer_loss(logits[2:3], batch.answers[2:3]).item() == 0


def test_it_learns_where_someone_went():
    train = {1: [made_up_story(1, i) for i in range(200)]}
    data = BabiData(train, None, Vocabulary.build(*train.values()), batch_questions=32)
    torch.manual_seed(0)
    config = ModelConfig(embedding_size=32, head_size=32)
    model = StoryModel.build(data.vocabulary, "rmc", MemorySizes(mem_slots=2, head_size=8, num_heads=2), config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        batch = data.train_batch(step)
        optimiser.zero_grad()
        answer_loss(model(batch), batch.answers).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    correct, count = torch.stack([torch.stack(count_correct(model(b), b)) for b in data.valid_batches()]).sum(0)
    assert count[1] >= 30
    assert correct[1] / count[1] > 0.6  # guessing one of five places is right in 20 %
