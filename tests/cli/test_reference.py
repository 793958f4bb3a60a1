"""docs/cli is the help that the commands print."""

from pathlib import Path

from scripts import load

MAKER = Path(__file__).parents[2] / "docs" / "make_cli.py"


def test_the_pages_are_the_help_of_today():
    maker = load(MAKER)
    there = {path.name: path.read_text(encoding="utf-8") for path in maker.FOLDER.glob("*.md")}
    assert there == maker.render(), "run `python docs/make_cli.py`"
    assert "--optimizer.learning-rate FLOAT" in there["shared.md"]
    assert "--data." not in there["shared.md"]
    assert sum("--optimizer.learning-rate FLOAT" in text for text in there.values()) == 1
