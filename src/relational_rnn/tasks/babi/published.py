"""What others have published on bAbI."""

from __future__ import annotations

from relational_rnn.runs import Published

_GRAVES = "Graves et al. 2016, Nature 538"
_CHAPTER = "the book chapter, section 14.7"
_FRANKE = "README of github.com/JoergFranke/ADNC"
# Errors in %, tasks 1 to 20, means over runs, as listed there.
_ERRORS: dict[str, tuple[float, ...]] = {
    "DNC": (9, 39.2, 39.6, 0.4, 1.5, 6.9, 9.8, 5.5, 7.7, 9.6, 3.3, 5, 3.1, 11, 27.2, 53.6, 32.4, 4.2, 64.6, 0),
    "SDNC": (0, 7.1, 9.4, 0.1, 0.9, 0.1, 1.6, 0.5, 0, 0.3, 0, 0.2, 0.1, 5.6, 3.6, 53, 12.4, 1.6, 30.8, 0),
    "EntNet": (0, 15.3, 29.3, 0.1, 0.4, 0.6, 1.8, 1.5, 0, 0.1, 0.2, 0, 0, 7.3, 3.6, 53.3, 8.8, 1.3, 70.4, 0),
}
# (model, mean accuracy of one model for all 20 tasks, what a reader must know of it, source); only of models that get
# the question after the story, as ours do
_FIGURES: tuple[tuple[str, float, str, str], ...] = (
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
    ("STM", 0.9961, "sentences, best 99.85 %", "Le et al. 2020, arXiv 2002.03519"),
    ("LSTM", 0.60, "about; how it was measured is not said", _CHAPTER),
    ("attention-based", 0.75, "about; how it was measured is not said", _CHAPTER),
    ("RRNN", 0.85, "about; how it was measured is not said", _CHAPTER),
)
PUBLISHED = tuple(
    Published(
        data={"language": "en-10k", "tasks": list(range(1, 21))},
        files=True,
        model=model,
        value=accuracy,
        setting=setting,
        source=source,
        per_task={str(i + 1): round(1 - error / 100, 3) for i, error in enumerate(_ERRORS.get(model, ()))},
    )
    for model, accuracy, setting, source in _FIGURES
)
