"""The frame of a page: one file that loads nothing and runs no script but its own; and the templates of pages."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from relational_rnn._check import need_extra


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
