"""A comparison: a run for every core and every seed, each core with the learning rate that suits it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from relational_rnn._check import InputError, check_positive, describe, is_number
from relational_rnn.recipes.running import RunConfig, finish_runs, spent_on
from relational_rnn.training import BestBy, Progress, read_metrics
from relational_rnn.training.json_files import Json

ConfigT = TypeVar("ConfigT", bound=RunConfig)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningConfig:
    """Trials before a comparison, so that no core runs with the learning rate of another one.

    Raises:
        InputError: one learning rate alone or one given twice, `steps` below 1, or `steps` without learning rates.
    """

    learning_rates: tuple[float, ...] = ()
    """Learning rates that every core tries first, with the first seed; its runs take the one that does best on the
    validation set. Without any, all cores run with the optimizer's."""
    steps: int | None = None
    """Updates of such a trial; a quarter of the budget if not given. Where there are lessons, a trial should be long
    enough to reach the last one: before, the lesson and its loss are all there is to judge it by."""

    def __post_init__(self) -> None:
        where = "TuningConfig"
        rates = self.learning_rates
        if not isinstance(rates, tuple | list) or not all(is_number(rate) and 0 < rate < math.inf for rate in rates):
            raise InputError(describe(where, "learning_rates must be numbers above 0", got=repr(rates)))
        if len(set(rates)) < len(rates) or len(rates) == 1:
            problem = "learning_rates must be two or more, each once"
            hint = "one rate for all cores is the optimizer's learning_rate" if len(rates) == 1 else None
            raise InputError(describe(where, problem, got=list(rates), hint=hint))
        if self.steps is not None:
            check_positive(where, steps=self.steps)
            if not rates:
                problem = "steps would have no effect: there are no learning_rates to try"
                raise InputError(describe(where, problem, got=self.steps))

    def steps_of(self, budget: int) -> int:
        """Updates of a trial before runs of `budget` updates.

        >>> TuningConfig(learning_rates=(1e-3, 2e-3)).steps_of(9000)
        2250
        """
        return self.steps or max(1, budget // 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What a core reached with one learning rate: the best of its validations, or the lesson that it has come to."""

    core: str
    learning_rate: float
    steps: int
    """Updates of the trial."""
    valid_accuracy: float | None = None
    """A fraction; None, as the loss, where training diverged."""
    valid_loss: float | None = None
    """In nats."""
    lesson: int | None = None
    """The lesson, from 1, that training was in when it ended; None where no lesson has to be mastered."""
    lesson_loss: float | None = None
    """The loss of that lesson, in nats, over the last updates that metrics.csv has a row of; None in the last lesson,
    where the validation, which is always of the whole task, says more."""


def best_trials(trials: Sequence[Trial], *, best_by: BestBy = "accuracy") -> dict[str, Trial]:
    """The best trial of every core; of equal ones the first.

    Where there are lessons, the trial that came to the latest one is the best. What a model makes of the whole task
    before it is taught it is chance, so trials that ended in the same lesson before the last are told apart by the loss
    of that lesson.

    Args:
        trials: of any number of cores.
        best_by: the highest accuracy on the validation set, then the lowest loss, or the other way round.

    Raises:
        InputError: all trials of a core have diverged.

    Example:
        >>> low = Trial(core="gru", learning_rate=1e-3, steps=9, valid_accuracy=0.5, valid_loss=0.9)
        >>> best_trials([low, replace(low, learning_rate=2e-3, valid_loss=0.8)])["gru"].learning_rate
        0.002
    """

    def rank(trial: Trial) -> tuple[float, ...]:
        lesson = trial.lesson or 0
        if trial.lesson_loss is not None:
            return lesson, -trial.lesson_loss
        assert trial.valid_accuracy is not None
        assert trial.valid_loss is not None
        accuracy, loss = trial.valid_accuracy, trial.valid_loss
        return (lesson, accuracy, -loss) if best_by == "accuracy" else (lesson, -loss, accuracy)

    best = {}
    for core in dict.fromkeys(trial.core for trial in trials):
        done = [trial for trial in trials if trial.core == core and trial.valid_loss is not None]
        if not done:
            tried = [trial.learning_rate for trial in trials if trial.core == core]
            problem = f"no learning rate works for the core {core!r}: training diverged with all of them"
            raise InputError(describe("compare", problem, got=tried, hint="try lower ones"))
        best[core] = max(done, key=rank)
    return best


def for_core(base: Any, core: str) -> Any:
    """The configuration of a core's runs in a comparison: of its choices, those that the core has."""
    return replace(base, core=core, rivals=base.rivals.of(core), fast=base.fast.of(core))


def run_grid(
    base: ConfigT,
    cores: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    *,
    configuration: Callable[[ConfigT], dict[str, Json]],
    prepare: Callable[[], Callable[..., object]],
    measure: Callable[[ConfigT, Path], ResultT],
    tuning: TuningConfig | None = None,
    best_by: BestBy = "accuracy",
    lessons: int | None = None,
    jobs: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
    on_trials: Callable[[Sequence[Trial]], None] | None = None,
    on_run: Callable[[Path, ResultT], None] | None = None,
) -> dict[Path, ResultT]:
    """Try what is to be tried, then train and measure a run for every core and seed; what is done is not done again.

    Args:
        base: the configuration of all runs but for core and seed.
        cores: names of cores.
        seeds: seeds of runs; trials have the first one.
        folder: gets a run folder `<core>-<seed>` for each run, and `trials/<core>-<learning rate>` for each trial.
        configuration: the JSON of a configuration, as its config.json holds it.
        prepare: see `finish_runs`; called once, for trials and runs together.
        measure: the result of a finished run.
        tuning: learning rates to try; None for the base's.
        best_by: what on the validation set tells the best trial.
        lessons: how many lessons there are, where each begins when the one before is mastered.
        jobs: how many runs are trained at the same time, in processes of their own if there are several.
        on_progress: handed on to what trains; one job only.
        on_trials: called with all trials when they are done; not called where nothing is to be tried.
        on_run: called with the folder and the result of each run as soon as it is there.

    Returns:
        the results by run folder, seeds within cores in the given order.

    Raises:
        InputError: a folder holds something else; `jobs` below 1, or several and `on_progress`; training diverges in
            all trials of a core.
    """

    prepare = functools.cache(prepare)

    def finish(runs: Mapping[Path, ConfigT], measure: Callable[[ConfigT, Path], Any], **more: Any) -> dict[Path, Any]:
        return finish_runs(
            runs,
            configuration=configuration,
            prepare=prepare,
            measure=measure,
            jobs=jobs,
            on_progress=on_progress,
            **more,
        )

    configs: dict[str, Any] = {core: for_core(base, core) for core in cores}  # type: ignore[type-var]
    if tuning is not None and tuning.learning_rates:
        steps = tuning.steps_of(base.loop.steps)
        measured_trial = functools.partial(_measured_trial, best_by=best_by, lessons=lessons)
        planned = _trial_runs(configs, seeds[0], tuning.learning_rates, steps, folder)
        measured = finish(planned, measured_trial, may_diverge=True)
        trials = list(measured.values())
        if on_trials is not None:
            on_trials(trials)
        for core, best in best_trials(trials, best_by=best_by).items():
            configs[core] = _with_rate(configs[core], best.learning_rate)
    runs = {folder / f"{core}-{seed}": replace(configs[core], seed=seed) for core in cores for seed in seeds}
    return finish(runs, measure, on_run=on_run)


def _trial_runs(
    configs: Mapping[str, Any], seed: int, rates: Sequence[float], steps: int, folder: Path
) -> dict[Path, Any]:
    """The configuration of every trial by its folder."""
    runs = {}
    for core, config in configs.items():
        loop = replace(config.loop, steps=steps)
        for rate in rates:
            runs[folder / "trials" / f"{core}-{rate}"] = replace(_with_rate(config, rate), loop=loop, seed=seed)
    return runs


def _measured_trial(config: Any, path: Path, *, best_by: BestBy, lessons: int | None) -> Trial:
    """The best validation of a trial; without figures where it has ended before its budget, that is, diverged."""
    steps = config.loop.steps
    trial = Trial(core=config.core, learning_rate=config.optimizer.learning_rate, steps=steps)
    if spent_on(path).steps != steps:
        return trial
    rows = read_metrics(path / "metrics.csv")
    lesson = None if lessons is None else int(rows[-1]["lesson"])
    if lesson is not None and lesson == lessons:  # what stood before is chance
        rows = [row for row in rows if int(row["lesson"]) == lesson]
    validations = [
        replace(trial, valid_accuracy=float(row["valid_accuracy"]), valid_loss=float(row["valid_loss"])) for row in rows
    ]
    best = best_trials(validations, best_by=best_by)[config.core]
    return replace(best, lesson=lesson, lesson_loss=None if lesson == lessons else float(rows[-1]["train_loss"]))


def _with_rate(config: Any, rate: float) -> Any:
    return replace(config, optimizer=replace(config.optimizer, learning_rate=rate))
