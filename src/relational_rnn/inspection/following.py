"""One step followed through a memory, as in figure 3 of Santoro et al. (2018)."""

# Shape legend: T steps, S attention blocks, H heads, N memory slots

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn.inspection.page import Section, one_sequence
from relational_rnn.ops.relational_scan import Trace
from relational_rnn.pages import render

WHERE = "inspection.follow"
MARK = "#d55e00"
"""Stands out from the shades on light and dark paper, with every common colour blindness."""
GAP, HEAD = 8, 34
"""The space between two steps, and above their matrices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed:
    """Where one step is written, and which slots look there; attention is the mean over blocks and heads."""

    step: int
    """From 0."""
    writing: Tensor
    """[N]: every slot's attention to the input at that step, times its mean input gate."""
    slot: int
    """The slot with the most of it."""
    looks: Tensor
    """[T, N]: the attention of every slot to that slot at every step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceExample:
    """A sequence and the step of it that matters."""

    trace: Trace
    """Of one sequence."""
    reference: int
    """The step, from 0."""
    caption: str
    """One line, e.g. the question and its answer."""


def follow(trace: Trace, reference: int) -> Followed:
    """Where a step is written, and which slots look there.

    Raises:
        InputError: the trace is of several sequences, or has no such step.

    Example:
        >>> import torch
        >>> from relational_rnn import RelationalMemory
        >>> layer = RelationalMemory(input_size=5, mem_slots=3, head_size=4, num_heads=2)
        >>> followed = follow(layer.trace(torch.randn(6, 5)), 2)
        >>> followed.writing.shape, followed.looks.shape
        (torch.Size([3]), torch.Size([6, 3]))
    """
    trace = one_sequence(trace)
    steps, slots = trace.memory.shape[:2]
    if not 0 <= reference < steps:
        raise InputError(describe(WHERE, "there is no such step", got=reference, expected=f"0 to {steps - 1}"))
    weights = trace.attention[..., :slots, :].mean((1, 2))  # [T, N, N + input rows]
    writing = weights[reference, :, slots:].sum(-1)
    update = trace.update()
    if update is not None:
        writing = writing * update[0][reference].mean(-1)
    slot = int(writing.argmax())
    return Followed(step=reference, writing=writing, slot=slot, looks=weights[:, :, slot])


def reference_section(examples: Sequence[ReferenceExample]) -> Section:
    """A row of attention matrices for every example, one for each step, mean over blocks and heads.

    The step that matters is framed, and after it the column of the slot that took most of it.

    Raises:
        InputError: there is no example; see `follow`.
    """
    if not examples:
        raise InputError(describe(WHERE, "there is no example"))
    lines, drawn, widest, y = [], [], 0.0, 0.0
    for example in examples:
        found, trace = follow(example.trace, example.reference), one_sequence(example.trace)
        after = found.looks[example.reference + 1 :]
        seen = f"slots then give it {after.mean():.2f} of their attention" if len(after) else "no step comes after"
        lines.append(f"{example.caption}: step {found.step + 1} goes mostly to slot {found.slot + 1}; {seen}")
        weights = trace.attention[..., : trace.memory.shape[1], :].mean((1, 2))
        steps, slots, rows = weights.shape
        cell = max(4.0, min(14.0, 108 / rows))
        drawn.append((example, found.slot, weights.tolist(), cell, y))
        widest = max(widest, steps * (rows * cell + GAP) - 1, 7.0 * len(example.caption))
        y += HEAD + slots * cell + 16
    look = {"gap": GAP, "head": HEAD, "mark": MARK, "width": f"{widest:.0f}", "height": f"{y:.0f}"}
    html = render("inspection/templates/following.html", lines=lines, drawn=drawn, **look)
    text = (
        "Each row is a sequence, each matrix a step: slots that look (down) by slots and the input that they look at "
        "(across). Framed: the step of the reference, and after it the column of the slot that took the most of it "
        "(attention to the input times input gate). A slot may hold other things too, so looking at it need not be "
        "looking at the reference."
    )
    return Section("The reference, followed", text, html)
