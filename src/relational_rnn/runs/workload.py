"""The contract of a task, behind the commands that take any task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from relational_rnn._check import InputError, describe
from relational_rnn._reading.json_text import Json
from relational_rnn.runs.config import RunConfig
from relational_rnn.runs.evaluation import RunEvaluation
from relational_rnn.tasks import find
from relational_rnn.training import BestBy, Outcome, Problem

ConfigT = TypeVar("ConfigT", bound=RunConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One published figure of one model."""

    data: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the task that a run must share for the figure to stand beside it."""
    files: bool = False
    """The run must have been trained on published files, not on generated data."""
    found: Mapping[str, Any] = field(default_factory=dict)
    """Entries of the run's data.json that it must share too, such as counts that identify a text."""
    model: str
    """Whose model."""
    metric: str = "accuracy"
    """"accuracy" (a fraction of answers, of characters where answers are decoded), or another of the evaluation's
    `COLUMNS`."""
    value: float
    """The figure."""
    below: bool = False
    """The source only says that it is less than `value`."""
    setting: str
    """What a reader must know of how it was measured."""
    source: str
    """ "author year", and where in it."""
    per_task: Mapping[str, float] = field(default_factory=dict)
    """The accuracy of each group, by its number, where the source can be read."""

    @property
    def shown(self) -> str:
        """The figure as readers see it: an accuracy in per cent.

        >>> Published(model="STM", value=0.98, setting="", source="").shown
        '98 %'
        """
        figure = f"{100 * self.value:.3g} %" if self.metric == "accuracy" else f"{self.value:g}"
        return f"{'below ' if self.below else ''}{figure}"

    def fits(self, config: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
        """Whether the figure may stand beside a run with this config.json and this data.json."""
        settings = config.get("data", {})
        return bool(
            (settings.get("path") or not self.files)
            and all(settings.get(name) == value for name, value in self.data.items())
            and _within(self.found, data)
        )


def _within(wanted: Any, found: Any) -> bool:
    """Whether all that is wanted is found, in the same places."""
    if not isinstance(wanted, Mapping):
        return wanted == found
    return isinstance(found, Mapping) and all(_within(value, found.get(name)) for name, value in wanted.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What `inspect` shall show of a run; None where nothing was said."""

    task: int | None = None
    """Which part of the data the example is from, where these have numbers."""
    example: int | None = None
    """Which example, from 1."""
    text: str | None = None
    """A text instead of an example."""
    statistics: bool = False
    """Add what the attention does over many examples."""

    def number(self, count: int) -> int:
        """The number of the example, by default 1; refuses one beyond `count`."""
        number = 1 if self.example is None else self.example
        if not 1 <= number <= count:
            raise InputError(describe("inspect", "there is no such example", got=number, expected=f"1 to {count:,}"))
        return number

    def refuse(self, kind: str, *names: str) -> None:
        """Refuse options that have no effect on a run on `kind`."""
        for name in names:
            if getattr(self, name) not in (None, False):
                raise InputError(describe("inspect", f"--{name} has no effect: the run is on {kind}"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A question of a test set, and what a run made of it."""

    group: str
    """The group of the measurement that it belongs to."""
    number: int
    """Its place, from 1, as `relational-rnn inspect --example` takes it."""
    question: str
    right: str
    """The right answer."""
    answer: str
    """The run's answer."""
    right_probability: float
    """The run's probability of the right answer."""
    html: str | None = None
    """Its inspection, a whole page, or None."""
    run: str = ""
    """On the page of a report: the name of the run."""
    page: str | None = None
    """On the page of a report: the path of its inspection."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Breakdown:
    """Figures of one measurement by something; a report puts those of several models side by side."""

    caption: str
    """What the figures are."""
    by: str
    """What they are listed by, e.g. "task"."""
    values: Mapping[str, float]
    form: str = "{:.1f}"
    scale: float = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedRun(Generic[ConfigT]):
    """A trained model with all that is needed to use it."""

    folder: Path
    """Where it was trained."""
    workload: Workload[ConfigT]
    """What it was trained on."""
    config: ConfigT
    """How."""
    model: Any
    """The best weights on the validation set, on the CPU, in evaluation mode."""
    vocabulary: Any = None
    """The words it reads, where the task has such."""


class Workload(ABC, Generic[ConfigT]):
    """A task to train on. Each task's module offers one object as WORKLOAD.

    A task of your own is a module with a WORKLOAD and an entry point in the group `relational_rnn.workloads`, named as
    the task is typed; every command then knows it (docs/tasks.md).
    """

    config: type[ConfigT]
    """The class of its runs' configurations."""
    recipes: Mapping[str, Callable[[], ConfigT]]
    """Functions that return a whole configuration, by name; the first is the default."""
    evaluation: type[RunEvaluation]
    """What a measurement says."""
    best_by: BestBy = "accuracy"
    """Which validation figure picks the best weights."""
    published: Sequence[Published] = ()
    """What others have measured."""
    short: Mapping[str, str] = {}
    """Short options of the command line, and the longer ones behind them."""
    data_help: str = ""
    """Sentences about the data for the help of `train` and `compare`."""
    train_examples: Sequence[str] = ()
    """Words after `relational-rnn train TASK` that can be pasted."""
    compare_examples: Sequence[str] = ()
    """The same of `compare`."""
    pickles_data: bool = True
    """Whether other processes are sent the data; otherwise each reads them itself."""
    group_noun: str = "group"
    """What accuracies are listed by."""
    group_names: Sequence[str] = ()
    """The names of all groups in order, each beginning with its number; runs may have some of them."""
    curves_over: str = "samples"
    """The first horizontal axis of learning curves in a report: "samples" or "step"."""
    accuracy_note: str = "Accuracies are shares of right answers on new sequences;"
    """How a report begins to explain its figures."""

    @property
    def name(self) -> str:
        """As it is typed."""
        return self.config.task_name

    def check_version(self, content: Mapping[str, Json], where: str) -> None:
        """Refuse the config.json of an earlier version that means something else now; `where` is its path."""

    def absolute(self, config: ConfigT) -> ConfigT:
        """The same configuration with paths that mean the same from every folder."""
        return config

    def check(self, where: str, config: ConfigT, cores: Sequence[str]) -> None:
        """Refuse what would have no effect on any of the cores, or cannot be done on this machine."""

    @abstractmethod
    def read(self, config: ConfigT) -> Any:
        """The data that runs of this configuration learn from, whatever core and seed; None if batches are made on
        demand."""

    def vocabulary(self, config: ConfigT, data: Any) -> Any:
        """What the model's sizes need besides the configuration, or None."""
        return None

    def read_vocabulary(self, folder: Path, config: ConfigT) -> Any:
        """The same from the files of a run folder."""
        return None

    @abstractmethod
    def make_model(self, config: ConfigT, vocabulary: Any) -> nn.Module:
        """The model; its weights are drawn from PyTorch's generator, which the caller has seeded."""

    @abstractmethod
    def make_problem(self, model: Any, config: ConfigT, data: Any) -> Problem[Any]:
        """The model with its batches."""

    def report(self, problem: Any) -> Sequence[str]:
        """What a user should know about the data, a line each."""
        return ()

    def files(self, problem: Any) -> dict[str, Json]:
        """What a run folder keeps about its data: contents of JSON files by their names."""
        return {}

    def check_resumed(self, folder: Path, files: Mapping[str, Json]) -> None:
        """Refuse data that have changed since the run in the folder began."""

    def fit_options(self, config: ConfigT) -> dict[str, Any]:
        """More arguments of `training.fit`."""
        return {}

    def best(self, outcome: Outcome) -> str:
        """How well the best weights of a training do on the validation set, in words."""
        if self.best_by == "accuracy":
            return f"best validation accuracy {outcome.valid_accuracy:.1%}"
        return f"best validation loss {outcome.valid_loss:.4f}"

    def lessons(self, config: ConfigT) -> int | None:
        """How many lessons there are, where each begins when the one before is mastered."""
        return None

    @abstractmethod
    def measure(self, run: LoadedRun[ConfigT], *, split: str, data: Any) -> dict[str, Any]:
        """Measure a run: split, accuracy, loss, bytes of state, seconds, report, and the task's own entries of
        `evaluation`.

        Args:
            run: what is measured.
            split: "test" or "valid".
            data: what is read instead of the run's own test data; None for these.

        A task may add arguments with defaults; `runs.evaluate` hands them on.
        """

    def main_measure(self, config: Mapping[str, Any]) -> str:
        """The entry of the measurement that results are judged by, given config.json."""
        return "mean_accuracy"

    def breakdowns(self, result: Mapping[str, Any], groups: Mapping[str, float]) -> Sequence[Breakdown]:
        """The figures of a measurement (result.json, with the accuracies of its groups) by groups, for tables."""
        return [Breakdown(caption=f"Test accuracy per {self.group_noun}, %", by=self.group_noun, values=groups)]

    def details(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """What the JSON file of results has besides the main figure, from a measurement averaged over seeds."""
        more = [column.name for column in self.evaluation.COLUMNS if column.name != "mean_accuracy"]
        return {**{name: result[name] for name in more if name in result}, "per_group": result.get("per_group", {})}

    def figures(self, groups: Sequence[Any]) -> Sequence[Any]:
        """More figures (`reports.figures.Figure`) of a report on groups of runs (`reports.Group`)."""
        return ()

    def inspect(self, run: LoadedRun[ConfigT], asked: Asked) -> Any:
        """The page (`inspection.Page`) of an example or a text through the memory of a run.

        Raises:
            InputError: the task has no such page, the memory cannot be inspected, or there is no such example.
        """
        problem = "this task has no page of its own, so its runs cannot be inspected"
        hint = "in Python, relational_rnn.inspection.page shows the trace of any sequence"
        raise InputError(describe("inspect", problem, got=f"a run on {self.name}", hint=hint))

    def worst_examples(self, run: LoadedRun[ConfigT], count: int) -> Sequence[Example]:
        """The `count` test questions of each group whose right answer the run finds least probable.

        Raises:
            InputError: the task lists no questions, or its test data are not there.
        """
        problem, got = "this task lists no examples", f"{run.folder}, a run on {self.name}"
        raise InputError(describe("report", problem, got=got, hint="report it without --examples"))

    def other_data(self, config: ConfigT, path: Path, *, partial: bool) -> Any:
        """The data at a path as `measure` takes them.

        Raises:
            InputError: the task has no files.
        """
        problem = f"--data has no effect: the sequences of {self.name} are generated"
        raise InputError(describe("evaluate", problem))

    def starting(self, config: ConfigT, typed: Sequence[str]) -> ConfigT:
        """The configuration that the options change, given the options that are typed."""
        return config

    def folder(self, config: ConfigT, recipe: str, *, asked: bool) -> Path:
        """Where runs go that name no folder; `asked` where the recipe was named."""
        return Path("runs") / recipe


def workload_of(name: str) -> Workload[Any]:
    """The task of that name.

    Raises:
        InputError: there is no such task, or that of another package is none.
    """
    found = find(name)
    expected = f"a relational_rnn.runs.Workload whose runs have the task_name {name!r}"
    if not isinstance(found, Workload):
        problem, got = "WORKLOAD is not that of the task", type(found).__name__
        raise InputError(describe(name, problem, got=got, expected=expected))
    lacking = [part for part in ("config", "recipes", "evaluation") if not getattr(found, part, None)]
    if lacking:
        raise InputError(describe(name, f"WORKLOAD lacks {', '.join(lacking)}", got=type(found).__name__))
    if not (isinstance(found.config, type) and issubclass(found.config, RunConfig)):
        problem, wanted = "WORKLOAD.config is not the class of its runs", "a subclass of relational_rnn.runs.RunConfig"
        raise InputError(describe(name, problem, got=repr(found.config), expected=wanted))
    named = getattr(found.config, "task_name", None)
    if named != name:
        problem = "WORKLOAD is not that of the task"
        raise InputError(describe(name, problem, got=f"one named {named!r}", expected=expected))
    return found
