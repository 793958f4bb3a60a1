"""What the attention and the gates do over many sequences, beside what they do in one."""

# Shape legend: B sequences, T steps, S attention blocks, H heads, N memory slots, R = N + input rows

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_shape, describe
from relational_rnn.inspection.page import Section, one_sequence
from relational_rnn.ops.relational_scan import Trace
from relational_rnn.pages import Cell, Table

WHERE = "attention_statistics"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionStatistics:
    """Means over all steps of each of B sequences, in float64."""

    entropy: Tensor
    """[B, S, H] of the slots' attention, as a share of log R: 0 if a slot looks at one row, 1 if at all rows alike."""
    to_input: Tensor
    """[B, S, H] weight that a slot gives to the input."""
    to_itself: Tensor
    """[B, S, H] weight that a slot gives to itself."""
    to_others: Tensor
    """[B, S, H] weight that a slot gives to all other slots."""
    distance: Tensor
    """[B, S, H] mean of |i - j| over the weight on slots; (N^2 - 1) / 3N for uniform weight."""
    input_gate: Tensor | None = None
    """[B, N] how much of what was attended to came in (`Trace.update`); None without gates."""
    forget_gate: Tensor | None = None
    """[B, N] how much of the memory before stayed; None without gates."""
    likeness: Tensor
    """[B] mean cosine between different slots: 1 if all hold the same, 0 for a single slot."""


def attention_statistics(traces: Iterable[tuple[Trace, Tensor | None]]) -> AttentionStatistics:
    """The statistics of every sequence of some batches.

    Args:
        traces: pairs of a trace [B, T, ...] and its lengths [B], None for T; sequences without a step are left out.

    Raises:
        InputError: no sequence has a step.

    Example:
        >>> from relational_rnn import RelationalMemory
        >>> layer = RelationalMemory(input_size=5, mem_slots=3, head_size=4, num_heads=2)
        >>> found = attention_statistics([(layer.trace(torch.zeros(7, 11, 5)), None)])
        >>> found.entropy.shape, (found.to_input + found.to_itself + found.to_others).sum().round().item()
        (torch.Size([7, 1, 2]), 14.0)
    """
    rows: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for trace, lengths in traces:
            for name, value in _of_batch(trace, lengths).items():
                rows.setdefault(name, []).append(value)
    if not rows or not sum(len(part) for part in rows["likeness"]):
        raise InputError(describe(WHERE, "there is no sequence with a step"))
    return AttentionStatistics(**{name: torch.cat(parts) for name, parts in rows.items()})


def _of_batch(trace: Trace, lengths: Tensor | None) -> dict[str, Tensor]:
    axes: dict[str, int | None] = dict.fromkeys(("sequences", "steps", "blocks", "heads", "rows that look", "rows"))
    check_shape(WHERE, "the attention of a batch", trace.attention, axes)
    batch, steps = trace.attention.shape[:2]
    device = trace.memory.device
    lengths = torch.full((batch,), steps, device=device) if lengths is None else lengths.to(device)
    kept = lengths > 0
    happened = torch.arange(steps, device=device) < lengths[:, None]

    def over_steps(values: Tensor) -> Tensor:
        """[B, T, ...] to its mean over the steps that happened."""
        ones = [1] * (values.dim() - 2)
        total = values.double().where(happened.view(batch, steps, *ones), 0).sum(1)
        return (total / lengths.clamp(min=1).view(batch, *ones))[kept].cpu()

    slots = trace.memory.shape[-2]
    looks = trace.attention[..., :slots, :]  # rows that look: the slots
    among = looks[..., :slots]
    place = torch.arange(slots, device=device, dtype=torch.float64)
    apart = (place[:, None] - place).abs()
    on_slots = among.sum(-1)
    entropy = -torch.xlogy(looks, looks).sum(-1) / torch.log(torch.tensor(float(looks.shape[-1])))
    itself = among.diagonal(dim1=-2, dim2=-1)
    held = torch.nn.functional.normalize(trace.memory.double(), dim=-1)
    cosines = (held @ held.mT).sum((-2, -1)) - held.square().sum((-2, -1))
    found = {
        "entropy": entropy.mean(-1),
        "to_input": looks[..., slots:].sum(-1).mean(-1),
        "to_itself": itself.mean(-1),
        "to_others": (on_slots - itself).mean(-1),
        # Weighted by the weight on slots: a head that looks only at the input does not count.
        "distance": (among * apart).sum((-2, -1)) / on_slots.sum(-1).clamp(min=1e-12),
        "likeness": cosines / max(1, slots * (slots - 1)),
    }
    update = trace.update()
    if update is not None:
        found["input_gate"], found["forget_gate"] = (gate.mean(-1) for gate in update)
    return {name: over_steps(value) for name, value in found.items()}


def statistics_section(trace: Trace, many: AttentionStatistics, *, what: str) -> Section:
    """Tables of one sequence beside many; `what` names these, e.g. "the 200 test stories of task 1"."""
    one = attention_statistics([(one_sequence(trace).map(lambda tensor: tensor[None]), None)])
    spread = many.entropy.shape[0] > 1

    def beside(name: str, *place: int) -> list[Cell]:
        single, values = getattr(one, name)[(0, *place)].item(), getattr(many, name)[(slice(None), *place)]
        text = f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if spread else "")
        return [Cell(f"{single:.3f}", single), Cell(text, values.mean().item())]

    names = {
        "entropy": "entropy / log rows",
        "to_input": "to the input",
        "to_itself": "to itself",
        "to_others": "to other slots",
        "distance": "distance in slots",
    }
    alone = not many.to_others.any()  # a single slot has no other to be like, or far from
    if alone:
        del names["to_others"], names["distance"]

    def table(first: str, names: Mapping[str, str], sizes: Iterable[int], caption: str) -> Table:
        """A row for every place in these axes, two columns for every name."""
        head = [first, *(heading for words in names.values() for heading in (f"{words}: here", "all"))]
        rows = [
            [Cell(", ".join(str(i + 1) for i in place), n), *(cell for name in names for cell in beside(name, *place))]
            for n, place in enumerate(product(*map(range, sizes)))
        ]
        return Table(head, rows, caption)

    tables = [table("block, head", names, one.entropy.shape[1:], "Attention of the slots")]
    if one.input_gate is not None:
        gates = {"input_gate": "input gate", "forget_gate": "forget gate"}
        tables.append(table("slot", gates, one.input_gate.shape[1:], "Gates, mean over steps and numbers"))
    if not alone:
        here, everywhere = beside("likeness")
        likeness = (
            "Likeness of the slots (mean cosine between two slots of the memory; 1: all hold the same): "
            f"{here.text} here, {everywhere.text} over all."
        )
        tables[-1] = replace(tables[-1], notes=[likeness])
    count = f"Here: this page's sequence. All: mean over {what}" + (", ± the spread over sequences." if spread else ".")
    return Section("This one beside many", count, "\n".join(table.html() for table in tables))
