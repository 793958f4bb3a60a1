"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["relational_memory", "relational_memory_cell"])
def test_docstring_examples(name):
    module = importlib.import_module(f"relational_rnn.nn.{name}")
    names = {**vars(module), "torch": importlib.import_module("torch")}
    results = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 0
    assert results.failed == 0
