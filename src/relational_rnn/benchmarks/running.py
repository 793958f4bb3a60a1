"""A whole benchmark: every case is checked, timed by turns and measured for its peak memory; a stopped one goes on."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from relational_rnn._check import InputError
from relational_rnn.benchmarks.contenders import (
    LAYER,
    STEPS_PER_TURN,
    build,
    chosen_backend,
    interpreted,
    names,
)
from relational_rnn.benchmarks.l0sg import load_port, port_commit
from relational_rnn.benchmarks.measuring import Rounds, check, matmul_rate, peak_memory, take_turns, wait_for
from relational_rnn.benchmarks.record import MATMUL, QUICK_MATMUL, Measured, Record, open_record
from relational_rnn.benchmarks.shapes import (
    Benchmark,
    Case,
    Shape,
    cases,
    fast_flop,
    memory_flop,
)
from relational_rnn.benchmarks.whole_training import recipe_run, time_training
from relational_rnn.ops.relational_scan import BACKENDS
from relational_rnn.tasks.babi.problem import training_stories
from relational_rnn.training.run_folder import command_line, describe_machine, describe_software

LEAST, WINDOW, SAVE_EVERY = 3, 10.0, 5.0
"""The least rounds of a case, the most seconds that it is timed for beyond them, and the seconds between savings."""
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Variables that say how long an idle thread of OpenMP keeps its core."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Where a benchmark stands: finished cases, all cases, what is being done, and an estimate of the time left."""

    done: int
    cases: int
    what: str
    seconds_left: float


def run(benchmark: Benchmark, folder: Path, *, on_stage: Callable[[Stage], None] = lambda stage: None) -> Path:
    """Measure everything, and return the path of the results in a folder; a stopped benchmark goes on.

    Raises:
        InputError: something cannot be measured, or the folder holds results of other settings.
        CheckFailed: a backend is wrong at a shape; nothing is timed there, and no results are written.
        KeyboardInterrupt: stopped with Ctrl-C; what was measured is kept.
    """
    if benchmark.l0sg is not None:
        load_port(benchmark.l0sg)  # refused now, not after minutes
    threads = torch.get_num_threads()
    torch.set_num_threads(benchmark.threads or threads)
    try:
        benchmark = replace(benchmark, threads=torch.get_num_threads())
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        record, finished = open_record(folder, describe_all(benchmark), today)
        if finished:
            return record.path
        plan = cases(benchmark.shapes, benchmark.sweeps, quick=benchmark.quick)
        progress = Progress(plan, record, benchmark.budget_seconds, on_stage)
        for case in plan:
            measured = record.cases.setdefault(case.key, Measured())
            if not measured.done:
                measure(case, measured, benchmark, progress)
                measured.done = True
                progress.save()
        if benchmark.recipe is not None:
            time_recipe(benchmark, record, progress)
        return record.finish(plan, {"command": command_line()})
    finally:
        torch.set_num_threads(threads)


def measure(case: Case, measured: Measured, benchmark: Benchmark, progress: Progress) -> None:
    """Fill in what is not known about a case yet."""
    start = progress.seconds
    progress.tell(f"{case.key}: checking against the definition")
    found, measured.refused = names(case, benchmark)
    measured.chosen = chosen_backend(case, benchmark)
    contenders = {name: build(case, benchmark, name) for name in found}
    size = torch.empty(0, dtype=benchmark.torch_dtype).element_size()
    measured.facts = {
        name: {"parameters": c.parameters, "state_bytes": size * c.state_size, "flop": c.flop}
        for name, c in contenders.items()
    }
    check(case, contenders, benchmark)
    progress.tell(f"{case.key}: timing")
    matmul = QUICK_MATMUL if benchmark.quick else MATMUL
    measured.matmul_gflops = matmul_rate(matmul, device=benchmark.device, dtype=benchmark.torch_dtype)
    runs = benchmark.runs
    take_turns(
        {name: contender.turn for name, contender in contenders.items()},
        measured.samples,
        progress.rounds() if runs is None else Rounds(seconds=0.0, least=runs, most=runs),
        parts=STEPS_PER_TURN if case.run == "step" else 1,
        wait=wait_for(benchmark.device),
        on_round=progress.save_now_and_then,
    )
    del contenders
    for name in found:
        if name not in measured.peaks:
            progress.tell(f"{case.key}: peak memory of {name}")
            measured.peaks[name] = list(peak_memory(case, benchmark, name))
            progress.save_now_and_then()
    measured.seconds += progress.seconds - start


def time_recipe(benchmark: Benchmark, record: Record, progress: Progress) -> None:
    """Train with every backend that can and has not been timed in an earlier sitting, one after the other."""
    recipe, config = benchmark.recipe, recipe_run(benchmark)
    progress.tell(f"recipe {recipe}: reading stories")
    stories = training_stories(config.data)
    for backend in BACKENDS:
        if backend in ("auto", *record.training) or interpreted(backend, benchmark.device):
            continue
        progress.tell(f"recipe {recipe}: {benchmark.recipe_steps} steps by {backend}")
        try:
            figures = time_training(config, backend, stories)
        except InputError as error:
            figures = {"contender": f"{LAYER}{backend}", "cannot_run": str(error).splitlines()[0]}
        record.training[backend] = {"recipe": recipe, **figures}
        progress.save()


def describe_all(benchmark: Benchmark) -> dict[str, Any]:
    """Settings, machine, versions and commit, as JSON."""
    software = describe_software()
    return {
        **asdict(benchmark),
        "machine": describe_machine(benchmark.device)["machine"],
        "system": platform.platform(terse=True),
        "versions": {name: software[name] for name in ("relational_rnn", "torch", "numpy", "python")},
        "commit": software["commit"],
        "shapes": list(benchmark.shapes),
        "sweeps": list(benchmark.sweeps),
        "budget_seconds": benchmark.budget_seconds if benchmark.runs is None else None,
        "waiting": " ".join(f"{name}={os.environ[name]}" for name in WAITING if name in os.environ),
        "steps_per_turn": STEPS_PER_TURN if "d" in benchmark.shapes else None,
        "recipe_steps": benchmark.recipe_steps if benchmark.recipe else None,
        "data": None if benchmark.data is None else str(benchmark.data),
        "l0sg": None if benchmark.l0sg is None else port_commit(benchmark.l0sg) or "a checkout of unknown commit",
    }


@dataclass
class Progress:
    """Saves the record now and then, tells how long the planned cases may take, and shares out a budget of seconds."""

    plan: list[Case]
    record: Record
    budget: float
    on_stage: Callable[[Stage], None]
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.saved = self.clock()
        self.zero = self.saved - self.record.seconds

    def _left(self) -> list[Case]:
        return [case for case in self.plan if not (found := self.record.cases.get(case.key)) or not found.done]

    @property
    def seconds(self) -> float:
        """Spent so far, all sittings."""
        return self.clock() - self.zero

    def save(self) -> None:
        self.record.seconds = self.seconds
        self.record.save()
        self.saved = self.clock()

    def save_now_and_then(self) -> None:
        if self.clock() - self.saved >= SAVE_EVERY:
            self.save()

    def tell(self, what: str) -> None:
        left, cases = self._left(), len(self.plan)
        self.on_stage(Stage(done=cases - len(left), cases=cases, what=what, seconds_left=self._expected(left)))

    def rounds(self) -> Rounds:
        """A fair share of what the budget leaves when all cases have had their least rounds."""
        left = self._left()
        spare = self.budget - self.seconds - self._expected(left)
        return Rounds(seconds=min(WINDOW, max(0.0, spare / len(left))), least=LEAST, most=200)

    def _expected(self, left: list[Case]) -> float:
        """Seconds of the least rounds of these cases, at the speed of those that are done."""
        done = [case for case in self.plan if case not in left]
        spent = 0.0
        for measured in (self.record.cases[case.key] for case in done):
            rounds = max(map(len, measured.samples.values()), default=0)
            spare = max(0, rounds - LEAST) / max(1, rounds)  # that only the budget allowed
            spent += measured.seconds - spare * sum(map(sum, measured.samples.values()))
        guessed = sum(map(_guess, done))
        return sum(map(_guess, left)) * (spent / guessed if guessed else 1.0)


def _guess(case: Case) -> float:
    """Seconds that a case takes on two cores, from its arithmetic and its calls."""
    train = case.run == "train"
    flop = memory_flop(case.shape) if isinstance(case.shape, Shape) else fast_flop(case.shape)
    once = flop * (3 if train else 1) / 5e10 + case.shape.steps * (1e-3 if train else 3e-4)
    return 2.0 + 20 * once
