"""Little stories in the published format."""

from __future__ import annotations

from pathlib import Path

import pytest
from little_runs import write_files


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("data") / "little")
