"""The frame of a page: one file that loads nothing and runs no script but its own; its templates, and its numbers."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from relational_rnn._check import InputError, describe, need_extra

LEVELS = 2**16 - 1


def document(
    title: str, body: str, *, styles: Sequence[str] = (), scripts: Sequence[str] = (), data: Any = None
) -> str:
    """A whole HTML page, in which the browser loads nothing and runs only the given scripts, known by their hash.

    Args:
        title: heading and name of the page.
        body: everything below the heading; what `render` made is HTML, any other text is escaped.
        styles: files of this package, e.g. "inspection/page.css": style sheets after the common one.
        scripts: likewise, e.g. "pages/tables.js"; run in this order when the page is there.
        data: what the scripts read, as JSON in the element `data`.

    Example:
        >>> page = document("A <page>", "Words.", data={"text": "</script>"})
        >>> "<title>A &lt;page&gt;</title>" in page, '{"text":"\\\\u003c/script>"}' in page
        (True, True)
    """
    code = ["\n" + read(script) for script in scripts]
    return str(
        render(
            "pages/templates/document.html",
            title=title,
            body=body,
            style="".join(map(read, ("pages/look.css", *styles))),
            code=code,
            hashes=[base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in code],
            # "<" is the only letter that could end the element early, and JSON can spell it otherwise.
            data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        )
    )


def read(name: str) -> str:
    """The text of a file of this package, e.g. "pages/look.css"."""
    return resources.files("relational_rnn").joinpath(name).read_text(encoding="utf-8")


def render(template: str, **values: Any) -> str:
    """Fill in a template of this package, e.g. "reports/templates/report.html".

    In HTML every value is escaped, except what this function made of another template.

    Raises:
        MissingExtraError: Jinja is not installed.
    """
    need_extra("jinja2", "report", "making a page")
    text = _environment().get_template(template).render(values)
    return need_extra("markupsafe", "report", "making a page").Markup(text) if template.endswith(".html") else text


@cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("relational_rnn", ""),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def pack(values: np.ndarray, *, name: str, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """An array of any shape as JSON, in 2.7 bytes for each number.

    A number is kept as the nearest of 65,536 equal steps from `low` to `high`, by default the least and the greatest
    number there are; half a step is the `precision`. `name` is what an error calls the numbers.

    Raises:
        InputError: a number is NaN, infinite, or outside `low` to `high`.

    >>> packed = pack(np.array([0.0, 0.25, 1.0]), name="weights", low=0, high=1)
    >>> packed["shape"], packed["data"], round(packed["precision"], 7)
    ([3], 'AAAAQP//', 7.6e-06)
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise InputError(describe(name, "there are numbers that cannot be drawn", got=f"{count} NaN or infinite"))
    found = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    low, high = found[0] if low is None else float(low), found[1] if high is None else float(high)
    slack = 1e-5 * (high - low)  # a softmax in float32 may end a rounding step above 1
    if found[0] < low - slack or found[1] > high + slack:
        raise InputError(describe(name, "a number is out of range", got=found, expected=f"{low} to {high}"))
    step = (high - low) / LEVELS
    levels = np.zeros(values.shape) if step == 0 else np.clip(np.rint((values - low) / step), 0, LEVELS)
    return {
        "shape": list(values.shape),
        "low": low,
        "step": step,
        "precision": step / 2,
        "data": base64.b64encode(levels.astype("<u2").tobytes()).decode("ascii"),
    }
