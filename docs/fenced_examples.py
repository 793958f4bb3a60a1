"""An extension of griffe, which reads the docstrings for the reference: examples become fenced blocks of Python."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?! *$).*)*", re.M)
"""From a prompt to the next empty line."""


def fence(docstring: str) -> str:
    return EXAMPLE.sub(lambda block: f"{block['indent']}```python\n{block[0]}\n{block['indent']}```", docstring)


class FencedExamples(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fence(obj.docstring.value)
