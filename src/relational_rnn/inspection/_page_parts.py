"""The parts of an inspection's page as HTML; everything that comes from outside is escaped here."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

LONG = 60
"""Steps above which the figure of the answers begins with the last two and the right one alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenValues:
    """A number for every token, such as how much an answer depends on it."""

    name: str
    """A few words: the heading of its column."""
    description: str
    """One sentence: what the number is."""
    values: Sequence[float | None]
    """One per token; None where there is none."""
    most: float | None = None
    """What a full bar stands for, such as 1 for shares and probabilities; None for the largest number of the column."""


def visible(token: str) -> str:
    """A token with its blanks and control characters made visible; everything else stays as it is.

    >>> visible("a b\\n"), visible(" "), visible("")
    ('a b⏎', '␣', '(empty)')
    """
    if token == "":
        return "(empty)"
    shown = token.replace("\n", "⏎").replace("\t", "⇥")
    shown = "".join("�" if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in shown)
    return shown if shown.strip() else shown.replace(" ", "␣")


def _decimals(largest: float) -> int:
    """How many decimals give the largest number of a column three digits; the others of the column get as many.

    >>> _decimals(0.0523), _decimals(7.56), _decimals(1234.5)
    (4, 2, 0)
    """
    return min(6, max(0, 2 - math.floor(math.log10(largest))))


def _rounded(value: float, decimals: int) -> str:
    """
    >>> _rounded(-0.123, 2), _rounded(-0.001, 2)
    ('-0.12', '0.00')
    """
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # -0.0 + 0.0 has no sign


def controls(steps: int) -> str:
    return (
        '<div class="controls" role="group" aria-label="step"><button type="button" id="play" aria-pressed="false">play'
        '</button><button type="button" id="back" aria-label="previous step">&#8592;</button>'
        f'<input type="range" id="step" min="1" max="{steps}" value="{steps}" aria-label="step">'
        '<button type="button" id="forward" aria-label="next step">&#8594;</button>'
        '<output id="place" for="step"></output><bdi id="current"></bdi></div>'
        '<p id="said" class="spoken" role="status"></p>'
        '<p class="hint">Keys: arrows for a step, space to play, home and end. A click on a sentence or into a figure '
        "along time chooses a step too.</p>"
    )


def story_lines(tokens: Sequence[str], columns: Sequence[TokenValues]) -> str:
    """One row per token, with bars; the table sorts."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("step", "read", *(c.name for c in columns)))
    largest = [c.most or max((abs(v) for v in c.values if v is not None), default=0.0) or 1.0 for c in columns]
    rows = []
    for step, token in enumerate(tokens):
        cells = [
            f'<td data-value="{step}">{step + 1}</td>',
            f'<th scope="row" data-value="{escape(token)}"><button type="button" class="token" dir="auto">'
            f"{escape(visible(token))}</button></th>",
        ]
        for column, most in zip(columns, largest, strict=True):
            value = column.values[step]
            bar = ""
            if value is not None:
                sign = "less" if value < 0 else "more"
                bar = f'<span class="bar {sign}" style="width:{min(100, 100 * abs(value) / most):.1f}%"></span>'
            cells.append(
                f'<td class="amount" data-value="{"" if value is None else f"{value:.6g}"}">'
                f'<span class="track">{bar}</span>{"" if value is None else _rounded(value, _decimals(most))}</td>'
            )
        rows.append(f'<tr data-step="{step}">{"".join(cells)}</tr>')
    return (
        '<h2>What was read</h2><div id="story" class="story" tabindex="0" role="region" aria-label="what was read">'
        f'<table class="tokens sorts"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def story_flow(tokens: Sequence[str], columns: Sequence[TokenValues]) -> str:
    """Running text, shaded by one of the columns."""
    chosen = "".join(
        f'<button type="button" data-values="{i}" aria-pressed="{str(i == 0).lower()}">{escape(column.name)}</button>'
        for i, column in enumerate(columns)
    )
    words = "".join(
        f'<button type="button" class="token" dir="auto" data-step="{step}">{escape(visible(token))}</button> '
        for step, token in enumerate(tokens)
    )
    return (
        f'<h2>What was read</h2><div id="shades" class="choice" role="group" aria-label="shaded by">shaded by {chosen}'
        '</div><div id="story" class="story" tabindex="0" role="region" aria-label="what was read">'
        f'<div class="tokens flow">{words}</div></div><p class="read"><output id="values"></output></p>'
    )


def figure(name: str, heading: str, caption: str, controls: str = "", after: str = "") -> str:
    return (
        f'<figure data-name="{name}"><h3>{escape(heading)}</h3>{controls}<div class="drawing"><svg role="img"></svg>'
        f"</div>{after}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _choice(ident: str, name: str, spoken: str, entries: Sequence[tuple[object, str]]) -> str:
    buttons = "".join(
        f'<button type="button" data-{name}="{value}" aria-pressed="false">{escape(text)}</button>'
        for value, text in entries
    )
    return f'<div class="choice" id="{ident}" role="group" aria-label="{spoken}">{buttons}</div>'


def answers_along_time(drawn: Mapping[str, object], right: str | None, steps: int) -> str:
    """The figure of the answers, or nothing where there are none."""
    if not drawn:
        return ""
    # In a long story many curves are a thicket: it begins with few, and the others are a click away.
    shown = {n for n, name in enumerate(drawn) if steps <= LONG or n < 2 or name == right}
    entries = "".join(
        f'<button type="button" data-answer="{n}" aria-pressed="{str(n in shown).lower()}">'
        '<svg width="26" height="8" aria-hidden="true">'
        f'<line x1="1" x2="25" y1="4" y2="4" stroke-width="2.5"/></svg><bdi>{escape(name)}</bdi>'
        f'{" (right)" if name == right else ""}<span class="chance"></span></button>'
        for n, name in enumerate(drawn)
    )
    names = f'<div class="choice" id="answer-names" role="group" aria-label="answers">{entries}</div>'
    caption = "The probability of each answer, were the question asked after that step."
    return figure("answers", "The answer, step by step", caption, names)


def slots_along_time() -> str:
    caption = "Every slot at every step, for the chosen block and head; a click chooses a step."
    return figure("time", "The slots along time", caption)


def this_step(data: Mapping[str, Any]) -> str:
    """The figures of the chosen step; the script draws them."""
    heads = [(-1, "average"), *((h, f"head {h + 1}") for h in range(data["heads"]))]
    blocks = [(s, f"block {s + 1}") for s in range(data["blocks"])]
    choices = _choice("heads-choice", "head", "head", heads if data["heads"] > 1 else heads[1:])
    if len(blocks) > 1:
        choices = _choice("blocks-choice", "block", "block", blocks) + choices
    # Twice what attention that prefers nothing would give: what begins visible is what stands out.
    least = min(0.5, max(0.1, round(2 / (data["slots"] + data["inputs"]) / 0.05) * 0.05))
    threshold = (
        '<label class="least">arrows from <input type="range" id="least" min="0" max="1" step="0.05" '
        f'value="{least:.2f}"> <output id="least-value" for="least">{least:.2f}</output> on</label>'
    )
    gated = data["inputGate"] is not None
    views = ["memory", "change", *(["input gate", "forget gate"] if gated and data["gateWidth"] > 1 else [])]
    gates = "mean over the numbers of a slot, and a thin line from the least to the greatest"
    parts = [
        "<h2>At this step</h2>",
        choices,
        figure(
            "attention",
            "Who looks at whom",
            "Each row is a slot that looks, each column what it looks at: a slot as it was before the step, or the "
            "input. A row adds up to 1.",
        ),
        figure("heads", "Every block and head", "The same matrix for each of them; a click chooses."),
        figure(
            "arrows",
            "The same as arrows",
            "From what is looked at to the slot that looks; the wider, the more weight. Dotted grey: a slot looks at "
            "itself. The second colour: the input.",
            threshold,
        ),
        figure("gates", "Gates", f"Input gate above, forget gate below, per slot: {gates}.") if gated else "",
        figure(
            "memory",
            "What the memory holds",
            "One row per slot, one column per number; blue is above 0, orange below.",
            _choice("views-choice", "view", "show", [(view, view) for view in views]),
            '<p class="read"><output id="memory-number"></output></p>',
        ),
        '<details id="numbers"><summary>The numbers of this step</summary><div class="scroll"><table '
        'id="attention-numbers"><caption>Attention of the chosen block and head</caption><thead></thead><tbody></tbody>'
        '</table></div><div class="scroll"><table id="slot-numbers"><caption>Slots</caption><thead></thead><tbody>'
        "</tbody></table></div></details>",
    ]
    return "\n".join(part for part in parts if part)


def explanations(columns: Sequence[TokenValues]) -> str:
    terms = "".join(f"<dt>{escape(c.name)}</dt><dd>{escape(c.description)}</dd>" for c in columns)
    return f"<h2>What the columns say</h2><dl>{terms}</dl>"


def about(entries: Sequence[tuple[str, str]], notes: Sequence[str]) -> str:
    """Facts in pairs, and notes of one sentence each."""
    terms = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in entries)
    lines = "".join(f"<li><bdi>{escape(note)}</bdi></li>" for note in notes)
    return f"<h2>About this page</h2><dl>{terms}</dl>" + (f"<ul>{lines}</ul>" if lines else "")


def slot_facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What there is to know about the figures of a relational memory."""
    precision = data["memory"]["precision"]
    gates = "none" if data["inputGate"] is None else "one per number" if data["gateWidth"] > 1 else "one per slot"
    if data["competing"]:
        gates += (
            "; slots compete for the input: the input gate shown is how far a number moved to what came in, with the "
            "slot's share of the input in it, and the forget gate is the rest to 1"
        )
    return [
        ("memory", f"{data['slots']} {'slot' if data['slots'] == 1 else 'slots'} of {data['width']} numbers"),
        ("attention", f"{data['blocks']} x {data['heads']} (blocks x heads)"),
        ("gates", gates),
        ("precision", f"attention and gates within 0.0000077, the memory within {precision:.2g} of what was computed"),
        (
            "what this does not say",
            "attention tells where a slot took from, not why, and not what became of it: the MLP and the gates come "
            "after. What an answer rests on is measured by leaving a sentence out.",
        ),
    ]
