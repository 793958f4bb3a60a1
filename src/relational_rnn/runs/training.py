"""Training a run into its folder."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from relational_rnn.runs.config import RunConfig, check_choices
from relational_rnn.runs.workload import workload_of
from relational_rnn.training import Outcome, Problem, Progress, RunFolder, fit


def train(
    config: RunConfig,
    folder: Path | str,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_report: Callable[[str], None] | None = None,
    data: Any = None,
) -> Outcome:
    """Train a run into a folder.

    Args:
        config: everything that decides the run.
        folder: the run folder; `training.run_folder` lists what it will hold.
        resume: continue a run that was stopped, from its last checkpoint.
        on_progress: called now and then; None shows the progress on standard error.
        on_report: called with each note on the data; None prints it on standard error.
        data: what the workload's `read(config)` gave, if it has been read already.

    Raises:
        InputError: an argument cannot be used, or the disk is full; see `training.fit`.
        KeyboardInterrupt: stopped with Ctrl-C; the message says how to continue.

    >>> from relational_rnn.tasks.nth_farthest import nth_farthest_small
    >>> config = nth_farthest_small()
    >>> config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, steps=100))
    >>> outcome = train(config, "runs/first")  # doctest: +SKIP
    """
    workload, folder = workload_of(config.task_name), Path(folder)
    config = workload.absolute(config)
    check_choices("train", config, [recipe() for recipe in workload.recipes.values()], [config.core])
    workload.check("train", config, [config.core])
    config = dataclasses.replace(config, fast=config.fast.of(config.core))  # a recipe has sizes whatever the core
    place = RunFolder.claim(folder, config.to_json(), resume=resume)  # refused before minutes are spent on reading
    problem = build(config, workload.read(config) if data is None else data)
    files = workload.files(problem)
    if place.resumed:
        workload.check_resumed(folder, files)
    for line in workload.report(problem):
        (on_report or print_report)(line)
    return fit(
        problem,
        folder,
        optimizer=config.optimizer,
        loop=config.loop,
        seed=config.seed,
        configuration=config.to_json(),
        resume=resume,
        on_progress=on_progress,
        files=files,
        best_by=workload.best_by,
        **workload.fit_options(config),
    )


def build(config: RunConfig, data: Any = None) -> Problem[Any]:
    """The model of a configuration with its initial weights, and its batches; for `data` see `train`.

    >>> from relational_rnn.tasks.nth_farthest import nth_farthest_small
    >>> problem = build(nth_farthest_small())
    >>> problem.measure(problem.train_batch(0)).losses.shape
    torch.Size([128])
    """
    workload = workload_of(config.task_name)
    workload.check("build", config, [config.core])
    data = workload.read(config) if data is None else data
    vocabulary = workload.vocabulary(config, data)
    with initial_weights(config.seed):
        model = workload.make_model(config, vocabulary)
    return workload.make_problem(model, config, data)


@contextlib.contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Draw the initial weights of a model within from the seed; other random numbers go on as before.

    One thread makes them: with several, orthogonal matrices have other last bits.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def print_report(line: str) -> None:
    """Print a note on the data on standard error."""
    print(line, file=sys.stderr)


def say_nothing(line: str) -> None:
    """Drop a note on the data that has been printed already."""
