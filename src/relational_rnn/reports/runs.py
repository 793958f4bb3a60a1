"""Reading run folders, and grouping runs that differ in nothing but their seed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from relational_rnn._check import InputError, describe
from relational_rnn._reading.json_text import read_json_object
from relational_rnn._reading.structure import check_entries
from relational_rnn._reading.tables import number_in, read_table
from relational_rnn.nn.cores import CORES
from relational_rnn.pages.markdown import one_line
from relational_rnn.tasks.babi.story import TASK_NAMES

CONFIG_ENTRIES = {"core": str, "seed": int}
CONFIG_EXTRAS = {"task": str, "batch_size": int, "memory": Mapping[str, Any], "data": Mapping[str, Any]}
"""What a configuration (config.json) must hold, and what of the rest is looked at."""
RESULT_ENTRIES = {"split": str, "mean_accuracy": float}
BABI_ENTRIES = {"per_task": Mapping[int, float], "tasks_above_95": float, "questions": int}
TASK_ENTRIES = {"per_group": Mapping[str, float], "sequences": int}
LANGUAGE_ENTRIES = {
    "per_group": Mapping[str, float],
    "per_group_perplexity": Mapping[str, float],
    "perplexity": float,
    "bits_per_character": float,
    "resets": Mapping[int, Mapping[str, float]],
    "tokens": int,
}
COST_ENTRIES = {"parameters": int, "state_bytes": int, "train_seconds": float}
"""What an evaluation (result.json) must hold: of a run on bAbI, on a generated task or on language, between what all
have."""
RESULT_EXTRAS = {
    "report": tuple[str, ...],
    "processor_seconds": float | None,
    "whole_accuracy": float | None,
    "mean_beyond": float | None,
    "tokens_seen": int,
}
TEXT_ENTRIES = {"report": tuple[str, ...], "text": Mapping[str, Mapping[str, int]]}
"""What may stand in data.json."""
CHAPTER = "rmc-chapter"
"""What results call a relational memory of the formulation "chapter"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one run folder says."""

    folder: Path
    config: Mapping[str, Any]
    """The resolved configuration (config.json)."""
    versions: Mapping[str, Any]
    """Machine, commit and package versions (versions.json)."""
    metrics: Mapping[str, tuple[float | None, ...]]
    """Columns of metrics.csv; None where a row has no value."""
    result: Mapping[str, Any] | None
    """The evaluation (result.json), or None while the run has not been evaluated."""
    training_words: int | None = None
    """Language: words of the training text."""
    notes: tuple[str, ...]
    """What a reader must know: files that were missing, questions that lost sentences, a run that is not finished."""

    @property
    def name(self) -> str:
        """What the folder is called, as text that can stand on a line of any page."""
        return one_line(self.folder.resolve().name)

    @property
    def core(self) -> str:
        """The core's name; a relational memory with the arithmetic of the chapter counts as one of its own, one whose
        slots compete as the core of that name.
        """
        memory = self.config.get("memory", {})
        if self.config["core"] == "rmc" and memory.get("gate_style") == "competitive":
            return "competitive"
        if self.config["core"] == "rmc" and memory.get("formulation") == "chapter":
            return CHAPTER
        return one_line(str(self.config["core"]))

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def title(self) -> str:
        return core_label(self.core)

    @property
    def task(self) -> str:
        """The task's name: "babi", or that of a generated task."""
        return str(self.config.get("task", "babi"))

    def curve(self, x: str, y: str) -> tuple[list[float], list[float]]:
        """The rows of metrics.csv where both columns have a value; "samples" is what the run has been shown by then:
        sequences of a generated task, questions of bAbI.
        """
        columns = [self._column(x), self.metrics.get(y, ())]
        pairs = [(a, b) for a, b in zip(*columns, strict=False) if a is not None and b is not None]
        return [a for a, _ in pairs], [b for _, b in pairs]

    def _column(self, name: str) -> tuple[float | None, ...]:
        if name != "samples":
            return self.metrics.get(name, ())
        if "batch_size" not in self.config:
            return self.metrics.get("questions_seen", ())
        size = int(self.config["batch_size"])
        return tuple(None if step is None else step * size for step in self.metrics.get("step", ()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Runs of one configuration under different seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def core(self) -> str:
        return self.runs[0].core

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """The evaluations there are; shorter than `runs` while some are not evaluated."""
        return [run.result for run in self.runs if run.result is not None]

    @property
    def notes(self) -> list[str]:
        """The notes of all runs, each once."""
        return list(dict.fromkeys(note for run in self.runs for note in run.notes))

    def values(self, name: str) -> list[float]:
        """One entry of every evaluation that has it."""
        return [float(result[name]) for result in self.results if result.get(name) is not None]

    def per_task(self) -> dict[int, list[float]]:
        """bAbI: task to the accuracies of all evaluated seeds."""
        tasks = sorted({int(task) for result in self.results for task in result.get("per_task", {})})
        return {
            task: [float(r["per_task"][str(task)]) for r in self.results if str(task) in r["per_task"]]
            for task in tasks
        }

    def per_group(self) -> dict[str, list[float]]:
        """The accuracies of all evaluated seeds: by bAbI task, or by the group of a generated task."""
        babi = {f"{task} {TASK_NAMES.get(task, '')}".strip(): values for task, values in self.per_task().items()}
        names = dict.fromkeys(name for result in self.results for name in result.get("per_group", {}))
        return babi | {
            name: [float(r["per_group"][name]) for r in self.results if name in r["per_group"]] for name in names
        }


def core_label(core: str) -> str:
    """What readers call a core; one that this version does not know (a published rival) is called by its name."""
    if core == CHAPTER:
        return f"{CORES['rmc'].label}, chapter's formulation"
    return CORES[core].label if core in CORES else core


def all_names(tables: Iterable[Mapping[str, object]]) -> list[str]:
    """The names of several tables, each once: bAbI tasks by their numbers, others in order of appearance.

    >>> all_names([{"19 path-finding": 0}, {"2 two-supporting-facts": 0}]), all_names([{"length 9": 0, "length 60": 0}])
    (['2 two-supporting-facts', '19 path-finding'], ['length 9', 'length 60'])
    """
    names = dict.fromkeys(name for table in tables for name in table)
    numbers = {f"{number} {name}": number for number, name in TASK_NAMES.items()}
    return sorted(names, key=lambda name: numbers.get(name, 0))


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation; the spread of a single value is 0.

    >>> mean_and_spread([0.5, 0.7])
    (0.6, 0.14142135623730948)
    """
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def read_run(folder: str | Path) -> Run:
    """Read a run folder without loading its model.

    Raises:
        InputError: when the folder does not exist, is no run folder, or a file in it cannot be read as what it is.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            describe(
                "report",
                "this run folder does not exist",
                got=folder,
                hint="a run folder is what `relational-rnn train ... --out DIR` wrote",
            )
        )
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise InputError(
            describe("report", "this folder is not a run folder", got=folder, expected="a config.json in it")
        )
    config = read_json_object(config_path)
    check_entries(config, CONFIG_ENTRIES, CONFIG_EXTRAS, where=str(config_path))
    names = ("result.json", "versions.json", "metrics.csv", "data.json")
    result_path, versions_path, metrics_path, data_path = (folder / name for name in names)
    result = read_json_object(result_path) if result_path.exists() else None
    if result is not None:
        own = {"babi": BABI_ENTRIES, "language": LANGUAGE_ENTRIES}.get(str(config.get("task", "babi")), TASK_ENTRIES)
        hint = f"run `relational-rnn evaluate {folder}` again"
        needed = {**RESULT_ENTRIES, **own, **COST_ENTRIES}
        check_entries(result, needed, RESULT_EXTRAS, where=str(result_path), hint=hint)
    data: dict[str, Any] = read_json_object(data_path) if data_path.exists() else {}
    check_entries(data, {}, TEXT_ENTRIES, where=str(data_path))
    report: Any = (result or {}).get("report", [])
    return Run(
        folder=folder,
        config=config,
        versions=read_json_object(versions_path) if versions_path.exists() else {},
        metrics=_read_columns(metrics_path) if metrics_path.exists() else {},
        result=result,
        training_words=data.get("text", {}).get("train", {}).get("words"),
        notes=tuple(dict.fromkeys([*data.get("report", []), *report])),
    )


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read several run folders; the same folder twice is refused."""
    if not folders:
        raise InputError(describe("report", "no run was given", expected="at least one run folder"))
    resolved = [Path(folder).resolve() for folder in folders]
    for number, path in enumerate(resolved):
        if path in resolved[:number]:
            raise InputError(describe("report", "a run folder was given twice", got=folders[number]))
    return [read_run(folder) for folder in folders]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put runs together whose configurations differ in nothing but the seed, in order of first appearance.

    Raises:
        InputError: when the runs are on different tasks, whose figures do not belong in one table; when one
            configuration occurs twice with one seed, which would count the same run twice.
    """
    tasks = sorted({run.task for run in runs})
    if len(tasks) > 1:
        hint = "make a report for each"
        raise InputError(describe("report", "the runs are on different tasks", got=", ".join(tasks), hint=hint))
    members: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps({name: value for name, value in run.config.items() if name != "seed"}, sort_keys=True)
        group = members.setdefault(key, [])
        if run.seed in [other.seed for other in group]:
            first = next(other for other in group if other.seed == run.seed)
            raise InputError(
                describe(
                    "report",
                    "two runs have the same configuration and the same seed",
                    got=f"{first.folder} and {run.folder}",
                    hint="leave one of them out",
                )
            )
        group.append(run)
    titles = [group[0].title for group in members.values()]
    return [
        Group(
            label=group[0].title if titles.count(group[0].title) == 1 else f"{group[0].title}, {group[0].name}",
            runs=tuple(sorted(group, key=lambda run: run.seed)),
        )
        for group in members.values()
    ]


def _read_columns(path: Path) -> dict[str, tuple[float | None, ...]]:
    header, rows = read_table(path)
    return {
        name: tuple(_number(path, line, name, row[place]) for line, row in enumerate(rows, start=2))
        for place, name in enumerate(header)
    }


def _number(path: Path, line: int, name: str, cell: str) -> float | None:
    if cell == "":
        return None
    value = number_in(path, line, name, cell)
    # A loss that ran away has no place on a curve.
    return value if math.isfinite(value) else None
