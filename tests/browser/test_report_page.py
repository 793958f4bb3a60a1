"""A report in a browser: tables sort, curves come and go, and a task leads to its examples and their inspection."""

import csv
import json

import pytest

from relational_rnn.reports import write_report
from relational_rnn.runs import Example


def write_run(folder, core: str, per_task: dict[int, float], parameters: int) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"core": core, "seed": 0}))
    with (folder / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["step", "seconds", "valid_accuracy"], [10, 1.5, 0.25], [20, 3.0, 0.5]])
    result = {
        "task": "babi",
        "loss": 1.5,
        "core": core,
        "seed": 0,
        "steps": 2,
        "processor_seconds": None,
        "evaluate_seconds": 0.5,
        "report": [],
        "split": "test",
        "mean_accuracy": sum(per_task.values()) / len(per_task),
        "per_task": {str(task): value for task, value in per_task.items()},
        "tasks_above_95": 0,
        "questions": 20,
        "parameters": parameters,
        "state_bytes": 64,
        "train_seconds": 3.0,
    }
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_run(folder / "a", "rmc", {1: 0.9, 2: 0.2, 10: 0.5}, 1000)
    write_run(folder / "b", "lstm", {1: 0.3, 2: 0.4, 10: 0.1}, 200)
    write_run(folder / "c", "gru", {1: 0.7}, 30)
    examples = [
        Example(
            run="a",
            group="2 two-supporting-facts",
            number=n,
            question="Where is Mary?",
            right="garden",
            answer="office",
            right_probability=chance,
            page=address,
        )
        for n, chance, address in ((4, 0.02, "inspect/task-2-4.html"), (11, 0.01, None))
    ]
    return write_report([folder / name for name in "abc"], folder / "out", examples=examples)


def column(tab, caption: str, number: int) -> list[str]:
    return tab.eval_on_selector_all(
        f"table:has(caption:text-is('{caption}')) tbody tr", f"all => all.map(row => row.cells[{number}].textContent)"
    )


def test_tables_sort_by_numbers_and_by_names(open_page, report):
    tab = open_page(report)
    results, tasks = "Results", "Test accuracy per task, %"
    tab.click("th:has-text('parameters') button")
    assert column(tab, results, 1) == ["30", "200", "1,000"]
    tab.click("th:has-text('parameters') button")
    assert column(tab, results, 1) == ["1,000", "200", "30"]
    assert tab.locator("th[aria-sort]").all_text_contents() == ["parameters"]
    tab.click("th:has-text('model') button")
    assert column(tab, results, 0) == ["GRU", "LSTM", "RMC"]
    assert column(tab, tasks, 3) == ["70.0", "not evaluated", "not evaluated"]
    for _ in range(2):  # what has no value stays at the end in both orders
        tab.locator(f"table:has(caption:text-is('{tasks}')) th button").nth(3).click()
        assert column(tab, tasks, 3)[0] == "70.0"
    tab.locator(f"table:has(caption:text-is('{tasks}')) th button").nth(0).click()
    assert [name.split()[0] for name in column(tab, tasks, 0)] == ["1", "2", "10"]


def test_curves_come_and_go(open_page, report):
    tab = open_page(report, scheme="dark")
    shown = "all => all.map(g => getComputedStyle(g).display !== 'none')"
    curves = "[data-name=accuracy-by-step] [id^=accuracy-by-step-curve-]"
    assert tab.eval_on_selector_all(curves, shown) == [True, True, True]
    button = tab.locator("[data-name=accuracy-by-step] button:text-is('LSTM')")
    button.click()
    assert tab.eval_on_selector_all(curves, shown) == [True, False, True]
    assert button.get_attribute("aria-pressed") == "false"
    assert tab.eval_on_selector_all(curves.replace("step", "seconds"), shown) == [True, True, True]
    button.click()
    assert tab.eval_on_selector_all(curves, shown) == [True, True, True]


def test_a_task_leads_to_its_examples_and_an_example_to_its_inspection(open_page, report):
    tab = open_page(report, width=390)
    tab.click("a:text-is('2 two-supporting-facts')")
    assert tab.evaluate("location.hash") == "#examples-2-two-supporting-facts"
    assert column(tab, "Task 2 two-supporting-facts", 5) == ["2.0%", "1.0%"]
    links = tab.eval_on_selector_all(
        "#examples-2-two-supporting-facts a", "all => all.map(a => a.getAttribute('href'))"
    )
    assert links == ["inspect/task-2-4.html"]


def test_a_figure_of_a_report_is_saved(open_page, report):
    tab = open_page(report)
    with tab.expect_download() as saved:
        tab.click("figure[data-name=accuracy-by-task] button.save")
    assert saved.value.suggested_filename == "accuracy-by-task.svg"
