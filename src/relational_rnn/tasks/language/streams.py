"""Batches of contiguous text, as pure functions of the configuration and the step.

Shape legend: B streams, T tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relational_rnn._check import InputError, check_positive, describe
from relational_rnn.tasks.language.corpus import Tokens

NO_TARGET = -1
"""The target of a place after the end of a stream."""


@dataclass(frozen=True, slots=True)
class LanguageBatch:
    """A chunk of every stream, and the tokens that follow."""

    inputs: Tensor
    """[B, T] int64 tokens; 0 after the end of a stream."""
    targets: Tensor
    """[B, T] int64 the token after each input; NO_TARGET after the end of a stream."""
    reset: Tensor | None
    """[B, T] booleans: a document starts here, so the state starts anew before this step. None if nothing is reset."""
    first: bool
    """No state is carried into this chunk."""
    place: int = 0
    """Whose state it continues; see `LanguageProblem`."""

    def to(self, device: torch.device | str) -> LanguageBatch:
        """The same batch on another device."""
        inputs, targets = (t.to(device, non_blocking=True) for t in (self.inputs, self.targets))
        reset = None if self.reset is None else self.reset.to(device, non_blocking=True)
        return LanguageBatch(inputs, targets, reset, self.first, self.place)


class TrainingStreams:
    """A text cut into `batch_size` streams, which are read side by side in chunks of `chunk` tokens.

    Row b of a chunk continues row b of the chunk before, so a state can be carried; the first chunk of a pass over the
    text continues nothing. A pass leaves out fewer than `batch_size * chunk` tokens, with a seed different ones at both
    ends.

    Args:
        tokens: the text.
        batch_size: streams, B.
        chunk: tokens of a chunk, T.
        seed: None starts every pass at the beginning of the text.
        resets: mark the starts of documents, if the text has more than one.

    Raises:
        InputError: the text is shorter than one chunk of every stream.

    >>> text = Tokens(np.arange(14, dtype=np.uint8), np.array([0, 8]), words=14, characters=14)
    >>> streams = TrainingStreams(text, batch_size=2, chunk=3)
    >>> streams.steps_per_pass, [streams.batch(step).inputs.tolist() for step in (0, 1)]
    (2, [[[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]]])
    >>> streams.batch(0).targets.tolist(), streams.batch(0).reset.tolist()
    ([[1, 2, 3], [7, 8, 9]], [[True, False, False], [False, False, True]])
    >>> [streams.batch(step).first for step in range(4)]
    [True, False, True, False]
    """

    def __init__(
        self, tokens: Tokens, batch_size: int, chunk: int, *, seed: int | None = None, resets: bool = True
    ) -> None:
        where = "TrainingStreams"
        check_positive(where, batch_size=batch_size, chunk=chunk)
        least = batch_size * chunk + 1
        if len(tokens) < least:
            problem, got = "the training text is shorter than one chunk of every stream", f"{len(tokens):,} tokens"
            expected = f"at least {batch_size:,} streams x {chunk:,} tokens + 1 = {least:,}"
            hint = "a smaller chunk or batch_size, or a longer text."
            raise InputError(describe(where, problem, got=got, expected=expected, hint=hint))
        self.tokens, self.batch_size, self.chunk, self.seed, self.resets = tokens, batch_size, chunk, seed, resets
        self.steps_per_pass = (len(tokens) - 1) // (batch_size * chunk)
        """Chunks of a stream; the text is read once in so many steps."""

    def batch(self, step: int) -> LanguageBatch:
        """The batch of a step, counted from 0 over all passes; int64 on the CPU."""
        number, place = divmod(step, self.steps_per_pass)
        length = self.steps_per_pass * self.chunk
        offset = 0
        if self.seed is not None:
            spare = len(self.tokens) - 1 - length * self.batch_size
            offset = int(np.random.default_rng([self.seed, number]).integers(spare + 1))
        begins = offset + np.arange(self.batch_size) * length + place * self.chunk
        lengths = np.full(self.batch_size, self.chunk)
        return _cut(self.tokens, begins, lengths, self.chunk, place == 0, self.resets)


def evaluation_batches(tokens: Tokens, batch_size: int, chunk: int, *, resets: bool = True) -> Iterator[LanguageBatch]:
    """The whole text once: every token but the first is a target exactly once.

    Args:
        tokens: the text.
        batch_size: streams, B. 1 reads the text exactly; more are faster, but each except the first starts without the
            text before it. The last ones are padded at the end.
        chunk: tokens of a chunk, T; the last chunk may be shorter. It changes nothing but speed and memory.
        resets: mark the starts of documents, if the text has more than one.

    Raises:
        InputError: a text of fewer than two tokens.

    >>> text = Tokens(np.arange(6, dtype=np.uint8), np.array([0]), words=6, characters=6)
    >>> [batch.targets.tolist() for batch in evaluation_batches(text, batch_size=2, chunk=2)]
    [[[1, 2], [4, 5]], [[3], [-1]]]
    """
    check_positive("evaluation_batches", batch_size=batch_size, chunk=chunk)
    check_target("evaluation_batches", tokens)
    return cut_pieces(tokens, batch_size, -(-(len(tokens) - 1) // batch_size), batch_size, chunk, resets)


def check_target(where: str, tokens: Tokens | np.ndarray) -> None:
    """Refuse a text of fewer than two tokens."""
    if len(tokens) < 2:
        problem = "the text has no token to predict"
        raise InputError(describe(where, problem, got=f"{len(tokens)} tokens", expected=">= 2"))


def cut_pieces(
    tokens: Tokens, count: int, length: int, rows: int, chunk: int, resets: bool = True
) -> Iterator[LanguageBatch]:
    """`count` pieces of `length` tokens as rows of batches, `rows` of them at a time, in chunks."""
    targets = len(tokens) - 1
    pieces = np.arange(count) * length
    for group in (pieces[first : first + rows] for first in range(0, count, rows)):
        for place in range(0, length, chunk):
            width = min(chunk, length - place)
            lengths = np.clip(targets - group - place, 0, width)
            if lengths.any():
                yield _cut(tokens, group + place, lengths, width, place == 0, resets)


def _cut(
    tokens: Tokens, begins: np.ndarray, lengths: np.ndarray, width: int, first: bool, resets: bool
) -> LanguageBatch:
    """[B, width] of the text from `begins` on; row b has `lengths[b]` inputs, all followed by a target."""
    inputs = np.zeros((len(begins), width), np.int64)
    targets = np.full_like(inputs, NO_TARGET)
    reset = np.zeros(inputs.shape, np.bool_) if resets and len(tokens.starts) > 1 else None
    for row, (begin, length) in enumerate(zip(begins.tolist(), lengths.tolist(), strict=True)):
        if not length:
            continue
        piece = tokens.numbers[begin : begin + length + 1]
        inputs[row, :length], targets[row, :length] = piece[:-1], piece[1:]
        if reset is not None:
            low, high = np.searchsorted(tokens.starts, (begin, begin + length))
            reset[row, tokens.starts[low:high] - begin] = True
    there = None if reset is None else torch.from_numpy(reset)
    return LanguageBatch(torch.from_numpy(inputs), torch.from_numpy(targets), there, first)
