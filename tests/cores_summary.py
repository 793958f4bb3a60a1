"""The table at the end of a test run: suites (test_cores_*.py) by cores, with the reason of every exclusion."""

import re
from collections import Counter

import pytest

MARKS = {"passed": "ok", "failed": "RED", "error": "RED", "skipped": "excluded"}
SUITE_TEST_AND_CORE = re.compile(r"test_cores_(\w+)\.py::test_(\w+)\[([\w-]+)\]$")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    runs = []
    for outcome, mark in MARKS.items():
        for report in terminalreporter.stats.get(outcome, []):
            match = SUITE_TEST_AND_CORE.search(getattr(report, "nodeid", ""))
            if match is not None:
                runs.append((match[1], match[2], match[3].split("-"), mark, report))
    # The names of cores, in the order of their table: every suite has tests with no other parameter than the core.
    cores = dict.fromkeys(parameters[0] for _, _, parameters, _, _ in runs if len(parameters) == 1)
    table: dict[str, dict[str, Counter[str]]] = {}
    reasons: dict[str, None] = {}
    for suite, test, parameters, mark, report in runs:
        for core in cores.keys() & set(parameters):
            table.setdefault(suite, {}).setdefault(core, Counter())[mark] += 1
            if mark == "excluded":
                reasons[f"{test}: {str(report.longrepr[2]).removeprefix('Skipped: ')}"] = None
    if not table:
        return
    cells = [["", *cores]]
    for suite in sorted(table):
        row = [", ".join(f"{n} {mark}" for mark, n in table[suite].get(core, {}).items()) for core in cores]
        cells.append([suite.replace("_", " "), *row])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cores) + 1)]
    terminalreporter.section("suites and cores")
    for row in cells:
        terminalreporter.write_line("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip())
    for reason in reasons:
        terminalreporter.write_line(f"excluded: {reason}")
