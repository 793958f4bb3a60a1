"""Imports point one way: ops <- nn <- training <- runs <- inspection, reports, console <- tasks <- cli, benchmarks."""

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
    "pages": set(),
    "console": {"pages"},
    "inspection": {"ops", "nn", "pages"},
    "reports": {"ops", "nn", "runs", "pages"},
    "tasks": {"ops", "nn", "training", "runs", "pages", "console", "inspection", "reports"},
    "benchmarks": {"ops", "nn", "training", "runs", "tasks"},
    "cli": {"ops", "nn", "training", "runs", "tasks", "console", "reports", "pages", "benchmarks"},
}

TABLE_OF_TASKS = {f"relational_rnn.tasks.{name}" for name in ("EARLY", "find", "names")}


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


def imported_at_once(path: Path, modules: set[str]) -> set[str]:
    """The modules of this package that importing `path` imports; TYPE_CHECKING blocks and functions are left out."""
    package = ["relational_rnn", *path.relative_to(PACKAGE).parts[:-1]]
    found, rest = set(), list(ast.parse(path.read_text(encoding="utf-8")).body)
    while rest:
        node = rest.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.update({module, *(f"{module}.{alias.name}" for alias in node.names)})
        elif isinstance(node, ast.ClassDef | ast.Try | ast.With):
            rest += node.body
        elif isinstance(node, ast.If):
            rest += node.orelse if "TYPE_CHECKING" in ast.unparse(node.test) else node.body + node.orelse
    # a package that a module lies in is imported before it, and may not import it back through a third
    return {name for name in found & modules if not ".".join(package).startswith(name)}


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The circles found by walking along imports from every module."""
    found, done = [], set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for name in sorted(imports[module]):
                walk(name, [*path, module])
            done.add(module)

    for module in sorted(imports):
        walk(module, [])
    return found


def test_no_modules_import_each_other_in_a_circle():
    parts = {path: path.relative_to(PACKAGE.parent).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    names = {path: ".".join(p[:-1] if p[-1] == "__init__" else p) for path, p in parts.items()}
    assert circles({name: imported_at_once(path, set(names.values())) for path, name in names.items()}) == []


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c", "b"]]


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
