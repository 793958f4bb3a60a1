"""A page that shows what a relational memory attended to, kept and forgot along one sequence."""

# Shape legend: T steps, S attention blocks, H heads, N memory slots, n input rows, R = N + n rows, M memory width,
#               G gate width M or 1

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn._files import write_whole
from relational_rnn.inspection.opening import Opening
from relational_rnn.inspection.token_values import TokenValues, amounts, check_tokens, check_values, rounded, visible
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.ops.relational_scan import Trace
from relational_rnn.pages import document, pack, render

WHERE = "inspection.page"
SCRIPTS = ("pages/tables.js", "pages/figures.js", "inspection/drawing.js", "inspection/steps.js")
MOST_ANSWERS = 6
"""Curves in the figure of the answers, as many as colours and dashes tell apart."""
LONG = 60
"""With more steps that figure begins with only the two most probable answers and the right one."""
Layout = Literal["lines", "flow"]


@dataclass(frozen=True, slots=True)
class Section:
    """A part at the end of a page, such as `statistics_section`; `html` is not escaped."""

    heading: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Page:
    """A finished page that needs no other file."""

    html: str

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all; a missing folder is made."""
        write_whole(Path(path), self.html)
        return Path(path)


class Around(TypedDict, total=False):
    """What the page of any memory may have around its figures."""

    lead: Sequence[str]
    """Paragraphs below the heading, e.g. the question and its answer."""
    answers: Mapping[str, Sequence[float | None]] | None
    """By answer its probability after every step, T values or None; the `MOST_ANSWERS` most probable are drawn."""
    right: str | None
    """The right answer, which is marked."""
    token_values: Sequence[TokenValues]
    """Numbers that belong to tokens; each gets a column."""
    notes: Sequence[str]
    sections: Sequence[Section]
    """Further parts, after the figures."""


def page(
    trace: Trace,
    tokens: Sequence[str],
    *,
    title: str = "A look inside the memory",
    before: Tensor | None = None,
    layout: Layout | None = None,
    opening: Opening | None = None,
    **around: Unpack[Around],
) -> Page:
    """One sequence through a relational memory as one HTML file, with a scrubber over its steps.

    For the chosen step the page shows the attention of every block and head, both gates of every slot, and the memory
    with its change; over time it shows the attention to the input, the gates, the change of the memory, and the
    answers' probabilities. It needs no network and no other file. Numbers have 16 bits; the page states the precision.

    Args:
        trace: of one sequence: [T, S, H, R, R], or a batch of one, as `RelationalMemory.trace` returns it.
        tokens: what every step read, T texts.
        title: heading of the page.
        before: the memory before the first step, [N, M]; without it the change at the first step is not shown.
        layout: a line for every token ("lines") or running text ("flow"); by default lines if a token has several
            words.
        opening: a figure that comes first, such as `slots_opening`.
        **around: see `Around`.

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
    held = held_memory(trace, before)
    data = {**_numbers(trace), "hasBefore": int(before is not None), "memory": pack(held, name=f"{WHERE}: the memory")}
    heads = [(h, f"head {h + 1}") for h in range(data["heads"])]
    # Twice uniform attention: only what stands out is visible at first.
    least = min(0.5, max(0.1, round(2 / (data["slots"] + data["inputs"]) / 0.05) * 0.05))
    return put_together(
        "slots",
        tokens,
        held,
        title=title,
        flow=layout == "flow" if layout is not None else not any(len(token.split()) > 1 for token in tokens),
        opening=opening,
        data=data,
        scripts=("inspection/numbers.js", "inspection/page.js"),
        about={
            "blocks": [(s, f"block {s + 1}") for s in range(data["blocks"])],
            "heads": [(-1, "average"), *heads] if len(heads) > 1 else heads,
            "least": f"{least:.2f}",
        },
        **around,
    )


def put_together(
    kind: str,
    tokens: Sequence[str],
    held: np.ndarray,
    *,
    title: str,
    about: Mapping[str, Any],
    flow: bool = False,
    opening: Opening | None = None,
    data: Mapping[str, Any] | None = None,
    scripts: Sequence[str] = (),
    more: Sequence[TokenValues] = (),
    **around: Unpack[Around],
) -> Page:
    """The page of any memory. `kind` is its template, which reads `about`; its scripts read `data`; `held` is the
    memory after every step, [T, ...], or [T + 1, ...] with the one before the first step in front."""
    if unknown := around.keys() - Around.__annotations__.keys():
        raise TypeError(f"a page has no argument {min(unknown)!r}")
    steps, right = len(tokens), around.get("right")
    given = around.get("token_values", ())
    for values in given:
        check_values(WHERE, f"token_values {values.name!r}", values.values, steps)
    words = "length of the difference between the whole memory after and before the step"
    change = TokenValues("memory's change", words, memory_change(held, steps))
    columns = [*given, *more, change]
    drawn = _drawn_answers(around.get("answers") or {}, right, steps)
    shown = {
        **(data or {}),
        "steps": steps,
        "tokens": tokens,
        "answers": {"names": list(drawn), "values": [rounded(v) for v in drawn.values()], "right": right},
        "tokenValues": [{"name": c.name, "values": rounded(c.values)} for c in columns],
        **({} if opening is None else {"opening": opening.data()}),
    }
    body = render(
        f"inspection/templates/{kind}.html",
        around=around,
        data=shown,
        tokens=[(token, visible(token)) for token in tokens],
        columns=columns,
        bars=[amounts(column) for column in columns],
        flow=flow,
        # A long story begins with few curves; the others are a click away.
        answers=[(name, steps <= LONG or n < 2 or name == right) for n, name in enumerate(drawn)],
        right=right,
        opening=opening,
        **about,
    )
    used = (*SCRIPTS, *(() if opening is None else ("inspection/opening.js",)), *scripts)
    return Page(document(title, body, styles=("inspection/page.css",), scripts=used, data=shown))


def slots_in(core: object, problem: str = "only a relational memory has slots to look at") -> RelationalMemory:
    """The core of a model. Raises InputError unless it is a relational memory."""
    if not isinstance(core, RelationalMemory):
        raise InputError(describe("inspect", problem, got=f"a model with the core {type(core).__name__}"))
    return core


def one_sequence(trace: Trace) -> Trace:
    """The trace of one sequence without its batch axis, in float32 on the CPU."""
    axes = trace.attention.dim()
    if axes == 6 and trace.attention.shape[0] == 1:
        trace = trace.map(lambda tensor: tensor[0])
    elif axes != 5:
        got, expected = f"attention {tuple(trace.attention.shape)}", "[steps, blocks, heads, rows, rows]"
        hint = "take sequence i of a batch with trace.map(lambda tensor: tensor[i])"
        problem = "the trace must be of one sequence"
        raise InputError(describe(WHERE, problem, got=got, expected=expected, hint=hint))
    return trace.map(lambda tensor: tensor.detach().float().cpu())


def sequence_of(trace: Trace, tokens: Sequence[str]) -> tuple[Trace, list[str]]:
    """The checked trace and tokens of one sequence."""
    if not isinstance(trace, Trace):
        raise InputError(describe(WHERE, "trace must be what RelationalMemory.trace returns", got=type(trace).__name__))
    trace = one_sequence(trace)
    return trace, check_tokens(WHERE, tokens, trace.attention.shape[0])


def held_memory(trace: Trace, before: Tensor | None) -> np.ndarray:
    """The memory after every step, [T, N, M], or [T + 1, N, M] with `before` in front."""
    memory = trace.memory.numpy()
    if before is None:
        return memory
    if tuple(before.shape) != memory.shape[1:]:
        got, expected = tuple(before.shape), memory.shape[1:]
        raise InputError(describe(WHERE, "before must be the memory of one sequence", got=got, expected=expected))
    return np.concatenate([before.detach().float().cpu().numpy()[None], memory])


def memory_change(memory: np.ndarray, steps: int) -> list[float | None]:
    """How far every step moved the memory; None for the first step if the memory before it is not known."""
    squares = np.square(np.diff(memory.astype(np.float64), axis=0))
    moved = np.sqrt(squares.sum(axis=tuple(range(1, memory.ndim)))).tolist()
    return [*[None] * (steps - len(moved)), *moved]


def _numbers(trace: Trace) -> dict[str, Any]:
    """What the script reads, except for the memory."""
    slots, width = trace.memory.shape[-2:]
    _, blocks, heads, rows, _ = trace.attention.shape
    came_in, stayed = trace.update() or (None, None)

    def share(tensor: Tensor | None, name: str) -> dict[str, Any] | None:
        return None if tensor is None else pack(tensor.numpy(), name=f"{WHERE}: {name}", low=0, high=1)

    return {
        "blocks": blocks,
        "heads": heads,
        "slots": slots,
        "inputs": rows - slots,
        "width": width,
        "gateWidth": 0 if came_in is None else came_in.shape[-1],
        "competing": int(trace.share is not None),
        # Only the slots' rows: what the input attends to is not kept in the memory.
        "attention": share(trace.attention[..., :slots, :], "the attention"),
        "inputGate": share(came_in, "the input gate"),
        "forgetGate": share(stayed, "the forget gate"),
    }


def _drawn_answers(
    answers: Mapping[str, Sequence[float | None]], right: str | None, steps: int
) -> dict[str, Sequence[float | None]]:
    """The answers with the highest probabilities at any step, ordered by their last probability."""
    for name, values in answers.items():
        check_values(WHERE, f"answers {name!r}", values, steps)
    known = {name: [p for p in values if p is not None] or [0.0] for name, values in answers.items()}
    # The right answer and the last one are always among them.
    first = [right] if right is not None and right in answers else []
    first += sorted(answers, key=lambda name: -known[name][-1])[:1]
    ranked = list(dict.fromkeys([*first, *sorted(answers, key=lambda name: -max(known[name]))]))[:MOST_ANSWERS]
    return {name: answers[name] for name in sorted(ranked, key=lambda name: -known[name][-1])}
