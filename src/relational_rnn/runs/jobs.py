"""Training many runs: what is finished is kept, and several may run at the same time, each in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch

from relational_rnn._check import InputError, MissingExtraError, check_positive, describe
from relational_rnn._files import sweep
from relational_rnn._signals import end_now, on_terminate
from relational_rnn.runs.config import RunConfig
from relational_rnn.runs.folder import spent_on
from relational_rnn.training import ConsoleProgress, DivergedError, Progress, RunFolder
from relational_rnn.training.processes import end, end_with_parent, process_context, start
from relational_rnn.training.run_folder import CONFIG

ResultT = TypeVar("ResultT")
GO_ON = "was memory short? the same call goes on from its checkpoint, with fewer jobs if need be"


def finish_runs(
    runs: Mapping[Path, RunConfig],
    *,
    prepare: Callable[[], Callable[..., object]],
    measure: Callable[[Any, Path], ResultT],
    on_progress: Callable[[Progress], None] | None = None,
    on_run: Callable[[Path, ResultT], None] | None = None,
    jobs: int = 1,
    may_diverge: bool = False,
) -> dict[Path, ResultT]:
    """Train what is not finished, and measure, run by run; called again, it goes on where it was stopped.

    Args:
        runs: configurations by run folder.
        prepare: called once if there is a run to train, after all folders have been looked at; returns what trains a
            run: `train(config, folder, resume=..., on_progress=...)`. Several jobs send it by pickle.
        measure: gives the result of a run that is finished or has diverged.
        on_progress: see `compare`, as for `on_run` and `jobs`.
        may_diverge: whether a run that diverges is measured too; otherwise it ends them all.
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
