"""Training a problem into a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from relational_rnn._check import InputError, check_choice, check_positive, describe, need_extra
from relational_rnn._signals import Terminated, on_terminate
from relational_rnn.training.averaging import AveragingConfig, WeightAverage
from relational_rnn.training.config import LoopConfig, OptimizerConfig, learning_rate_at
from relational_rnn.training.json_files import Json
from relational_rnn.training.problem import Problem
from relational_rnn.training.progress import BestBy, ConsoleProgress, Progress
from relational_rnn.training.run_folder import CHECKPOINT_KEY, RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a finished run came to."""

    folder: Path
    """The run folder."""
    steps: int
    """Updates done."""
    seconds: float
    """Spent on training and validation, all sittings."""
    data_seconds: float
    """Of these, spent waiting for the next batch."""
    best_step: int
    """After so many updates the weights in model.safetensors were taken."""
    valid_accuracy: float
    """Of those weights."""
    valid_loss: float
    """Of those weights."""


def fit(
    problem: Problem[Any],
    folder: Path,
    *,
    optimizer: OptimizerConfig,
    loop: LoopConfig,
    seed: int,
    configuration: dict[str, Json],
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    files: Mapping[str, Json] | None = None,
    accumulate: int = 1,
    averaging: AveragingConfig | None = None,
    best_by: BestBy = "accuracy",
) -> Outcome:
    """Train a problem and keep everything that matters in a folder (see `run_folder`).

    The same arguments give the same numbers, whether the run was killed and resumed or not. PyTorch's global
    generators are seeded anew before every update; the best weights on the validation set are saved, and
    `problem.model` is left with the last ones.

    Args:
        problem: the model and its data; its parameters must come from `seed` too, if a resumed run is to be exact.
        folder: the run folder; made if it is not there.
        optimizer: see `OptimizerConfig`.
        loop: see `LoopConfig`.
        seed: decides everything random in the updates.
        configuration: all that decides the run, as JSON; written to config.json, and demanded again by `resume`, but
            for the budget, `loop.steps`: with a larger one a finished run goes on, under the new budget's schedule.
        resume: continue the run in `folder` from its last checkpoint (from the start, if it was stopped before one).
        on_progress: called every `loop.log_every` steps and after every validation; None shows the progress on
            standard error.
        files: more files for the folder, by their names, written before the first update.
        accumulate: so many batches, numbered one after the other, make one update: the mean of their gradients.
        averaging: an average of the weights that is validated and saved instead of the last ones; None for none.
        best_by: what on the validation set tells the best weights.

    Raises:
        InputError: the folder cannot be used, or another process trains in it; the checkpoint is damaged or belongs to
            another configuration; more steps are done than the budget has; the disk is full; the accelerator is not
            there.
        DivergedError: the loss is no longer a number; it is an `InputError`.
        KeyboardInterrupt: the run was stopped with Ctrl-C; the message says how to continue.
        Terminated: it was stopped with SIGTERM, after the update at hand; a checkpoint of it is saved.
        MissingExtraError: Lightning or TensorBoard is not installed.
    """
    check_positive("fit", accumulate=accumulate)
    check_choice("fit", "best_by", best_by, get_args(BestBy))
    place = RunFolder.claim(folder, configuration, resume=resume, files=tuple(files or ()))
    with contextlib.ExitStack() as stack:
        if place.path.exists():
            stack.enter_context(place.held())
        checkpoint = place.read_checkpoint() if place.resumed else None
        start = 0
        if checkpoint is not None:
            start = checkpoint[CHECKPOINT_KEY]["step"]
            _check_parameters(place, checkpoint, problem)
            _check_budget(place, checkpoint[CHECKPOINT_KEY], optimizer, loop.steps)
            if start == loop.steps:
                place.keep_configuration()
                return _finish(place, checkpoint[CHECKPOINT_KEY])
        for module in ("lightning.pytorch", "tensorboard"):
            need_extra(module, "train", "training")
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        from relational_rnn.training import lightning_loop as ll

        recorder = ll.Recorder(place, loop, optimizer, best_by)
        recorder.step = start
        stack.enter_context(_quiet())
        stack.enter_context(_process_settings(loop))
        if on_progress is None:
            on_progress = stack.enter_context(ConsoleProgress(folder.name))
        recorder.listener = on_progress
        try:
            trainer = ll.build_trainer(place, recorder, loop, optimizer, start, accumulate)
        except MisconfigurationException as error:
            raise InputError(describe("LoopConfig", f"this machine cannot train like that: {error}")) from error
        average = None
        if averaging is not None and averaging.kind != "none":
            average = WeightAverage(problem.model, averaging)
        module = ll.TrainingModule(problem, optimizer, loop, seed, accumulate=accumulate, average=average)
        stack.enter_context(on_terminate(module.end))
        try:
            made = not place.path.exists()
            place.begin(step=start, device=str(trainer.strategy.root_device), files=files or {})
            if made:
                stack.enter_context(place.held())
            trainer.fit(module, ckpt_path=place.checkpoint if checkpoint is not None else None)
        except OSError as error:
            raise _cannot_be_written(folder, error, recorder.step) from error
        except (KeyboardInterrupt, SystemExit) as stop:
            # Lightning turns Ctrl-C into an exit with code 1, and SIGTERM before the first update into one with code 0
            if trainer.received_sigterm:
                raise Terminated(_stopped(folder, recorder.step, loop.steps)) from stop
            if not trainer.interrupted:
                raise
            raise KeyboardInterrupt(_stopped(folder, recorder.step, loop.steps)) from stop
        if recorder.step < loop.steps:
            assert module.ending, "Lightning ended the run before its budget"
            raise Terminated(_stopped(folder, recorder.step, loop.steps))
        assert recorder.best is not None, "the last step is always validated"
        state = {
            "step": loop.steps,
            "seconds": recorder.seconds,
            "data_seconds": module.data_seconds,
            "best": recorder.best,
        }
        outcome = _finish(place, state)
        if module.ending:
            raise Terminated(f"{folder}: the run of {loop.steps} steps is finished")
    return outcome


def _stopped(folder: Path, step: int, steps: int) -> str:
    """What is kept, in one sentence, and how to go on."""
    text = (
        f"stopped; the checkpoint of step {step} of {steps} is kept" if step else "stopped before the first checkpoint"
    )
    return f"{folder}: {text}\n  hint      continue with resume (--resume)"


def _cannot_be_written(folder: Path, error: OSError, step: int) -> InputError:
    """The sentence of a folder that is full, or that nobody may write into."""
    kept = f"; the checkpoint of step {step} is kept" if step else ""
    hint = None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = (
            "make room, then continue with resume (--resume)" if folder.exists() else "make room, then start it again"
        )
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "name a folder that can be written"
        hint = f"make the folder writable, then continue with resume (--resume), or {hint}" if step else hint
    return InputError(describe(str(folder), f"cannot be written: {error.strerror or error}{kept}", hint=hint))


def _check_budget(place: RunFolder, state: Mapping[str, Any], optimizer: OptimizerConfig, steps: int) -> None:
    """Say what becomes of the learning rate under another budget than before; refuse one that is used up already."""
    done, before = state["step"], state["configuration"].get("loop", {}).get("steps", steps)
    if steps == before:
        return
    where = str(place.path)
    if steps <= done:
        problem = "the budget is used up already"
        raise InputError(describe(where, problem, got=f"loop.steps = {steps:,}", expected=f"more than {done:,}"))
    rates = [learning_rate_at(optimizer, *of) for of in ((done - 1, before), (done, steps), (steps - 1, steps))]
    print(
        f"{where}: goes on from step {done:,} under a budget of {steps:,} steps, before {before:,}; the learning rate, "
        f"last {rates[0]:.3g}, follows the schedule of the new budget: {rates[1]:.3g} now, {rates[2]:.3g} at its end",
        file=sys.stderr,
    )


def _finish(place: RunFolder, state: Mapping[str, Any]) -> Outcome:
    """The outcome of a run that has used up its budget, which is kept in its summary."""
    best = state["best"]
    outcome = Outcome(
        folder=place.path,
        steps=state["step"],
        seconds=state["seconds"],
        data_seconds=state.get("data_seconds", 0.0),  # older checkpoints did not count it
        best_step=best["step"],
        valid_accuracy=best["valid_accuracy"],
        valid_loss=best["valid_loss"],
    )
    figures = dataclasses.asdict(outcome)
    del figures["folder"]
    if not place.summary.exists():
        place.write_summary(**figures)
    return outcome


def _check_parameters(place: RunFolder, checkpoint: Mapping[str, Any], problem: Problem[Any]) -> None:
    """Refuse a checkpoint of another model, which another version of this package may build from one configuration."""
    there = {name.removeprefix("model."): tuple(t.shape) for name, t in checkpoint["state_dict"].items()}
    here = {name: tuple(t.shape) for name, t in problem.model.state_dict().items()}
    wrong = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if wrong:
        text = f"belongs to another model: {len(wrong)} parameters differ, the first is {wrong[0]}"
        got, expected = (str(shapes.get(wrong[0], "no such parameter")) for shapes in (there, here))
        raise InputError(describe(str(place.checkpoint), text, got=got, expected=expected))


@contextlib.contextmanager
def _process_settings(loop: LoopConfig) -> Iterator[None]:
    """Settings of the whole process that a run changes, put back afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    main_thread = threading.current_thread() is threading.main_thread()
    on_interrupt = signal.getsignal(signal.SIGINT)
    if loop.threads is not None:
        torch.set_num_threads(loop.threads)
    # the deterministic mode would also fill every new tensor, a costly help for hunting bugs
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        if main_thread and on_interrupt is not None:  # Lightning leaves Ctrl-C switched off after the first one
            signal.signal(signal.SIGINT, on_interrupt)


# What Lightning says that is of no use to the person at the terminal: advertisements, the list of hardware that is
# not there, and events that we report in our own words.
_NOT_FOR_USERS = (
    "💡 Tip",
    "GPU available",
    "TPU available",
    "Restoring states from the checkpoint",
    "Restored all states from the checkpoint",
    "\nDetected KeyboardInterrupt",
)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep those messages, and only those, from the terminal."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_NOT_FOR_USERS)

    logger.addFilter(wanted)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 calls something that PyTorch 2.13 deprecates; not the user's business
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logger.removeFilter(wanted)
