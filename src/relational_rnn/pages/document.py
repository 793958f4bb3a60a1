"""The frame of a page: one file, no request, and no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any


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
    """A whole HTML page.

    The page tells the browser to load nothing and to run no script but those given here, known by their hash: even a
    text that slipped in unescaped could not do anything.

    Args:
        title: heading and name of the page; escaped here.
        body: HTML of everything below the heading; whoever writes it escapes what it holds.
        styles: style sheets after the common one.
        scripts: scripts, run in this order when the page is there.
        data: what the scripts read, as JSON in the element `data`.

    Example:
        >>> page = document("A <page>", "<p>Words.</p>", data={"text": "</script>"})
        >>> "<title>A &lt;page&gt;</title>" in page, '{"text":"\\\\u003c/script>"}' in page
        (True, True)
    """
    style = "".join(sheet.read() for sheet in (LOOK, *styles))
    code = ["\n" + script.read() for script in scripts]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in code]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes) or "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}"
    # "<" is the only letter that could end the element early, and JSON can spell it otherwise.
    text = "" if data is None else json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        f"{body}\n</main>\n"
        + (f'<script type="application/json" id="data">{text}</script>\n' if data is not None else "")
        + "".join(f"<script>{part}</script>\n" for part in code)
        + "</body>\n</html>\n"
    )
