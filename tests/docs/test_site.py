"""The pages and the reference are built without a warning."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_site_is_built(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    reference = (tmp_path / "reference" / "relational_rnn.nn.relational_memory" / "index.html").read_text()
    for name in ("RelationalMemory", "from_pretrained", "from_l0sg", "trace"):
        assert name in reference
    assert (tmp_path / "guide" / "index.html").exists()
    assert (tmp_path / "differences" / "index.html").exists()
