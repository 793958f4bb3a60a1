"""The figures: valid SVG with real text, the same bytes every time, and every number where it belongs."""

import xml.etree.ElementTree as ElementTree

import pytest

from relational_rnn import InputError
from relational_rnn.reports import group_runs, read_runs
from relational_rnn.reports.figures import INK, STYLES, inline, learning_curves, task_bars

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def groups(make_run):
    return group_runs(
        read_runs(
            [
                make_run("r0", per_task={1: 1.0, 2: 0.5}),
                make_run("r1", seed=1, per_task={1: 0.8, 2: 0.3}),
                make_run("l0", core="lstm", per_task={1: 0.25, 2: 0.75}),
                make_run("g0", core="gru", evaluated=False),
            ]
        )
    )


def words(svg: str) -> str:
    return " ".join("".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text"))


@pytest.mark.parametrize(
    "draw", [lambda g: learning_curves(g, "step"), lambda g: learning_curves(g, "seconds"), task_bars]
)
def test_a_figure_is_the_same_bytes_every_time_and_carries_no_date(groups, draw):
    svg = draw(groups)
    assert svg == draw(groups)
    assert "dc:date" not in svg


def test_a_learning_curve_has_a_line_per_run_and_a_legend_entry_per_group(groups):
    svg = learning_curves(groups, "seconds")
    # Two runs of the relational memory and its legend entry; one run and its entry for the others.
    styles = [path.get("style", "") for path in ElementTree.fromstring(svg).iter(f"{SVG}path")]
    lines = [
        [f"stroke: {STYLES[core][0]}" in s and "fill: none" in s for s in styles] for core in ("rmc", "lstm", "gru")
    ]
    assert [sum(found) for found in lines] == [3, 2, 2]
    text = words(svg)
    assert "seconds of training" in text
    assert [text.count(label) for label in ("RMC", "LSTM", "GRU")] == [1, 1, 1]


def test_an_unknown_axis_is_refused(groups):
    with pytest.raises(InputError, match="x is not a known choice"):
        learning_curves(groups, "epochs")


def test_task_bars_have_a_panel_per_evaluated_group_with_the_mean_over_tasks_and_seeds(groups):
    text = words(task_bars(groups))
    assert "mean 65.0 %" in text  # (1.0 + 0.8 + 0.5 + 0.3) / 4
    assert "mean 50.0 %" in text
    assert "GRU" not in text
    assert "1 single-supporting-fact" in text


def test_task_bars_are_as_long_as_the_accuracies(groups):
    root = ElementTree.fromstring(task_bars(groups))
    widths = []
    for path in root.iter(f"{SVG}path"):
        if STYLES["lstm"][0] in path.get("style", ""):
            xs = [
                float(pair.split()[0])
                for pair in path.get("d", "").replace("z", "").replace("M", "L").split("L")
                if pair.strip()
            ]
            widths.append(max(xs) - min(xs))
    assert len(widths) == 2
    assert widths[1] / widths[0] == pytest.approx(3.0, rel=1e-3)  # 0.75 and 0.25


def test_an_inline_figure_has_its_own_ids_and_the_colours_of_the_page(groups):
    svg = inline(learning_curves(groups, "step"), "first", 'accuracy "so far" <1>')
    root = ElementTree.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids
    assert all(name.startswith("first-") for name in ids)
    references = [part.split(")")[0] for part in svg.split("url(#")[1:]]
    assert references
    assert set(references) <= set(ids)
    assert root.get("aria-label") == 'accuracy "so far" <1>'
    assert root.get("width") is None
    assert root.get("viewBox")
    assert INK not in svg
    assert "currentColor" in svg
