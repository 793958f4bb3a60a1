"""Figures that others have published, with where they stand; the one place of this package that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One published figure of one model."""

    task: str
    """Name of the task, as in a run's configuration."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the task that a run must share for the figure to stand beside it."""
    model: str
    """Whose model."""
    accuracy: float
    """A fraction: of single answers, or of characters where answers are decoded."""
    below: bool = False
    """The source only says that it is less than `accuracy`."""
    setting: str
    """What a reader must know of how it was measured."""
    source: str
    """ "author year", and where in it."""

    @property
    def shown(self) -> str:
        """The accuracy in per cent.

        >>> PUBLISHED[0].shown, PUBLISHED[1].shown
        ('91 %', 'below 30 %')
        """
        return f"{'below ' if self.below else ''}{100 * self.accuracy:.3g} %"


_SANTORO = "Santoro et al. 2018, arXiv 1806.01822"
_LE = "Le et al. 2020, arXiv 2002.03519"
_DEHGHANI = "Dehghani et al. 2019, arXiv 1807.03819"
_NTH = {"objects": 8, "dimensions": 16}
# Table 1 of the paper is an image; these of its figures are also listed in writing elsewhere.
_TABLE = f"{_SANTORO}, table 1 (as listed on public result pages)"
_PROGRAMS = {
    "add": {"LSTM": 0.83, "Transformer": 1.0, "Universal Transformer": 1.0},
    "control": {"LSTM": 0.68, "Transformer": 0.93, "Universal Transformer": 1.0},
    "program": {"LSTM": 0.53, "Transformer": 0.71, "Universal Transformer": 0.89},
}
_MEMORIZE = {
    "copy": {"LSTM": 0.78, "Transformer": 0.98, "Universal Transformer": 1.0},
    "reverse": {"LSTM": 0.91, "Transformer": 0.81, "Universal Transformer": 1.0},
    "double": {"LSTM": 0.51, "Transformer": 0.94, "Universal Transformer": 1.0},
}

PUBLISHED: tuple[Published, ...] = (
    Published(
        task="nth-farthest",
        data=_NTH,
        model="RMC",
        accuracy=0.91,
        setting="end of training, most configurations with 8 or 16 slots",
        source=f"{_SANTORO}, section 5.1",
    ),
    *(
        Published(
            task="nth-farthest",
            data=_NTH,
            model=model,
            accuracy=0.30,
            below=True,
            setting="best batch accuracy",
            source=f"{_SANTORO}, section 5.1",
        )
        for model in ("LSTM", "DNC")
    ),
    Published(task="nth-farthest", data=_NTH, model="STM", accuracy=0.98, setting="1,000,000 updates", source=_LE),
    Published(task="nth-farthest", data=_NTH, model="TPR-RNN", accuracy=0.13, setting="as measured there", source=_LE),
    *(
        Published(
            task="programs",
            data={"mode": mode, "length": 5, "nesting": nesting},
            model=model,
            accuracy=accuracy,
            setting="characters; length 5, nesting 2, another generator; best run",
            source=_TABLE,
        )
        for mode, nesting, model, accuracy in (
            ("add", 1, "RMC", 0.999),
            ("control", 2, "RMC", 0.996),
            ("control", 2, "DNC", 0.838),
            ("program", 2, "RMC", 0.79),
        )
    ),
    *(
        Published(
            task="programs",
            data={"mode": mode, "length": 5, "nesting": 1 if mode == "add" else 2},
            model=model,
            accuracy=accuracy,
            setting="characters; length 5, nesting 2, another generator",
            source=_DEHGHANI,
        )
        for mode, figures in _PROGRAMS.items()
        for model, accuracy in figures.items()
    ),
    *(
        Published(
            task="memorize",
            data={"mode": mode},
            model=model,
            accuracy=accuracy,
            setting="characters; length up to 55",
            source=_DEHGHANI,
        )
        for mode, figures in _MEMORIZE.items()
        for model, accuracy in figures.items()
    ),
)
"""Every figure there is; what could not be read in a source is not here."""


def published_beside(config: Mapping[str, Any]) -> list[Published]:
    """The published figures that may stand beside a run.

    Args:
        config: the configuration of the run (config.json).

    >>> [figure.model for figure in published_beside({"task": "nth-farthest", "data": {"objects": 4, "dimensions": 4}})]
    []
    """
    data = config.get("data", {})
    return [
        figure
        for figure in PUBLISHED
        if figure.task == config.get("task") and all(data.get(name) == value for name, value in figure.data.items())
    ]


def published_beside_all(configs: Iterable[Mapping[str, Any]]) -> list[Published]:
    """The published figures that may stand beside any of several runs, each once."""
    found = [figure for config in configs for figure in published_beside(config)]
    return [figure for figure in PUBLISHED if figure in found]
