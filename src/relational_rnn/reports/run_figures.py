"""Which figures a page of runs has: those that there are numbers for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relational_rnn.reports.figures import AXIS_LABELS, CURVES, Figure, learning_curves, task_bars
from relational_rnn.reports.language import (
    forgetting_curves,
    frequency_bars,
    is_language,
    perplexity_by_frequency,
    resets,
)
from relational_rnn.reports.runs import Group


def noun(groups: Sequence[Group]) -> str:
    """What accuracies are listed by."""
    return "task" if all(run.task == "babi" for group in groups for run in group.runs) else "group"


def report_figures(groups: Sequence[Group]) -> list[Figure]:
    """Of a report: learning curves by steps (bAbI) or samples and by seconds, and bars per task or group; of language
    see `language_figures`."""
    if is_language(groups):
        return language_figures(groups)
    first = "step" if noun(groups) == "task" else "samples"
    figures = _curves(groups, {f"accuracy-by-{first}": first, "accuracy-by-seconds": "seconds"})
    if any(group.per_group() for group in groups):
        description = f"Test accuracy of every {noun(groups)}, one panel per model."
        figures.append(Figure(name="accuracy-by-task", svg=task_bars(groups), description=description))
    return figures


def results_figures(groups: Sequence[Group]) -> list[Figure]:
    """Of a page of results: accuracy against training samples, and against the processor's seconds (the clock's, where
    runs lack those); of language see `language_figures`."""
    if is_language(groups):
        return language_figures(groups)
    runs = [run for group in groups for run in group.runs]
    by_processor = all(run.curve("processor_seconds", "valid_accuracy")[0] for run in runs)
    return _curves(groups, {"samples": "samples", "seconds": "processor_seconds" if by_processor else "seconds"})


def language_figures(groups: Sequence[Group]) -> list[Figure]:
    """Loss by steps and by seconds, what it costs to lose the past, and perplexity by how rare a token is."""
    figures = _curves(groups, {"loss-by-step": "step", "loss-by-seconds": "seconds"}, "valid_loss")
    if any(resets(group, "perplexity") for group in groups):
        description = "What it costs to lose the past: the memory is reset every so many tokens of the test text."
        figures.append(Figure(name="cost-of-forgetting", svg=forgetting_curves(groups), description=description))
    if any(perplexity_by_frequency(group) for group in groups):
        description = "Perplexity on the test text by how often a token occurs in the training text."
        figures.append(Figure(name="perplexity-by-frequency", svg=frequency_bars(groups), description=description))
    return figures


def _curves(groups: Sequence[Group], names: Mapping[str, str], y: str = "valid_accuracy") -> list[Figure]:
    """Learning curves, of every name of a figure what stands on its horizontal axis."""
    runs = [run for group in groups for run in group.runs]
    what = CURVES[y][0].split(",")[0].capitalize()
    return [
        Figure(
            name=name,
            svg=learning_curves(groups, x, y),
            description=f"{what} against {'steps of training' if x == 'step' else AXIS_LABELS[x]}, one line per run.",
        )
        for name, x in names.items()
        if any(run.curve(x, y)[0] for run in runs)
    ]
