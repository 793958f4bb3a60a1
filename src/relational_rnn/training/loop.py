"""Training a problem into a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from relational_rnn._check import InputError, check_choice, check_positive, describe, need_extra
from relational_rnn._reading.json_text import Json
from relational_rnn._reading.tensors import check_shapes
from relational_rnn._signals import Terminated, on_terminate
from relational_rnn.training.averaging import AveragingConfig, WeightAverage
from relational_rnn.training.config import LoopConfig, OptimizerConfig, learning_rate_at
from relational_rnn.training.optimizers import build_optimizer
from relational_rnn.training.problem import Problem, evaluate, in_numbers_of
from relational_rnn.training.processes import Team, check_divisible, working
from relational_rnn.training.progress import BestBy, ConsoleProgress, Progress
from relational_rnn.training.recorder import Recorder
from relational_rnn.training.run_folder import CHECKPOINT_KEY, RunFolder

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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
    """Updates done when the weights in model.safetensors were taken."""
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
    """Train a problem and keep what matters in a folder (see `run_folder`).

    The same arguments give the same numbers, even after a kill and a resume. The weights that do best on the validation
    set are saved; `problem.model` keeps the last ones.

    Args:
        problem: the model and its data; a resumed run is exact if the first parameters come from `seed` too.
        folder: the run folder; made if it is not there.
        optimizer: optimizer and learning rates.
        loop: budget, validation, device.
        seed: decides everything random in the updates.
        configuration: the whole configuration as JSON, for config.json. A resumed run may differ only in `loop.steps`.
        resume: go on from the last checkpoint in `folder`, or from the start if there is none yet.
        on_progress: called every `loop.log_every` steps and after every validation; by default the progress is shown on
            standard error.
        files: more JSON files for the folder, by name.
        accumulate: batches per update, whose gradients are averaged.
        averaging: an average of the weights to validate and save instead of the last ones.
        best_by: which validation figure picks the best weights.

    Raises:
        InputError: the folder or the accelerator cannot be used; another process trains in the folder; the checkpoint
            is damaged or belongs to another configuration; the budget is used up; the disk is full.
        DivergedError: the loss is no longer finite (an `InputError`).
        KeyboardInterrupt: stopped with Ctrl-C; the message says how to continue.
        Terminated: stopped with SIGTERM; the current update was finished and saved.
        MissingExtraError: Lightning Fabric or TensorBoard is not installed.
    """
    check_positive("fit", accumulate=accumulate)
    check_choice("fit", "best_by", best_by, get_args(BestBy))
    check_divisible(problem, loop)
    job = _Job(problem, optimizer, loop, seed, accumulate)
    place = RunFolder.claim(folder, configuration, resume=resume, files=tuple(files or ()))
    with contextlib.ExitStack() as stack:
        if place.path.exists():
            stack.enter_context(place.held())
        checkpoint = place.read_checkpoint() if place.resumed else None
        start = 0
        if checkpoint is not None:
            state = checkpoint[CHECKPOINT_KEY]
            start = state["step"]
            check_shapes(checkpoint["model"], problem.model, place.checkpoint)
            _check_budget(place, state, optimizer, loop.steps)
            if start == loop.steps:
                place.keep_configuration()
                return _finish(place, state)
        for module in ("lightning_fabric", "tensorboard"):
            need_extra(module, "train", "training")
        stack.enter_context(_process_settings(loop))
        fabric = _build_fabric(loop)
        averaging = None if averaging is None or averaging.kind == "none" else averaging
        average = None if averaging is None else WeightAverage(problem.model, averaging)
        recorder = Recorder(place, problem, loop, optimizer, average=average, best_by=best_by)
        recorder.step = start
        recorder.listener = on_progress or stack.enter_context(ConsoleProgress(folder.name))
        stack.enter_context(on_terminate(recorder.end))
        try:
            made = not place.path.exists()
            place.begin(step=start, device=str(fabric.device), files=files or {})
            if made:
                stack.enter_context(place.held())
            _lead(job, fabric, recorder, checkpoint)
        except OSError as error:
            raise _cannot_be_written(folder, error, recorder.step) from error
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(_stopped(folder, recorder.step, loop.steps)) from stop
        if recorder.step < loop.steps:
            raise Terminated(_stopped(folder, recorder.step, loop.steps))
        outcome = _finish(place, recorder.state_dict())
        if recorder.ending:
            raise Terminated(f"{folder}: the run of {loop.steps} steps is finished")
    return outcome


@dataclasses.dataclass(frozen=True)
class _Job:
    """What every process of a training knows."""

    problem: Problem[Any]
    optimizer: OptimizerConfig
    loop: LoopConfig
    seed: int
    accumulate: int


def _train(
    job: _Job, fabric: Fabric, model: Any, optimizer: Any, team: Team, start: int, recorder: Recorder | None = None
) -> None:
    """Do all updates after the first `start`, to the end of the budget or to SIGTERM. Only the first process has a
    recorder."""
    problem, loop = job.problem, job.loop
    waiting = contextlib.nullcontext if recorder is None else recorder.waiting
    for step in range(start + 1, loop.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(job.optimizer, step - 1, loop.steps)
        optimizer.zero_grad()
        measures = []
        for number in range((step - 1) * job.accumulate, step * job.accumulate):
            with waiting():
                batch = team.part(problem, problem.train_batch(number))
            batch = _on_device(batch, fabric, loop)
            torch.manual_seed(step_seed(job.seed, number, team.rank))
            with fabric.autocast():
                measure = problem.measure(batch)
                loss = team.share_of_mean(measure.losses)
            fabric.backward(loss / job.accumulate)
            measures.append(measure)
        team.add_up_gradients(problem.model)
        if job.optimizer.clip_norm is not None:  # the recorder tells of a loss that is not finite
            fabric.clip_gradients(model, optimizer, max_norm=job.optimizer.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        measures = [team.whole(measure) for measure in measures]
        if recorder is None:
            continue
        recorder.note_update(step, measures)
        validates = step % loop.validate_every == 0 or step == loop.steps
        if validates or recorder.checkpoint_is_due(step):
            recorder.refuse_divergence(step)
            if validates:
                with waiting():
                    batches = problem.valid_batches()
                ready = (_on_device(batch, fabric, loop) for batch in recorder.waited(batches))
                with recorder.averaged():
                    valid = evaluate(problem, ready, around=fabric.autocast)
                recorder.refuse_divergence(step, valid)
                recorder.note_validation(step, valid)
            recorder.save(step)
            if recorder.ending:
                break


def _lead(job: _Job, fabric: Fabric, recorder: Recorder, checkpoint: Mapping[str, Any] | None) -> None:
    """The first process: go on from the checkpoint, start the others and train with them."""
    model, optimizer = fabric.setup(job.problem.model, build_optimizer(job.problem.model, job.optimizer))
    precision = fabric.strategy.precision
    parts = {"model": job.problem.model, "optimizer": optimizer, "precision": precision}
    with recorder.begin(checkpoint, parts):
        start = recorder.step
        given = job, start, optimizer.state_dict(), precision.state_dict()
        with working(job.loop.processes, _follow, *given) as team:
            _train(job, fabric, model, optimizer, team, start, recorder)


def _follow(
    team: Team, job: _Job, start: int, optimizer_state: dict[str, Any], precision_state: dict[str, Any]
) -> None:
    """The other processes."""
    with _process_settings(job.loop):
        fabric = _build_fabric(job.loop, team.rank)
        model, optimizer = fabric.setup(job.problem.model, build_optimizer(job.problem.model, job.optimizer))
        optimizer.load_state_dict(optimizer_state)
        fabric.strategy.precision.load_state_dict(precision_state)
        _train(job, fabric, model, optimizer, team, start)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of PyTorch's generators for batch number `step` in process `rank`, whatever came before."""
    text = f"{seed} {step} {rank}" if rank else f"{seed} {step}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


INPUTS = {"bf16-true": torch.bfloat16, "64-true": torch.float64}
"""What floating-point inputs become under a precision; other precisions leave them."""


def _on_device(batch: Any, fabric: Fabric, loop: LoopConfig) -> Any:
    """A batch on the model's device, in the model's numbers."""
    return in_numbers_of(INPUTS.get(loop.precision), fabric.to_device(batch))


def _build_fabric(loop: LoopConfig, rank: int = 0) -> Fabric:
    """Lightning Fabric for one device, whatever scheduler has started this process."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    if loop.precision == "16-mixed" and loop.accelerator == "cpu":  # Fabric would take another
        problem = "precision 16-mixed is not for the CPU"
        raise InputError(describe("LoopConfig", problem, got="accelerator = 'cpu'", hint="bf16-mixed is"))
    devices = [rank] if loop.accelerator == "cuda" else 1
    environment = LightningEnvironment()
    try:
        return Fabric(accelerator=loop.accelerator, devices=devices, precision=loop.precision, plugins=environment)
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise InputError(describe("LoopConfig", f"this machine cannot train like that: {error}")) from error


def _stopped(folder: Path, step: int, steps: int) -> str:
    kept = f"; the checkpoint of step {step} of {steps} is kept" if step else " before the first checkpoint"
    return describe(folder, f"stopped{kept}", hint="continue with resume (--resume)")


def _cannot_be_written(folder: Path, error: OSError, step: int) -> InputError:
    kept = f"; the checkpoint of step {step} is kept" if step else ""
    hint = None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        again = "continue with resume (--resume)" if folder.exists() else "start it again"
        hint = f"make room, then {again}"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "name a folder that can be written"
        hint = f"make the folder writable, then continue with resume (--resume), or {hint}" if step else hint
    return InputError(describe(folder, f"cannot be written: {error.strerror or error}{kept}", hint=hint))


def _check_budget(place: RunFolder, state: Mapping[str, Any], optimizer: OptimizerConfig, steps: int) -> None:
    """Print the learning rates under a changed budget; refuse a budget that is used up already."""
    done, before = state["step"], state["configuration"].get("loop", {}).get("steps", steps)
    if steps == before:
        return
    if steps <= done:
        problem, expected = "the budget is used up already", f"more than {done:,}"
        raise InputError(describe(place.path, problem, got=f"loop.steps = {steps:,}", expected=expected))
    rates = [learning_rate_at(optimizer, *of) for of in ((done - 1, before), (done, steps), (steps - 1, steps))]
    print(
        f"{place.path}: goes on from step {done:,} under a budget of {steps:,} steps, before {before:,}; the learning "
        f"rate, last {rates[0]:.3g}, follows the schedule of the new budget: {rates[1]:.3g} now, {rates[2]:.3g} at its "
        "end",
        file=sys.stderr,
    )


def _finish(place: RunFolder, state: Mapping[str, Any]) -> Outcome:
    """The outcome of a finished run, which its summary keeps."""
    figures = {
        "steps": state["step"],
        "seconds": state["seconds"],
        "data_seconds": state.get("data_seconds", 0.0),  # earlier checkpoints did not count it
        "best_step": state["best"]["step"],
        "valid_accuracy": state["best"]["valid_accuracy"],
        "valid_loss": state["best"]["valid_loss"],
    }
    place.keep_summary(figures)
    return Outcome(folder=place.path, **figures)


@contextlib.contextmanager
def _process_settings(loop: LoopConfig) -> Iterator[None]:
    """Change settings of the whole process within, for a run."""
    threads, cache = torch.get_num_threads(), torch.is_autocast_cache_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(loop.threads or max(1, threads // loop.processes))
    torch.use_deterministic_algorithms(loop.deterministic)
    if loop.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS demands it
    # the deterministic mode would also fill every new tensor, a costly help for hunting bugs
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_autocast_cache_enabled(False)  # a weight is used at every step; its gradients are added up in float32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_autocast_cache_enabled(cache)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
