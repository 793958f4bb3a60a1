"""How well a model predicts a text: every token once, with all of the text before it, or with some of it forgotten.

Shape legend: n tokens of the text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from relational_rnn._check import InputError, check_positive, describe
from relational_rnn.tasks.language.corpus import Tokens
from relational_rnn.tasks.language.model import LanguageModel, LanguageState
from relational_rnn.tasks.language.streams import NO_TARGET, check_target, cut_pieces

CHUNK = 256
"""Tokens that are read at once; another number changes nothing beyond rounding."""
ROWS = 64
"""Pieces of a text that are read side by side if the memory is reset anyway."""
BANDS = (10, 100, 1000, 10_000)
"""Occurrences in the training text at which a new band of frequencies begins."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model made of a text, token by token."""

    losses: np.ndarray
    """[n - 1] float64, the negative log probability of every token but the first, in nats."""
    correct: np.ndarray
    """[n - 1] booleans: the token was the most probable one."""
    targets: np.ndarray
    """[n - 1] int64, the tokens."""
    tokens: int
    """Of the text, n; words and characters as `Tokens` counts them."""
    words: int
    characters: int

    @property
    def loss(self) -> float:
        """Mean over the tokens, in nats."""
        return float(self.losses.mean())

    @property
    def perplexity(self) -> float:
        """Per word, whatever a token is. The first token, which nothing predicts, counts as the mean of the others."""
        return _exp(self.loss * self.tokens / self.words)

    @property
    def bits_per_character(self) -> float:
        """The same per character, in bits."""
        return self.loss * self.tokens / self.characters / math.log(2)

    @property
    def accuracy(self) -> float:
        """Share of tokens that were the most probable one."""
        return float(self.correct.mean())


def read_text(
    model: LanguageModel,
    text: Tokens,
    *,
    chunk: int = CHUNK,
    streams: int = 1,
    reset_every: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Let a model read a whole text and predict every token but the first.

    Args:
        model: read in evaluation mode, and left in the mode that it had.
        text: at least two tokens. If it has several documents, the state starts anew at each.
        chunk: tokens that are read at once; it decides speed and memory only.
        streams: 1 carries the state through the whole text; more are faster, but each except the first starts without
            the text before it.
        reset_every: the state also starts anew every so many tokens (Santoro et al. 2018, figure 12). The pieces are
            read side by side, so `streams` must be 1.
        progress: called with (tokens read, tokens of the text).

    Raises:
        InputError: a text of fewer than two tokens, or a number that is not in the model's vocabulary.

    Example:
        >>> from relational_rnn.nn import GRU
        >>> from relational_rnn.tasks.language.model import LanguageModelConfig
        >>> model = LanguageModel(5, GRU(8, 8), LanguageModelConfig(embedding_size=8))
        >>> text = Tokens(np.arange(100) % 5, np.array([0]), words=100, characters=250)
        >>> read_text(model, text).losses.shape
        (99,)
    """
    check_positive("read_text", chunk=chunk, streams=streams)
    check_target("read_text", text)
    highest = int(text.numbers.max())
    if highest >= model.vocabulary_size:
        problem = "the text has tokens that are not in the model's vocabulary"
        raise InputError(describe("read_text", problem, got=highest, expected=f"below {model.vocabulary_size:,}"))
    targets = len(text) - 1
    if reset_every is None:
        count, length = streams, -(-targets // streams)
        batches = cut_pieces(text, count, length, count, chunk)
    else:
        check_positive("read_text", reset_every=reset_every)
        if streams != 1:
            problem = "streams have no place beside reset_every, which reads the pieces side by side"
            raise InputError(describe("read_text", problem, got=streams))
        count, length = -(-targets // reset_every), reset_every
        batches = cut_pieces(text, count, length, max(1, ROWS * CHUNK // min(length, chunk)), chunk)
    losses, correct = np.full(targets, np.nan), np.zeros(targets, np.bool_)
    device, training = model.embedding.weight.device, model.training
    model.eval()
    try:
        with torch.inference_mode():
            state: LanguageState | None = None
            row = rows = place = done = 0
            for batch in batches:
                if batch.first:
                    row, place, state = row + rows, 0, None
                rows, width = batch.inputs.shape
                batch = batch.to(device)
                features, state = model(batch.inputs, state, reset=batch.reset)
                there = batch.targets != NO_TARGET
                loss, right = model.score(features[there], batch.targets[there])
                at = (row + torch.arange(rows)[:, None]) * length + place + torch.arange(width)
                at = at[there.cpu()].numpy()
                losses[at], correct[at] = loss.double().cpu().numpy(), right.cpu().numpy()
                place, done = place + width, done + len(at)
                if progress is not None:
                    progress(done, targets)
    finally:
        model.train(training)
    assert done == targets, "a token was left out, or read twice"
    predicted = np.asarray(text.numbers[1:], np.int64)
    return Predictions(losses, correct, predicted, len(text), text.words, text.characters)


class Band(NamedTuple):
    """The tokens of a text that occur about equally often in the training text; loss and accuracy are means."""

    name: str
    tokens: int
    loss: float
    accuracy: float

    @property
    def perplexity(self) -> float:
        """Per token."""
        return _exp(self.loss)


def by_frequency(predictions: Predictions, counts: np.ndarray) -> list[Band]:
    """The predictions by how often their tokens occur in the training text, the most frequent first.

    `counts` [V] int64 are the occurrences of every token of the vocabulary there.
    """
    occurrences = counts[predictions.targets]
    bands = []
    for low, high in pairwise([0, 1, *BANDS, math.inf]):
        inside = (occurrences >= low) & (occurrences < high)
        if inside.any():
            name = f"{low:,} or more" if high == math.inf else f"{low:,} to {high - 1:,}" if low else "never"
            losses, correct = predictions.losses[inside], predictions.correct[inside]
            bands.append(Band(name, int(inside.sum()), float(losses.mean()), float(correct.mean())))
    return bands[::-1]


def _exp(loss: float) -> float:
    """The perplexity of a mean loss; infinite if it is too large for a number."""
    return math.exp(loss) if loss < 700 else math.inf
