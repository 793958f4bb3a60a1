"""Training several runs at the same time, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from relational_rnn._check import InputError, MissingExtraError, describe
from relational_rnn._signals import interrupts_ignored
from relational_rnn.training import ConsoleProgress
from relational_rnn.training.processes import end_with_parent, process_context


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
    context = process_context("relational_rnn.recipes")
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
                with interrupts_ignored():  # by the new process: Ctrl-C is told this one, which then ends the others
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
