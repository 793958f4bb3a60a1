"""The frame of a page: one file, no request, and no script but its own; and the templates that pages are made by."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from relational_rnn._check import need_extra


@dataclass(frozen=True, slots=True)
class Script:
    """A file of this package that a page carries: `Script("relational_rnn.pages", "figures.js")`."""

    package: str
    name: str

    def read(self) -> str:
        """Its text."""
        return resources.files(self.package).joinpath(self.name).read_text(encoding="utf-8")


LOOK = Script("relational_rnn.pages", "look.css")


def document(
    title: str, body: str, *, styles: Sequence[Script] = (), scripts: Sequence[Script] = (), data: Any = None
) -> str:
    """A whole HTML page, which lets the browser load nothing and run no script but those given here, by their hash.

    Args:
        title: heading and name of the page.
        body: everything below the heading; what `render` made is HTML, any other text is escaped.
        styles: style sheets after the common one.
        scripts: scripts, run in this order when the page is there.
        data: what the scripts read, as JSON in the element `data`.

    Example:
        >>> page = document("A <page>", "Words.", data={"text": "</script>"})
        >>> "<title>A &lt;page&gt;</title>" in page, '{"text":"\\\\u003c/script>"}' in page
        (True, True)
    """
    code = ["\n" + script.read() for script in scripts]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in code]
    return str(
        render(
            "pages/templates/document.html",
            title=title,
            body=body,
            style="".join(sheet.read() for sheet in (LOOK, *styles)),
            code=code,
            hashes=hashes,
            # "<" is the only letter that could end the element early, and JSON can spell it otherwise.
            data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        )
    )


def render(template: str, **values: Any) -> str:
    """Fill in a template of this package, e.g. "reports/templates/report.html".

    In a template of HTML every value is escaped, but for what this function made of another one.

    Raises:
        MissingExtraError: without Jinja.
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
