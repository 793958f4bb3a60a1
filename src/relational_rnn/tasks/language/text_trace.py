"""A text through a trained language model: what a page about it needs."""

# Shape legend: n tokens, V vocabulary, N memory slots, M memory width

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.inspection.page import slots_in
from relational_rnn.inspection.statistics import AttentionStatistics, attention_statistics
from relational_rnn.nn.core import State
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.ops.relational_scan import Trace
from relational_rnn.tasks.language.model import LanguageModel, LanguageState
from relational_rnn.tasks.language.tokens import Tokens
from relational_rnn.tasks.language.vocabulary import Vocabulary

WHERE = "inspect"
PIECE = 200
"""Tokens on a page: as many as can be looked at, and a memory as wide as a published one stays a small file."""
CHUNK = 256
"""Tokens of the text before that are read at once; another number changes nothing but the time."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive tokens of one document."""

    start: int
    """The place of its first token in the text, from 0."""
    end: int
    """The place after its last one."""
    document: int
    """Where its document starts: the memory that it meets comes from there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTrace:
    """What a model did with a piece of text, as far as it can be seen."""

    tokens: tuple[str, ...]
    """What each token stands for, n."""
    surprise: tuple[float | None, ...]
    """n numbers of bits, -log2 of the probability of a token before it is read; None for the first of a document."""
    trace: Trace
    """Of one sequence, in the layer that was asked for."""
    before: Tensor
    """[N, M]: the memory before the first token."""


def pieces_of(text: Tokens, size: int = PIECE) -> list[Piece]:
    """A text cut into pieces of at most `size` tokens, none of them across the start of a document.

    >>> pieces_of(Tokens(np.arange(7), np.array([0, 5]), words=7, characters=20), 3)[1:]
    [Piece(start=3, end=5, document=0), Piece(start=5, end=7, document=5)]
    """
    bounds = [*text.starts.tolist(), len(text)]
    return [
        Piece(start, min(start + size, end), document)
        for document, end in pairwise(bounds)
        for start in range(document, end, size)
    ]


def memory_of_layer(model: LanguageModel, layer: int | None) -> RelationalMemory:
    """The relational memory of a layer of the model, from 0; None for the top one.

    Raises:
        InputError: there is no such layer, or the model has another core.
    """
    number = len(model.cores) - 1 if layer is None else layer
    check_choice(WHERE, "layer", number, range(len(model.cores)))
    return slots_in(model.core(number))


def trace_text(
    model: LanguageModel,
    vocabulary: Vocabulary,
    numbers: Sequence[int] | np.ndarray,
    *,
    context: Sequence[int] | np.ndarray = (),
    layer: int | None = None,
) -> TextTrace:
    """Let a model read a piece of text, and keep everything that one layer's memory did.

    Args:
        model: it is put into evaluation mode.
        vocabulary: the model's.
        numbers: the tokens of the piece, at least one.
        context: tokens before them, which the model reads first.
        layer: whose memory, from 0; None for the top one.

    Raises:
        InputError: no token, a number that is none, a layer that is not there, or one without slots.

    Example:
        >>> from relational_rnn.nn.cores import MemorySizes
        >>> text = ["to be or not to be"]
        >>> vocabulary = Vocabulary.build("word", text)
        >>> model = LanguageModel.build(vocabulary.size, "rmc", MemorySizes(mem_slots=2, head_size=8))
        >>> traced = trace_text(model, vocabulary, vocabulary.encode(text[0]))
        >>> traced.tokens[:3], traced.surprise[0], traced.before.shape
        (('to', 'be', 'or'), None, torch.Size([2, 32]))
    """
    if not len(numbers):
        raise InputError(describe(WHERE, "the text holds no token"))
    core = memory_of_layer(model.eval(), layer)
    symbols = tuple(vocabulary.symbol(int(number)) for number in numbers)
    device = model.embedding.weight.device
    with torch.no_grad():
        state: LanguageState | None = None
        last: list[Tensor] = []
        for chunk in _row(context, device).split(CHUNK, dim=1):
            if chunk.shape[1]:
                features, state = model(chunk, state)
                last = [features[:, -1]]
        piece = _row(numbers, device)
        read = _read(model, core, piece, state)
        trace = core.trace(read.inputs, read.start).map(lambda tensor: tensor[0])
        before = core.rows(core.initial_state(1) if read.start is None else read.start)[0][0]
        predicting = torch.cat([*last, read.features[0, :-1]])
        wanted = piece[0, len(numbers) - len(predicting) :]
        nats = model.score(predicting, wanted)[0].double().tolist() if len(wanted) else []
    return TextTrace(
        tokens=symbols,
        surprise=(*([] if last else [None]), *(max(0.0, value) / math.log(2) for value in nats)),
        trace=trace,
        before=before,
    )


def text_statistics(
    model: LanguageModel, text: Tokens, pieces: Sequence[Piece], *, layer: int | None = None
) -> AttentionStatistics:
    """The statistics of the first pieces of a text, one after the other, with the memory carried along a document.

    Raises:
        InputError: a layer that is not there, or one without slots; no piece.
    """
    core = memory_of_layer(model.eval(), layer)
    device = model.embedding.weight.device

    def traces() -> Iterator[tuple[Trace, None]]:
        state: LanguageState | None = None
        for piece in pieces:
            with torch.no_grad():
                if piece.start == piece.document:
                    state = None
                read = _read(model, core, _row(text.numbers[piece.start : piece.end], device), state)
                state = read.state
                yield core.trace(read.inputs, read.start), None

    return attention_statistics(traces())


@dataclass(frozen=True, slots=True)
class _Read:
    inputs: Tensor
    """[1, n, I]: what the core read."""
    start: State | None
    """The core's state before it; None for the initial one."""
    features: Tensor
    """[1, n, F]: the model's."""
    state: LanguageState
    """The model's, after it."""


def _read(model: LanguageModel, core: RelationalMemory, tokens: Tensor, state: LanguageState | None) -> _Read:
    calls: list[tuple[Tensor, State | None]] = []
    handle = core.register_forward_pre_hook(lambda _, given: calls.append(given))
    try:
        features, after = model(tokens, state)
    finally:
        handle.remove()
    ((inputs, start),) = calls
    return _Read(inputs, start, features, after)


def _row(numbers: Sequence[int] | np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(numbers, dtype=np.int64)).to(device)[None]
