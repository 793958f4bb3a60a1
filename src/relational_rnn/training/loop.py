"""Training a problem into a run folder."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from relational_rnn._check import InputError, check_choice, check_positive, describe, need_extra
from relational_rnn.training.averaging import AveragingConfig, WeightAverage
from relational_rnn.training.config import LoopConfig, OptimizerConfig
from relational_rnn.training.json_files import Json
from relational_rnn.training.problem import Problem
from relational_rnn.training.progress import BestBy, ConsoleProgress, Progress
from relational_rnn.training.run_folder import CHECKPOINT_KEY, RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
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
        configuration: all that decides the run, as JSON; written to config.json, and demanded again by `resume`.
        resume: continue the run in `folder` from its last checkpoint (from the start, if it was stopped before one).
        on_progress: called every `loop.log_every` steps and after every validation; None shows the progress on
            standard error.
        files: more files for the folder, by their names, written before the first update.
        accumulate: so many batches, numbered one after the other, make one update: the mean of their gradients.
        averaging: an average of the weights that is validated and saved instead of the last ones; None for none.
        best_by: what on the validation set tells the best weights.

    Raises:
        InputError: the folder cannot be used, the checkpoint is damaged or belongs to another configuration, the
            disk is full, the accelerator is not there.
        DivergedError: the loss is no longer a number; it is an `InputError`.
        KeyboardInterrupt: the run was stopped with Ctrl-C; the message says how to continue.
        MissingExtraError: Lightning or TensorBoard is not installed.
    """
    check_positive("fit", accumulate=accumulate)
    check_choice("fit", "best_by", best_by, get_args(BestBy))
    place = RunFolder.claim(folder, configuration, resume=resume)
    checkpoint = place.read_checkpoint() if resume else None
    if checkpoint is not None:
        _check_parameters(place, checkpoint, problem)
        if checkpoint[CHECKPOINT_KEY]["step"] == loop.steps:
            return _outcome(place, checkpoint[CHECKPOINT_KEY])
    for module in ("lightning.pytorch", "tensorboard"):
        need_extra(module, "train", "training")
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from relational_rnn.training import lightning_loop as ll

    recorder = ll.Recorder(place, loop, optimizer, best_by)
    start = checkpoint[CHECKPOINT_KEY]["step"] if checkpoint is not None else 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(_process_settings(loop))
        if on_progress is None:
            on_progress = stack.enter_context(ConsoleProgress(folder.name))
        recorder.listener = on_progress
        try:
            trainer = ll.build_trainer(place, recorder, loop, optimizer, start, accumulate)
        except MisconfigurationException as error:
            raise InputError(describe("LoopConfig", f"this machine cannot train like that: {error}")) from error
        try:
            place.begin(step=start, device=str(trainer.strategy.root_device), files=files or {})
            average = None
            if averaging is not None and averaging.kind != "none":
                average = WeightAverage(problem.model, averaging)
            module = ll.TrainingModule(problem, optimizer, loop, seed, accumulate=accumulate, average=average)
            trainer.fit(module, ckpt_path=place.checkpoint if checkpoint is not None else None)
        except OSError as error:
            kept = f"; the checkpoint of step {recorder.step} is kept" if recorder.step else ""
            problem_text = f"cannot be written: {error.strerror or error}{kept}"
            hint = "make room, then continue with resume (--resume)"
            raise InputError(describe(str(folder), problem_text, hint=hint)) from error
        except (KeyboardInterrupt, SystemExit) as stop:
            # Lightning turns Ctrl-C into an exit with code 1, and a polite kill (SIGTERM) into one with code 0
            if trainer.received_sigterm:
                raise SystemExit(128 + signal.SIGTERM) from stop
            if not trainer.interrupted:
                raise
            text = f"{folder}: stopped; the checkpoint of step {recorder.step} of {loop.steps} is kept"
            text = text if recorder.step else f"{folder}: stopped before the first checkpoint"
            raise KeyboardInterrupt(f"{text}\n  hint      continue with resume (--resume)") from stop
    assert recorder.step == loop.steps, "Lightning ended the run before its budget"
    assert recorder.best is not None, "the last step is always validated"
    state = {
        "step": loop.steps,
        "seconds": recorder.seconds,
        "data_seconds": module.data_seconds,
        "best": recorder.best,
    }
    outcome = _outcome(place, state)
    place.write_summary(
        steps=outcome.steps,
        seconds=outcome.seconds,
        data_seconds=outcome.data_seconds,
        best_step=outcome.best_step,
        valid_accuracy=outcome.valid_accuracy,
        valid_loss=outcome.valid_loss,
    )
    return outcome


def _outcome(place: RunFolder, state: Mapping[str, Any]) -> Outcome:
    best = state["best"]
    return Outcome(
        folder=place.path,
        steps=state["step"],
        seconds=state["seconds"],
        data_seconds=state.get("data_seconds", 0.0),  # older checkpoints did not count it
        best_step=best["step"],
        valid_accuracy=best["valid_accuracy"],
        valid_loss=best["valid_loss"],
    )


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
