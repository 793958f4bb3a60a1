"""A whole benchmark: every case checked, timed by turns and measured for its peak memory, with a file to go on from."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from relational_rnn._check import InputError, check_choice, check_counts, check_positive, describe
from relational_rnn.benchmarks.checking import check
from relational_rnn.benchmarks.contenders import (
    LAYER,
    STEPS_PER_TURN,
    Contender,
    Setting,
    build,
    chosen_backend,
    interpreted,
    names,
)
from relational_rnn.benchmarks.l0sg import load_port, port_commit
from relational_rnn.benchmarks.peak import peak_memory
from relational_rnn.benchmarks.record import MATMUL, QUICK_MATMUL, Measured, Record, open_record
from relational_rnn.benchmarks.shapes import (
    SHAPE_NAMES,
    SWEEP_NAMES,
    Case,
    ShapeName,
    SweepName,
    cases,
    memory_flop,
)
from relational_rnn.benchmarks.timing import Rounds, matmul_rate, take_turns, wait_for
from relational_rnn.benchmarks.whole_training import recipe_run, time_training
from relational_rnn.ops.relational_scan import BACKENDS
from relational_rnn.tasks.babi.problem import training_stories
from relational_rnn.tasks.babi.recipes import RECIPES
from relational_rnn.training.run_folder import command_line, describe_machine, describe_software

LEAST, WINDOW, SAVE_EVERY = 3, 10.0, 5.0
"""Rounds of every case at least; seconds after which it has been timed often enough; seconds between two savings."""
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Variables that say how long a thread of OpenMP that waits for work keeps its core."""
DTYPES = ("float32", "float64", "bfloat16")


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """Everything that decides a benchmark."""

    shapes: tuple[ShapeName, ...] = SHAPE_NAMES
    """Named shapes to measure."""
    sweeps: tuple[SweepName, ...] = SWEEP_NAMES
    """Sweeps over one size."""
    threads: int | None = None
    """CPU threads; None leaves PyTorch's choice."""
    device: str = "cpu"
    """"cpu" or "cuda"."""
    dtype: str = "float32"
    """One of `DTYPES`."""
    budget_seconds: float = 600.0
    """About how long all of it may take; where that is too little for three runs of everything, it takes longer."""
    runs: int | None = None
    """How often everything is timed; None lets the budget decide."""
    quick: bool = False
    """Tiny sizes, to see that everything works; the figures mean nothing."""
    l0sg: Path | None = None
    """A checkout of the L0SG port to time too; its code is run."""
    recipe: str | None = None
    """A recipe to train with every backend."""
    recipe_steps: int = 300
    """Updates of such a run."""
    data: Path | None = None
    """Published stories for it; generated ones without."""
    partial: bool = False
    """Read a set of stories from which files are missing."""

    def __post_init__(self) -> None:
        where = "benchmark"
        for name, given, known in (("shapes", self.shapes, SHAPE_NAMES), ("sweeps", self.sweeps, SWEEP_NAMES)):
            for value in given:
                check_choice(where, name, value, known)
            if len(set(given)) < len(given):
                raise InputError(describe(where, f"{name} must be given once each", got=" ".join(given)))
        if not self.shapes and not self.sweeps and self.recipe is None:
            raise InputError(describe(where, "there is nothing to measure", got="no shape, no sweep and no recipe"))
        if self.recipe is None and (self.data is not None or self.partial or self.recipe_steps != 300):
            raise InputError(describe(where, "data, partial and recipe_steps are those of a recipe, and none is given"))
        if self.recipe is not None:
            check_choice(where, "recipe", self.recipe, tuple(RECIPES))
            check_positive(where, recipe_steps=self.recipe_steps)
            if self.recipe_steps < 3:
                raise InputError(describe(where, "a recipe needs 3 steps to be timed", got=self.recipe_steps))
            if (self.device, self.dtype) != ("cpu", "float32"):
                problem, got = "a recipe is timed on the CPU in float32", f"{self.device}, {self.dtype}"
                raise InputError(describe(where, problem, got=got, hint="leave the recipe or the others away"))
            if self.partial and self.data is None:
                raise InputError(describe(where, "partial would have no effect", got="no data are given"))
        check_choice(where, "device", self.device, ("cpu", "cuda"))
        check_choice(where, "dtype", self.dtype, DTYPES)
        if self.threads is not None:
            check_counts(where, threads=self.threads)
        if self.runs is not None:
            check_positive(where, runs=self.runs)
        if not 0 < self.budget_seconds < float("inf"):
            got = self.budget_seconds
            raise InputError(describe(where, "budget_seconds must be a number of seconds above 0", got=got))
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError(describe(where, "there is no CUDA device here", got="device 'cuda'", expected="'cpu'"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Where a benchmark stands."""

    done: int
    """Cases finished."""
    cases: int
    """Cases in all."""
    what: str
    """What is being done."""
    seconds_left: float
    """By what the sizes let one expect, at the speed so far."""


def run(benchmark: Benchmark, folder: Path, *, on_stage: Callable[[Stage], None] = lambda stage: None) -> Path:
    """Measure everything and write the results into a folder; a stopped benchmark of the same settings goes on.

    Returns:
        the path of the results.

    Raises:
        InputError: something that was asked for cannot be done, or the folder holds results of other settings.
        CheckFailed: a backend is wrong at a shape; it is not timed, and no results are written.
        KeyboardInterrupt: stopped with Ctrl-C; what was measured is kept.
    """
    threads = torch.get_num_threads()
    if benchmark.threads is not None:
        torch.set_num_threads(benchmark.threads)
    try:
        return _run(benchmark, folder, on_stage)
    finally:
        torch.set_num_threads(threads)


def _run(benchmark: Benchmark, folder: Path, on_stage: Callable[[Stage], None]) -> Path:
    if benchmark.l0sg is not None:
        load_port(benchmark.l0sg)  # refused now, not after minutes
    setting = Setting(
        device=benchmark.device, dtype=benchmark.dtype, threads=torch.get_num_threads(), l0sg=benchmark.l0sg
    )
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    record, finished = open_record(folder, describe_all(benchmark, setting), today)
    if finished:
        return record.path
    plan = cases(benchmark.shapes, benchmark.sweeps, quick=benchmark.quick)
    clock = Progress(plan, record, benchmark.budget_seconds, on_stage)
    for case in plan:
        measured = record.cases.setdefault(case.key, Measured())
        if not measured.done:
            measure(case, measured, setting, clock, benchmark)
            measured.done = True
            clock.save()
    if benchmark.recipe is not None:
        time_recipe(benchmark, record, clock)
    return record.finish(plan, {"command": command_line()})


def measure(case: Case, measured: Measured, setting: Setting, progress: Progress, benchmark: Benchmark) -> None:
    """Fill in what is not known about a case yet."""
    runs, start = benchmark.runs, progress.seconds
    progress.tell(f"{case.key}: checking against the definition")
    found, measured.refused = names(case, setting)
    measured.chosen = chosen_backend(case, setting)
    contenders = {name: build(case, setting, name) for name in found}
    measured.facts = {name: facts(contender, setting) for name, contender in contenders.items()}
    check(case, contenders, setting)
    progress.tell(f"{case.key}: timing")
    size = QUICK_MATMUL if benchmark.quick else MATMUL
    measured.matmul_gflops = matmul_rate(size, device=setting.torch_device, dtype=setting.torch_dtype)
    take_turns(
        {name: contender.turn for name, contender in contenders.items()},
        measured.samples,
        progress.rounds() if runs is None else Rounds(seconds=0.0, least=runs, most=runs),
        parts=STEPS_PER_TURN if case.run == "step" else 1,
        wait=wait_for(setting.torch_device),
        on_round=progress.save_now_and_then,
    )
    del contenders
    for name in found:
        if name not in measured.peaks:
            progress.tell(f"{case.key}: peak memory of {name}")
            measured.peaks[name] = list(peak_memory(case, setting, name))
            progress.save_now_and_then()
    measured.seconds += progress.seconds - start


def time_recipe(benchmark: Benchmark, record: Record, progress: Progress) -> None:
    """Train with every backend that can, one after the other; what an earlier sitting finished is not repeated."""
    assert benchmark.recipe is not None
    config = recipe_run(
        benchmark.recipe,
        steps=benchmark.recipe_steps,
        data=benchmark.data,
        partial=benchmark.partial,
        quick=benchmark.quick,
        threads=torch.get_num_threads(),
    )
    progress.tell(f"recipe {benchmark.recipe}: reading stories")
    stories = training_stories(config.data)
    for backend in BACKENDS:
        if backend in ("auto", *record.training) or interpreted(backend, benchmark.device):
            continue
        progress.tell(f"recipe {benchmark.recipe}: {benchmark.recipe_steps} steps by {backend}")
        try:
            figures = time_training(config, backend, stories)
        except InputError as error:
            figures = {"contender": f"{LAYER}{backend}", "cannot_run": str(error).splitlines()[0]}
        record.training[backend] = {"recipe": benchmark.recipe, **figures}
        progress.save()


def facts(contender: Contender, setting: Setting) -> dict[str, float]:
    """What is known of a contender without running it."""
    state_bytes = contender.state_size * torch.empty(0, dtype=setting.torch_dtype).element_size()
    return {"parameters": contender.parameters, "state_bytes": state_bytes, "flop": contender.flop}


def describe_all(benchmark: Benchmark, setting: Setting) -> dict[str, Any]:
    """Settings, machine, versions and commit."""
    software = describe_software()
    return {
        "machine": describe_machine(benchmark.device)["machine"],
        "system": platform.platform(terse=True),
        "device": benchmark.device,
        "threads": setting.threads,
        "dtype": benchmark.dtype,
        "versions": {name: software[name] for name in ("relational_rnn", "torch", "numpy", "python")},
        "commit": software["commit"],
        "shapes": list(benchmark.shapes),
        "sweeps": list(benchmark.sweeps),
        "runs": benchmark.runs,
        "budget_seconds": benchmark.budget_seconds if benchmark.runs is None else None,
        "quick": benchmark.quick,
        "waiting": " ".join(f"{name}={os.environ[name]}" for name in WAITING if name in os.environ),
        "steps_per_turn": STEPS_PER_TURN if "d" in benchmark.shapes else None,
        "recipe": benchmark.recipe,
        "recipe_steps": benchmark.recipe_steps if benchmark.recipe else None,
        "data": None if benchmark.data is None else str(benchmark.data),
        "partial": benchmark.partial,
        "l0sg": None if benchmark.l0sg is None else port_commit(benchmark.l0sg) or "a checkout of unknown commit",
    }


class Progress:
    """Keeps the time: saves now and then, tells how long it may take, and shares the budget out.

    Args:
        plan: all cases in order.
        record: what is saved.
        budget: seconds for all of it.
        on_stage: called at every stage.
        clock: what the time is.
    """

    def __init__(
        self,
        plan: list[Case],
        record: Record,
        budget: float,
        on_stage: Callable[[Stage], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._record = record
        self._budget = budget
        self._on_stage = on_stage
        self._clock = clock
        self._before = record.seconds
        self._started = self._saved = clock()

    def _left(self) -> list[Case]:
        return [case for case in self._plan if not (found := self._record.cases.get(case.key)) or not found.done]

    @property
    def seconds(self) -> float:
        """Spent so far, all sittings."""
        return self._before + self._clock() - self._started

    def save(self) -> None:
        self._record.seconds = self.seconds
        self._record.save()
        self._saved = self._clock()

    def save_now_and_then(self) -> None:
        if self._clock() - self._saved >= SAVE_EVERY:
            self.save()

    def tell(self, what: str) -> None:
        left = self._left()
        stage = Stage(
            done=len(self._plan) - len(left),
            cases=len(self._plan),
            what=what,
            seconds_left=self._expected(left),
        )
        self._on_stage(stage)

    def rounds(self) -> Rounds:
        """A fair share of what the budget leaves beside the least that all cases need."""
        left = self._left()
        spare = self._budget - self.seconds - self._expected(left)
        return Rounds(seconds=min(WINDOW, max(0.0, spare / len(left))), least=LEAST, most=200)

    def _expected(self, left: list[Case]) -> float:
        """Seconds that the cases need at least, at the speed of those that are done."""
        done = [case for case in self._plan if case not in left]
        spent = sum(_least_seconds(self._record.cases[case.key]) for case in done)
        guessed = sum(map(_guess, done))
        return sum(map(_guess, left)) * (spent / guessed if guessed else 1.0)


def _guess(case: Case) -> float:
    """Seconds that a case takes on two cores, from its arithmetic and its calls; made fit by `Progress`."""
    train = case.run == "train"
    once = memory_flop(case.shape) * (3 if train else 1) / 5e10 + case.shape.steps * (1e-3 if train else 3e-4)
    return 2.0 + 20 * once


def _least_seconds(measured: Measured) -> float:
    """What a measured case took, without the rounds that only the budget allowed."""
    rounds = max(map(len, measured.samples.values()), default=0)
    spare = max(0, rounds - LEAST) / max(1, rounds)
    return measured.seconds - spare * sum(map(sum, measured.samples.values()))
