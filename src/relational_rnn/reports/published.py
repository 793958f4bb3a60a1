"""Figures that others have published, with where they stand; the one place of this package that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from relational_rnn.reports.runs import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One published figure of one model."""

    task: str
    """Name of the task, as in a run's configuration."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the task that a run must share for the figure to stand beside it."""
    files: bool = False
    """The run must have been trained on published files, not on generated data."""
    training_words: int | None = None
    """Language: the words of the training text, which a run must share too; they tell which corpus it is."""
    model: str
    """Whose model."""
    metric: Literal["accuracy", "perplexity"] = "accuracy"
    """What was measured: a fraction of single answers, or of characters where answers are decoded; or perplexity per
    word of the test text."""
    value: float
    """The figure."""
    below: bool = False
    """The source only says that it is less than `value`."""
    setting: str
    """What a reader must know of how it was measured."""
    source: str
    """ "author year", and where in it."""
    per_task: Mapping[str, float] = field(default_factory=dict)
    """bAbI: the accuracy of each task, by its number, where the source can be read."""

    @property
    def shown(self) -> str:
        """The figure as readers see it: an accuracy in per cent.

        >>> PUBLISHED[0].shown, PUBLISHED[1].shown, PUBLISHED[-1].shown
        ('91 %', 'below 30 %', '37.2')
        """
        figure = f"{100 * self.value:.3g} %" if self.metric == "accuracy" else f"{self.value:g}"
        return f"{'below ' if self.below else ''}{figure}"


_SANTORO = "Santoro et al. 2018, arXiv 1806.01822"
_LE = "Le et al. 2020, arXiv 2002.03519"
_DEHGHANI = "Dehghani et al. 2019, arXiv 1807.03819"
_GRAVES = "Graves et al. 2016, Nature 538"
_CHAPTER = "the book chapter, section 14.7"
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
_WIKITEXT_2, _WIKITEXT_103 = 2_088_628, 103_227_021
"""Words of these training texts, line ends counted."""
_L0SG = "L0SG 2018, README of github.com/L0SG/relational-rnn-pytorch"
_WIKITEXT_103_FIGURES = {
    "RMC": 31.6,
    "LSTM (Rae et al. 2018)": 34.3,
    "LSTM (Grave et al. 2017)": 48.7,
    "Quasi-RNN": 33.0,
    "Temporal CNN": 45.2,
    "Gated CNN": 37.2,
}
_FRANKE = "README of github.com/JoergFranke/ADNC"
# Errors in %, tasks 1 to 20, means over runs, as listed there.
_BABI_ERRORS: dict[str, tuple[float, ...]] = {
    "DNC": (9, 39.2, 39.6, 0.4, 1.5, 6.9, 9.8, 5.5, 7.7, 9.6, 3.3, 5, 3.1, 11, 27.2, 53.6, 32.4, 4.2, 64.6, 0),
    "SDNC": (0, 7.1, 9.4, 0.1, 0.9, 0.1, 1.6, 0.5, 0, 0.3, 0, 0.2, 0.1, 5.6, 3.6, 53, 12.4, 1.6, 30.8, 0),
    "EntNet": (0, 15.3, 29.3, 0.1, 0.4, 0.6, 1.8, 1.5, 0, 0.1, 0.2, 0, 0, 7.3, 3.6, 53.3, 8.8, 1.3, 70.4, 0),
}
# (model, mean accuracy of one model for all 20 tasks, what a reader must know of it, source); only of models that get
# the question after the story, as ours do
_BABI: tuple[tuple[str, float, str, str], ...] = (
    ("LSTM", 0.727, "words one by one, mean of 20 runs, best 74.8 %", _GRAVES),
    ("DNC", 0.833, f"words one by one, mean of 20 runs, best 95.7 %; tasks: {_FRANKE}", _GRAVES),
    (
        "SDNC",
        0.936,
        f"words one by one, mean of 15 runs, best 97.1 %; tasks: {_FRANKE}",
        "Rae et al. 2016, supplement G",
    ),
    ("EntNet", 0.903, "sentences", f"Franke et al. 2018, {_FRANKE}"),
    ("TPR-RNN", 0.9866, "sentences, mean of 8 runs, best 99.22 %", "Schlag & Schmidhuber 2018"),
    ("STM", 0.9961, "sentences, best 99.85 %", _LE),
    ("LSTM", 0.60, "about; how it was measured is not said", _CHAPTER),
    ("attention-based", 0.75, "about; how it was measured is not said", _CHAPTER),
    ("RRNN", 0.85, "about; how it was measured is not said", _CHAPTER),
)

PUBLISHED: tuple[Published, ...] = (
    Published(
        task="nth-farthest",
        data=_NTH,
        model="RMC",
        value=0.91,
        setting="end of training, most configurations with 8 or 16 slots",
        source=f"{_SANTORO}, section 5.1",
    ),
    *(
        Published(
            task="nth-farthest",
            data=_NTH,
            model=model,
            value=0.30,
            below=True,
            setting="best batch accuracy",
            source=f"{_SANTORO}, section 5.1",
        )
        for model in ("LSTM", "DNC")
    ),
    Published(task="nth-farthest", data=_NTH, model="STM", value=0.98, setting="1,000,000 updates", source=_LE),
    Published(task="nth-farthest", data=_NTH, model="TPR-RNN", value=0.13, setting="as measured there", source=_LE),
    *(
        Published(
            task="programs",
            data={"mode": mode, "length": 5, "nesting": nesting},
            model=model,
            value=accuracy,
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
            value=accuracy,
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
            value=accuracy,
            setting="characters; length up to 55",
            source=_DEHGHANI,
        )
        for mode, figures in _MEMORIZE.items()
        for model, accuracy in figures.items()
    ),
    *(
        Published(
            task="babi",
            data={"language": "en-10k", "tasks": list(range(1, 21))},
            files=True,
            model=model,
            value=accuracy,
            setting=setting,
            source=source,
            per_task={str(i + 1): round(1 - error / 100, 3) for i, error in enumerate(_BABI_ERRORS.get(model, ()))},
        )
        for model, accuracy, setting, source in _BABI
    ),
    *(
        Published(
            task="language",
            data={"vocabulary": "word"},
            training_words=_WIKITEXT_2,
            model=model,
            metric="perplexity",
            value=perplexity,
            setting="11 million parameters",
            source=_L0SG,
        )
        for model, perplexity in (("RMC", 107.21), ("LSTM", 105.56))
    ),
    *(
        Published(
            task="language",
            data={"vocabulary": "word"},
            training_words=_WIKITEXT_103,
            model=model,
            metric="perplexity",
            value=perplexity,
            setting="one memory of 2,500 numbers, 384 streams" if model == "RMC" else "as listed there",
            source=f"{_SANTORO}, table 2",
        )
        for model, perplexity in _WIKITEXT_103_FIGURES.items()
    ),
)
"""Every figure there is; what could not be read in a source is not here."""


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
        for figure in PUBLISHED
        if figure.task == config.get("task", "babi")
        and (data.get("path") or not figure.files)
        and figure.training_words in (None, training_words)
        and all(data.get(name) == value for name, value in figure.data.items())
    ]


def published_beside_all(runs: Iterable[Run]) -> list[Published]:
    """The published figures that may stand beside any of several runs, each once."""
    found = [figure for run in runs for figure in published_beside(run.config, run.training_words)]
    return [figure for figure in PUBLISHED if figure in found]
