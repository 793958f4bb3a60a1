"""Inputs are tried in processes of their own, each within a time and a memory: a hang or a crash is one finding."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.mutations import smaller

SECONDS = 60.0
"""A single input may take so long, beside other work on the machine."""
MEMORY = 3 * 2**30
"""Bytes that an input may ask for beyond what the process holds when it starts."""
TRIES = 150
"""To make an unexpected input smaller."""
WORKER_LIFE = 1500
"""Inputs after which a process is replaced, so that what one of them left behind does not last."""


@dataclass(frozen=True)
class Family:
    """One thing that takes inputs."""

    name: str
    share: int
    """How many of its inputs are tried, relative to the others."""
    make: Callable[[random.Random], Any]
    """An input, made of bytes, texts, numbers, lists and dicts."""
    run: Callable[[Any, Path], bool]
    """Try one, in an empty folder; returns whether it was accepted. Whatever it raises but a refusal is a finding."""


@dataclass
class Tally:
    """What came of the inputs of one family."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """By what went wrong: the smallest input, and the trace."""


def serve(pipe: Any, load: Callable[[], list[Family]]) -> None:
    """The life of a process: inputs in, what came of them out."""
    import torch
    import torch._dynamo  # by itself, or the first input that needs it would pay for it

    from relational_rnn._check import InputError, MissingExtraError

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    families = {family.name: family for family in load()}
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send(None)
    while True:
        name, seed, case, only_make = pipe.recv()
        family = families[name]
        if seed is not None:
            case = family.make(random.Random(seed))
        if only_make:
            pipe.send(("made", "", "", case))
            continue
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            os.chdir(folder)
            torch.manual_seed(0)
            try:
                answer = ("accepted" if family.run(case, Path(folder)) else "refused", "", "", None)
            except (InputError, MissingExtraError):
                answer = ("refused", "", "", None)
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)
                ours = next((f for f in reversed(where) if "relational_rnn" in f.filename), where[-1])
                place = f"{type(error).__name__} at {Path(ours.filename).name}:{ours.lineno}"
                answer = ("unexpected", place, traceback.format_exc(limit=-6), case)
            os.chdir("/")
        pipe.send(answer)


class Worker:
    """A process that tries inputs, and its next one after a hang or a crash."""

    def __init__(self, load: Callable[[], list[Family]]) -> None:
        self._load, self._process = load, None
        self._served = 0

    def ask(self, name: str, *, seed: str | None = None, case: Any = None, only_make: bool = False) -> Any:
        """(what came of it, where it went wrong, the trace, the input)."""
        if self._process is None or self._served >= WORKER_LIFE:
            self._start()
        self._served += 1
        self._pipe.send((name, seed, case, only_make))
        try:
            if self._pipe.poll(SECONDS):
                return self._pipe.recv()
            problem = f"no answer within {SECONDS:g} s"
        except EOFError:
            problem = "the process died"
        self.stop()
        if seed is not None and not only_make:
            case = self.ask(name, seed=seed, only_make=True)[3]
        return ("unexpected", problem, problem, case)

    def _start(self) -> None:
        self.stop()
        context = multiprocessing.get_context("forkserver")  # which imports once what all of them need
        context.set_forkserver_preload(["torch._dynamo", "relational_rnn._check"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._load), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()
        self._served = 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def try_all(load: Callable[[], list[Family]], wanted: list[tuple[str, str]]) -> dict[str, Tally]:
    """Try inputs, given as (family, seed of the input), one after the other."""
    worker, tallies = Worker(load), {name: Tally() for name, _ in wanted}
    for name, seed in wanted:
        outcome, place, trace, case = worker.ask(name, seed=seed)
        tally = tallies[name]
        tally.counts[outcome] += 1
        if outcome == "unexpected" and place not in tally.findings:
            tally.findings[place] = shrink(worker, name, place, case, trace)
            print(f"{name}: {place}\n  {tally.findings[place][0]!r:.600}", file=sys.stderr, flush=True)
    worker.stop()
    return tallies


def shrink(worker: Worker, name: str, place: str, case: Any, trace: str) -> tuple[Any, str]:
    """The smallest input found that goes wrong in the same way."""
    left = TRIES if " at " in place else 0  # a hang takes its whole time at every try
    found = True
    while found and left:
        found = False
        for less in smaller(case):
            left -= 1
            answer = worker.ask(name, case=less)
            if answer[:2] == ("unexpected", place):
                case, trace, found = less, answer[2], True
                break
            if not left:
                break
    return case, trace
