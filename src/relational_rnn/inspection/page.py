"""A page that shows what a relational memory attended to, kept and forgot along one sequence."""

# Shape legend: T steps, S attention blocks, H heads, N memory slots, n input rows, R = N + n rows, M memory width,
#               G gate width M or 1

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn._files import write_whole
from relational_rnn.inspection import _page_parts as parts
from relational_rnn.inspection._page_parts import TokenValues
from relational_rnn.inspection.opening import Opening
from relational_rnn.ops.relational_scan import Trace
from relational_rnn.pages import Script, document, pack

WHERE = "inspection.page"
STYLES = (Script("relational_rnn.inspection", "page.css"),)
SCRIPTS = (
    Script("relational_rnn.pages", "tables.js"),
    Script("relational_rnn.pages", "figures.js"),
    Script("relational_rnn.inspection", "drawing.js"),
    Script("relational_rnn.inspection", "steps.js"),
)
OPENING_SCRIPTS = (Script("relational_rnn.inspection", "opening.js"),)
MEMORY_SCRIPTS = (Script("relational_rnn.inspection", "numbers.js"), Script("relational_rnn.inspection", "page.js"))
MOST_ANSWERS = 6
"""Curves in the figure of the answers; colours and dashes tell so many apart."""
Layout = Literal["lines", "flow"]


@dataclass(frozen=True, slots=True)
class Section:
    """Something to end a page with, such as `statistics_section`."""

    heading: str
    text: str
    """One paragraph below the heading."""
    html: str
    """What follows; the only thing that `page` does not escape."""


@dataclass(frozen=True, slots=True)
class Page:
    """A finished page."""

    html: str
    """All of it; nothing else is needed to show it."""

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all; the folder is created where it is missing.

        Raises:
            OSError: as the operating system does.
        """
        path = Path(path)
        write_whole(path, self.html)
        return path


def page(
    trace: Trace,
    tokens: Sequence[str],
    *,
    title: str = "A look inside the memory",
    lead: Sequence[str] = (),
    before: Tensor | None = None,
    answers: Mapping[str, Sequence[float | None]] | None = None,
    right: str | None = None,
    token_values: Sequence[TokenValues] = (),
    layout: Layout | None = None,
    notes: Sequence[str] = (),
    sections: Sequence[Section] = (),
    opening: Opening | None = None,
) -> Page:
    """One sequence through a relational memory as one HTML file, with a scrubber over its steps.

    The page shows, for the chosen step, the attention of every block and head as a matrix of slots x (slots + input),
    the same as arrows, both gates of every slot, and the memory and its change; and along time the attention to the
    input, the gates, the change of the memory, and the answers' probabilities where they are given. It needs no
    network and no other file. Numbers are kept in 16 bits; the page states the precision.

    Args:
        trace: of one sequence: [T, S, H, R, R], or a batch of one, as `RelationalMemory.trace` returns it.
        tokens: what every step read, T texts; any text is shown as text.
        title: heading of the page.
        lead: paragraphs below the heading, e.g. the question and its answer.
        before: the memory before the first step, [N, M]; without it the change at the first step is not shown.
        answers: from an answer to its probability after every step (None where there is none, T values); at most
            `MOST_ANSWERS` are drawn, those that were most probable at some step.
        right: the right answer; marked, and always drawn where it is among the answers.
        token_values: numbers that belong to tokens; each gets a column.
        layout: "lines" for a line per token (sentences), "flow" for running text (words, letters); by default lines
            where some token has several words.
        notes: what a reader should know, one sentence each.
        sections: further parts, after the figures.
        opening: a figure of sentences and slots that comes first, such as `slots_opening`.

    Raises:
        InputError: the trace is of several sequences, shapes or lengths do not fit, or a number is not finite.

    Example:
        >>> import torch
        >>> from relational_rnn import RelationalMemory
        >>> layer = RelationalMemory(input_size=5, mem_slots=3, head_size=4, num_heads=2)
        >>> words = ["Mary", "went", "home"]
        >>> shown = page(layer.trace(torch.randn(3, 5)), words, before=layer.initial_state(1)[0])
        >>> shown.save("mary.html").stat().st_size < 100_000
        True
    """
    if layout is not None:
        check_choice(WHERE, "layout", layout, ("lines", "flow"))
    trace, tokens = sequence_of(trace, tokens)
    steps = len(tokens)
    for values in token_values:
        check_values(f"token_values {values.name!r}", values.values, steps)
    numbers = _numbers(trace, before)
    flow = layout == "flow" if layout is not None else not any(len(token.split()) > 1 for token in tokens)
    change = TokenValues(
        name="memory's change",
        description="length of the difference between the whole memory after and before the step",
        values=memory_change(numbers["memory"], steps),
    )
    data = {**numbers, "memory": pack(numbers["memory"], name=f"{WHERE}: the memory")}
    return put_together(
        title=title,
        lead=lead,
        tokens=tokens,
        columns=[*token_values, change],
        flow=flow,
        answers=answers or {},
        right=right,
        opening=opening,
        beside_story=parts.slots_along_time(),
        at_this_step=parts.this_step(data),
        sections=sections,
        facts=parts.slot_facts(data),
        notes=notes,
        data=data,
        scripts=MEMORY_SCRIPTS,
    )


def put_together(
    *,
    title: str,
    lead: Sequence[str],
    tokens: Sequence[str],
    columns: Sequence[TokenValues],
    flow: bool,
    answers: Mapping[str, Sequence[float | None]],
    right: str | None,
    opening: Opening | None,
    beside_story: str,
    at_this_step: str,
    sections: Sequence[Section],
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
    data: Mapping[str, Any],
    scripts: Sequence[Script],
) -> Page:
    """The page of any memory: what is the same for all of them around `beside_story` and `at_this_step`, HTML of
    figures that `scripts` draw from `data`; `at_this_step` may be empty."""
    steps = len(tokens)
    drawn = _drawn_answers(answers, right, steps)
    along = "\n".join(["<h2>Along time</h2>", parts.answers_along_time(drawn, right, steps), beside_story])
    story = parts.story_flow(tokens, columns) if flow else parts.story_lines(tokens, columns)
    halves = [f"{story}\n{along}", at_this_step] if at_this_step else [story, along]
    body = "\n".join(
        [
            *(f'<p class="lead"><bdi>{escape(paragraph)}</bdi></p>' for paragraph in lead),
            parts.controls(steps),
            *([] if opening is None else [opening.html()]),
            f'<div class="columns"><div>{halves[0]}</div><div>{halves[1]}</div></div>',
            *(f"<h2>{escape(s.heading)}</h2><p>{escape(s.text)}</p>{s.html}" for s in sections),
            parts.explanations(columns),
            parts.about([("steps", f"{steps:,}"), *facts], notes),
        ]
    )
    shown = {
        **data,
        "steps": steps,
        "tokens": tokens,
        "answers": {"names": list(drawn), "values": [_rounded(v) for v in drawn.values()], "right": right},
        "tokenValues": [{"name": c.name, "values": _rounded(c.values)} for c in columns],
        **({} if opening is None else {"opening": opening.data()}),
    }
    used = (*SCRIPTS, *(() if opening is None else OPENING_SCRIPTS), *scripts)
    return Page(document(title, body, styles=STYLES, scripts=used, data=shown))


def one_sequence(trace: Trace) -> Trace:
    """The trace without its batch axis, as float32 numbers on the CPU; refuses a trace of several sequences."""
    axes = trace.attention.dim()
    if axes == 6 and trace.attention.shape[0] == 1:
        trace = trace.map(lambda tensor: tensor[0])
    elif axes != 5:
        raise InputError(
            describe(
                WHERE,
                "the trace must be of one sequence",
                got=f"attention {tuple(trace.attention.shape)}",
                expected="[steps, blocks, heads, rows, rows]",
                hint="take sequence i of a batch with trace.map(lambda tensor: tensor[i])",
            )
        )
    return trace.map(lambda tensor: tensor.detach().float().cpu())


def sequence_of(trace: Trace, tokens: Sequence[str]) -> tuple[Trace, list[str]]:
    """One sequence's trace and its tokens, as many as there are steps, at least one; anything else is refused."""
    if not isinstance(trace, Trace):
        raise InputError(describe(WHERE, "trace must be what RelationalMemory.trace returns", got=type(trace).__name__))
    trace = one_sequence(trace)
    steps = trace.attention.shape[0]
    if steps == 0:
        raise InputError(describe(WHERE, "the sequence has no step"))
    if len(tokens) != steps:
        raise InputError(describe(WHERE, "there must be a token for every step", got=len(tokens), expected=steps))
    return trace, [str(token) for token in tokens]


def held_memory(trace: Trace, before: Tensor | None) -> np.ndarray:
    """[T, N, M] after every step of one sequence, or [T + 1, N, M] with the memory before the first in front."""
    memory = trace.memory.numpy()
    if before is None:
        return memory
    if tuple(before.shape) != memory.shape[1:]:
        got, expected = tuple(before.shape), memory.shape[1:]
        raise InputError(describe(WHERE, "before must be the memory of one sequence", got=got, expected=expected))
    return np.concatenate([before.detach().float().cpu().numpy()[None], memory])


def memory_change(memory: np.ndarray, steps: int) -> list[float | None]:
    """How far every step moved the memory; None at the first one where the memory before it is not known."""
    moved = np.sqrt(np.square(np.diff(memory.astype(np.float64), axis=0)).sum((1, 2))).tolist()
    return [*[None] * (steps - len(moved)), *moved]


def _numbers(trace: Trace, before: Tensor | None) -> dict[str, Any]:
    """What the script reads, the memory not yet packed."""
    slots, width = trace.memory.shape[-2:]
    _, blocks, heads, rows, _ = trace.attention.shape
    update = trace.update()

    def share(tensor: Tensor | None, name: str) -> dict[str, Any] | None:
        return None if tensor is None else pack(tensor.numpy(), name=f"{WHERE}: {name}", low=0, high=1)

    return {
        "blocks": blocks,
        "heads": heads,
        "slots": slots,
        "inputs": rows - slots,
        "width": width,
        "gateWidth": 0 if update is None else update[0].shape[-1],
        "competing": int(trace.share is not None),
        "hasBefore": int(before is not None),
        # Rows that look are the slots; what the input's own row attends to is not kept in the memory.
        "attention": share(trace.attention[..., :slots, :], "the attention"),
        "inputGate": share(None if update is None else update[0], "the input gate"),
        "forgetGate": share(None if update is None else update[1], "the forget gate"),
        "memory": held_memory(trace, before),
    }


def check_values(name: str, values: Sequence[float | None], steps: int) -> None:
    """Refuse numbers that are not one per step, or not finite."""
    if len(values) != steps:
        raise InputError(describe(WHERE, f"{name} must have a value for every step", got=len(values), expected=steps))
    if any(value is not None and not math.isfinite(value) for value in values):
        raise InputError(describe(WHERE, f"{name} has a value that is not finite", hint="None means: no value"))


def _drawn_answers(
    answers: Mapping[str, Sequence[float | None]], right: str | None, steps: int
) -> dict[str, Sequence[float | None]]:
    """The answers with the highest probabilities at any step, in the order of their last one."""
    for name, values in answers.items():
        check_values(f"answers {name!r}", values, steps)
    highest = {name: max((p for p in values if p is not None), default=0.0) for name, values in answers.items()}
    # What is answered in the end is always among them, and so is the right answer.
    last = {name: next((p for p in reversed(values) if p is not None), 0.0) for name, values in answers.items()}
    first = [right] if right is not None and right in answers else []
    if last:
        first.append(max(last, key=lambda name: last[name]))
    ranked = list(dict.fromkeys([*first, *sorted(answers, key=lambda name: -highest[name])]))[:MOST_ANSWERS]
    return {name: answers[name] for name in sorted(ranked, key=lambda name: -last[name])}


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else float(f"{value:.6g}") for value in values]
