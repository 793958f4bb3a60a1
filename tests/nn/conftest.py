"""Runs every suite of test_cores_*.py on every core of the table, and prints who passed what, exclusions included."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from cores_table import CASES, Case

MARKS = {"failed": "RED", "error": "RED", "passed": "ok", "skipped": "excluded"}


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """One core of the table; skipped, with the reason, where the table excludes it from this test."""
    suite = request.node.originalname.removeprefix("test_")
    if suite in request.param.excluded:
        pytest.skip(f"{request.param.name}: {request.param.excluded[suite]}")
    return request.param


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    names = [case.name for case in CASES]
    table: dict[str, dict[str, Counter[str]]] = {}
    reasons: dict[str, None] = {}
    for outcome, mark in MARKS.items():
        for report in terminalreporter.stats.get(outcome, []):
            match = re.search(r"test_cores_(\w+)\.py::test_(\w+)\[([\w-]+)\]$", getattr(report, "nodeid", ""))
            name = next((part for part in match[3].split("-") if part in names), None) if match else None
            if match is None or name is None:
                continue
            table.setdefault(match[1], {}).setdefault(name, Counter())[mark] += 1
            if mark == "excluded":
                reasons[f"{match[2]}: {str(report.longrepr[2]).removeprefix('Skipped: ')}"] = None
    if not table:
        return
    cells = [["", *names]]
    for suite in sorted(table):
        row = [", ".join(f"{n} {mark}" for mark, n in table[suite].get(name, {}).items()) for name in names]
        cells.append([suite.replace("_", " "), *row])
    widths = [max(len(row[column]) for row in cells) for column in range(len(names) + 1)]
    terminalreporter.section("suites and cores")
    for row in cells:
        terminalreporter.write_line("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip())
    for reason in reasons:
        terminalreporter.write_line(f"excluded: {reason}")
