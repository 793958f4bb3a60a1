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
from relational_rnn._signals import end_now, interrupts_ignored, on_terminate
from relational_rnn.runs.config import RunConfig
from relational_rnn.runs.folder import spent_on
from relational_rnn.training import ConsoleProgress, DivergedError, Progress, RunFolder
from relational_rnn.training.processes import end_with_parent, process_context

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
    """Train what is not finished, then measure, run by run; called again, it goes on where it was stopped.

    Args:
        runs: configurations by run folder.
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
    """Train every run, `jobs` at a time.

    Processes import the script that calls this, so that what it does must stand under `if __name__ == "__main__"`. A
    run whose configuration leaves the number of threads open gets its
    share of those that this process would use. Where this process ends, however it ends, the others do; where it is
    asked to (Ctrl-C, SIGTERM), they save checkpoints first.

    Args:
        runs: configurations by run folder.
        train: called as `train(config, folder, resume=..., on_progress=...)`; it is sent to the processes by pickle.
        resumed: whether there is a run to resume, by run folder.
        jobs: how many at a time.

    Yields:
        each run folder when its training has ended, with None, or with the error that ended it.

    Raises:
        InputError: a process was killed.
        RuntimeError: a process ended with an error that is not told in a sentence, but by its traceback.
    """
    context = process_context("relational_rnn.runs")
    waiting = list(runs.items())
    running: dict[Connection, tuple[Path, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                path, config = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                threads = max(1, torch.get_num_threads() // jobs)
                arguments = (sender, threads, train, config, path, resumed[path])
                process = context.Process(target=_train_here, args=arguments, name=path.name, daemon=True)
                try:
                    with interrupts_ignored():  # Ctrl-C is told this process, which then ends the others
                        process.start()
                except (EOFError, ConnectionError) as error:  # of a process that is begun as a fork of another
                    problem = "the process that trainings are started from was killed"
                    raise InputError(describe(str(path), problem, hint=GO_ON)) from error
                sender.close()
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
                    raise InputError(describe(str(path), problem, hint=GO_ON)) from None
                process.join()
                yield path, error
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _train_here(
    sender: Connection, threads: int, train: Callable[..., object], config: Any, path: Path, resume: bool
) -> None:
    """What the process of a run does; errors that are told in a sentence go back, others end it with a traceback."""
    end_with_parent()  # a checkpoint is a minute old at most
    torch.set_num_threads(threads)
    error = None
    try:
        # several bars on one terminal would overwrite each other: not entered, it prints lines
        train(config, path, resume=resume, on_progress=ConsoleProgress(path.name))
    except (InputError, MissingExtraError, OSError) as problem:
        error = problem
    sender.send(error)
