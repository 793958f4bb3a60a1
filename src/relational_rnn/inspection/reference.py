"""One step followed through a memory: where it is written, and who attends to that slot afterwards.

The view of Santoro et al. (2018), figure 3: for N-th farthest the step is the vector that the question is about.
"""

# Shape legend: T steps, S attention blocks, H heads, N memory slots

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn.inspection.page import Section, one_sequence
from relational_rnn.ops.relational_scan import Trace

WHERE = "inspection.reference"
SHADE, MARK = "#2f8fd0", "#d55e00"
"""Colours that are told apart on light and dark paper, and with every common colour blindness."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed:
    """What became of one step."""

    step: int
    """The step, from 0."""
    writing: Tensor
    """[N]: a slot's attention to the input at that step (mean over blocks and heads) times its mean input gate: how
    much of the step may have reached the slot."""
    slot: int
    """The slot with the most of it."""
    looks: Tensor
    """[T, N]: the attention of every slot to that slot at every step, mean over blocks and heads."""


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
    """Where a step is written, and who looks there.

    Raises:
        InputError: the trace is of several sequences, or there is no such step.

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
    """A row of attention matrices per example, one per step, mean over blocks and heads; the step that matters is
    framed, and so is, from then on, the column of the slot that took the most of it.

    Raises:
        InputError: no example; see `follow`.
    """
    if not examples:
        raise InputError(describe(WHERE, "there is no example"))
    words = []
    for example in examples:
        found = follow(example.trace, example.reference)
        after = found.looks[example.reference + 1 :]
        seen = f"slots then give it {after.mean():.2f} of their attention" if len(after) else "no step comes after"
        words.append(f"{example.caption}: step {found.step + 1} goes mostly to slot {found.slot + 1}; {seen}")
    svg = _draw(examples, ". ".join(words))
    rows = "".join(f"<li><bdi>{escape(line)}.</bdi></li>" for line in words)
    text = (
        "Each row is a sequence, each matrix a step: slots that look (down) by slots and the input that they look at "
        "(across). Framed: the step of the reference, and from there on the column of the slot that took the most of "
        "it (its attention to the input times its input gate). A slot may hold other things too, so looking at it is "
        "not yet looking at the reference."
    )
    html = (
        f'<figure data-name="reference"><div class="drawing">{svg}</div>'
        f"<figcaption>Where the reference is written, and who attends to it.</figcaption></figure><ul>{rows}</ul>"
    )
    return Section("The reference, followed", text, html)


def _draw(examples: Sequence[ReferenceExample], spoken: str) -> str:
    """The matrices as an SVG; shades are one colour, more or less opaque, so any paper will do."""
    gap, head = 8, 34
    parts, y = [], 0.0
    widest = 0.0
    for example in examples:
        found = follow(example.trace, example.reference)
        trace = one_sequence(example.trace)
        steps, slots = trace.memory.shape[:2]
        weights = trace.attention[..., :slots, :].mean((1, 2))
        rows = weights.shape[-1]
        cell = max(4.0, min(14.0, 108 / rows))
        parts.append(_text(0, y + 12, example.caption, 12))
        for t in range(steps):
            x, top = t * (rows * cell + gap) + 4, y + head
            parts.append(_text(x, y + 28, str(t + 1), 9))
            for i, j in ((i, j) for i in range(slots) for j in range(rows)):
                weight = float(weights[t, i, j])
                if weight >= 0.01:
                    parts.append(_box(x + j * cell, top + i * cell, cell, cell, f'fill-opacity="{weight:.2f}"'))
            if t == example.reference:
                parts.append(_frame(x - 2, top - 2, rows * cell + 4, slots * cell + 4, MARK, 2.5))
            else:
                parts.append(_frame(x, top, rows * cell, slots * cell, "currentColor", 0.4))
            if t > example.reference:  # columns are the slots as they were before the step
                parts.append(_frame(x + found.slot * cell, top, cell, slots * cell, MARK, 1))
            widest = max(widest, x + rows * cell + 3)
        widest = max(widest, 7.0 * len(example.caption))
        y += head + slots * cell + 16
    return (
        f'<svg role="img" aria-label="{escape(spoken)}" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {widest:.0f} {y:.0f}" style="width:{widest:.0f}px;max-width:none">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, words: str, size: int) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="currentColor">{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, more: str) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{SHADE}" {more}/>'


def _frame(x: float, y: float, width: float, height: float, colour: str, thick: float) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="none" stroke="{colour}" stroke-width="{thick}"/>'
