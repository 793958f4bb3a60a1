"""A text through a language model with a relational memory: every token, its surprise, and the memory's reaction."""

# Shape legend: T steps or tokens, S attention blocks, H heads, N memory slots, R = N + input rows, M memory width

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.inspection.page import (
    Around,
    Page,
    Section,
    held_memory,
    memory_change,
    page,
    sequence_of,
    slots_in,
)
from relational_rnn.inspection.statistics import AttentionStatistics, attention_statistics, statistics_section
from relational_rnn.inspection.token_values import TokenValues, check_values, visible
from relational_rnn.nn.core import State
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.ops.relational_scan import Trace
from relational_rnn.pages import Cell, Table
from relational_rnn.runs import Asked, LoadedRun
from relational_rnn.tasks.language.corpus import Tokens
from relational_rnn.tasks.language.model import LanguageModel, LanguageState
from relational_rnn.tasks.language.problem import read_corpus
from relational_rnn.tasks.language.recipes import LanguageRun
from relational_rnn.tasks.language.vocabulary import Vocabulary

WHERE = "inspect"
PIECE, PIECES = 200, 50
"""Tokens on a page, and pages that statistics are made of."""


class Piece(NamedTuple):
    """Tokens `start` to `end` of a text, and where their document starts."""

    start: int
    end: int
    document: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTrace:
    """What a model did with a piece of text."""

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
    return [
        Piece(start, min(start + size, end), document)
        for document, end in pairwise([*text.starts.tolist(), len(text)])
        for start in range(document, end, size)
    ]


def memory_of_layer(model: LanguageModel, layer: int | None) -> RelationalMemory:
    """The relational memory of a layer of the model, from 0; None for the top one."""
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
        InputError: no token, a number that is no token, a layer that is not there, or one without slots.

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
    with torch.no_grad():
        last, state = model.read(_row(model, context)) if len(context) else (None, None)
        piece = _row(model, numbers)
        (inputs, start), features, _ = _read(model, core, piece, state)
        trace = core.trace(inputs, start).map(lambda tensor: tensor[0])
        before = core.rows(core.initial_state(1) if start is None else start)[0][0]
        predicting = features[0, :-1] if last is None else torch.cat([last, features[0, :-1]])
        wanted = piece[0, len(numbers) - len(predicting) :]
        nats = model.score(predicting, wanted)[0].double().tolist() if len(wanted) else []
    bits = (max(0.0, value) / math.log(2) for value in nats)
    return TextTrace(
        tokens=symbols, surprise=(*bits,) if last is not None else (None, *bits), trace=trace, before=before
    )


def text_statistics(
    model: LanguageModel, text: Tokens, pieces: Sequence[Piece], *, layer: int | None = None
) -> AttentionStatistics:
    """The statistics of the first pieces of a text, with the memory carried along a document."""
    core = memory_of_layer(model.eval(), layer)

    def traces() -> Iterator[tuple[Trace, None]]:
        state: LanguageState | None = None
        for piece in pieces:
            with torch.no_grad():
                carried = None if piece.start == piece.document else state
                row = _row(model, text.numbers[piece.start : piece.end])
                (inputs, start), _, state = _read(model, core, row, carried)
                yield core.trace(inputs, start), None

    return attention_statistics(traces())


def _read(
    model: LanguageModel, core: RelationalMemory, tokens: Tensor, state: LanguageState | None
) -> tuple[tuple[Tensor, State | None], Tensor, LanguageState]:
    """(what the core read [1, T, I] and its state before it, the model's features [1, T, F], its state after it)."""
    calls: list[tuple[Tensor, State | None]] = []
    handle = core.register_forward_pre_hook(lambda _, given: calls.append(given))
    try:
        features, after = model(tokens, state)
    finally:
        handle.remove()
    (given,) = calls
    return given, features, after


def _row(model: LanguageModel, numbers: Sequence[int] | np.ndarray) -> Tensor:
    """[1, T] where the model is."""
    return torch.from_numpy(np.asarray(numbers, dtype=np.int64)).to(model.embedding.weight.device)[None]


def language_page(
    trace: Trace,
    tokens: Sequence[str],
    surprise: Sequence[float | None],
    *,
    title: str = "A look inside the memory of a language model",
    before: Tensor | None = None,
    strongest: int = 20,
    **around: Unpack[Around],
) -> Page:
    """The page of a text: running text shaded by surprise or by what the memory did, and the strongest reactions.

    Args:
        trace: of one sequence, [T, S, H, R, R] or a batch of one.
        tokens: what every step read, T texts.
        surprise: T numbers of bits, -log2 of the probability of a token before it is read, or None.
        title: heading of the page.
        before: the memory before the first token, [N, M].
        strongest: how many tokens the table of reactions lists.
        **around: see `inspection.Around`.

    Raises:
        InputError: a surprise is below 0, or `inspection.page` refuses something.

    Example:
        >>> from relational_rnn import RelationalMemory
        >>> layer = RelationalMemory(input_size=5, mem_slots=2, head_size=4)
        >>> words = ["the", "cat", "sat"]
        >>> shown = language_page(layer.trace(torch.randn(3, 5)), words, [None, 6.2, 3.1])
        >>> "surprise" in shown.html
        True
    """
    check_positive("language_page", strongest=strongest)
    alone, tokens = sequence_of(trace, tokens)
    check_values("language_page", "surprise", surprise, len(tokens))
    below = [value for value in surprise if value is not None and value < 0]
    if below:
        raise InputError(describe("language_page", "a surprise is below 0: it is -log2 of a probability", got=below[0]))
    slots = alone.memory.shape[-2]
    looked = alone.attention[..., :slots, slots:].sum(-1).mean((1, 2, 3)).tolist()
    words = "weight that the slots give to this token while it is read, mean over slots, heads and blocks"
    columns = [
        TokenValues("surprise", "bits: -log2 of the probability of this token before the model read it", surprise),
        TokenValues("attention to it", words, looked),
    ]
    update = alone.update()
    if update is not None:
        words = "how far the memory opens to this token, mean over slots and numbers"
        columns.append(TokenValues("input gate", words, update[0].mean((1, 2)).tolist()))
    change = memory_change(held_memory(alone, before), len(tokens))
    sections = [_reactions(tokens, surprise, change, strongest), *around.pop("sections", ())]
    look = {"title": title, "before": before, "token_values": columns, "sections": sections}
    return page(alone, tokens, layout="flow", **look, **around)


def _reactions(
    tokens: Sequence[str], surprise: Sequence[float | None], change: Sequence[float | None], strongest: int
) -> Section:
    """The tokens that moved the memory most, and whether surprise and change go together."""
    moved = [(t, length) for t, length in enumerate(change) if length is not None]
    rows = []
    for t, length in sorted(moved, key=lambda pair: -pair[1])[:strongest]:
        bits = surprise[t]
        told = Cell("", "") if bits is None else Cell(f"{bits:.2f}", bits)
        rows.append([Cell(str(t + 1), t), visible(tokens[t]), told, Cell(f"{length:.3f}", length)])
    pairs = torch.tensor([(surprise[t], length) for t, length in moved if surprise[t] is not None], dtype=torch.float64)
    text = "The tokens at which the memory moved most."
    if len(pairs) > 2 and (pairs.std(0) > 0).all():
        text += (
            f" Over the {len(pairs):,} tokens with a surprise, surprise and the memory's change have a correlation of "
            f"{torch.corrcoef(pairs.T)[0, 1].item():.2f} (1: the more surprising, the more the memory moves; 0: one "
            "says nothing of the other)."
        )
    table = Table(["step", "token", "bits", "change"], rows, "Strongest reactions")
    return Section("The memory's reaction", text, table.html())


def inspect_text(run: LoadedRun[LanguageRun], asked: Asked) -> Page:
    """The page of a piece of a run's test text, read with all of its document before it, or of another text."""
    asked.refuse(run.workload.name, "task")
    model, vocabulary = run.model, run.vocabulary
    memory_of_layer(model, None)  # refused before a text is read
    title, sections = f"A look inside {run.folder.resolve().name}", []

    @functools.cache
    def test_text() -> tuple[Tokens, list[Piece]]:
        text = read_corpus(run.config).test
        return text, pieces_of(text)

    if asked.text is not None:
        traced = trace_text(model, vocabulary, vocabulary.encode(asked.text, where="--text"))
    else:
        text, pieces = test_text()
        start, end, document = pieces[asked.number(len(pieces)) - 1]
        traced = trace_text(model, vocabulary, text.numbers[start:end], context=text.numbers[document:start])
        title += f": tokens {start + 1:,} to {end:,} of the test text"
    if asked.statistics:
        text, pieces = test_text()
        many = text_statistics(model, text, pieces[:PIECES])
        what = f"the first {len(pieces[:PIECES]):,} pieces of the test text"
        sections.append(statistics_section(traced.trace, many, what=what))
    bits = [value for value in traced.surprise if value is not None]
    return language_page(
        traced.trace,
        traced.tokens,
        traced.surprise,
        title=title,
        lead=[f"Mean surprise: {sum(bits) / len(bits):.2f} bits per token."] if bits else [],
        before=traced.before,
        notes=["The memory shown is that of the top layer."] if len(model.cores) > 1 else [],
        sections=sections,
    )
