"""What a change gains: this checkout and another commit of it, timed in turn, each in a process of its own."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import relational_rnn
from relational_rnn._check import InputError, describe
from relational_rnn._files import write_json
from relational_rnn.benchmarks import side
from relational_rnn.benchmarks.measuring import CheckFailed, Rounds, take_turns
from relational_rnn.benchmarks.record import slug
from relational_rnn.benchmarks.shapes import Benchmark, Case, FastShape, cases
from relational_rnn.training.run_folder import describe_machine, describe_software

ROOT = Path(relational_rnn.__file__).parents[2]
HERE, BASE = "here", "base"
AGREE = 1e-3
"""How far sums of squares may be apart, relative to the larger, where both commits compute the same."""


def wanted(case: Case) -> list[tuple[str, dict[str, Any]]]:
    """What is timed at a case, by name, as `side` takes it."""
    s = case.shape
    given = {"batch": s.batch, "steps": s.steps, "run": case.run}
    sizes = {name: value for name, value in asdict(s).items() if name not in ("batch", "steps")}
    if isinstance(s, FastShape):
        return [("fast weights", {"core": "FastWeightMemory", "sizes": sizes, **given})]
    sizes["attention_mlp_layers"] = sizes.pop("mlp_layers")
    found = [("relational memory", {"core": "RelationalMemory", "sizes": sizes, **given})]
    if s.mem_slots > 1:
        competing = {**sizes, "gate_style": "competitive"}
        found.append(("competing slots", {"core": "RelationalMemory", "sizes": competing, **given}))
    return found


class Side:
    """A process with the package of one commit."""

    def __init__(self, source: Path, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, side.__file__, str(threads)],
            env={**os.environ, "PYTHONPATH": str(source)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise CheckFailed(f"the process that measures ended with exit code {self._process.wait()}")
        return json.loads(answer)

    def end(self) -> None:
        with self._process:  # closes its pipes and waits
            self._process.kill()


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """A commit of this checkout in a folder that is thrown away, with its kernels built; yields its `src`.

    Raises:
        InputError: the package does not lie in a checkout, or there is no such commit.
    """

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise InputError(describe("--base", "git is not installed", got=revision)) from None

    if not (ROOT / "hatch_build.py").exists() or git("rev-parse", "--git-dir").returncode:
        problem, hint = "the package does not lie in a checkout of its repository", "clone it and `pip install -e .`"
        raise InputError(describe("--base", problem, got=ROOT, hint=hint))
    if git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").returncode:
        raise InputError(describe("--base", "there is no such commit", got=revision, hint="`git log` lists them"))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "base"
        made = git("worktree", "add", "--detach", str(place), revision)
        if made.returncode:
            raise InputError(describe("--base", f"git cannot check it out: {made.stderr.strip()}", got=revision))
        try:
            build = [sys.executable, "hatch_build.py"]
            if subprocess.run(build, cwd=place, capture_output=True, check=False).returncode:
                problem = "the kernels of that commit cannot be built"
                raise InputError(describe("--base", problem, got=revision, hint="is there a C compiler?"))
            yield place / "src"
        finally:
            git("worktree", "remove", "--force", str(place))


def compare(
    benchmark: Benchmark, revision: str, folder: Path, *, on_case: Callable[[str], None] = lambda case: None
) -> tuple[Path, list[dict[str, Any]]]:
    """Time every named shape here and at another commit, in turn; returns the file of results, and its rows.

    Raises:
        InputError: see `checked_out`.
        CheckFailed: a process ended before its answer.
    """
    threads = benchmark.threads or torch.get_num_threads()
    plan = cases(benchmark.shapes, (), quick=benchmark.quick)
    pairs = [(case, name, call) for case in plan for name, call in wanted(case)]
    rounds = Rounds(seconds=benchmark.budget_seconds / max(1, len(pairs)), least=5, most=200)
    if benchmark.runs is not None:
        rounds = Rounds(seconds=0.0, least=benchmark.runs, most=benchmark.runs)
    rows = []
    with checked_out(revision) as source, contextlib.ExitStack() as stack:
        sides = {HERE: Side(ROOT / "src", threads), BASE: Side(source, threads)}
        for one in sides.values():
            stack.callback(one.end)
        for case, name, call in pairs:
            on_case(f"{case.key}: {name}")
            answers = {which: one.ask(json.dumps(call)) for which, one in sides.items()}
            row: dict[str, Any] = {"shape": case.name, "pass": case.run, "core": name}
            cannot = {which: answer["cannot"] for which, answer in answers.items() if "cannot" in answer}
            if cannot:
                rows.append({**row, "cannot": cannot})
                continue
            samples: dict[str, list[float]] = {}
            turns = {which: lambda one=one: one.ask("turn") for which, one in sides.items()}
            take_turns(turns, samples, rounds, parts=side.STEPS_PER_TURN if case.run == "step" else 1)
            rows.append({**row, **figures(samples, answers)})
    about = {"against": revision, "threads": threads, **describe_machine("cpu"), **describe_software()}
    about["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = folder / f"{about['date']}_{slug(about['machine'])}_against-{slug(revision)}.json"
    write_json(path, {**about, "rows": rows})
    return path, rows


def figures(samples: dict[str, list[float]], answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Medians in milliseconds, how many times as fast this checkout is, its spread, and whether both agree."""
    ratios = [base / here for base, here in zip(samples[BASE], samples[HERE], strict=True)]
    here, base = answers[HERE]["squares"], answers[BASE]["squares"]
    agree = len(here) == len(base) and all(
        abs(a - b) <= AGREE * max(abs(a), abs(b)) for a, b in zip(here, base, strict=True)
    )
    return {
        "base_ms": 1e3 * statistics.median(samples[BASE]),
        "here_ms": 1e3 * statistics.median(samples[HERE]),
        "times_as_fast": statistics.median(ratios),
        "quartiles": statistics.quantiles(ratios, n=4)[::2] if len(ratios) > 1 else ratios * 2,
        "runs": len(ratios),
        "same_results": agree,
    }
