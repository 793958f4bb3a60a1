"""What a run has come to, and how that gets into its folder: metrics, best weights, checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from relational_rnn._check import describe
from relational_rnn._reading.guard import damaged
from relational_rnn.training.averaging import WeightAverage
from relational_rnn.training.config import LoopConfig, OptimizerConfig, learning_rate_at
from relational_rnn.training.problem import Carrier, DivergedError, Measure, Problem, Taught, Totals
from relational_rnn.training.progress import BestBy, Progress
from relational_rnn.training.run_folder import CHECKPOINT_KEY, DAMAGED, RESTORE, RunFolder


class Recorder:
    """Keeps the run folder, and tells a listener how the run goes; see `loop.fit` for the arguments."""

    def __init__(
        self,
        folder: RunFolder,
        problem: Problem[Any],
        loop: LoopConfig,
        optimizer: OptimizerConfig,
        *,
        average: WeightAverage | None,
        best_by: BestBy,
    ) -> None:
        self.step = 0  # of the last checkpoint
        self.ending = False  # after this update
        self.listener: Callable[[Progress], None] | None = None
        self._best: dict[str, float] | None = None
        self._train = Totals()  # since the last validation
        self._valid: Mapping[str, float | None] = {"valid_accuracy": None, "valid_loss": None}  # of the last validation
        self._seconds_before = 0.0
        self._processor_before: float | None = 0.0
        self._data_seconds = 0.0  # waited for batches, all sittings
        self._folder, self._problem, self._loop, self._optimizer = folder, problem, loop, optimizer
        self._average = average
        self._best_by: BestBy = best_by

    def end(self) -> None:
        """Let training stop after the current update, with a checkpoint."""
        self.ending = True

    @contextlib.contextmanager
    def begin(self, checkpoint: Mapping[str, Any] | None, parts: Mapping[str, Any]) -> Iterator[None]:
        """Run the clocks and open the curves within, after going on from a checkpoint; `parts` is what else a
        checkpoint keeps."""
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
        self.step, self._best = ours["step"], ours["best"]
        self._valid = {name: ours.get(name) for name in self._valid}  # earlier checkpoints did not keep the loss
        self._seconds_before = ours["seconds"]
        self._processor_before = ours.get("processor_seconds")  # nor did they count these two
        self._data_seconds = ours.get("data_seconds", 0.0)
        self._train.load_state_dict(ours["train_totals"])
        if isinstance(self._problem, Carrier):
            self._problem.load_state_dict(ours["carried"])
        if self._average is not None:
            self._average.load_state_dict(ours["average"])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps besides the parts."""
        return {
            "configuration": self._folder.configuration,
            "step": self.step,
            "seconds": self._seconds,
            "processor_seconds": self._processor_seconds,
            "data_seconds": self._data_seconds,
            "best": self._best,
            **self._valid,
            "train_totals": self._train.state_dict(),
            "carried": self._problem.state_dict() if isinstance(self._problem, Carrier) else None,
            "average": None if self._average is None else self._average.state_dict(),
        }

    def save(self, step: int) -> None:
        """Write the checkpoint of update number `step`, counted from 1."""
        self._points.flush()  # a kill must not take points that no resumed run computes again
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        self._folder.write_checkpoint({CHECKPOINT_KEY: {**self.state_dict(), "step": step}, **parts})
        self.step = step
        self._saved_at = time.monotonic()

    def checkpoint_is_due(self, step: int) -> bool:
        """Whether the steps, the clock or SIGTERM ask for a checkpoint."""
        seconds = self._loop.checkpoint_seconds
        late = seconds is not None and time.monotonic() - self._saved_at >= seconds
        return self.ending or late or step % self._loop.checkpoint_every == 0

    @property
    def _seconds(self) -> float:
        """Spent on the run so far, over all sittings."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def _processor_seconds(self) -> float | None:
        """None where an earlier version began the run."""
        before = self._processor_before
        return None if before is None else before + time.process_time() - self._processor_started

    @property
    def _lesson(self) -> tuple[int, int] | None:
        return self._problem.lesson if isinstance(self._problem, Taught) else None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what is done within as waiting for data."""
        start = time.perf_counter()
        yield
        self._data_seconds += time.perf_counter() - start

    def waited(self, batches: Sequence[Any]) -> Iterator[Any]:
        """The batches; getting them counts as waiting for data."""
        for number in range(len(batches)):
            with self.waiting():
                batch = batches[number]
            yield batch

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Give the model the weights that are judged and saved."""
        return contextlib.nullcontext() if self._average is None else self._average.in_place()

    def refuse_divergence(self, step: int, valid: Totals | None = None) -> None:
        """Raise DivergedError if the loss since the last validation, or that of a validation, is not finite."""
        loss = self._train.loss if valid is None else valid.loss
        if not math.isfinite(loss):
            what = f"the loss is {loss} by" if valid is None else f"the validation loss is {loss} after"
            kept = f"; the checkpoint of step {self.step} is kept" if self.step else ""
            hint = f"lower the learning rate{kept}"
            raise DivergedError(describe(self._folder.path, f"training diverged: {what} step {step}", hint=hint))

    def note_update(self, step: int, measures: Sequence[Measure]) -> None:
        """Count an update; every `log_every` steps add points to the curves and tell the listener."""
        for measure in measures:
            self._train.add(measure)
        if self._average is not None:
            self._average.update(step - 1)
        if step % self._loop.log_every == 0:
            loss = sum(float(measure.losses.detach().mean()) for measure in measures) / len(measures)
            self._log({"train/batch_loss": loss, "train/learning_rate": self._rate(step)}, step)
            if step < self._loop.steps:  # the last step is told after its validation
                self._tell(step)

    def note_validation(self, step: int, valid: Totals) -> None:
        """Keep the weights if they are the best so far, and write the figures everywhere."""
        train, lesson, processor = self._train, self._lesson, self._processor_seconds
        figures = {"valid_accuracy": valid.accuracy, "valid_loss": valid.loss}
        self._valid, score = figures, {"step": step, **figures}
        if self._best is None or self._rank(score) > self._rank(self._best):
            self._best = score
            with self.averaged():
                self._folder.write_weights(self._problem.model.state_dict())
        seen = train.count + (int(self._rows[-1]["questions_seen"]) if self._rows else 0)
        figures = {"train_loss": train.loss, "train_accuracy": train.accuracy, **figures}
        row = {name: f"{value:.8g}" for name, value in {**figures, "learning_rate": self._rate(step)}.items()}
        row |= {"step": str(step), "seconds": f"{self._seconds:.2f}", "questions_seen": str(seen)}
        row["processor_seconds"] = "" if processor is None else f"{processor:.2f}"
        row["lesson"] = "" if lesson is None else str(lesson[0])
        self._rows.append(row)
        self._folder.write_metrics(self._rows)
        points = {name.replace("_", "/"): value for name, value in figures.items()}
        points["train/waiting_for_data"] = self._data_seconds / self._seconds
        points |= {f"valid_accuracy/{group}": accuracy for group, accuracy in valid.group_accuracy.items()}
        if lesson is not None:
            points["train/lesson"] = lesson[0]
        self._log(points, step)
        self._tell(step)
        self._train = Totals()

    def _rank(self, score: Mapping[str, float]) -> tuple[float, float]:
        """The higher, the better: accuracy first, then the loss, or the other way round."""
        accuracy, loss = score["valid_accuracy"], score["valid_loss"]
        return (accuracy, -loss) if self._best_by == "accuracy" else (-loss, accuracy)

    def _rate(self, step: int) -> float:
        return learning_rate_at(self._optimizer, step - 1, self._loop.steps)

    def _log(self, points: Mapping[str, float], step: int) -> None:
        for name, value in points.items():
            self._points.add_scalar(name, value, step)

    def _tell(self, step: int) -> None:
        assert self.listener is not None
        progress = Progress(
            step=step,
            steps=self._loop.steps,
            seconds=self._seconds,
            steps_per_second=(step - self._start) / (time.monotonic() - self._started),
            train_loss=self._train.loss,
            train_accuracy=self._train.accuracy,
            **self._valid,
            best_by=self._best_by,
            lesson=self._lesson,
        )
        self.listener(progress)
