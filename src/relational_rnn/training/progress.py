"""How a run shows its progress: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import IO, Any, Literal

from relational_rnn._check import need_extra

BestBy = Literal["accuracy", "loss"]
"""Which validation figure picks the best weights of a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run stands."""

    step: int
    """Updates done."""
    steps: int
    """Updates to do."""
    seconds: float
    """Spent on the run so far, over all sittings."""
    steps_per_second: float
    """In this sitting, validation included."""
    train_loss: float
    """Mean since the last validation."""
    train_accuracy: float
    """Mean over groups since the last validation."""
    valid_accuracy: float | None
    """Of the last validation; None before the first, as `valid_loss`."""
    valid_loss: float | None = None
    best_by: BestBy = "accuracy"
    """Which of the two tells the best weights."""
    lesson: tuple[int, int] | None = None
    """Which lesson, from 1, of how many; None where there are none."""

    @property
    def seconds_left(self) -> float:
        """At the speed of this sitting."""
        return (self.steps - self.step) / self.steps_per_second


def clock(seconds: float) -> str:
    """A duration for people.

    >>> clock(64.2), clock(3723)
    ('1:04', '1:02:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe_progress(progress: Progress) -> str:
    """The figures of a run in a few words, short enough for a bar of 80 columns; before the last lesson, the lesson."""
    parts = [f"{progress.steps_per_second:.1f}/s", f"loss {progress.train_loss:.3f}"]
    if progress.lesson is not None and progress.lesson[0] < progress.lesson[1]:
        parts.append("lesson {}/{}".format(*progress.lesson))
    elif progress.best_by == "loss" and progress.valid_loss is not None:
        parts.append(f"valid loss {progress.valid_loss:.3f}")
    elif progress.valid_accuracy is not None:
        parts.append(f"valid {progress.valid_accuracy:.1%}")
    return "  ".join(parts)


class ConsoleProgress:
    """Shows the progress of a run on a stream: `with ConsoleProgress("rmc") as show: fit(..., on_progress=show)`.

    Args:
        label: stands at the front, such as the name of the run.
        stream: standard error by default.
        interval: seconds between two lines where the stream is not a terminal.
    """

    def __init__(self, label: str = "", *, stream: IO[str] | None = None, interval: float = 10.0) -> None:
        self.label = label
        self.stream = stream if stream is not None else sys.stderr
        self.interval = interval
        self._last_line = -float("inf")
        self._bar: Any = None  # rich.progress.Progress; rich is an optional dependency

    def __enter__(self) -> ConsoleProgress:
        if self.stream.isatty():
            rich = need_extra("rich.progress", "train", "the progress bar")
            console = need_extra("rich.console", "train", "the progress bar").Console(file=self.stream)
            texts = [f"{{task.{name}}}" for name in ("description", "fields[left]", "fields[figures]")]
            label, *others = (rich.TextColumn(text, markup=False) for text in texts)  # a name is no markup
            self._bar = rich.Progress(
                label, rich.BarColumn(bar_width=10), rich.MofNCompleteColumn(), *others, console=console
            )
            self._task = self._bar.add_task(self.label, total=None, left="", figures="starting")
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, progress: Progress) -> None:
        left, figures = f"{clock(progress.seconds_left)} left", describe_progress(progress)
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.step, total=progress.steps, left=left, figures=figures)
            return
        now = time.monotonic()
        if progress.step == progress.steps or now - self._last_line >= self.interval:
            self._last_line = now
            label = f"{self.label}  " if self.label else ""
            line = f"{label}step {progress.step:,}/{progress.steps:,}  {left}  {figures}"
            print(line, file=self.stream, flush=True)
