"""Every line of docs/differences.md about this package names a test, and the test exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = re.findall(r"(?:^\|.*\n)+", (ROOT / "docs" / "differences.md").read_text(encoding="utf-8"), re.M)
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for table in TABLES
    if "held by" in table.splitlines()[0]
    for line in table.splitlines()[2:]
]


def test_the_tables_were_found():
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].replace(" ", "-"))
def test_a_line_is_held_by_a_test(row):
    names = re.findall(r"`([^`]+::[^`]+)`", row[-1])
    assert names, f"no test named for {row[0]}"
    for name in names:
        path, _, function = name.partition("::")
        defined = {
            node.name
            for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        assert function in defined, name
