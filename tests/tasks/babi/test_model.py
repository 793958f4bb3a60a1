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
from relational_rnn.nn.cores import CORE_NAMES, FastWeightSizes, MemorySizes, count_parameters
from relational_rnn.tasks.babi.batching import BabiData, Batch, EncodedStories
from relational_rnn.tasks.babi.encoding import BABI, Vocabulary
from relational_rnn.tasks.babi.model import (
    AnswerHead,
    ModelConfig,
    SentenceEncoder,
    StoryModel,
)
from relational_rnn.tasks.babi.problem import BabiProblem
from relational_rnn.tasks.babi.story import Story
from relational_rnn.training import evaluate

CONFIG = ModelConfig(embedding_size=12, read_hops=2, read_heads=3, head_size=15, head_layers=1)
FAST = FastWeightSizes(num_heads=2, key_size=3, value_size=4)  # small beside the others' heads, as SIZES is
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
        model = StoryModel.build(vocabulary, core, SIZES, config, fast=FAST.of(core))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval()


def ask(model: StoryModel, *stories: Story, vocabulary: Vocabulary = VOCABULARY) -> Tensor:
    with torch.no_grad():
        return model(EncodedStories(stories, vocabulary).batch(range(len(stories))))


CORES = pytest.mark.parametrize("core", ["stub", *CORE_NAMES])


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=1e-12)


@CORES
def test_a_question_is_never_seen_by_what_follows(core):
    story = max(STORIES, key=lambda story: len(story.statements))
    first, last = story.questions
    assert first.at < last.at
    changed = replace(first, text="Where is Ada or Bo?")
    vocabulary = Vocabulary.build(STORIES, [replace(story, questions=(changed, last))])
    model = make_model(core, vocabulary=vocabulary)
    both = ask(model, story, vocabulary=vocabulary)
    other = ask(model, replace(story, questions=(changed, last)), vocabulary=vocabulary)
    assert not close(both[0], other[0])
    assert close(both[1], other[1])
    assert close(ask(model, replace(story, questions=(last,)), vocabulary=vocabulary)[0], both[1])
    assert close(ask(model, replace(story, questions=(first, first, last)), vocabulary=vocabulary)[2], both[1])


@CORES
def test_a_question_sees_every_statement_before_it_and_none_after(core):
    model = make_model(core)
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


@CORES
def test_a_story_gets_the_same_answers_alone_and_in_a_batch(core):
    model = make_model(core)
    together = ask(model, *STORIES)
    alone = torch.cat([ask(model, story) for story in STORIES])
    assert together.shape == (sum(len(story.questions) for story in STORIES), len(VOCABULARY.answers))
    assert close(together, alone)
    assert not close(together[0], together[1])


@pytest.mark.parametrize("change", [{}, {"read_hops": 1, "read_heads": 1}, {"head_layers": 0}])
@pytest.mark.parametrize("core", ["stub", "rmc", "transformer", "deltanet"])
def test_every_choice_of_the_head_answers_and_trains_every_parameter(core, change):
    model = make_model(core, replace(CONFIG, **change)).train()
    logits = model(EncodedStories(STORIES, VOCABULARY).batch(range(len(STORIES))))
    torch.manual_seed(3)
    (logits * torch.randn_like(logits)).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # What a Gated DeltaNet makes of its last memory is its output, at which no question looks.
    unseen = ("core.layers.1.", "core.norm.") if core == "deltanet" else ()
    assert [name for name in idle if not name.startswith(unseen)] == []


@CORES
def test_a_question_is_answered_from_the_state_after_the_sentences_before_it(core):
    model = make_model(core)
    story = max(STORIES, key=lambda story: len(story.statements))
    batch = EncodedStories([story], VOCABULARY).batch([0])
    answers = ask(model, story)
    with torch.no_grad():
        for m, question in enumerate(story.questions):
            state = model.core.initial_state(1)
            for t in range(question.at):
                _, state = model.core.step(model.encoder.statements(batch.statements[:, t]), state)
            assert close(answers[m], model.head(model.encoder.questions(batch.questions[m : m + 1]), state)[0])


def test_every_look_goes_on_from_what_the_one_before_found(rng):
    core = StubCore(12, 10)
    head = AnswerHead(replace(CONFIG, read_hops=3, head_layers=0), core.reader(15, 3, 3), answers=4).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
        question = torch.randn(5, 12, generator=rng, dtype=torch.float64)
        _, state = core.double()(torch.randn(5, 6, 12, generator=rng, dtype=torch.float64))
        logits, seen = head.looks(question, state)
        u, opened = head.norm(head.question(question)), head.reader.open(state)
        values, said = None, 0
        for i in range(3):
            found, values, where = head.reader.look(i, u, opened, values)
            assert torch.equal(seen[i], where)
            u = head.look_norms[i](u + found)
            first, _, second = head.mlps[i]
            u = head.mlp_norms[i](u + second(first(u).clamp(min=0)))
            said = said + head.read_norms[i](values)
        assert close(logits, head.answers(u) + said @ head.read_answers.weight.T)
    assert close(head(question, state), logits)
    assert not close(seen[0], seen[1])


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


# Larger sizes are those of the recipes, which have a test of their own.
@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(MemorySizes(), marks=pytest.mark.slow),
        pytest.param(MemorySizes(mem_slots=4, head_size=16, num_heads=2), marks=pytest.mark.slow),
        SIZES,
    ],
)
def test_the_whole_models_of_all_cores_have_the_same_number_of_parameters(sizes):
    with torch.device("meta"):  # drawing the weights takes most of the time
        models = {name: StoryModel.build(BABI, name, sizes, fast=FAST.of(name)) for name in CORE_NAMES}
    counts = {name: count_parameters(model) for name, model in models.items()}
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
        ({"read_hops": 0}, "read_hops must be a whole number of at least 1"),
        ({"head_layers": -1}, "head_layers must be a whole number of at least 0"),
        ({"embedding_size": 0}, "embedding_size must be a whole number of at least 1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
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
    )


def test_an_unknown_answer_is_wrong_and_teaches_nothing(rng):
    logits = torch.randn(5, 3, generator=rng, requires_grad=True)
    best = logits.argmax(-1).tolist()
    answers = [best[0], (best[1] + 1) % 3, 3, best[3], best[4]]
    problem = BabiProblem(lambda batch: logits, BabiData({}, None, BABI))
    measure = problem.measure(batch_of(answers, [2, 2, 2, 20, 1]))
    assert measure.correct.tolist() == [True, False, False, True, True]
    assert measure.groups.tolist() == [2, 2, 2, 20, 1]
    known = torch.tensor([0, 1, 3, 4])
    wanted = F.cross_entropy(logits[known], torch.tensor(answers)[known], reduction="none")
    assert torch.equal(measure.losses[known], wanted)
    assert measure.losses[2] == 0
    measure.losses.sum().backward()
    assert logits.grad is not None
    assert (logits.grad[2] == 0).all()


def test_it_learns_where_someone_went():
    train = {1: [made_up_story(1, i) for i in range(200)]}
    data = BabiData(train, None, Vocabulary.build(*train.values()), batch_questions=32)
    torch.manual_seed(0)
    config = ModelConfig(embedding_size=32, head_size=32)
    model = StoryModel.build(data.vocabulary, "rmc", MemorySizes(mem_slots=2, head_size=8, num_heads=2), config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    problem = BabiProblem(model, data)
    for step in range(120):
        optimiser.zero_grad()
        problem.measure(data.train_batch(step)).losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    found = evaluate(problem, problem.valid_batches())
    assert found.count >= 30
    assert found.accuracy > 0.6  # guessing one of five places is right in 20 %
