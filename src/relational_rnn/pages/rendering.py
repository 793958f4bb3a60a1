"""The templates that all pages are written by: files of the package, filled in by Jinja."""

from __future__ import annotations

from functools import cache
from typing import Any

from relational_rnn._check import need_extra


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
