"""What is measured of contenders: first whether they are right, then their time, and their peak memory.

Contenders take turns in one process, so that a slow machine slows all of them. Peak memory is measured in a process of
its own that has computed nothing before, forked from one that has imported everything. On the CPU the peak is how far
the resident set rises during the pass above its size with weights and inputs in place; it includes the results and what
the allocators take. On a GPU it is what PyTorch's allocator hands out.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn.benchmarks.contenders import LAYER, Contender, build, core_of, definition
from relational_rnn.benchmarks.shapes import Benchmark, Case
from relational_rnn.testing import assert_as_good_as

T = TypeVar("T")
MIB = 2**20
_CLEAR = Path("/proc/self/clear_refs")
Clock = Callable[[], float]
"""Seconds from any fixed moment on."""


class CheckFailed(Exception):
    """A contender computes something wrong; nothing of its case is timed."""


def check(case: Case, contenders: Mapping[str, Contender], benchmark: Benchmark) -> None:
    """Judge every backend of the layer by the definition, with the rule of `relational_rnn.testing`.

    It compares the output and, in a training pass, the gradients of the input and of every parameter. Gradients are
    scaled by their largest true values and compared together, so that a lucky rounding of the definition in one small
    tensor decides nothing. Contenders that are not ours compute something else; they must give finite numbers.

    Raises:
        CheckFailed: a contender is not good enough; the message says which, and how far off it is.
    """
    judges: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for name, contender in contenders.items():
        results = contender.run()
        if not name.startswith(LAYER):
            if not all(bool(torch.isfinite(tensor).all()) for tensor in results):
                raise CheckFailed(f"{case.key}: {name} gives numbers that are not finite")
            continue
        if core_of(name) not in judges:
            plain = definition(case, benchmark, name), definition(case, benchmark, name, exact=True)
            judges[core_of(name)] = plain
        peers, truths = judges[core_of(name)]
        try:
            judge(f"{case.key}: {name}", results, peers, truths)
        except AssertionError as error:
            raise CheckFailed(str(error)) from error


def judge(what: str, results: Sequence[Tensor], peers: Sequence[Tensor], truths: Sequence[Tensor]) -> None:
    """Assert that the output `results[0]` and the gradients after it, together, are as good as those of `peers`."""
    assert_as_good_as(f"{what}, output", results[0], peers[0], truths[0])
    for got, peer in zip(results, peers, strict=True):
        assert got.shape == peer.shape, f"{what}: a gradient of shape {tuple(got.shape)}, expected {tuple(peer.shape)}"
    if len(results) > 1:
        scales = [truth.abs().max().clamp(min=torch.finfo(truth.dtype).tiny) for truth in truths[1:]]
        got, peer, truth = (
            torch.cat([(t.double() / scale).flatten() for t, scale in zip(tensors[1:], scales, strict=True)])
            for tensors in (results, peers, truths)
        )
        dtype = results[0].dtype
        assert_as_good_as(f"{what}, gradients", got.to(dtype), peer.to(dtype), truth)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """When to stop: after `least` rounds and `seconds`, at the latest after `most` rounds."""

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
    """Time warm contenders in turn: A B C A B C ...

    `samples` gets the seconds of every call, or of one of its `parts`, which are equal; rounds that it holds already
    count. `wait` is called before the clock is read, for devices that run behind; `on_round` after every round.
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
    size: int, *, device: str, dtype: torch.dtype, clock: Clock = time.perf_counter, runs: int = 3
) -> float:
    """GFLOP/s of the product of two square matrices, the best of some runs after one to warm up."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    torch.mm(a, b, out=out)
    samples: dict[str, list[float]] = {}
    rounds = Rounds(seconds=0.0, least=runs, most=runs)
    take_turns({"mm": lambda: torch.mm(a, b, out=out)}, samples, rounds, clock=clock, wait=wait_for(device))
    return 2 * size**3 / min(samples["mm"]) / 1e9


def wait_for(device: str) -> Callable[[], None]:
    """A function that returns when the device has nothing left to do."""
    return (lambda: torch.cuda.synchronize(device)) if device == "cuda" else (lambda: None)


def peak_memory(case: Case, benchmark: Benchmark, name: str) -> tuple[float, float]:
    """The peak of one pass of a contender, and the size of its results, which the peak includes; both in MiB.

    Raises:
        InputError: the process ended without an answer, as it does if memory runs out.
    """
    context = multiprocessing.get_context("forkserver")
    # Also what PyTorch imports at the first backward pass and at the first Transformer, which takes seconds.
    context.set_forkserver_preload([__name__, "sympy", "torch._dynamo"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(there, case, benchmark, name), daemon=True)
    process.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError:
        process.join()
        problem = f"{name} ended with exit code {process.exitcode} at {case.key}, before its memory could be measured"
        hint = "was there enough memory? Leave the shape or the sweep away to measure the others"
        raise InputError(describe("benchmark", problem, hint=hint)) from None
    finally:
        process.kill()
        process.join()
        here.close()
    return answer


def _measure(answer: Connection, case: Case, benchmark: Benchmark, name: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it ends this process
    torch.set_num_threads(benchmark.threads or torch.get_num_threads())
    # What a first call of any size leaves behind (threads, kernels' workspace) is not the pass's own.
    small = replace(case, shape=replace(case.shape, batch=min(2, case.shape.batch), steps=min(6, case.shape.steps)))
    build(small, benchmark, name).run()
    contender = build(case, benchmark, name)
    if benchmark.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        results = contender.run()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        results, peak = resident_growth(contender.run)
    size = sum(tensor.numel() * tensor.element_size() for tensor in results)
    answer.send((peak / MIB, size / MIB))


def resident_growth(run: Callable[[], T]) -> tuple[T, int]:
    """What a call returns, and the bytes by which resident memory rises at its worst moment."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")  # the system counts the peak anew from here
    before = _resident("VmRSS")
    result = run()
    return result, _resident("VmHWM") - before


def _resident(field: str) -> int:
    """Bytes of a field of /proc/self/status; without one that can be reset, the peak since the process began."""
    if not _CLEAR.exists():
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
