"""The figure that a page opens on: sentences by places of the memory, and what the question read there."""

# Shape legend: T steps, C columns, L looks of the question, N memory slots, G gate width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relational_rnn.ops.relational_scan import Trace
from relational_rnn.pages import pack, render

WHERE = "inspection.opening"


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A matrix with a row for every sentence."""

    name: str
    """Words that end in what the columns are, e.g. "replaced in slot"."""
    values: np.ndarray
    """[T, C], or [T, T, C] if it changes with the chosen step, the first axis."""
    most: float = 1.0
    """What the darkest shade stands for."""
    signed: bool = False
    """Numbers from -most to most; otherwise from 0."""
    framed: bool = False
    """Frame the largest number of every column."""
    looks: np.ndarray | None = None
    """[T, L, C]: the question's looks at the same columns after every chosen step; the largest is framed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """A line that names a sentence."""

    label: str
    """What the line is about, e.g. "slot 3"."""
    step: int
    """The sentence, from 0."""
    value: float
    """How much of it."""
    note: str = ""
    """A word beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """A figure over all steps, and lines that put the chosen one into words."""

    heading: str
    caption: str
    panels: Sequence[Panel]
    head: Sequence[str]
    """Names of the lines' columns."""
    named: Sequence[Sequence[Named]]
    """The lines after each of the T steps, equally many."""

    def html(self) -> str:
        """Its place on the page; the script fills it."""
        return render("inspection/templates/opening.html", opening=self)

    def data(self) -> dict[str, Any]:
        """What the script reads."""
        panels = []
        for panel in self.panels:
            low = -panel.most if panel.signed else 0.0
            looks = None if panel.looks is None else pack(panel.looks, name=f"{WHERE}: looks", low=0, high=1)
            values = pack(panel.values, name=f"{WHERE}: {panel.name}", low=low, high=panel.most)
            shape = {"columns": panel.values.shape[-1], "moving": panel.values.ndim == 3}
            look = {name: getattr(panel, name) for name in ("name", "most", "signed", "framed")}
            panels.append({**look, **shape, "values": values, "looks": looks})
        named = [[[n.label, n.step, float(f"{n.value:.4g}"), n.note] for n in lines] for lines in self.named]
        return {"panels": panels, "named": named}


def slots_opening(trace: Trace, looks: Tensor) -> Opening:
    """Which slot took which sentence in a trace of one sequence, what of it is left, and which slots the question looks
    at after each step, [T, L, N]."""
    update = trace.update()
    steps, slots = trace.memory.shape[:2]
    came_in, stayed = update if update is not None else (torch.ones(steps, slots, 1), torch.zeros(steps, slots, 1))
    replaced = Panel(name="replaced in slot", values=came_in.mean(-1).numpy(), looks=looks.numpy())
    panels = [replaced]
    words = "The darker a cell, the more of the slot was replaced while the sentence was read (mean over its numbers). "
    if trace.share is not None:
        panels.append(Panel(name="share taken by slot", values=trace.share.mean(-1).numpy()))
        words += "Beside it: how much of the sentence each slot took; a row adds up to 1. "
    words += (
        "Below: where the question looks, were it asked after the chosen sentence (mean over heads; the slot most "
        "looked at is framed). A slot holds most of the sentence that brought in the most of what its gates have left."
    )
    if update is None:
        words += " This memory has no gates: every slot is replaced by every sentence."
    return Opening(
        heading="Which slot took which sentence, and which slot the answer was read from",
        caption=words,
        panels=panels,
        head=["slot", "holds most of", "left", "read by"],
        named=[
            [
                Named(
                    label=f"slot {i + 1}",
                    step=int(sentence),
                    value=float(share),
                    note=in_words([n + 1 for n, row in enumerate(looks[t]) if int(row.argmax()) == i]),
                )
                for i, (sentence, share) in enumerate(zip(*most_left(left), strict=True))
            ]
            for t, left in enumerate(what_is_left(came_in, stayed))
        ],
    )


def in_words(looks: Sequence[int]) -> str:
    """
    >>> in_words([]), in_words([2]), in_words([1, 3])
    ('', 'look 2', 'looks 1, 3')
    """
    name = "looks" if len(looks) > 1 else "look"
    return f"{name} {', '.join(map(str, looks))}" if looks else ""


def what_is_left(came_in: Tensor, stayed: Tensor) -> Sequence[Tensor]:
    """After every step, how much of what each step brought into a slot is still there: T tensors [T, N], the mean over
    the numbers of a slot.

    M_t = sum_s came_in_s * prod_{s < r <= t} stayed_r * tanh(candidate_s) + what is left of the start.

    Both arguments are [T, N, G] (`Trace.update`).

    Example:
        >>> came_in = torch.tensor([[[1.0]], [[0.25]]])
        >>> [left.flatten().tolist() for left in what_is_left(came_in, 1 - came_in)]
        [[1.0, 0.0], [0.75, 0.25]]
    """
    left, after = torch.zeros_like(came_in), []
    for t in range(len(came_in)):
        left = left * stayed[t]
        left[t] = came_in[t]
        after.append(left.mean(-1))
    return after


def most_left(left: Tensor) -> tuple[Tensor, Tensor]:
    """The step of which most is left in each slot [N], and how much [N], of [T, N]."""
    share, step = left.max(0)
    return step, share
