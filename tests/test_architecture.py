"""Imports point one way: ops <- nn <- training <- runs <- tasks <- inspection, reports <- cli, benchmarks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import relational_rnn

PACKAGE = Path(relational_rnn.__file__).parent
# A subpackage may import itself, the private helpers at the top, and these.
MAY_IMPORT = {
    "_reading": set(),  # a private helper, as the files at the top
    "ops": set(),
    "nn": {"ops"},
    "training": {"ops", "nn"},
    "runs": {"ops", "nn", "training"},  # and the table of tasks, which imports none of them
    "tasks": {"ops", "nn", "training", "runs"},
    "pages": set(),
    "inspection": {"ops", "nn", "tasks", "pages"},
    "reports": {"ops", "nn", "runs", "tasks", "inspection", "pages"},
    "benchmarks": {"ops", "nn", "training", "runs", "tasks"},
    "cli": {"ops", "nn", "training", "runs", "tasks", "inspection", "reports", "pages", "benchmarks"},
}

TABLE_OF_TASKS = {"relational_rnn.tasks.find", "relational_rnn.tasks.names"}


def imported_modules(path: Path) -> set[str]:
    """Absolute names of everything `path` imports from this package, wherever in the file the import stands."""
    package = ["relational_rnn", *path.relative_to(PACKAGE).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] == "relational_rnn"}


def test_every_subpackage_has_a_rule():
    assert {p.parent.name for p in PACKAGE.glob("*/__init__.py")} == set(MAY_IMPORT)


@pytest.mark.parametrize("subpackage", sorted(MAY_IMPORT))
def test_imports_point_one_way(subpackage):
    allowed = MAY_IMPORT[subpackage] | {subpackage, "_reading"}
    wrong = []
    for path in sorted((PACKAGE / subpackage).rglob("*.py")):
        for name in imported_modules(path):
            target = name.split(".")[1] if "." in name else ""
            if subpackage == "runs" and name in TABLE_OF_TASKS:
                continue
            if target in MAY_IMPORT and target not in allowed:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []
