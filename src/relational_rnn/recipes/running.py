"""What runs of every kind share: weights out of a folder, how far a run is, and a grid of runs that can be stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn._files import sweep
from relational_rnn._reading.building import sized_by
from relational_rnn._reading.guard import damaged
from relational_rnn._reading.tensors import read_safetensors
from relational_rnn._signals import end_now, on_terminate
from relational_rnn.nn.cores import CORE_NAMES, FastWeightSizes, RivalSizes
from relational_rnn.recipes.evaluation import RunEvaluation
from relational_rnn.recipes.side_by_side import train_side_by_side
from relational_rnn.training import DivergedError, LoopConfig, Progress, RunFolder, read_metrics, to_json
from relational_rnn.training.json_files import Json, read_json_object
from relational_rnn.training.run_folder import VERSIONS


class RunConfig(Protocol):
    """What every configuration of a run has."""

    @property
    def loop(self) -> LoopConfig: ...


ConfigT = TypeVar("ConfigT", bound=RunConfig)
EvaluationT = TypeVar("EvaluationT", bound=RunEvaluation)
ResultT = TypeVar("ResultT")
ModelT = TypeVar("ModelT", bound=nn.Module)


def as_json(config: Any) -> dict[str, Json]:
    """A configuration as config.json holds it."""
    configuration = to_json(config)
    assert isinstance(configuration, dict)
    return configuration


def print_report(line: str) -> None:
    """What is said about the data, where nobody listens: on standard error."""
    print(line, file=sys.stderr)


def say_nothing(line: str) -> None:
    """What is said about the data, where it has been said."""


@contextlib.contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Where a model is made whose initial weights are a function of the seed; random numbers go on as before after it.

    One thread makes them: orthogonal matrices have other last bits with several.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def read_config_file(folder: Path) -> tuple[Path, dict[str, Json]]:
    """Path and content of the config.json of a run folder.

    Raises:
        InputError: there is no run in the folder, or the file cannot be read.
    """
    path = folder / "config.json"
    if not path.exists():
        expected = "a folder with config.json"
        raise InputError(
            describe(str(folder), "there is no run in this folder", expected=expected, hint=_start_again(folder))
        )
    return path, read_json_object(path)


def _start_again(folder: Path) -> str | None:
    """What to do where a run was killed before its configuration was written, as earlier versions could leave it."""
    versions = folder / VERSIONS
    command = read_json_object(versions).get("command") if versions.exists() else None
    return f"a run was stopped here before it began; start it again: {command}" if command else None


def load_weights(make: Callable[[], ModelT], folder: Path) -> ModelT:
    """Make the model of a run, and put the best weights of the run into it.

    Returns:
        the model, in evaluation mode.

    Raises:
        InputError: there are no weights yet, or they cannot be read, or belong to another model than that of the
            configuration.
    """
    path = folder / "model.safetensors"
    if not path.exists():
        hint = "weights are saved at the first validation; let the run go on with resume (--resume)"
        raise InputError(describe(str(folder), "the run has no weights yet", hint=hint))
    tensors, _ = read_safetensors(path, problem="the weights cannot be read")
    where = str(folder / "config.json")
    with sized_by(tensors, where=where, problem="no model can be built from this configuration"):
        model = make()
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    odd = sorted(name for name in {*own, *there} if own.get(name) != there.get(name))
    if odd:
        got, expected = (f"{odd[0]} {shapes.get(odd[0], 'is not there')}" for shapes in (there, own))
        hint = "a run of an earlier version is not always one of this: then train again."
        raise InputError(
            describe(str(path), "the weights belong to another model", got=got, expected=expected, hint=hint)
        )
    with damaged(path, "the weights belong to another model"):
        model.load_state_dict(tensors)
    return model.eval()


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """What has gone into a run by its last validation."""

    steps: int
    """Updates done."""
    seconds: float
    """Training and validation, all sittings."""
    processor_seconds: float | None
    """What the process computed in them, its threads together; None where it was not recorded."""

    def unfinished(self, steps: int) -> tuple[str, ...]:
        """One line where the budget of `steps` is not used up."""
        return (f"the run is not finished: {self.steps:,} of {steps:,} steps",) if self.steps < steps else ()


def spent_on(folder: Path) -> Spent:
    """What has gone into the run in a folder; nothing before its first validation."""
    path = folder / "metrics.csv"
    rows = read_metrics(path) if path.exists() else []
    if not rows:
        return Spent(0, 0.0, None)
    processor = rows[-1].get("processor_seconds")
    return Spent(int(rows[-1]["step"]), float(rows[-1]["seconds"]), float(processor) if processor else None)


def read_result(folder: Path, kind: type[EvaluationT], steps: int) -> EvaluationT | None:
    """The measurement of a run after its last step, where it was made already; `kind` is a dataclass."""
    path = folder / "result.json"
    if not path.exists():
        return None
    entries = read_json_object(path)
    if entries.keys() != {field.name for field in dataclasses.fields(kind)} or entries["steps"] != steps:
        return None  # of an unfinished run, or of another version: measured again
    return kind.from_json(entries, where=str(path))


def check_grid(cores: Sequence[str], seeds: Sequence[int], rivals: RivalSizes, fast: FastWeightSizes) -> None:
    """Refuse a grid without cores or seeds or with one of them twice, and choices that no core has."""
    for name, values in (("cores", cores), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise InputError(describe("compare", f"{name} must be given, each once", got=list(values)))
    for core in cores:
        check_choice("compare", "core", core, CORE_NAMES)
    rivals.check("compare", *cores)
    fast.check("compare", *cores)


def finish_runs(
    runs: Mapping[Path, ConfigT],
    *,
    configuration: Callable[[ConfigT], dict[str, Json]],
    prepare: Callable[[], Callable[..., object]],
    measure: Callable[[ConfigT, Path], ResultT],
    on_progress: Callable[[Progress], None] | None = None,
    on_run: Callable[[Path, ResultT], None] | None = None,
    jobs: int = 1,
    may_diverge: bool = False,
) -> dict[Path, ResultT]:
    """Train what is not finished, then measure, run by run; called again, it goes on where it was stopped.

    Args:
        runs: configurations by run folder.
        configuration: the JSON of one, as its config.json holds it.
        prepare: called once where there is a run to train, after all folders have been looked at; what it returns is
            called as `train(config, folder, resume=..., on_progress=...)`, `resume` where there is a run already. With
            several jobs that must be something that pickle takes.
        measure: the result of a finished run, or of one that has diverged.
        on_progress: handed on to what trains.
        on_run: called with each result as soon as it is there.
        jobs: how many runs are trained at the same time, in processes of their own if there are several.
        may_diverge: whether a run that diverges is measured too; otherwise it ends them all.

    Returns:
        the results, in the order of `runs`.

    Raises:
        InputError: a folder holds something else, or `on_progress` is asked for from other processes; found before
            anything is trained.
        DivergedError: the loss of a run is no longer a number.
        Terminated: stopped with SIGTERM; every run that was being trained has saved a checkpoint.
    """
    check_positive("compare", jobs=jobs)
    if jobs > 1 and on_progress is not None:
        problem = "on_progress cannot be called from the processes that several jobs run in"
        raise InputError(describe("compare", problem, got=f"jobs = {jobs}", hint="leave one of the two away"))
    resumed = {path: (path / "config.json").exists() for path in runs}
    for path, config in runs.items():  # a folder in the way is found now, not after the first hours
        RunFolder.claim(path, configuration(config), resume=resumed[path])
        sweep(path)
    unfinished = {path: config for path, config in runs.items() if spent_on(path).steps != config.loop.steps}
    train = prepare() if unfinished else None

    def one_by_one() -> Generator[tuple[Path, Exception | None], None, None]:
        for path, config in runs.items():
            error = None
            if train is not None and path in unfinished:
                try:
                    train(config, path, resume=resumed[path], on_progress=on_progress)
                except DivergedError as problem:
                    error = problem
            yield path, error

    def side_by_side() -> Generator[tuple[Path, Exception | None], None, None]:
        yield from ((path, None) for path in runs if path not in unfinished)
        if train is not None:
            yield from train_side_by_side(unfinished, train=train, resumed=resumed, jobs=jobs)

    results: dict[Path, ResultT] = {}
    with on_terminate(end_now), contextlib.closing(one_by_one() if jobs == 1 else side_by_side()) as ended:
        for path, error in ended:
            if error is not None and not (may_diverge and isinstance(error, DivergedError)):
                raise error
            results[path] = measure(runs[path], path)
            if on_run is not None:
                on_run(path, results[path])
    return {path: results[path] for path in runs}
