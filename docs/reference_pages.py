"""A hook of mkdocs: one page of reference for every public module, made while the site is built, and their menu."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SOURCE = Path(__file__).parents[1] / "src"


def modules() -> list[str]:
    """Public modules that define something: not the packages, which only collect names, nor the command line."""
    paths = sorted((SOURCE / "relational_rnn").rglob("*.py"))
    names = [path.relative_to(SOURCE).with_suffix("").parts for path in paths]
    return [".".join(p) for p in names if p[1] != "cli" and not any(part.startswith("_") for part in p)]


def page(module: str) -> str:
    return f"reference/{module}.md"


def on_config(config: MkDocsConfig) -> None:
    parts: dict[str, list[dict[str, str]]] = {}
    for module in modules():
        _, part, *rest = module.split(".")
        parts.setdefault(part, []).append({".".join(rest) or part: page(module)})
    folder = Path(config.docs_dir) / "cli"
    names = ["index", "shared", *sorted(path.stem for path in folder.glob("*.md"))]
    config.nav.append({"Command line": [f"cli/{name}.md" for name in dict.fromkeys(names)]})
    config.nav.append({"Reference": [{part: pages} for part, pages in parts.items()]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    for module in modules():
        files.append(File.generated(config, page(module), content=f"# {module}\n\n::: {module}\n"))
