"""What a task is to the rest of the package: the one contract behind `train`, `compare`, `evaluate` and `report`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from torch import nn

from relational_rnn._check import InputError, describe
from relational_rnn._reading.json_text import Json
from relational_rnn.runs.config import RunConfig
from relational_rnn.runs.evaluation import RunEvaluation
from relational_rnn.tasks import find
from relational_rnn.training import BestBy, Problem

ConfigT = TypeVar("ConfigT", bound=RunConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One published figure of one model."""

    data: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the task that a run must share for the figure to stand beside it."""
    files: bool = False
    """The run must have been trained on published files, not on generated data."""
    training_words: int | None = None
    """The words of the training text, which a run on language must share too; they tell which corpus it is."""
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
    """The accuracy of each group, by its number, where the source can be read."""

    @property
    def shown(self) -> str:
        """The figure as readers see it: an accuracy in per cent.

        >>> Published(model="STM", value=0.98, setting="", source="").shown
        '98 %'
        """
        figure = f"{100 * self.value:.3g} %" if self.metric == "accuracy" else f"{self.value:g}"
        return f"{'below ' if self.below else ''}{figure}"


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
    """With the weights that did best on the validation set; on the CPU, in evaluation mode."""
    vocabulary: Any = None
    """The words it reads, where the task has such."""


class Workload(ABC, Generic[ConfigT]):
    """A task as something to train on. One object for each task; its module offers it as WORKLOAD.

    A task of your own is a module with a WORKLOAD and an entry point in the group `relational_rnn.workloads`, named as
    the task is typed; every command then knows it (docs/tasks.md).
    """

    config: type[ConfigT]
    """The class of its runs' configurations."""
    recipes: Mapping[str, Callable[[], ConfigT]]
    """Functions that return a whole configuration, by name; the first one is what a run starts from."""
    evaluation: type[RunEvaluation]
    """What a measurement says."""
    best_by: BestBy = "accuracy"
    """What on the validation set tells the best weights."""
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
        """The data that runs of this configuration learn from, whatever their core and their seed; None where every
        batch is made when it is needed."""

    @abstractmethod
    def make_model(self, config: ConfigT, data: Any) -> nn.Module:
        """The model with its initial weights, which are a function of the seed."""

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

    def lessons(self, config: ConfigT) -> int | None:
        """How many lessons there are, where each begins when the one before is mastered."""
        return None

    @abstractmethod
    def load(self, folder: Path, config: ConfigT) -> tuple[nn.Module, Any]:
        """The model of a run folder with its best weights, and its vocabulary if it has one."""

    @abstractmethod
    def measure(self, run: LoadedRun[ConfigT], *, split: str, data: Any) -> dict[str, Any]:
        """The entries of `evaluation` that the run folder cannot tell: split, accuracy, loss, bytes of the state,
        seconds, report, and what the task has besides.

        Args:
            run: what is measured.
            split: "test" or "valid".
            data: what is read instead of the run's own test data; None for these.

        A task may let one choose more, in arguments of its own with defaults; `runs.evaluate` hands them on.
        """

    def other_data(self, config: ConfigT, path: Path, *, partial: bool) -> Any:
        """The data at a path as `measure` takes them.

        Raises:
            InputError: the task has no files.
        """
        problem = f"--data has no effect: the sequences of {self.name} are generated"
        raise InputError(describe("evaluate", problem))

    def starting(self, config: ConfigT, typed: Sequence[str]) -> ConfigT:
        """What the options of the command line change: a recipe's configuration, seen the options that are typed."""
        return config

    def folder(self, config: ConfigT, recipe: str, *, asked: bool) -> Path:
        """Where runs go that name no folder; `asked` where the recipe was."""
        return Path("runs") / recipe


def workload_of(name: str) -> Workload[Any]:
    """The task of that name.

    Raises:
        InputError: there is no such task, or that of another package is none.
    """
    found = find(name)
    if not isinstance(found, Workload) or found.name != name:
        expected = f"a relational_rnn.runs.Workload whose runs have the task_name {name!r}"
        got = f"one named {found.name!r}" if isinstance(found, Workload) else type(found).__name__
        raise InputError(describe(name, "WORKLOAD is not that of the task", got=got, expected=expected))
    return found
