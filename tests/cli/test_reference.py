"""docs/cli.md is the help that the commands print."""

from pathlib import Path

from scripts import load

MAKER = Path(__file__).parents[2] / "docs" / "make_cli.py"


def test_the_page_is_the_help_of_today():
    maker = load(MAKER)
    assert maker.PAGE.read_text(encoding="utf-8") == maker.render(), "run `python docs/make_cli.py`"
