"""Timing by turns: contenders alternate in one process, so that whatever slows the machine down meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Clock = Callable[[], float]
"""Seconds from any fixed moment on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """What is reported of the times of one contender, in milliseconds."""

    median_ms: float
    min_ms: float
    max_ms: float
    runs: int


def statistics_of(seconds: list[float]) -> Statistics:
    """
    >>> statistics_of([0.003, 0.001, 0.002])
    Statistics(median_ms=2.0, min_ms=1.0, max_ms=3.0, runs=3)
    """
    milliseconds = [1e3 * value for value in seconds]
    return Statistics(
        median_ms=statistics.median(milliseconds),
        min_ms=min(milliseconds),
        max_ms=max(milliseconds),
        runs=len(milliseconds),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """When to stop: after `least` rounds and `seconds`, or after `most` rounds, whatever comes first."""

    seconds: float
    least: int
    most: int


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    samples: dict[str, list[float]],
    rounds: Rounds,
    *,
    parts: int = 1,
    clock: Clock = time.perf_counter,
    wait: Callable[[], None] = lambda: None,
    on_round: Callable[[], None] = lambda: None,
) -> None:
    """Time contenders in turn: A B C A B C ...

    Args:
        contenders: what to call, by name; warm already.
        samples: gets the seconds of every call; rounds that it holds already count.
        rounds: when to stop.
        parts: equal parts that a call is made of; the seconds of one are kept.
        clock: what the time is.
        wait: called before the clock is read, for devices that run behind.
        on_round: called after every round, with `samples` complete.
    """
    start = clock()
    while True:
        done = min((len(samples.get(name, ())) for name in contenders), default=rounds.most)
        if done >= rounds.most or (done >= rounds.least and clock() - start >= rounds.seconds):
            return
        for name, call in contenders.items():
            wait()
            before = clock()
            call()
            wait()
            samples.setdefault(name, []).append((clock() - before) / parts)
        on_round()


def matmul_rate(
    size: int, *, device: torch.device, dtype: torch.dtype, clock: Clock = time.perf_counter, runs: int = 3
) -> float:
    """GFLOP/s of the product of two square matrices, the best of some runs after one to warm up.

    What a contender reaches of it says how far it is from the fastest that this machine multiplies.
    """
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    best = float("inf")
    for run in range(runs + 1):
        wait_for(device)()
        before = clock()
        torch.mm(a, b, out=out)
        wait_for(device)()
        if run:
            best = min(best, clock() - before)
    return 2 * size**3 / best / 1e9


def wait_for(device: torch.device) -> Callable[[], None]:
    """A function that returns when the device has done all it was asked for."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
