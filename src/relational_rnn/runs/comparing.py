"""A comparison: a run for every core and every seed, each core with the learning rate that suits it."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch

from relational_rnn._check import InputError, MissingExtraError, check_choice, check_positive, describe, is_number
from relational_rnn._files import sweep
from relational_rnn._signals import end_now, on_terminate
from relational_rnn.nn.cores import CORE_NAMES
from relational_rnn.runs.config import RunConfig, check_choices
from relational_rnn.runs.evaluation import RunEvaluation
from relational_rnn.runs.folder import evaluate, read_result, spent_on
from relational_rnn.runs.training import initial_weights, print_report, say_nothing, train
from relational_rnn.runs.workload import workload_of
from relational_rnn.training import BestBy, ConsoleProgress, DivergedError, Progress, RunFolder, read_metrics
from relational_rnn.training.processes import end, end_with_parent, process_context, start
from relational_rnn.training.run_folder import CONFIG, METRICS

ResultT = TypeVar("ResultT")
GO_ON = "was memory short? the same call goes on from its checkpoint, with fewer jobs if need be"


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningConfig:
    """Trials before a comparison, so that no core runs with the learning rate of another one.

    Raises:
        InputError: a single learning rate, a repeated one, `steps` below 1, or `steps` without learning rates.
    """

    learning_rates: tuple[float, ...] = ()
    """Learning rates that every core tries first, with the first seed; its runs take the one that does best on the
    validation set. Without any, all cores run with the optimizer's."""
    steps: int | None = None
    """Updates of such a trial; a quarter of the budget if not given. Where there are lessons, a trial should be long
    enough to reach the last one: before, the lesson and its loss are all there is to judge it by."""

    def __post_init__(self) -> None:
        where = "TuningConfig"
        rates = self.learning_rates
        if not isinstance(rates, tuple | list) or not all(is_number(rate) and 0 < rate < math.inf for rate in rates):
            raise InputError(describe(where, "learning_rates must be numbers above 0", got=repr(rates)))
        if len(set(rates)) < len(rates) or len(rates) == 1:
            problem = "learning_rates must be two or more, each once"
            hint = "one rate for all cores is the optimizer's learning_rate" if len(rates) == 1 else None
            raise InputError(describe(where, problem, got=list(rates), hint=hint))
        if self.steps is not None:
            check_positive(where, steps=self.steps)
            if not rates:
                problem = "steps would have no effect: there are no learning_rates to try"
                raise InputError(describe(where, problem, got=self.steps))

    def steps_of(self, budget: int) -> int:
        """Updates of a trial before runs of `budget` updates.

        >>> TuningConfig(learning_rates=(1e-3, 2e-3)).steps_of(9000)
        2250
        """
        return self.steps or max(1, budget // 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What a core reached with one learning rate: its best validation, or its lesson."""

    core: str
    learning_rate: float
    steps: int
    valid_accuracy: float | None = None
    """A fraction; None, as the loss, where training diverged."""
    valid_loss: float | None = None
    """In nats."""
    lesson: int | None = None
    """The lesson, from 1, that training was in when it ended; None where no lesson has to be mastered."""
    lesson_loss: float | None = None
    """The training loss in the last row of metrics.csv, in nats; None in the last lesson, where the validation, always
    of the whole task, says more."""


def best_trials(trials: Sequence[Trial], *, best_by: BestBy = "accuracy") -> dict[str, Trial]:
    """The best trial of every core; of equal ones the first.

    The latest lesson wins; in a lesson before the last, where validation is still chance, the lowest training loss
    wins.

    Args:
        trials: of any number of cores.
        best_by: "accuracy": the highest on the validation set, then the lowest loss; "loss": the other way round.

    Raises:
        InputError: all trials of a core have diverged.

    >>> low = Trial(core="gru", learning_rate=1e-3, steps=9, valid_accuracy=0.5, valid_loss=0.9)
    >>> best_trials([low, replace(low, learning_rate=2e-3, valid_loss=0.8)])["gru"].learning_rate
    0.002
    """

    def rank(trial: Trial) -> tuple[float, ...]:
        lesson, accuracy, loss = trial.lesson or 0, trial.valid_accuracy, trial.valid_loss
        if trial.lesson_loss is not None:
            return lesson, -trial.lesson_loss
        assert accuracy is not None
        assert loss is not None
        return (lesson, accuracy, -loss) if best_by == "accuracy" else (lesson, -loss, accuracy)

    best = {}
    for core in dict.fromkeys(trial.core for trial in trials):
        done = [trial for trial in trials if trial.core == core and trial.valid_loss is not None]
        if not done:
            tried = [trial.learning_rate for trial in trials if trial.core == core]
            problem = f"no learning rate works for the core {core!r}: training diverged with all of them"
            raise InputError(describe("compare", problem, got=tried, hint="try lower ones"))
        best[core] = max(done, key=rank)
    return best


def compare(
    base: RunConfig,
    cores: Sequence[str],
    seeds: Sequence[int],
    folder: Path | str,
    *,
    tuning: TuningConfig | None = None,
    jobs: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
    on_report: Callable[[str], None] | None = None,
    on_trials: Callable[[Sequence[Trial]], None] | None = None,
    on_run: Callable[[Path, Any], None] | None = None,
) -> dict[Path, Any]:
    """Train and measure a run for every core and seed; called again, it goes on where it was stopped.

    Args:
        base: the configuration of all runs but for core and seed.
        cores: names of cores.
        seeds: seeds of runs; trials have the first one.
        folder: gets a run folder `<core>-<seed>` for each run, and `trials/<core>-<learning rate>` for each trial.
        tuning: learning rates that every core tries first; None for the base's.
        jobs: how many runs are trained at the same time, each in its own process; the calling script then needs
            `if __name__ == "__main__"`.
        on_progress: see `train`; one job only.
        on_report: see `train`; called if there is a run to train.
        on_trials: called with all trials when they are done.
        on_run: called with the folder and the measurement of each run.

    Returns:
        the measurements by run folder, seeds within cores in the given order.

    Raises:
        InputError: a core or a seed is given twice or not at all; no size of a core fits; a folder holds a run of
            another configuration; training diverges with every learning rate; `jobs` below 1, or several with
            `on_progress`.
    """
    workload, folder = workload_of(base.task_name), Path(folder)
    for name, values in (("cores", cores), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise InputError(describe("compare", f"{name} must be given, each once", got=list(values)))
    for core in cores:
        check_choice("compare", "core", core, CORE_NAMES)
    check_choices("compare", base, [recipe() for recipe in workload.recipes.values()], cores)
    workload.check("compare", base, cores)
    base = workload.absolute(base)
    read = functools.cache(lambda: workload.read(base))

    @functools.cache
    def prepare() -> Callable[..., object]:
        data = read()
        # a rival that has no fitting size is found now, not after the first hours
        vocabulary = workload.vocabulary(base, data)
        with initial_weights(base.seed):
            models = [workload.make_model(base.for_core(core), vocabulary) for core in cores]
        for line in workload.report(workload.make_problem(models[0], base, data)):
            (on_report or print_report)(line)
        sent = data if jobs == 1 or workload.pickles_data else None
        return functools.partial(train, on_report=say_nothing, data=sent)

    def measure(config: RunConfig, path: Path) -> RunEvaluation:
        return read_result(path, config) or evaluate(path)

    finish = functools.partial(_finish_runs, prepare=prepare, jobs=jobs, on_progress=on_progress)
    configs = {core: base.for_core(core) for core in cores}
    if tuning is not None and tuning.learning_rates:
        measured_trial = functools.partial(_measured_trial, best_by=workload.best_by, lessons=workload.lessons(base))
        loop = replace(base.loop, steps=tuning.steps_of(base.loop.steps))
        planned = {
            folder / "trials" / f"{core}-{rate}": replace(config.with_rate(rate), loop=loop, seed=seeds[0])
            for core, config in configs.items()
            for rate in tuning.learning_rates
        }
        trials = list(finish(planned, measure=measured_trial, may_diverge=True).values())
        if on_trials is not None:
            on_trials(trials)
        for core, best in best_trials(trials, best_by=workload.best_by).items():
            configs[core] = configs[core].with_rate(best.learning_rate)
    runs = {folder / f"{core}-{seed}": replace(configs[core], seed=seed) for core in cores for seed in seeds}
    return finish(runs, measure=measure, on_run=on_run)


def _measured_trial(config: Any, path: Path, *, best_by: BestBy, lessons: int | None) -> Trial:
    """The best validation of a trial; no figures if it diverged, that is, ended before its budget."""
    steps = config.loop.steps
    trial = Trial(core=config.core, learning_rate=config.optimizer.learning_rate, steps=steps)
    if spent_on(path).steps != steps:
        return trial
    rows = read_metrics(path / METRICS)
    if lessons is not None and not all(row.get("lesson") for row in rows):
        hint = "delete the folder of the trial; it is trained again"
        raise InputError(describe(path / METRICS, "does not tell the lesson of every row", hint=hint))
    lesson = None if lessons is None else int(rows[-1]["lesson"])
    if lesson is not None and lesson == lessons:  # what stood before is chance
        rows = [row for row in rows if int(row["lesson"]) == lesson]
    validations = [
        replace(trial, valid_accuracy=float(row["valid_accuracy"]), valid_loss=float(row["valid_loss"])) for row in rows
    ]
    best = best_trials(validations, best_by=best_by)[config.core]
    return replace(best, lesson=lesson, lesson_loss=None if lesson == lessons else float(rows[-1]["train_loss"]))


def _finish_runs(
    runs: Mapping[Path, RunConfig],
    *,
    prepare: Callable[[], Callable[..., object]],
    measure: Callable[[Any, Path], ResultT],
    on_progress: Callable[[Progress], None] | None = None,
    on_run: Callable[[Path, ResultT], None] | None = None,
    jobs: int = 1,
    may_diverge: bool = False,
) -> dict[Path, ResultT]:
    """Train what is not finished and measure every run; for the callbacks and `jobs` see `compare`.

    `prepare` is called once if there is a run to train, after all folders have been looked at. What it returns trains a
    run, `train(config, folder, resume=..., on_progress=...)`; several jobs send it by pickle.
    """
    check_positive("compare", jobs=jobs)
    if jobs > 1 and on_progress is not None:
        problem = "on_progress cannot be called from the processes that several jobs run in"
        raise InputError(describe("compare", problem, got=f"jobs = {jobs}", hint="leave one of the two away"))
    resumed = {path: (path / CONFIG).exists() for path in runs}
    for path, config in runs.items():  # a folder in the way is found now, not after the first hours
        RunFolder.claim(path, config.to_json(), resume=resumed[path])
        sweep(path)
    unfinished = {path: config for path, config in runs.items() if spent_on(path).steps != config.loop.steps}
    train = prepare() if unfinished else None

    def ended() -> Generator[tuple[Path, Exception | None], None, None]:
        yield from ((path, None) for path in runs if path not in unfinished)
        if train is not None and jobs > 1:
            yield from train_side_by_side(unfinished, train=train, resumed=resumed, jobs=jobs)
        elif train is not None:
            for path, config in unfinished.items():
                error = None
                try:
                    train(config, path, resume=resumed[path], on_progress=on_progress)
                except DivergedError as problem:
                    error = problem
                yield path, error

    results: dict[Path, ResultT] = {}
    with on_terminate(end_now), contextlib.closing(ended()) as trained:
        for path, error in trained:
            if error is not None and not (may_diverge and isinstance(error, DivergedError)):
                raise error
            results[path] = measure(runs[path], path)
            if on_run is not None:
                on_run(path, results[path])
    return {path: results[path] for path in runs}


def train_side_by_side(
    runs: Mapping[Path, Any], *, train: Callable[..., object], resumed: Mapping[Path, bool], jobs: int
) -> Generator[tuple[Path, Exception | None], None, None]:
    """Train every run, `jobs` at a time; yields each run folder with None, or with the error that ended its training.

    A run that leaves the number of threads open gets its share of this process's. However this process ends, the others
    do too; after Ctrl-C and SIGTERM they save checkpoints first. A process that was killed is an `InputError`, one that
    failed with a traceback a `RuntimeError`.
    """
    context = process_context("relational_rnn.runs")
    waiting = list(runs.items())
    running: dict[Connection, tuple[Path, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                path, config = waiting.pop(0)
                threads = max(1, torch.get_num_threads() // jobs)
                try:
                    given = threads, train, config, path, resumed[path]
                    receiver, process = start(context, _train_here, *given, name=path.name)
                except (EOFError, ConnectionError) as error:  # from the process that this one would be a fork of
                    problem = "the process that trainings are started from was killed"
                    raise InputError(describe(path, problem, hint=GO_ON)) from error
                running[receiver] = path, process
            for receiver in wait(list(running)):
                assert isinstance(receiver, Connection)
                path, process = running.pop(receiver)
                try:
                    error = receiver.recv()
                except EOFError:
                    process.join()
                    if process.exitcode == 1:  # an error of ours: its traceback has been printed
                        raise RuntimeError(f"{path}: the process that trained this run has failed") from None
                    problem = f"the process that trained this run has ended with code {process.exitcode}"
                    raise InputError(describe(path, problem, hint=GO_ON)) from None
                process.join()
                yield path, error
    finally:
        end([process for _, process in running.values()])


def _train_here(
    sender: Connection, threads: int, train: Callable[..., object], config: Any, path: Path, resume: bool
) -> None:
    """What the process of a run does; it sends an error that one sentence tells, and any other ends it with a
    traceback."""
    end_with_parent()  # a checkpoint is a minute old at most
    torch.set_num_threads(threads)
    error = None
    try:
        # several bars on one terminal would overwrite each other: not entered, it prints lines
        train(config, path, resume=resume, on_progress=ConsoleProgress(path.name))
    except (InputError, MissingExtraError, OSError) as problem:
        error = problem
    sender.send(error)
