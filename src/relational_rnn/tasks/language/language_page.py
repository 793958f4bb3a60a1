"""A text through a language model with a relational memory: every token, its surprise, and the memory's reaction."""

# Shape legend: T steps, S attention blocks, H heads, N memory slots, R = N + input rows, M memory width

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_positive, describe
from relational_rnn.inspection.page import Page, Section, held_memory, memory_change, page, sequence_of
from relational_rnn.inspection.statistics import statistics_section
from relational_rnn.inspection.token_values import TokenValues, check_values, visible
from relational_rnn.ops.relational_scan import Trace
from relational_rnn.pages import Cell, Table
from relational_rnn.runs import Asked, LoadedRun
from relational_rnn.tasks.language.problem import read_corpus
from relational_rnn.tasks.language.recipes import LanguageRun
from relational_rnn.tasks.language.text_trace import memory_of_layer, pieces_of, text_statistics, trace_text

WHERE = "language_page"
PIECES = 50
"""Of the test text, for its statistics."""


def language_page(
    trace: Trace,
    tokens: Sequence[str],
    surprise: Sequence[float | None],
    *,
    title: str = "A look inside the memory of a language model",
    lead: Sequence[str] = (),
    before: Tensor | None = None,
    strongest: int = 20,
    notes: Sequence[str] = (),
    sections: Sequence[Section] = (),
) -> Page:
    """The page of a text: running text shaded by surprise or by what the memory did, and the strongest reactions.

    Args:
        trace: of one sequence, [T, S, H, R, R] or a batch of one: what the core did while it read the tokens.
        tokens: what every step read, T texts.
        surprise: bits, -log2 of the probability that the model gave to a token before it read it; None where it was
            not asked, as for the first token.
        title: heading of the page.
        lead: paragraphs below the heading.
        before: the memory before the first token, [N, M].
        strongest: how many tokens the table of reactions lists.
        notes: what a reader should know, one sentence each.
        sections: further parts, after the table.

    Raises:
        InputError: a surprise is below 0, and whatever `page` refuses.

    Example:
        >>> from relational_rnn import RelationalMemory
        >>> layer = RelationalMemory(input_size=5, mem_slots=2, head_size=4)
        >>> words = ["the", "cat", "sat"]
        >>> shown = language_page(layer.trace(torch.randn(3, 5)), words, [None, 6.2, 3.1])
        >>> "surprise" in shown.html
        True
    """
    check_positive(WHERE, strongest=strongest)
    alone, tokens = sequence_of(trace, tokens)
    check_values(WHERE, "surprise", surprise, len(tokens))
    below = [value for value in surprise if value is not None and value < 0]
    if below:
        hint = "surprise is -log2 of a probability"
        raise InputError(describe(WHERE, "a surprise is below 0", got=below[0], hint=hint))
    slots = alone.memory.shape[-2]
    columns = [
        TokenValues(
            name="surprise",
            description="bits: -log2 of the probability that the model gave to this token before it read it",
            values=surprise,
        ),
        TokenValues(
            name="attention to it",
            description="weight that the slots give to this token while it is read, mean over slots, heads and blocks",
            values=alone.attention[..., :slots, slots:].sum(-1).mean((1, 2, 3)).tolist(),
        ),
    ]
    update = alone.update()
    if update is not None:
        columns.append(
            TokenValues(
                name="input gate",
                description="how far the memory opens to this token, mean over slots and numbers",
                values=update[0].mean((1, 2)).tolist(),
            )
        )
    change = memory_change(held_memory(alone, before), len(tokens))
    return page(
        alone,
        tokens,
        title=title,
        lead=lead,
        before=before,
        token_values=columns,
        layout="flow",
        notes=notes,
        sections=[_reactions(tokens, surprise, change, strongest), *sections],
    )


def _reactions(
    tokens: Sequence[str], surprise: Sequence[float | None], change: Sequence[float | None], strongest: int
) -> Section:
    """The tokens that moved the memory most, and whether surprise and change go together."""
    moved = [(t, length) for t, length in enumerate(change) if length is not None]
    rows = [
        [
            Cell(str(t + 1), t),
            visible(tokens[t]),
            Cell("", "") if surprise[t] is None else Cell(f"{surprise[t]:.2f}", surprise[t]),
            Cell(f"{length:.3f}", length),
        ]
        for t, length in sorted(moved, key=lambda pair: -pair[1])[:strongest]
    ]
    pairs = torch.tensor([(surprise[t], length) for t, length in moved if surprise[t] is not None], dtype=torch.float64)
    text = "The tokens at which the memory moved most."
    if len(pairs) > 2 and (pairs.std(0) > 0).all():
        together = torch.corrcoef(pairs.T)[0, 1].item()
        text += (
            f" Over the {len(pairs):,} tokens with a surprise, surprise and the memory's change have a correlation of "
            f"{together:.2f} (1: the more surprising, the more the memory moves; 0: one says nothing of the other)."
        )
    strongest_reactions = Table(["step", "token", "bits", "change"], rows, "Strongest reactions")
    return Section("The memory's reaction", text, strongest_reactions.html())


def inspect_text(run: LoadedRun[LanguageRun], asked: Asked) -> Page:
    """The page of a piece of a run's test text, read with all of its document before it, or of another text."""
    asked.refuse(run.workload.name, "task")
    model, vocabulary = run.model, run.vocabulary
    memory_of_layer(model, None)  # refused before a text is read
    text = read_corpus(run.config).test if asked.text is None or asked.statistics else None
    pieces = [] if text is None else pieces_of(text)
    title = f"A look inside {run.folder.resolve().name}"
    if asked.text is not None:
        traced = trace_text(model, vocabulary, vocabulary.encode(asked.text, where="--text"))
    else:
        assert text is not None
        piece = pieces[asked.number(len(pieces)) - 1]
        numbers, context = text.numbers[piece.start : piece.end], text.numbers[piece.document : piece.start]
        traced = trace_text(model, vocabulary, numbers, context=context)
        title += f": tokens {piece.start + 1:,} to {piece.end:,} of the test text"
    sections = []
    if asked.statistics:
        assert text is not None
        many, what = text_statistics(model, text, pieces[:PIECES]), f"the first {len(pieces[:PIECES]):,} pieces"
        sections.append(statistics_section(traced.trace, many, what=f"{what} of the test text"))
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
