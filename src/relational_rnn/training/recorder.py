"""What a run has come to, and how that gets into its folder: metrics, best weights, checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from safetensors.torch import save as serialize_tensors

from relational_rnn._check import describe
from relational_rnn._files import write_whole
from relational_rnn._reading.guard import damaged
from relational_rnn.training.averaging import WeightAverage
from relational_rnn.training.config import LoopConfig, OptimizerConfig, learning_rate_at
from relational_rnn.training.problem import Carrier, DivergedError, Problem, Taught, Totals
from relational_rnn.training.progress import BestBy, Progress
from relational_rnn.training.run_folder import CHECKPOINT_KEY, DAMAGED, RESTORE, RunFolder, save_checkpoint


class Stateful(Protocol):
    """What a checkpoint keeps whole."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Recorder:
    """Keeps the run folder, and tells a listener where the run stands.

    Args:
        folder: of the run.
        problem: what is trained.
        loop: how often to look and to save.
        optimizer: its learning rates are recorded.
        average: of the weights, which is validated and saved instead of the last ones; None for none.
        best_by: what on the validation set tells the best weights.
    """

    def __init__(
        self,
        folder: RunFolder,
        problem: Problem[Any],
        loop: LoopConfig,
        optimizer: OptimizerConfig,
        *,
        average: WeightAverage | None = None,
        best_by: BestBy = "accuracy",
    ) -> None:
        self.step = 0  # of the last checkpoint
        self.ending = False  # after this update
        self.best: dict[str, float] | None = None
        self.train = Totals()  # since the last validation
        self.data_seconds = 0.0  # waited for batches, all sittings
        self.listener: Callable[[Progress], None] | None = None
        self._valid: dict[str, float | None] = {"valid_accuracy": None, "valid_loss": None}  # of the last validation
        self._seconds_before = 0.0
        self._processor_before: float | None = 0.0
        self._folder = folder
        self._problem = problem
        self._loop = loop
        self._optimizer = optimizer
        self.average = average
        self._best_by: BestBy = best_by

    def end(self) -> None:
        """Let training stop after the update at hand, with a checkpoint."""
        self.ending = True

    @contextlib.contextmanager
    def begin(self, checkpoint: Mapping[str, Any] | None, parts: Mapping[str, Stateful]) -> Iterator[None]:
        """The clocks run and the curves are open within.

        Args:
            checkpoint: to go on from; None starts the run.
            parts: what else a checkpoint keeps, by its key there.

        Raises:
            InputError: the checkpoint does not fit.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._parts = parts
        if checkpoint is not None:
            with damaged(self._folder.checkpoint, DAMAGED, hint=RESTORE):
                self._restore(checkpoint)
        self._start = self.step
        self._rows = self._folder.read_metrics(up_to_step=self.step)
        # points after the checkpoint belong to work that was lost; TensorBoard drops them when the run goes on
        purge = self.step + 1 if self.step else None
        self._points = SummaryWriter(str(self._folder.tensorboard), purge_step=purge)
        self._started = self._saved_at = time.monotonic()
        self._processor_started = time.process_time()
        with contextlib.closing(self._points):
            yield

    def _restore(self, checkpoint: Mapping[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(checkpoint[name])
        ours = checkpoint[CHECKPOINT_KEY]
        self.step, self.best = ours["step"], ours["best"]
        self._valid = {name: ours.get(name) for name in self._valid}  # older checkpoints did not keep the loss
        self._seconds_before = ours["seconds"]
        self._processor_before = ours.get("processor_seconds")  # nor did they count these two
        self.data_seconds = ours.get("data_seconds", 0.0)
        self.train.load_state_dict(ours["train_totals"])
        if isinstance(self._problem, Carrier):
            self._problem.load_state_dict(ours["carried"])
        if self.average is not None:
            self.average.load_state_dict(ours["average"])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps besides the parts."""
        return {
            "configuration": self._folder.configuration,
            "step": self.step,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "data_seconds": self.data_seconds,
            "best": self.best,
            **self._valid,
            "train_totals": self.train.state_dict(),
            "carried": self._problem.state_dict() if isinstance(self._problem, Carrier) else None,
            "average": None if self.average is None else self.average.state_dict(),
        }

    def save(self, step: int) -> None:
        """Write the checkpoint of update number `step`, counted from 1."""
        self._points.flush()  # a kill must not take points that no resumed run computes again
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        save_checkpoint(self._folder.checkpoint, {CHECKPOINT_KEY: {**self.state_dict(), "step": step}, **parts})
        self.step = step
        self._saved_at = time.monotonic()

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether there is a reason to save that the number of the step does not tell."""
        seconds = self._loop.checkpoint_seconds
        return self.ending or (seconds is not None and time.monotonic() - self._saved_at >= seconds)

    @property
    def seconds(self) -> float:
        """Spent on the run so far, all sittings."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def processor_seconds(self) -> float | None:
        """What the process computed in them, its threads together; None where an older version began the run."""
        before = self._processor_before
        return None if before is None else before + time.process_time() - self._processor_started

    @property
    def lesson(self) -> tuple[int, int] | None:
        """Which lesson, from 1, of how many, where the problem has such."""
        return self._problem.lesson if isinstance(self._problem, Taught) else None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """What is done within counts as waiting for data."""
        start = time.perf_counter()
        yield
        self.data_seconds += time.perf_counter() - start

    def waited(self, batches: Sequence[Any]) -> Iterator[Any]:
        """The batches; getting them counts as waiting for data."""
        for number in range(len(batches)):
            with self.waiting():
                batch = batches[number]
            yield batch

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """The model has the weights that are judged and saved within."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def refuse_divergence(self, step: int) -> None:
        """Raise DivergedError where a loss since the last validation was no number."""
        if not math.isfinite(self.train.loss):
            problem = f"training diverged: the loss is {self.train.loss} by step {step}"
            hint = f"lower the learning rate; the checkpoint of step {self.step} is kept"
            raise DivergedError(describe(str(self._folder.path), problem, hint=hint))

    def note_update(self, step: int, loss: float) -> None:
        """A point in the training curves, and a sign of life."""
        self._log({"train/batch_loss": loss, "train/learning_rate": self._rate(step)}, step)
        if step < self._loop.steps:  # the last step is told after its validation
            self._tell(step)

    def note_validation(self, step: int, valid: Totals) -> None:
        """A row of metrics.csv, points in the curves, a sign of life; and the weights, if they are the best so far.

        Args:
            step: updates done.
            valid: what the weights that `averaged` puts into the model came to on the validation set.
        """
        train = self.train
        self._valid = {"valid_accuracy": valid.accuracy, "valid_loss": valid.loss}
        score = {"step": step, "valid_accuracy": valid.accuracy, "valid_loss": valid.loss}
        if self.best is None or _rank(score, self._best_by) > _rank(self.best, self._best_by):
            self.best = score
            with self.averaged():
                state = self._problem.model.state_dict()
                tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
            write_whole(self._folder.weights, serialize_tensors(tensors))
        seen = train.count + (int(self._rows[-1]["questions_seen"]) if self._rows else 0)
        losses = {"train_loss": train.loss, "train_accuracy": train.accuracy, **self._valid}
        figures = {**losses, "learning_rate": self._rate(step)}
        row = {name: f"{value:.8g}" for name, value in figures.items()}
        row |= {"step": str(step), "seconds": f"{self.seconds:.2f}", "questions_seen": str(seen)}
        processor = self.processor_seconds
        row["processor_seconds"] = "" if processor is None else f"{processor:.2f}"
        row["lesson"] = "" if self.lesson is None else str(self.lesson[0])
        self._rows.append(row)
        self._folder.write_metrics(self._rows)
        points = {"train/loss": train.loss, "train/accuracy": train.accuracy}
        points |= {"valid/loss": valid.loss, "valid/accuracy": valid.accuracy}
        points["train/waiting_for_data"] = self.data_seconds / self.seconds
        points |= {f"valid_accuracy/{group}": accuracy for group, accuracy in valid.group_accuracy.items()}
        if self.lesson is not None:
            points["train/lesson"] = self.lesson[0]
        self._log(points, step)
        self._tell(step)
        self.train = Totals()

    def _rate(self, step: int) -> float:
        return learning_rate_at(self._optimizer, step - 1, self._loop.steps)

    def _log(self, points: Mapping[str, float], step: int) -> None:
        for name, value in points.items():
            self._points.add_scalar(name, value, step)

    def _tell(self, step: int) -> None:
        if self.listener is not None:
            progress = Progress(
                step=step,
                steps=self._loop.steps,
                seconds=self.seconds,
                steps_per_second=(step - self._start) / (time.monotonic() - self._started),
                train_loss=self.train.loss,
                train_accuracy=self.train.accuracy,
                **self._valid,
                best_by=self._best_by,
                lesson=self.lesson,
            )
            self.listener(progress)


def _rank(score: Mapping[str, float], best_by: BestBy) -> tuple[float, float]:
    """The higher, the better: accuracy first, then the loss, or the other way round."""
    accuracy, loss = score["valid_accuracy"], score["valid_loss"]
    return (accuracy, -loss) if best_by == "accuracy" else (-loss, accuracy)
