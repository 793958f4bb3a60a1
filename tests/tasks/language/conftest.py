"""A text in three files, and a place for its token files."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpora import named, write_folder


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "text", named("plain"))
