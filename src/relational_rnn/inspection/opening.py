"""The figure that a page opens on: sentences by places of the memory, and what the question read there."""

# Shape legend: T steps, C columns, L looks of the question, N memory slots, G gate width

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """Ends in what the columns are, e.g. "replaced in slot"."""
    values: np.ndarray
    """[T, C], or [T, T, C] if it changes with the chosen step, the first axis."""
    most: float = 1.0
    """What the darkest shade stands for."""
    signed: bool = False
    """Numbers run from -most to most; otherwise from 0."""
    framed: bool = False
    """Frame the largest number of every column."""
    looks: np.ndarray | None = None
    """[T, L, C]: the question's looks at the same columns after every chosen step; the largest is framed."""

    def data(self) -> dict[str, Any]:
        """What the script reads."""
        low = -self.most if self.signed else 0.0
        return {
            **{name: getattr(self, name) for name in ("name", "most", "signed", "framed")},
            "columns": self.values.shape[-1],
            "moving": self.values.ndim == 3,
            "values": pack(self.values, name=f"{WHERE}: {self.name}", low=low, high=self.most),
            "looks": None if self.looks is None else pack(self.looks, name=f"{WHERE}: looks", low=0, high=1),
        }


class Named(NamedTuple):
    """A line that names a sentence."""

    label: str
    """What the line is about, e.g. "slot 3"."""
    step: int
    """The sentence, from 0."""
    value: float
    """How much of it."""
    note: str = ""


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
        named = [[line._replace(value=float(f"{line.value:.4g}")) for line in lines] for lines in self.named]
        return {"panels": [panel.data() for panel in self.panels], "named": named}


def slots_opening(trace: Trace, looks: Tensor) -> Opening:
    """Which slot took which sentence, what of it is left, and which slots the question looks at.

    `trace` is of one sequence; `looks` are the question's after each step, [T, L, N].
    """
    update = trace.update()
    steps, slots = trace.memory.shape[:2]
    came_in, stayed = update if update is not None else (torch.ones(steps, slots, 1), torch.zeros(steps, slots, 1))
    panels = [Panel(name="replaced in slot", values=came_in.mean(-1).numpy(), looks=looks.numpy())]
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
    named = []
    for left, seen in zip(what_is_left(came_in, stayed), looks.argmax(-1).tolist(), strict=True):
        shares, sentences = left.max(0)
        lines = enumerate(zip(sentences.tolist(), shares.tolist(), strict=True))
        named.append(
            [
                Named(
                    f"slot {i + 1}", sentence, share, in_words(n for n, slot in enumerate(seen, start=1) if slot == i)
                )
                for i, (sentence, share) in lines
            ]
        )
    return Opening(
        heading="Which slot took which sentence, and which slot the answer was read from",
        caption=words,
        panels=panels,
        head=["slot", "holds most of", "left", "read by"],
        named=named,
    )


def in_words(looks: Iterable[int]) -> str:
    """E.g. "looks 1, 3"; empty without looks."""
    numbers = list(map(str, looks))
    return f"look{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" if numbers else ""


def what_is_left(came_in: Tensor, stayed: Tensor) -> Sequence[Tensor]:
    """After every step, how much of what each step brought into a slot is still there: T tensors [T, N], the mean over
    the numbers of a slot.

    M_t = sum_s came_in_s * prod_{s < r <= t} stayed_r * tanh(candidate_s) + what is left of the start.

    Both arguments are [T, N, G], as `Trace.update` returns them.

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
