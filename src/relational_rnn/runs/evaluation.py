"""The measurement of a run on any task, and the table that compares several."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import ClassVar, Self

from relational_rnn._reading.json_text import Json
from relational_rnn.nn.cores import CORES
from relational_rnn.training import from_json, to_json

Table = tuple[list[str], list[list[str]]]
"""Headings and rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column of the table that compares cores.

    >>> Column("accuracy", "mean_accuracy", "{:.1f}", scale=100, unit=" %").cell([0.5, 0.7])
    '60.0 % ± 14.1'
    """

    heading: str
    name: str
    """Of an entry of the measurement; a column that no run has is left out."""
    form: str
    scale: float = 1
    unit: str = ""

    def cell(self, values: Sequence[float]) -> str:
        """The mean, and the spread where there are several values."""
        if not values:
            return ""
        value, spread = mean_and_spread([self.scale * value for value in values])
        return self.form.format(value) + self.unit + (f" ± {self.form.format(spread)}" if len(values) > 1 else "")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunEvaluation(ABC):
    """The measurement of a run on data that it has not learned from; each task adds its own figures."""

    split: str
    """ "test" or "valid"."""
    task: str
    mean_accuracy: float
    """Share of right answers, a fraction; the mean over groups where there are several."""
    loss: float
    """Mean cross entropy of an answer, in nats."""
    parameters: int
    """Trainable numbers of the whole model."""
    state_bytes: int
    """Of the core's state after the longest sequence."""
    train_seconds: float
    """Training and validation, all sittings."""
    processor_seconds: float | None
    """What all threads of the process computed in them; None if not recorded."""
    evaluate_seconds: float
    """This evaluation, without reading the data."""
    core: str
    seed: int
    steps: int
    """Updates done; fewer than the budget if the run is not finished."""
    report: tuple[str, ...]
    """What a user should know, such as a run that is not finished."""

    COLUMNS: ClassVar[tuple[Column, ...]]
    """What cores are compared by."""
    COUNTED: ClassVar[str] = ""
    """The entry that says how much was measured, if reports name it."""

    @abstractmethod
    def groups(self) -> Mapping[str, float]:
        """The accuracy of every group, by names that readers understand."""

    @abstractmethod
    def line(self) -> str:
        """The result in half a line."""

    @abstractmethod
    def tables(self) -> Sequence[Table]:
        """The figures, group by group."""

    @abstractmethod
    def summary(self) -> str:
        """The result, and on how much it was measured, in one line."""

    def to_json(self) -> dict[str, Json]:
        """As result.json holds it."""
        return {field.name: to_json(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, entries: Mapping[str, Json], *, where: str = "result.json") -> Self:
        """What `to_json` gave; refuses names and types as `training.from_json` does."""
        return from_json(cls, dict(entries), where=where)


def comparison(evaluations: Sequence[RunEvaluation]) -> Table:
    """A row per core: parameters, state, what the task is judged by, seconds; with the spread over seeds."""
    columns = [c for c in evaluations[0].COLUMNS if any(getattr(e, c.name) is not None for e in evaluations)]
    head = ["core", "parameters", "state bytes", *(column.heading for column in columns), "seconds"]
    rows = []
    for core in dict.fromkeys(evaluation.core for evaluation in evaluations):
        runs = [evaluation for evaluation in evaluations if evaluation.core == core]
        values = [[value for run in runs if (value := getattr(run, column.name)) is not None] for column in columns]
        rows.append(
            [
                CORES[core].label,
                f"{runs[0].parameters:,}",
                f"{max(run.state_bytes for run in runs):,}",
                *(column.cell(found) for column, found in zip(columns, values, strict=True)),
                f"{mean(run.train_seconds for run in runs):,.0f}",
            ]
        )
    return head, rows


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation; the spread of a single value is 0.

    >>> mean_and_spread([0.5, 0.7])
    (0.6, 0.14142135623730948)
    """
    return mean(values), stdev(values) if len(values) > 1 else 0.0
