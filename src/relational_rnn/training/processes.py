"""One training in several processes: each works on its part of every batch, and all make the same updates."""

from __future__ import annotations

import contextlib
import datetime
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor, distributed, nn

from relational_rnn._check import InputError, describe
from relational_rnn._signals import interrupts_ignored
from relational_rnn.training.config import LoopConfig
from relational_rnn.training.problem import Carrier, Divisible, Measure, Problem, Taught


@dataclass(frozen=True)
class Team:
    """The processes of a training, seen from one of them."""

    rank: int = 0  # of this process; the first one keeps the run folder
    size: int = 1  # how many there are

    def part(self, problem: Problem[Any], batch: Any) -> Any:
        """What this process works on."""
        if self.size == 1:
            return batch
        assert isinstance(problem, Divisible)
        return problem.part(batch, self.rank, self.size)

    def share_of_mean(self, losses: Tensor) -> Tensor:
        """What the losses of this part add to the mean over the whole batch, with gradient."""
        if self.size == 1:
            return losses.mean()
        items = torch.tensor(len(losses), device=losses.device)
        distributed.all_reduce(items)
        return losses.sum() / items

    def whole(self, measure: Measure) -> Measure:
        """The measure of the whole batch, without gradients."""
        if self.size == 1:
            return measure
        parts: list[Any] = [None] * self.size
        own = (measure.losses.detach().cpu(), measure.correct.cpu(), measure.groups.cpu())
        distributed.all_gather_object(parts, own)
        return Measure(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def add_up_gradients(self, model: nn.Module) -> None:
        """Give every process the sum of all gradients; a parameter that no process used has none."""
        if self.size == 1:
            return
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([used, *(piece.flatten() for piece in pieces)])
        distributed.all_reduce(flat)
        used, *pieces = flat.split([len(used), *(piece.numel() for piece in pieces)])
        for parameter, piece, users in zip(parameters, pieces, used.tolist(), strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype) if users else None


def check_divisible(problem: Problem[Any], loop: LoopConfig) -> None:
    """Refuse what several processes cannot train."""
    if loop.processes == 1:
        return
    reason = None
    if isinstance(problem, Carrier):
        reason = "it carries a state from batch to batch"
    elif isinstance(problem, Taught) and problem.lesson is not None:
        reason = "it has lessons, which follow the loss of one process"
    elif not isinstance(problem, Divisible):
        reason = "it does not say how a batch is divided (part)"
    elif multiprocessing.current_process().daemon:
        reason = "it is one of several jobs at a time already"
    elif loop.accelerator not in ("cpu", "cuda"):
        reason = f"accelerator {loop.accelerator} is not cpu or cuda"
    elif loop.accelerator == "cuda" and torch.cuda.device_count() < loop.processes:
        reason = f"there are {torch.cuda.device_count()} GPUs"
    if reason is not None:
        problem_text = f"this cannot be trained in several processes: {reason}"
        raise InputError(describe("LoopConfig", problem_text, got=f"processes = {loop.processes}", expected="1"))


@contextlib.contextmanager
def working(size: int, work: Callable[..., None], *given: Any) -> Iterator[Team]:
    """Make this process the first of a team of `size`; the others do `work(team, *given)` and end with it.

    The caller's script needs `if __name__ == "__main__"`. An `InputError` tells of a process that ends by itself.
    """
    if size == 1:
        yield Team()
        return
    buffer = io.BytesIO()
    torch.save(given, buffer)  # pickled by a process's start, tensors would be shared with it
    context = process_context()
    others: dict[Connection, BaseProcess] = {}
    with tempfile.TemporaryDirectory() as place:
        store = f"file://{place}/store"
        try:
            for rank in range(1, size):
                receiver, process = start(context, _join, store, Team(rank, size), work, buffer.getvalue())
                others[receiver] = process
            for receiver in others:
                receiver.recv()
            _meet(store, 0, size)
            yield Team(0, size)
        except (EOFError, RuntimeError) as error:
            for process in others.values():
                process.join(5)  # the others lose their connection, too, and say why
            codes = [process.exitcode for process in others.values() if process.exitcode]
            if not codes:
                raise
            problem = f"a process of this training has ended with code {codes[0]}"
            raise InputError(describe("LoopConfig", problem, hint="was memory short? continue with resume")) from error
        finally:
            end(others.values())
            if distributed.is_initialized():
                distributed.destroy_process_group()


def _meet(store: str, rank: int, size: int) -> None:
    """Wait for all processes."""
    patience = datetime.timedelta(days=7)
    distributed.init_process_group(init_method=store, rank=rank, world_size=size, timeout=patience)


def _join(ready: Connection, store: str, team: Team, work: Callable[..., None], packed: bytes) -> None:
    """What another process does until the first one ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    given = torch.load(io.BytesIO(packed), map_location="cpu", weights_only=False)  # by our own process
    ready.send(None)
    _meet(store, team.rank, team.size)
    try:
        work(team, *given)
        distributed.barrier()  # until it is ended
    except RuntimeError:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join(1)  # if the first process is gone, this one ends without a word
        raise


def process_context(*modules: str) -> SpawnContext | ForkServerContext:
    """How processes are made: on Linux as forks of one that has imported what training needs, and `modules`."""
    if sys.platform != "linux":  # elsewhere libraries of the system may not survive a fork
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["relational_rnn.training", "lightning_fabric", "torch.utils.tensorboard", *modules])
    return context


def start(
    context: SpawnContext | ForkServerContext, target: Callable[..., None], *given: Any, name: str | None = None
) -> tuple[Connection, BaseProcess]:
    """Start a process that does `target(sender, *given)`; returns the connection that receives what it sends."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(sender, *given), name=name, daemon=True)
    with interrupts_ignored():  # this process hears of Ctrl-C, and ends the others
        process.start()
    sender.close()
    return receiver, process


def end(processes: Collection[BaseProcess]) -> None:
    """Ask processes to end, and wait for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def end_with_parent() -> None:
    """Let this process end as soon as its parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
