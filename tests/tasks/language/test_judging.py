"""Every token is judged once, with all of the text before it, however the text is cut for reading."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from relational_rnn import InputError
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.language.corpus import Tokens
from relational_rnn.tasks.language.judging import Predictions, by_frequency, read_text
from relational_rnn.tasks.language.model import LanguageModel, LanguageModelConfig

VOCABULARY = 19
CORES = ("rmc", "lstm", "transformer", "attention", "deltanet")


def make(core: str, dtype: torch.dtype = torch.float64) -> LanguageModel:
    torch.manual_seed(4)
    config = LanguageModelConfig(embedding_size=10, window=9)
    return LanguageModel.build(VOCABULARY, core, MemorySizes(mem_slots=2, head_size=12, num_heads=2), config).to(dtype)


def some_text(count: int = 157, starts: tuple[int, ...] = (0,)) -> Tokens:
    numbers = np.random.default_rng(3).integers(0, VOCABULARY, count).astype(np.uint8)
    return Tokens(numbers, np.array(starts), words=40, characters=count)


def token_by_token(model: LanguageModel, text: Tokens, anew: set[int]) -> np.ndarray:
    """The plainest reading: one token, one prediction, from the initial state at each of `anew`."""
    losses = []
    with torch.no_grad():
        for place, token in enumerate(text.numbers[:-1].tolist()):
            if place in anew:
                state = model.initial_state(1)
            scores, state = model.step(torch.tensor([token]), state)
            losses.append(-scores[0, int(text.numbers[place + 1])].item())
    return np.array(losses)


@pytest.mark.parametrize("core", CORES)
def test_a_whole_text_is_judged_as_token_by_token(core):
    model, text = make(core), some_text(starts=(0, 50, 51, 120))
    found = read_text(model, text, chunk=13)
    np.testing.assert_allclose(found.losses, token_by_token(model, text, {0, 50, 51, 120}), rtol=0, atol=1e-12)
    assert math.isclose(found.perplexity, math.exp(found.losses.mean() * 157 / 40))


@pytest.mark.parametrize("core", CORES)
def test_the_chunk_changes_nothing_beyond_rounding(core):
    model, text = make(core, torch.float32), some_text()
    found = [read_text(model, text, chunk=chunk).losses for chunk in (1, 7, 64, 1000)]
    for losses in found[1:]:
        np.testing.assert_allclose(losses, found[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("core", CORES)
def test_resets_are_what_a_fresh_state_every_so_many_tokens_is(core):
    model, text = make(core), some_text(starts=(0, 30))
    expected = token_by_token(model, text, {30, *range(0, 157, 12)})
    for chunk in (5, 100):
        found = read_text(model, text, chunk=chunk, reset_every=12)
        np.testing.assert_allclose(found.losses, expected, rtol=0, atol=1e-12)


def test_streams_start_without_the_text_before_them():
    model, text = make("rmc"), some_text()
    found = read_text(model, text, chunk=8, streams=4)
    np.testing.assert_allclose(found.losses, token_by_token(model, text, {0, 39, 78, 117}), rtol=0, atol=1e-12)


def test_the_mode_of_the_model_stays_and_dropout_plays_no_part():
    model = make("lstm").train()
    model.config = LanguageModelConfig(embedding_size=10, window=9, output_dropout=0.5)
    a, b = (read_text(model, some_text()).losses for _ in range(2))
    assert np.array_equal(a, b)
    assert model.training


def test_progress_is_told_and_a_wrong_text_is_refused():
    model, seen = make("lstm"), []
    read_text(model, some_text(), chunk=50, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(50, 156), (100, 156), (150, 156), (156, 156)]
    with pytest.raises(InputError, match="tokens that are not in the model's vocabulary") as error:
        read_text(model, Tokens(np.array([1, 2, VOCABULARY]), np.array([0]), words=3, characters=3))
    assert "got       19\n  expected  below 19" in str(error.value)
    with pytest.raises(InputError, match="streams have no place beside reset_every"):
        read_text(model, some_text(), streams=2, reset_every=10)


def test_figures_are_means_over_the_whole_text():
    losses = np.array([1.0, 2.0, 3.0])
    found = Predictions(losses, np.array([True, False, True]), np.array([4, 5, 6]), tokens=4, words=2, characters=12)
    assert found.loss == 2.0
    assert found.perplexity == pytest.approx(math.exp(2.0 * 4 / 2))
    assert found.bits_per_character == pytest.approx(2.0 * 4 / 12 / math.log(2))
    assert found.accuracy == pytest.approx(2 / 3)


def test_bands_of_frequency_hold_every_token_once():
    losses, targets = np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.array([0, 1, 1, 2, 3])
    counts = np.array([12_000, 10, 9, 0])
    correct = np.array([True, True, False, False, False])
    bands = by_frequency(Predictions(losses, correct, targets, tokens=6, words=6, characters=6), counts)
    assert [(b.name, b.tokens, b.loss, b.accuracy) for b in bands] == [
        ("10,000 or more", 1, 1.0, 1.0),
        ("10 to 99", 2, 3.0, 0.5),
        ("1 to 9", 1, 8.0, 0.0),
        ("never", 1, 16.0, 0.0),
    ]
