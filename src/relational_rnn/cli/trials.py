"""What a comparison says about the trials before its runs."""

from __future__ import annotations

from collections.abc import Sequence

from relational_rnn.console.tables import text_table
from relational_rnn.nn.cores import CORES
from relational_rnn.runs import Trial, best_trials
from relational_rnn.training import BestBy


class TrialReport:
    """Prints the trials when they are done, and keeps a sentence about them for the report.

    Args:
        best_by: what on the validation set tells the best.
    """

    def __init__(self, best_by: BestBy = "accuracy") -> None:
        self.notes: list[str] = []
        self._best_by: BestBy = best_by

    def __call__(self, trials: Sequence[Trial]) -> None:
        print(f"{trial_table(trials, self._best_by)}\n", flush=True)
        self.notes = [trial_note(trials, self._best_by)]


def trial_table(trials: Sequence[Trial], best_by: BestBy = "accuracy") -> str:
    """A row per core: the best validation with every learning rate, or the lesson that training ended in and its loss
    if that is not the last, and the rate that its runs take; then the cores that took the lowest or the highest one."""
    rates = list(dict.fromkeys(trial.learning_rate for trial in trials))
    best = best_trials(trials, best_by=best_by)
    rows = []
    for core, winner in best.items():
        shown = {trial.learning_rate: _shown(trial, best_by) for trial in trials if trial.core == core}
        rows.append([CORES[core].label, *(shown[rate] for rate in rates), f"{winner.learning_rate:g}"])
    measure = "accuracy, %," if best_by == "accuracy" else "loss"
    lines = [text_table(["core", *(f"{rate:g}" for rate in rates), "taken"], rows)]
    at_the_edge = [
        CORES[core].label for core, winner in best.items() if winner.learning_rate in (min(rates), max(rates))
    ]
    if at_the_edge:
        lines.append(f"the best rate may lie beyond those tried for: {', '.join(at_the_edge)}")
    title = f"best validation {measure} of {trials[0].steps:,} steps with every learning rate"
    if any(trial.lesson_loss is not None for trial in trials):
        title += "; before the last lesson, its loss"
    return "\n".join([title, *lines])


def _shown(trial: Trial, best_by: BestBy) -> str:
    if trial.valid_accuracy is None:
        return "diverged"
    if trial.lesson_loss is not None:
        return f"lesson {trial.lesson}: {trial.lesson_loss:.4f}"
    return f"{100 * trial.valid_accuracy:.1f}" if best_by == "accuracy" else f"{trial.valid_loss:.4f}"


def trial_note(trials: Sequence[Trial], best_by: BestBy = "accuracy") -> str:
    """One sentence for a report: what every core tried, how long, and what it took."""
    rates = ", ".join(f"{rate:g}" for rate in dict.fromkeys(trial.learning_rate for trial in trials))
    taken = ", ".join(
        f"{CORES[core].label} {trial.learning_rate:g}" for core, trial in best_trials(trials, best_by=best_by).items()
    )
    unfinished = any(trial.lesson_loss is not None for trial in trials)
    return (
        f"every core tried learning rates of {rates} in {trials[0].steps:,} steps and took what did best on the "
        f"validation set{' or was furthest in the lessons' if unfinished else ''}: {taken}"
    )
