"""One step followed through a memory: where it is written, and who attends to that slot afterwards.

The view of Santoro et al. (2018), figure 3: for N-th farthest the step is the vector that the question is about.
"""

# Shape legend: T steps, S attention blocks, H heads, N memory slots

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn.inspection.page import Section, one_sequence
from relational_rnn.ops.relational_scan import Trace
from relational_rnn.pages import render

WHERE = "inspection.follow"
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
    lines, shapes, widest, y = [], [], 0.0, 0.0
    for example in examples:
        found = follow(example.trace, example.reference)
        after = found.looks[example.reference + 1 :]
        seen = f"slots then give it {after.mean():.2f} of their attention" if len(after) else "no step comes after"
        lines.append(f"{example.caption}: step {found.step + 1} goes mostly to slot {found.slot + 1}; {seen}")
        drawn, width, height = _draw(example, found, y)
        shapes += drawn
        widest, y = max(widest, width), y + height
    html = render(
        "inspection/templates/following.html",
        lines=lines,
        spoken=". ".join(lines),
        shapes=shapes,
        width=f"{widest:.0f}",
        height=f"{y:.0f}",
    )
    text = (
        "Each row is a sequence, each matrix a step: slots that look (down) by slots and the input that they look at "
        "(across). Framed: the step of the reference, and from there on the column of the slot that took the most of "
        "it (its attention to the input times its input gate). A slot may hold other things too, so looking at it is "
        "not yet looking at the reference."
    )
    return Section("The reference, followed", text, html)


Shape = tuple[str, dict[str, Any], str]
"""Of an element of an SVG: its name, its attributes, its text."""


def _draw(example: ReferenceExample, found: Followed, y: float) -> tuple[list[Shape], float, float]:
    """The matrices of an example from `y` down, how wide and how high they are; shades are one colour, more or less
    opaque, so any paper will do."""
    gap, head = 8, 34
    trace = one_sequence(example.trace)
    steps, slots = trace.memory.shape[:2]
    weights = trace.attention[..., :slots, :].mean((1, 2))
    rows = weights.shape[-1]
    cell = max(4.0, min(14.0, 108 / rows))
    wide, high, top = rows * cell, slots * cell, y + head
    shapes = [_text(0, y + 12, example.caption, 12)]
    for t in range(steps):
        x = t * (wide + gap) + 4
        shapes.append(_text(x, y + 28, str(t + 1), 9))
        for i, j in (weights[t] >= 0.01).nonzero().tolist():
            shade = {"fill": SHADE, "fill-opacity": f"{weights[t, i, j]:.2f}"}
            shapes.append(_box(x + j * cell, top + i * cell, cell, cell, **shade))
        if t == example.reference:
            shapes.append(_frame(x - 2, top - 2, wide + 4, high + 4, MARK, 2.5))
        else:
            shapes.append(_frame(x, top, wide, high, "currentColor", 0.4))
        if t > example.reference:  # columns are the slots as they were before the step
            shapes.append(_frame(x + found.slot * cell, top, cell, high, MARK, 1))
    return shapes, max(steps * (wide + gap) - 1, 7.0 * len(example.caption)), head + high + 16


def _text(x: float, y: float, words: str, size: int) -> Shape:
    return "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "font-size": size, "fill": "currentColor"}, words


def _box(x: float, y: float, width: float, height: float, **more: Any) -> Shape:
    place = {"x": x, "y": y, "width": width, "height": height}
    return "rect", {name: f"{value:.1f}" for name, value in place.items()} | more, ""


def _frame(x: float, y: float, width: float, height: float, colour: str, thick: float) -> Shape:
    return _box(x, y, width, height, fill="none", stroke=colour, **{"stroke-width": thick})
