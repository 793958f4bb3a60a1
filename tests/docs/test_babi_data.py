"""docs/babi-data.md is what its two JSON files hold."""

from pathlib import Path

from scripts import load

MAKER = Path(__file__).parents[2] / "docs" / "make_babi_data.py"


def test_the_page_is_written_from_the_measured_figures():
    maker = load(MAKER)
    assert maker.PAGE.read_text(encoding="utf-8") == maker.render(), "run `python docs/make_babi_data.py`"
    for language in maker.MEASURED:
        measured, verdicts = maker.read(language)
        documented = [v["holds"] for task in measured["tasks"] for v in task["verdicts"]]
        assert documented == [verdict.holds for of_task in verdicts.values() for verdict in of_task]
    assert all(verdict.holds for of_task in maker.read("en-10k")[1].values() for verdict in of_task)
