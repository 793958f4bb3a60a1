"""Which published figures may stand beside a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relational_rnn.runs import Published, workload_of
from relational_rnn.runs.folder import Run


def published_beside(config: Mapping[str, Any], training_words: int | None = None) -> list[Published]:
    """The published figures that may stand beside a run.

    Args:
        config: the configuration of the run (config.json).
        training_words: of a run on language, the words of its training text.

    >>> [figure.model for figure in published_beside({"task": "nth-farthest", "data": {"objects": 4, "dimensions": 4}})]
    []
    """
    data = config.get("data", {})
    return [
        figure
        for figure in workload_of(config["task"]).published
        if (data.get("path") or not figure.files)
        and figure.training_words in (None, training_words)
        and all(data.get(name) == value for name, value in figure.data.items())
    ]


def published_beside_all(runs: Iterable[Run]) -> list[Published]:
    """The published figures that may stand beside any of several runs, each once."""
    found: list[Published] = []
    for run in runs:
        found += [figure for figure in published_beside(run.config, run.training_words) if figure not in found]
    return found


def published_table(figures: Sequence[Published]) -> str:
    """A row per published figure, each with its source."""
    width = max(len(figure.model) for figure in figures)
    return "\n".join(f"  {f.model:<{width}}  {f.shown:>10}  {f.source} ({f.setting})" for f in figures)
