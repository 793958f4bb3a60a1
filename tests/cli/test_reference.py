"""docs/cli.md is the help that the commands print."""

import importlib.util
from pathlib import Path

MAKER = Path(__file__).parents[2] / "docs" / "make_cli.py"


def test_the_page_is_the_help_of_today():
    spec = importlib.util.spec_from_file_location("make_cli", MAKER)
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.PAGE.read_text(encoding="utf-8") == maker.render(), "run `python docs/make_cli.py`"
