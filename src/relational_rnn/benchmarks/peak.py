"""Peak memory of one pass, each time in a process of its own that has computed nothing before.

The processes are forked from one that has imported everything and nothing more, so that each costs a fraction of a
second. On the CPU it is the resident set that counts: how far it rises during the pass above where it was with weights
and inputs in place, which includes the results and whatever the allocators take. On a GPU it is what PyTorch's
allocator hands out.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import torch

from relational_rnn._check import InputError, describe
from relational_rnn.benchmarks.contenders import Setting, build
from relational_rnn.benchmarks.shapes import Case

T = TypeVar("T")
MIB = 2**20
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(case: Case, setting: Setting, name: str) -> tuple[float, float]:
    """(MiB that one pass of a contender takes at its worst moment, MiB of these that are its results).

    Raises:
        InputError: the process ended without an answer, as it does for want of memory.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, f"{__package__}._imports"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(there, case, setting, name), daemon=True)
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


def _measure(answer: Connection, case: Case, setting: Setting, name: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it ends this process
    torch.set_num_threads(setting.threads)
    # What a first call of any size leaves behind (threads, kernels' workspace) is not the pass's own.
    small = replace(case, shape=replace(case.shape, batch=min(2, case.shape.batch), steps=min(6, case.shape.steps)))
    build(small, setting, name).run()
    contender = build(case, setting, name)
    if setting.torch_device.type == "cuda":
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
    """(what a call returns, bytes by which resident memory rises at its worst moment)."""
    before = _forget_peak()
    result = run()
    return result, _resident_peak() - before


def _forget_peak() -> int:
    """Bytes resident now; where the system allows it, the peak is counted anew from here."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")
        return _status("VmRSS")
    return _resident_peak()


def _resident_peak() -> int:
    if _CLEAR.exists():
        return _status("VmHWM")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _status(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {field}")
