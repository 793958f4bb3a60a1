"""A line at the end of a test run: how many kills were survived bit by bit."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counted = [
        dict(report.user_properties)["kills"]
        for report in terminalreporter.stats.get("passed", [])
        if "kills" in dict(getattr(report, "user_properties", ()))
    ]
    if counted:
        terminalreporter.section("killed runs")
        equal, kills = (sum(entry[place] for entry in counted) for place in (1, 2))
        parts = ", ".join(f"{kind} {n} of {of}" for kind, n, of in counted)
        terminalreporter.write_line(f"{equal} of {kills} bit-equal to undisturbed runs ({parts})")
