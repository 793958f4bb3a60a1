"""Training several runs at the same time, each in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from relational_rnn._check import InputError, MissingExtraError, describe
from relational_rnn.training import ConsoleProgress


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
    context = process_context()
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
                with _interrupts_ignored():  # by the new process: Ctrl-C is told this one, which then ends the others
                    process.start()
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
                    hint = "was memory short? the same call goes on from its checkpoint, with fewer jobs if need be"
                    raise InputError(describe(str(path), problem, hint=hint)) from None
                process.join()
                yield path, error
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def process_context() -> SpawnContext | ForkServerContext:
    """How processes are made: on Linux as forks of one that has imported, once for all, what training needs."""
    if sys.platform != "linux":  # elsewhere libraries of the system may not survive a fork
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["relational_rnn.recipes", "lightning_fabric", "torch.utils.tensorboard"])
    return context


def _train_here(
    sender: Connection, threads: int, train: Callable[..., object], config: Any, path: Path, resume: bool
) -> None:
    """What the process of a run does; errors that are told in a sentence go back, others end it with a traceback."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    error = None
    try:
        # several bars on one terminal would overwrite each other: not entered, it prints lines
        train(config, path, resume=resume, on_progress=ConsoleProgress(path.name))
    except (InputError, MissingExtraError, OSError) as problem:
        error = problem
    sender.send(error)


def _end_with_parent() -> None:
    """End this process as soon as the one that started it is gone; its checkpoint is a minute old at most."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there can it be changed
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
