"""Reading and measuring a run folder, which `training.run_folder` writes: configuration, metrics, model, result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from torch import nn

from relational_rnn._check import InputError, check_choice, describe, one_line
from relational_rnn._files import write_json
from relational_rnn._reading.guard import damaged
from relational_rnn._reading.json_text import Json, read_json_object
from relational_rnn._reading.structure import check_entries, from_json
from relational_rnn._reading.tables import number_in, read_table
from relational_rnn._reading.tensors import check_shapes, read_safetensors, sized_by
from relational_rnn.nn.cores import CORES, count_parameters
from relational_rnn.runs.config import RunConfig
from relational_rnn.runs.evaluation import RunEvaluation
from relational_rnn.runs.training import initial_weights
from relational_rnn.runs.workload import LoadedRun, Workload, workload_of
from relational_rnn.tasks import EARLY, names
from relational_rnn.training import read_metrics
from relational_rnn.training.run_folder import CONFIG, METRICS, VERSIONS, WEIGHTS

ModelT = TypeVar("ModelT", bound=nn.Module)

CHAPTER = "rmc-chapter"
"""What results call a relational memory of the formulation "chapter"."""
LOOKED_AT = {"task": str, "batch_size": int, "memory": Mapping[str, Any], "data": Mapping[str, Any]}
"""What is looked at in the configuration of any version."""
RESULT, DATA = "result.json", "data.json"


def _read_configuration(folder: Path) -> dict[str, Json]:
    """The config.json of a run folder as it stands there."""
    if not (folder / CONFIG).is_file():
        expected = f"a folder with {CONFIG}, as `relational-rnn train ... --out DIR` writes it"
        versions = folder / VERSIONS  # earlier versions could be killed before they wrote the configuration
        command = read_json_object(versions).get("command") if versions.exists() else None
        hint = f"a run was stopped here before it began; start it again: {command}" if command else None
        raise InputError(describe(folder, "there is no run in this folder", expected=expected, hint=hint))
    return {"task": EARLY, **read_json_object(folder / CONFIG)}


def read_config(folder: Path | str, task: str | None = None) -> RunConfig:
    """The configuration of the run in a folder, which must be on `task`, if that is given.

    Raises:
        InputError: there is no run in the folder, it is on another task, or another version of this package wrote it.
    """
    content = _read_configuration(Path(folder))
    name = content.pop("task")
    if task is not None and name != task:
        raise InputError(describe(folder, f"the run is not on {task}", got=name))
    where = str(Path(folder) / CONFIG)
    check_choice(where, "task", name, names())
    workload = workload_of(str(name))
    workload.check_version(content, where)
    return from_json(workload.config, content, where=where)


def load(folder: Path | str, task: str | None = None) -> LoadedRun[Any]:
    """The best weights of a run, with all that is needed to use them; for `task` see `read_config`.

    Raises:
        InputError: see `read_config`; or there are no weights yet, or a file cannot be read.

    >>> from relational_rnn.tasks import PRETRAINED
    >>> load(PRETRAINED).config.core
    'fastweights'
    """
    folder = Path(folder)
    config = read_config(folder, task)
    workload = workload_of(config.task_name)
    vocabulary = workload.read_vocabulary(folder, config)
    model = load_weights(lambda: workload.make_model(config, vocabulary), folder)
    return LoadedRun(folder=folder, workload=workload, config=config, model=model, vocabulary=vocabulary)


def load_weights(make: Callable[[], ModelT], folder: Path) -> ModelT:
    """The model of a run with its best weights, in evaluation mode.

    Raises:
        InputError: there are no weights yet, they cannot be read, or they do not fit the configuration's model.
    """
    path = folder / WEIGHTS
    if not path.exists():
        hint = "weights are saved at the first validation; let the run go on with resume (--resume)"
        raise InputError(describe(folder, "the run has no weights yet", hint=hint))
    tensors, _ = read_safetensors(path, problem="the weights cannot be read")
    problem = "no model can be built from this configuration"
    # what is drawn here is overwritten: the caller's random numbers stay
    with sized_by(tensors, where=str(folder / CONFIG), problem=problem), initial_weights(0):
        model = make()
    hint = "this version cannot read every run of an earlier one: train again."
    check_shapes(tensors, model, path, hint=hint)
    with damaged(path, "belongs to another model"):
        model.load_state_dict(tensors)
    return model.eval()


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """What has gone into a run by its last validation."""

    steps: int  # updates done
    seconds: float  # training and validation, all sittings
    processor_seconds: float | None  # what all threads computed in them; None if not recorded

    def unfinished(self, steps: int) -> tuple[str, ...]:
        """One line if the budget of `steps` is not used up."""
        return (f"the run is not finished: {self.steps:,} of {steps:,} steps",) if self.steps < steps else ()


def spent_on(folder: Path) -> Spent:
    """What has gone into a run; nothing before its first validation."""
    path = folder / METRICS
    rows = read_metrics(path) if path.exists() else []
    if not rows:
        return Spent(0, 0.0, None)
    processor = rows[-1].get("processor_seconds")
    return Spent(int(rows[-1]["step"]), float(rows[-1]["seconds"]), float(processor) if processor else None)


def read_result(folder: Path, config: RunConfig) -> RunEvaluation | None:
    """The measurement of a run after its last step, if there is one."""
    path, kind = folder / RESULT, workload_of(config.task_name).evaluation
    if not path.exists():
        return None
    entries = read_json_object(path)
    if entries.keys() != {field.name for field in dataclasses.fields(kind)} or entries["steps"] != config.loop.steps:
        return None  # of an unfinished run, or of another version: measured again
    if _foreign(entries, {"task": config.task_name, "core": config.core, "seed": config.seed}):
        return None
    return kind.from_json(entries, where=str(path))


def _foreign(entries: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The entries that tell a measurement from that of the run with this config.json."""
    return [name for name in ("task", "core", "seed") if entries[name] != config[name]]


def evaluate(folder: Path | str, *, split: str = "test", data: Any = None, **options: Any) -> RunEvaluation:
    """Measure the best weights of a run.

    The result on the run's own test set is kept in result.json; others are only returned.

    Args:
        folder: the run folder.
        split: "test", or "valid" for the validation set that the best weights were chosen on.
        data: other test data, for a task that reads files: bAbI stories in a folder or an archive, or a whole
            `DataConfig`; a text.
        **options: more choices of the task; see `measure` of its workload.

    Raises:
        InputError: see `load`; an unknown split; data that cannot be read, or that the task cannot use; a loss that
            is not finite, or a figure of the test set that is infinite.
    """
    folder = Path(folder)
    check_choice("evaluate", "split", split, ("test", "valid"))
    run = load(folder)
    found = run.workload.measure(run, split=split, data=data, **options)
    spent = spent_on(folder)
    found["report"] = (*found.get("report", ()), *spent.unfinished(run.config.loop.steps))
    evaluation = run.workload.evaluation(
        **{"split": split, **found},
        task=run.config.task_name,
        parameters=count_parameters(run.model),
        train_seconds=spent.seconds,
        processor_seconds=spent.processor_seconds,
        core=run.config.core,
        seed=run.config.seed,
        steps=spent.steps,
    )
    if not math.isfinite(evaluation.loss):
        hint = "the run has diverged, or its weights are damaged: train again, with a lower learning rate"
        got = f"loss {evaluation.loss:g}"
        raise InputError(describe(folder, "its answers cannot be measured", got=got, hint=hint))
    if split == "test" and data is None:
        entries = evaluation.to_json()
        infinite = [name for name in entries if not _fits_json(entries[name])]
        if infinite:
            problem = f"a figure is infinite, so that no {RESULT} is kept"
            raise InputError(describe(folder, problem, got=", ".join(infinite)))
        write_json(folder / RESULT, entries)
    return evaluation


def _fits_json(value: Json) -> bool:
    """Whether no number in it is NaN or infinite."""
    if isinstance(value, dict | list):
        return all(map(_fits_json, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one run folder says, without its model."""

    folder: Path
    config: Mapping[str, Any]
    """The resolved configuration (config.json), with its task."""
    versions: Mapping[str, Any]
    """Machine, commit and package versions (versions.json)."""
    metrics: Mapping[str, tuple[float | None, ...]]
    """Columns of metrics.csv; None where a row has no value."""
    result: Mapping[str, Any] | None
    """The evaluation (result.json), or None while the run has not been evaluated."""
    groups: Mapping[str, float]
    """Its accuracy on every group, by names that readers understand."""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the run keeps about its data (data.json)."""
    notes: tuple[str, ...]
    """What a reader must know, such as a file that was missing, or a run that is not finished."""

    @property
    def name(self) -> str:
        """The folder's name, as text for one line of any page."""
        return one_line(self.folder.resolve().name)

    @property
    def core(self) -> str:
        """The core's name; a memory in the chapter's formulation or with competing slots counts as a core of its
        own."""
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
        return str(self.config["task"])

    @property
    def workload(self) -> Workload[Any]:
        return workload_of(self.task)

    def curve(self, x: str, y: str) -> tuple[list[float], list[float]]:
        """The rows of metrics.csv in which both columns have a value; "samples" counts the sequences, or bAbI's
        questions, seen."""
        columns = {**self.metrics, "samples": self.metrics.get("questions_seen", ())}
        if "batch_size" in self.config:
            size = int(self.config["batch_size"])
            columns["samples"] = tuple(None if step is None else step * size for step in self.metrics.get("step", ()))
        rows = zip(columns.get(x, ()), columns.get(y, ()), strict=False)
        pairs = [(a, b) for a, b in rows if a is not None and b is not None]
        return [a for a, _ in pairs], [b for _, b in pairs]


def read_run(folder: str | Path) -> Run:
    """Read a run folder without loading its model.

    Raises:
        InputError: there is no run in the folder, or a file in it cannot be read as what it is.
    """
    folder = Path(folder)
    config = _read_configuration(folder)  # as it stands: reports know runs of other versions too
    where = str(folder / CONFIG)
    check_entries(config, {"core": str, "seed": int}, LOOKED_AT, where=where)
    check_choice(where, "task", config["task"], names())
    result_path, versions_path, metrics_path, data_path = (folder / n for n in (RESULT, VERSIONS, METRICS, DATA))
    result = None
    if result_path.exists():
        entries, kind = read_json_object(result_path), workload_of(str(config["task"])).evaluation
        needed = {field.name: get_type_hints(kind)[field.name] for field in dataclasses.fields(kind)}
        hint = f"run `relational-rnn evaluate {folder}` again"
        check_entries(entries, needed, {}, where=str(result_path), hint=hint)
        for name in _foreign(entries, config):
            problem, got = f"this measurement is another run's: {name}", repr(entries[name])
            raise InputError(describe(result_path, problem, got=got, expected=repr(config[name]), hint=hint))
        result = kind.from_json(entries, where=str(result_path))
    data: dict[str, Any] = read_json_object(data_path) if data_path.exists() else {}
    check_entries(data, {}, {"report": tuple[str, ...]}, where=str(data_path))
    return Run(
        folder=folder,
        config=config,
        versions=read_json_object(versions_path) if versions_path.exists() else {},
        metrics=_curves(metrics_path) if metrics_path.exists() else {},
        result=None if result is None else result.to_json(),
        groups={} if result is None else result.groups(),
        data=data,
        notes=tuple(dict.fromkeys([*data.get("report", []), *(() if result is None else result.report)])),
    )


def _curves(path: Path) -> dict[str, tuple[float | None, ...]]:
    """The columns of a metrics.csv; a loss that is not finite has no place on a curve."""
    header, rows = read_table(path)
    curves = {}
    for place, name in enumerate(header):
        cells = [row[place] for row in rows]
        values = [number_in(path, line, name, cell or "nan") for line, cell in enumerate(cells, start=2)]
        curves[name] = tuple(value if math.isfinite(value) else None for value in values)
    return curves


def core_label(core: str) -> str:
    """What readers call a core; one that this version does not know keeps its name."""
    if core == CHAPTER:
        return f"{CORES['rmc'].label}, chapter's formulation"
    return CORES[core].label if core in CORES else core
