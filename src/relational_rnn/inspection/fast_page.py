"""A sequence through a fast-weight memory: what was written, what is still held, and what the question read."""

# Shape legend: T steps, H heads, K key size, V value size, L looks of a question

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_shape, describe
from relational_rnn.inspection.opening import Named, Opening, Panel
from relational_rnn.inspection.page import Around, Page, put_together
from relational_rnn.inspection.token_values import TokenValues, check_tokens
from relational_rnn.nn.fast_weight_trace import FastWeightTrace

WHERE = "inspection.fast_page"


def fast_page(
    trace: FastWeightTrace, looks: Tensor, tokens: Sequence[str], *, title: str, **around: Unpack[Around]
) -> Page:
    """One sequence through a fast-weight memory as one HTML file, with a scrubber over its steps.

    It opens on a figure of steps by heads: how strongly each step wrote, what is still held of it, and its share in
    what a question read.

    Args:
        trace: of a batch of one, as `FastWeightMemory.trace` returns it.
        looks: the keys that a question would look for after each step, [T, L, H, K].
        tokens: what every step read, T texts.
        title: heading of the page.
        **around: see `Around`.

    Raises:
        InputError: the trace is of several sequences, shapes or lengths do not fit, or a number is not finite.

    Example:
        >>> from relational_rnn.nn import FastWeightMemory
        >>> core = FastWeightMemory(input_size=5, hidden_size=8, num_heads=2, key_size=4, value_size=6)
        >>> with torch.no_grad():
        ...     trace = core.trace(torch.randn(1, 3, 5))
        >>> looks = torch.randn(3, 1, 2, 4)
        >>> len(fast_page(trace, looks, ["Mary", "went", "home"], title="Three words").html) < 100_000
        True
    """
    batch, steps, heads, key_size = trace.keys.shape
    if batch != 1:
        raise InputError(describe(WHERE, "the trace must be of one sequence", got=f"{batch} sequences", expected=1))
    tokens = check_tokens(WHERE, tokens, steps)
    check_shape(WHERE, "looks", looks, {"T": steps, "L": None, "H": heads, "K": key_size})
    words = "share of the memory before that the step kept, mean over the heads; a full bar is 1"
    kept = TokenValues("kept", words, trace.keeps[0].detach().double().mean(-1).tolist(), most=1)
    return put_together(
        "fast",
        tokens,
        torch.cat([trace.start, trace.memory[0]]).detach().double().cpu().numpy(),
        title=title,
        opening=fast_opening(trace, looks),
        more=[kept],
        about={"heads": heads, "key_size": key_size, "value_size": trace.values.shape[-1]},
        **around,
    )


def fast_opening(trace: FastWeightTrace, looks: Tensor) -> Opening:
    """How strongly each step wrote, what is still held of it, and what the looks [T, L, H, K] read of it."""
    held = held_writes(trace)
    share = shares_read(trace, held, looks)
    most = 1.0 if trace.strengths.max() <= 1 else 2.0  # a strength above 1 reverses what a key holds
    return Opening(
        heading="What each sentence wrote, and which sentence the answer was read from",
        caption="A row for every sentence. Strength: how far the write replaced what its key held, in every head. "
        "Still held: how much of that write the memory has after the chosen sentence, under any key (length). Read by "
        "look: the share of the sentence in what the question reads, were it asked then; without their signs, the "
        "shares of a look add up to 1. Blue: it adds to what is read; orange: it takes away from it. Framed: the "
        "largest share.",
        panels=[
            Panel(name="strength of head", values=trace.strengths[0].detach().double().cpu().numpy(), most=most),
            Panel(name="still held in head", values=held.norm(dim=-1).cpu().numpy(), most=most),
            Panel(name="read by look", values=share.cpu().numpy(), signed=True, framed=True),
        ],
        head=["look", "reads most from", "share"],
        named=[
            [
                Named(label=f"look {n + 1}", step=int(step), value=float(now[step, n]))
                for n, step in enumerate(now.abs().argmax(0))
            ]
            for now in share
        ],
    )


def held_writes(trace: FastWeightTrace) -> Tensor:
    r"""The key of every write s after every step t: $p$ [T, T, H, K], the axes t, s, head and key.

    The memory is $S_t = \sum_s p_{t,s} v_s^\top$ and what is left of the start, with $p_{s,s} = \beta_s k_s$ and
    $p_{t,s} = \alpha_t (p_{t-1,s} - \beta_t k_t k_t^\top p_{t-1,s})$. A read with q takes $p_{t,s}^\top q$ of write s.
    """
    keys, strengths, keeps = (tensor[0].detach().double() for tensor in (trace.keys, trace.strengths, trace.keeps))
    held, after = torch.zeros_like(keys), []
    for t, (key, strength, keep) in enumerate(zip(keys, strengths.unsqueeze(-1), keeps.unsqueeze(-1), strict=True)):
        held = keep * (held - strength * key * (held * key).sum(-1, keepdim=True))
        held[t] = strength * key
        after.append(held)
    return torch.stack(after)


def shares_read(trace: FastWeightTrace, held: Tensor, looks: Tensor) -> Tensor:
    """The share of every write s in what every look [T, L, H, K] read after step t: [T, T, L], the axes t, s and look.

    A write gives a read a vector of all heads' values. Its share is its length in that of all writes, negative if the
    vector points against what is read.
    """
    values = trace.values[0].detach().double()
    weights = torch.einsum("tshk,tlhk->tslh", held, looks.to(held))
    given = torch.einsum("tslh,shv->tslhv", weights, values).flatten(-2)  # [T, T, L, H * V]
    lengths = given.norm(dim=-1)
    along = (given * given.sum(1, keepdim=True)).sum(-1)
    share = lengths / lengths.sum(1, keepdim=True).clamp(min=1e-12)
    return torch.where(along < 0, -share, share)
