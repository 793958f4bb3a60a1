"""relational-rnn benchmark"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from relational_rnn._check import InputError, describe
from relational_rnn.benchmarks import (
    RECIPES,
    SHAPE_NAMES,
    SWEEP_NAMES,
    Benchmark,
    CheckFailed,
    ShapeName,
    Stage,
    SweepName,
)
from relational_rnn.benchmarks import run as run_benchmark
from relational_rnn.benchmarks.against import compare
from relational_rnn.console.boundary import stopped_with
from relational_rnn.pages import Table
from relational_rnn.reports import read_benchmark, write_benchmark_page
from relational_rnn.training.progress import clock

COMMAND = "benchmark"
EXAMPLES = (
    "relational-rnn benchmark",
    "relational-rnn benchmark --quick --out /tmp/quick",
    "relational-rnn benchmark --shapes c e --sweeps T --threads 1 --runs 5 --out runs/benchmark",
    "relational-rnn benchmark --shapes --sweeps --recipe babi --data data/tasks_1-20_v1-2.tar.gz --out runs/training",
    "relational-rnn benchmark --base main --shapes c e",
    "relational-rnn benchmark --page runs/benchmark/2026-01-31_my-machine.json",
)
LINE_EVERY = 10.0
Recipe = Literal[tuple(RECIPES)]  # type: ignore[valid-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Measure on this machine what the relational memory costs, beside PyTorch's LSTM and Transformer.

    Every backend of the layer is first compared with the definition at the shape at hand, in the same process; where
    one is wrong nothing is timed and the exit code is 1. Contenders take turns. The folder gets <date>_<machine>.json,
    a page and figures. Stopped with Ctrl-C and called again with the same options, it goes on where it was.
    """

    shapes: tuple[ShapeName, ...] = SHAPE_NAMES
    """Named shapes: a, many short sequences; b, one wide slot; c, small; d, one step of c; e, eight slots; f, one
    sequence of 100,000 steps, inference alone; g, fast weights; h, one step of g. None where no name follows."""
    sweeps: tuple[SweepName, ...] = SWEEP_NAMES
    """Sweeps: over the length T, the slots, the batch, and memory against T when activations are recomputed. None where
    no name follows."""
    threads: int | None = None
    """CPU threads; by default PyTorch's choice."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute."""
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Number format of weights and inputs."""
    budget_seconds: float | None = None
    """About how long it may take (600 by default); three runs of everything are made whatever it says."""
    runs: int | None = None
    """Time everything exactly so often, instead of a budget."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Tiny sizes and three runs, to see that everything works; the figures mean nothing."""
    compiled: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also time the plain loop under torch.compile (inductor), at the named shapes; compiling takes minutes."""
    l0sg: Annotated[Path | None, tyro.conf.arg(metavar="CHECKOUT")] = None
    """Also time the port in this checkout of github.com/L0SG/relational-rnn-pytorch. This runs the code that lies
    there."""
    recipe: Recipe | None = None  # type: ignore[valid-type]
    """Also train this recipe with every backend, and report whole steps per second and the core's share of a step."""
    recipe_steps: int = 300
    """Updates of these runs; a validation follows the last."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Published stories for the recipe, a folder or an archive; without it, stories are generated."""
    partial: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Read a set of stories from which files are missing."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = Path("benchmarks/results")
    """Folder for results, page and figures."""
    base: Annotated[str | None, tyro.conf.arg(metavar="REV")] = None
    """Time nothing but the memories at the named shapes, here and at this commit of the checkout in turn, and say how
    many times as fast this one is. It goes with --shapes, --threads, --budget-seconds, --runs, --quick and --out."""
    page: Annotated[Path | None, tyro.conf.arg(metavar="JSON")] = None
    """Measure nothing; make page and figures from this file of results again."""


def run(arguments: Arguments) -> None:
    if arguments.page is not None:
        if arguments != Arguments(page=arguments.page):
            problem = "--page measures nothing, so other options have no place beside it"
            raise InputError(describe(COMMAND, problem, got=f"--page {arguments.page} and others"))
        show(arguments.page)
        return
    if arguments.base is not None:
        compare_with(arguments.base, arguments)
        return
    given = {field.name: getattr(arguments, field.name) for field in fields(Benchmark)}
    if arguments.budget_seconds is None:
        del given["budget_seconds"]
    for other in ("runs", "quick"):
        if arguments.budget_seconds is not None and given[other]:
            raise InputError(describe(COMMAND, f"--budget-seconds and --{other} both say how often to run; give one"))
    if arguments.quick and arguments.runs is None:
        given["runs"] = 3
    benchmark = Benchmark(**given)
    try:
        with stopped_with("what was measured is kept; the same command goes on from there"):
            path = run_benchmark(benchmark, arguments.out, on_stage=Lines())
    except CheckFailed as error:
        print(f"a check is red, nothing was timed at this shape: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    show(path)


def compare_with(base: str, arguments: Arguments) -> None:
    """Print a table of the times here and at another commit."""
    together = ("shapes", "threads", "budget_seconds", "runs", "quick", "out", "base")
    kept = Arguments(**{name: getattr(arguments, name) for name in together})
    if arguments != kept:
        hint = "--help says which options go with --base"
        raise InputError(describe(COMMAND, "an option has no place beside --base", got=f"--base {base}", hint=hint))
    runs = 3 if arguments.quick and arguments.runs is None else arguments.runs
    budget = 120.0 if arguments.budget_seconds is None else arguments.budget_seconds
    benchmark = Benchmark(
        shapes=arguments.shapes,
        sweeps=(),
        threads=arguments.threads,
        budget_seconds=budget,
        runs=runs,
        quick=arguments.quick,
    )
    try:
        with stopped_with("nothing is kept"):
            path, rows = compare(benchmark, base, arguments.out, on_case=lambda case: print(case, file=sys.stderr))
    except CheckFailed as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from error
    shown = []
    for row in rows:
        named = [row["shape"], row["pass"], row["core"]]
        if "cannot" in row:
            shown.append([*named, *["" for _ in range(4)], "; ".join(f"{k}: {v}" for k, v in row["cannot"].items())])
            continue
        low, high = row["quartiles"]
        note = "" if row["same_results"] else "other results: the two do not compute the same"
        times = f"{row['times_as_fast']:.2f}", f"{low:.2f} to {high:.2f}"
        shown.append([*named, f"{row['base_ms']:.4g}", f"{row['here_ms']:.4g}", *times, note])
    head = ["shape", "pass", "core", f"{base}, ms", "here, ms", "times as fast", "half of the pairs", ""]
    print(Table(head, shown).markdown())
    print(path)


def show(path: Path) -> None:
    """Write the page of some results, and print where it is and how the cost of a step grows."""
    for written in [path, *write_benchmark_page(path)]:
        print(written)
    for contender, (short, long, ratio) in read_benchmark(path).per_step_growth().items():
        print(f"{contender}: a step takes {ratio:.2f} times as long at T = {long:,} as at T = {short:,}")


class Lines:
    """Says on standard error where a benchmark stands: at every new case, and every few seconds within one."""

    def __init__(self) -> None:
        self._case = -1
        self._last = 0.0

    def __call__(self, stage: Stage) -> None:
        now = time.monotonic()
        if stage.done != self._case or now - self._last >= LINE_EVERY:
            self._case, self._last = stage.done, now
            left = f"about {clock(stage.seconds_left)} left"
            print(
                f"[{min(stage.done + 1, stage.cases)}/{stage.cases}] {stage.what}; {left}", file=sys.stderr, flush=True
            )
