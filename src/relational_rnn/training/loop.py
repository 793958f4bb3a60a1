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
from relational_rnn._signals import Terminated, on_terminate
from relational_rnn.training.averaging import AveragingConfig, WeightAverage
from relational_rnn.training.config import LoopConfig, OptimizerConfig, learning_rate_at
from relational_rnn.training.json_files import Json
from relational_rnn.training.optimizers import build_optimizer
from relational_rnn.training.problem import Measure, Problem, evaluate, in_numbers_of
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
        MissingExtraError: Lightning Fabric or TensorBoard is not installed.
    """
    check_positive("fit", accumulate=accumulate)
    check_choice("fit", "best_by", best_by, get_args(BestBy))
    check_divisible(problem, loop)
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
        for module in ("lightning_fabric", "tensorboard"):
            need_extra(module, "train", "training")
        stack.enter_context(_process_settings(loop))
        fabric = _build_fabric(loop)
        average = None
        if averaging is not None and averaging.kind != "none":
            average = WeightAverage(problem.model, averaging)
        recorder = Recorder(place, problem, loop, optimizer, average=average, best_by=best_by)
        recorder.step = start
        recorder.listener = on_progress or stack.enter_context(ConsoleProgress(folder.name))
        stack.enter_context(on_terminate(recorder.end))
        try:
            made = not place.path.exists()
            place.begin(step=start, device=str(fabric.device), files=files or {})
            if made:
                stack.enter_context(place.held())
            _train(_Job(problem, optimizer, loop, seed, accumulate), fabric, recorder, checkpoint)
        except OSError as error:
            raise _cannot_be_written(folder, error, recorder.step) from error
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(_stopped(folder, recorder.step, loop.steps)) from stop
        if recorder.step < loop.steps:
            raise Terminated(_stopped(folder, recorder.step, loop.steps))
        assert recorder.best is not None, "the last step is always validated"
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


def _train(job: _Job, fabric: Fabric, recorder: Recorder, checkpoint: Mapping[str, Any] | None) -> None:
    """Train from a checkpoint, or from the start, to the end of the budget or to SIGTERM; validate and save."""
    problem, loop = job.problem, job.loop
    model, optimizer = fabric.setup(problem.model, build_optimizer(problem.model, job.optimizer))
    precision = fabric.strategy.precision
    with contextlib.ExitStack() as stack:
        parts = {"model": problem.model, "optimizer": optimizer, "precision": precision}
        stack.enter_context(recorder.begin(checkpoint, parts))
        given = job, recorder.step, optimizer.state_dict(), precision.state_dict()
        team = stack.enter_context(working(loop.processes, _work, *given))
        for step, measures in _updates(job, fabric, model, optimizer, team, recorder.step, recorder.waiting):
            for measure in measures:
                recorder.train.add(measure)
            if recorder.average is not None:
                recorder.average.update(step - 1)
            if step % loop.log_every == 0:
                recorder.note_update(step, sum(float(m.losses.detach().mean()) for m in measures) / len(measures))
            validates = step % loop.validate_every == 0 or step == loop.steps
            if validates or step % loop.checkpoint_every == 0 or recorder.checkpoint_is_due:
                recorder.refuse_divergence(step)
                if validates:
                    with recorder.waiting():
                        batches = problem.valid_batches()
                    ready = (_on_device(batch, fabric, loop) for batch in recorder.waited(batches))
                    with recorder.averaged():
                        valid = evaluate(problem, ready, around=fabric.autocast)
                    recorder.note_validation(step, valid)
                recorder.save(step)
            if recorder.ending and recorder.step == step:  # with a checkpoint of this very update
                break


def _updates(
    job: _Job,
    fabric: Fabric,
    model: Any,
    optimizer: Any,
    team: Team,
    start: int,
    waiting: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Iterator[tuple[int, list[Measure]]]:
    """Every update after the first `start` ones; yields how many are done, and how the model did on each batch of it.

    Args:
        job: what to train.
        fabric: for this process's device.
        model: of the job, as `fabric.setup` gave it.
        optimizer: the same.
        team: the processes that make the updates together.
        start: updates done before.
        waiting: around the making of a batch.
    """
    problem, config, accumulate = job.problem, job.optimizer, job.accumulate
    for step in range(start + 1, job.loop.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(config, step - 1, job.loop.steps)
        optimizer.zero_grad()
        measures = []
        for number in range((step - 1) * accumulate, step * accumulate):
            with waiting():
                batch = team.part(problem, problem.train_batch(number))
            batch = _on_device(batch, fabric, job.loop)
            torch.manual_seed(step_seed(job.seed, number, team.rank))
            with fabric.autocast():
                measure = problem.measure(batch)
                loss = team.share_of_mean(measure.losses)
            fabric.backward(loss / accumulate)
            measures.append(measure)
        team.add_up_gradients(problem.model)
        if config.clip_norm is not None:  # a loss that is no number is told in our own words
            fabric.clip_gradients(model, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        yield step, [team.whole(measure) for measure in measures]


def _work(team: Team, job: _Job, start: int, optimizer_state: dict[str, Any], precision_state: dict[str, Any]) -> None:
    """What the other processes of a training do."""
    with _process_settings(job.loop):
        fabric = _build_fabric(job.loop, team.rank)
        model, optimizer = fabric.setup(job.problem.model, build_optimizer(job.problem.model, job.optimizer))
        optimizer.load_state_dict(optimizer_state)
        fabric.strategy.precision.load_state_dict(precision_state)
        for _ in _updates(job, fabric, model, optimizer, team, start):
            pass


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of PyTorch's generators (dropout and the like) for one batch, so that no earlier one matters.

    Args:
        seed: of the run.
        step: the number of the batch.
        rank: of the process; each draws for its part of the batch.
    """
    text = f"{seed} {step} {rank}" if rank else f"{seed} {step}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


INPUTS = {"bf16-true": torch.bfloat16, "64-true": torch.float64}
"""What floating-point inputs become under a precision; under others they stay."""


def _on_device(batch: Any, fabric: Fabric, loop: LoopConfig) -> Any:
    """A batch where the model is, in the numbers of the model."""
    return in_numbers_of(INPUTS.get(loop.precision), fabric.to_device(batch))


def _build_fabric(loop: LoopConfig, rank: int = 0) -> Fabric:
    """Lightning Fabric for the device of a process, whatever scheduler has started it, and for a precision."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    if loop.precision == "16-mixed" and loop.accelerator == "cpu":  # Fabric would take another
        problem = "precision 16-mixed is not for the CPU"
        raise InputError(describe("LoopConfig", problem, got="accelerator = 'cpu'", hint="bf16-mixed is"))
    devices = [rank] if loop.accelerator == "cuda" else 1
    try:
        return Fabric(
            accelerator=loop.accelerator, devices=devices, precision=loop.precision, plugins=LightningEnvironment()
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise InputError(describe("LoopConfig", f"this machine cannot train like that: {error}")) from error


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
    there = {name: tuple(tensor.shape) for name, tensor in checkpoint["model"].items()}
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
    cache = torch.is_autocast_cache_enabled()
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
