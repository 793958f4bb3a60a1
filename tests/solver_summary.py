"""Lines at the end of a test run: on how many published questions the symbolic solver is right, and where it is not."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    exact: dict[str, list[int]] = {}
    lines = []
    for report in terminalreporter.stats.get("passed", []):
        measured = dict(getattr(report, "user_properties", ())).get("solver")
        if measured is None:
            continue
        files, task, right, questions, reason = measured
        if right == questions:
            exact.setdefault(files, []).append(questions)
        else:
            rate = f"{right:,} of {questions:,} questions ({100 * right / questions:.2f} %)"
            lines.append(f"{files}: task {task}, {rate}: {reason}")
    if not exact and not lines:
        return
    terminalreporter.section("symbolic solver on the published files")
    for files, questions in exact.items():
        terminalreporter.write_line(f"{files}: exact on {len(questions)} tasks, {sum(questions):,} questions")
    for line in lines:
        terminalreporter.write_line(line)
