"""The training loop as Lightning sees it: a module, a callback and a way to keep checkpoints.

Imported only where Lightning is installed; `loop.fit` is the door.

One Lightning epoch is one interval: the steps up to the next checkpoint or validation. An interval that takes longer
than `checkpoint_seconds` is cut short, and the next one begins there; SIGTERM cuts it short too, and no other follows.
Checkpoints are written at the ends of intervals only, and batches are functions of the step number, so that a resumed
run does exactly what an undisturbed one does.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from relational_rnn._check import describe
from relational_rnn._files import write_whole
from relational_rnn._signals import take_over
from relational_rnn.training.averaging import WeightAverage
from relational_rnn.training.config import LoopConfig, OptimizerConfig, learning_rate_at
from relational_rnn.training.lightning_files import Events, SafeCheckpoints
from relational_rnn.training.optimizers import build_optimizer
from relational_rnn.training.problem import Carrier, DivergedError, Measure, Problem, Taught, Totals
from relational_rnn.training.progress import BestBy, Progress
from relational_rnn.training.run_folder import CHECKPOINT_KEY, RunFolder


def next_stop(step: int, loop: LoopConfig) -> int:
    """The step at the end of the interval that begins with update number `step`, unless it is cut short."""
    ends = (step // every * every + every for every in (loop.validate_every, loop.checkpoint_every))
    return min(*ends, loop.steps)


def step_seed(seed: int, step: int) -> int:
    """The seed of PyTorch's generators (dropout and the like) for one update, so that no earlier update matters."""
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Batches:
    """The batches `get(i)` for i in `numbers`; a class of its own, since Lightning takes a list for many loaders.

    Args:
        get: makes a batch.
        numbers: of the batches.
        cut: asked before every batch that begins an update, but the first; there are no more once it says yes.
        accumulate: batches of an update.
    """

    def __init__(
        self,
        get: Callable[[int], Any],
        numbers: range,
        cut: Callable[[], bool] = lambda: False,
        accumulate: int = 1,
    ) -> None:
        self._get = get
        self._numbers = numbers
        self._cut = cut
        self._accumulate = accumulate

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Any]:
        for number in self._numbers:
            if number != self._numbers.start and number % self._accumulate == 0 and self._cut():
                return
            yield self._get(number)


class TrainingModule(LightningModule):
    """A problem with its optimiser, and the figures of the interval that runs."""

    def __init__(
        self,
        problem: Problem[Any],
        optimizer: OptimizerConfig,
        loop: LoopConfig,
        seed: int,
        *,
        accumulate: int = 1,
        average: WeightAverage | None = None,
    ) -> None:
        super().__init__()
        self.model = problem.model
        self.accumulate = accumulate
        self.average = average
        self.train_totals = Totals()
        self.valid_totals = Totals()
        self.saved_at = time.monotonic()
        self.ending = False  # after this update
        self.data_seconds = 0.0  # waited for batches, all sittings
        self._problem = problem
        self._optimizer = optimizer
        self._loop = loop
        self._seed = seed
        self._first_batch = 0  # of the interval

    @property
    def carrier(self) -> Carrier | None:
        """The problem, where it carries something from batch to batch."""
        return self._problem if isinstance(self._problem, Carrier) else None

    @property
    def lesson(self) -> tuple[int, int] | None:
        """Which lesson, from 1, of how many, where the problem has such."""
        return self._problem.lesson if isinstance(self._problem, Taught) else None

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """The model has the weights that are judged and saved within."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def train_dataloader(self) -> Batches:
        start = self.global_step
        self._first_batch = start * self.accumulate
        numbers = range(self._first_batch, next_stop(start, self._loop) * self.accumulate)
        return Batches(
            self._waiting(self._problem.train_batch), numbers, self._checkpoint_is_due, accumulate=self.accumulate
        )

    def _checkpoint_is_due(self) -> bool:
        seconds = self._loop.checkpoint_seconds
        return self.ending or (seconds is not None and time.monotonic() - self.saved_at >= seconds)

    def end(self) -> None:
        """Let training stop after the update at hand, with a checkpoint."""
        self.ending = True

    def val_dataloader(self) -> Batches:
        batches = self._waiting(self._problem.valid_batches)()
        return Batches(self._waiting(batches.__getitem__), range(len(batches)))

    def _waiting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; the time that it takes counts as waiting for data."""

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            made = make(*arguments)
            self.data_seconds += time.perf_counter() - start
            return made

        return timed

    def on_train_start(self) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for group in optimizer.param_groups:  # a checkpoint has the rate by the budget that it was written under
            rate = learning_rate_at(self._optimizer, self.global_step, self._loop.steps)
            group["lr"] = group["initial_lr"] * rate

    def on_train_epoch_start(self) -> None:
        end = next_stop(self.global_step, self._loop)
        due = end % self._loop.validate_every == 0 or end == self._loop.steps
        self.trainer.limit_val_batches = 1.0 if due else 0.0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(step_seed(self._seed, self._first_batch + batch_idx))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        measure: Measure = self._problem.measure(batch)
        self.train_totals.add(measure)
        return measure.losses.mean()

    def on_validation_start(self) -> None:
        self._averaged = self.averaged()
        self._averaged.__enter__()

    def on_validation_end(self) -> None:
        self._averaged.__exit__(None, None, None)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.valid_totals.add(self._problem.measure(batch))

    def configure_optimizers(self) -> Any:
        config = self._optimizer
        # the schedule below multiplies its rate of 1 by the rate itself
        optimizer = build_optimizer(self.model, config)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_at(config, step, self._loop.steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Recorder(Callback):
    """Keeps the run folder: metrics, best weights, checkpoints; and tells a listener where the run stands."""

    def __init__(
        self, folder: RunFolder, loop: LoopConfig, optimizer: OptimizerConfig, best_by: BestBy = "accuracy"
    ) -> None:
        self.step = 0  # of the last checkpoint
        self.best: dict[str, float] | None = None
        self.valid_accuracy: float | None = None
        self.valid_loss: float | None = None
        self.listener: Callable[[Progress], None] | None = None
        self._rows: list[dict[str, str]] = []
        self._seconds_before = 0.0
        self._processor_before: float | None = 0.0
        self._start_step = 0
        self._folder = folder
        self._loop = loop
        self._optimizer = optimizer
        self._best_by: BestBy = best_by

    @property
    def seconds(self) -> float:
        """Spent on the run so far, all sittings."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def processor_seconds(self) -> float | None:
        """What the process computed in them, its threads together; None where an older version began the run."""
        before = self._processor_before
        return None if before is None else before + time.process_time() - self._processor_started

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(pl_module, TrainingModule)
        ours = checkpoint[CHECKPOINT_KEY]
        self.step = self._start_step = ours["step"]
        self.best = ours["best"]
        self.valid_accuracy = ours["valid_accuracy"]
        self._seconds_before = ours["seconds"]
        self._processor_before = ours.get("processor_seconds")
        pl_module.data_seconds = ours.get("data_seconds", 0.0)  # older checkpoints did not count it
        self.valid_loss = ours.get("valid_loss")  # nor did they keep it, nor the two below
        pl_module.train_totals.load_state_dict(ours["train_totals"])
        if pl_module.carrier is not None:
            pl_module.carrier.load_state_dict(ours["carried"])
        if pl_module.average is not None:
            pl_module.average.load_state_dict(ours["average"])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(pl_module, TrainingModule)
        checkpoint[CHECKPOINT_KEY] = {
            "configuration": self._folder.configuration,
            "step": trainer.global_step,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "data_seconds": pl_module.data_seconds,
            "best": self.best,
            "valid_accuracy": self.valid_accuracy,
            "valid_loss": self.valid_loss,
            "train_totals": pl_module.train_totals.state_dict(),
            "carried": None if pl_module.carrier is None else pl_module.carrier.state_dict(),
            "average": None if pl_module.average is None else pl_module.average.state_dict(),
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()
        self._processor_started = time.process_time()
        self._rows = self._folder.read_metrics(up_to_step=self.step)
        assert isinstance(pl_module, TrainingModule)
        take_over(pl_module.end)  # from Lightning, which would throw away the updates since the last checkpoint

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        step = trainer.global_step
        if (batch_idx + 1) % pl_module.accumulate:  # the update is yet to come
            return
        if pl_module.average is not None:
            pl_module.average.update(step - 1)
        if step % self._loop.log_every == 0:
            assert isinstance(outputs, Mapping)
            rate = learning_rate_at(self._optimizer, step - 1, self._loop.steps)
            self._log(trainer, {"train/batch_loss": outputs["loss"].item(), "train/learning_rate": rate}, step)
            if step < self._loop.steps:  # the last step is told after its validation
                self._tell(step, pl_module.train_totals, pl_module.lesson)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        step = trainer.global_step
        if not math.isfinite(pl_module.train_totals.loss):
            problem = f"training diverged: the loss is {pl_module.train_totals.loss} by step {step}"
            hint = f"lower the learning rate; the checkpoint of step {self.step} is kept"
            raise DivergedError(describe(str(self._folder.path), problem, hint=hint))
        if pl_module.valid_totals.count:
            self._end_validation(trainer, pl_module, step)
        for logger in trainer.loggers:  # a kill must not take points that no resumed run computes again
            logger.save()
        trainer.save_checkpoint(self._folder.checkpoint, weights_only=False)
        self.step = step
        pl_module.saved_at = time.monotonic()
        trainer.should_stop = pl_module.ending or step == self._loop.steps

    def _end_validation(self, trainer: Trainer, module: TrainingModule, step: int) -> None:
        train, valid = module.train_totals, module.valid_totals
        self.valid_accuracy, self.valid_loss = valid.accuracy, valid.loss
        score = {"step": step, "valid_accuracy": valid.accuracy, "valid_loss": valid.loss}
        if self.best is None or _rank(score, self._best_by) > _rank(self.best, self._best_by):
            self.best = score
            with module.averaged():
                tensors = {name: t.detach().cpu().contiguous().clone() for name, t in module.model.state_dict().items()}
            write_whole(self._folder.weights, serialize_tensors(tensors))
        seen = train.count + (int(self._rows[-1]["questions_seen"]) if self._rows else 0)
        figures = {
            "train_loss": train.loss,
            "train_accuracy": train.accuracy,
            "valid_loss": valid.loss,
            "valid_accuracy": valid.accuracy,
            "learning_rate": learning_rate_at(self._optimizer, step - 1, self._loop.steps),
        }
        row = {name: f"{value:.8g}" for name, value in figures.items()}
        row |= {"step": str(step), "seconds": f"{self.seconds:.2f}", "questions_seen": str(seen)}
        processor = self.processor_seconds
        row["processor_seconds"] = "" if processor is None else f"{processor:.2f}"
        row["lesson"] = "" if module.lesson is None else str(module.lesson[0])
        self._rows.append(row)
        self._folder.write_metrics(self._rows)
        points = {"train/loss": train.loss, "train/accuracy": train.accuracy}
        points |= {"valid/loss": valid.loss, "valid/accuracy": valid.accuracy}
        points["train/waiting_for_data"] = module.data_seconds / self.seconds
        points |= {f"valid_accuracy/{group}": accuracy for group, accuracy in valid.group_accuracy.items()}
        if module.lesson is not None:
            points["train/lesson"] = module.lesson[0]
        self._log(trainer, points, step)
        self._tell(step, train, module.lesson)
        module.train_totals, module.valid_totals = Totals(), Totals()

    def _log(self, trainer: Trainer, points: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(points, step)

    def _tell(self, step: int, train: Totals, lesson: tuple[int, int] | None) -> None:
        if self.listener is not None:
            progress = Progress(
                step=step,
                steps=self._loop.steps,
                seconds=self.seconds,
                steps_per_second=(step - self._start_step) / (time.monotonic() - self._started),
                train_loss=train.loss,
                train_accuracy=train.accuracy,
                valid_accuracy=self.valid_accuracy,
                valid_loss=self.valid_loss,
                best_by=self._best_by,
                lesson=lesson,
            )
            self.listener(progress)


def _rank(score: Mapping[str, float], best_by: BestBy) -> tuple[float, float]:
    """The higher, the better: accuracy first, then the loss, or the other way round."""
    accuracy, loss = score["valid_accuracy"], score["valid_loss"]
    return (accuracy, -loss) if best_by == "accuracy" else (-loss, accuracy)


def build_trainer(
    folder: RunFolder,
    recorder: Recorder,
    loop: LoopConfig,
    optimizer: OptimizerConfig,
    start_step: int,
    accumulate: int = 1,
) -> Trainer:
    """A trainer for the rest of a run."""
    # points after the checkpoint belong to work that was lost; TensorBoard drops them when the run goes on
    purge: dict[str, Any] = {"purge_step": start_step + 1} if start_step else {}
    events = Events(folder.path, name=folder.tensorboard.name, version="", **purge)
    return Trainer(
        accelerator=loop.accelerator,
        devices=1,
        precision=loop.precision,
        max_epochs=-1,  # the recorder stops after the last step: how many intervals there are is not known before
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        gradient_clip_val=optimizer.clip_norm,
        accumulate_grad_batches=accumulate,
        deterministic=loop.deterministic,
        logger=events,
        log_every_n_steps=1,
        callbacks=[recorder],
        plugins=[SafeCheckpoints(), LightningEnvironment()],  # one process, whatever scheduler has started it
        default_root_dir=folder.path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
