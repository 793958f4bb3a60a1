"""Runs on bAbI from the outside: train one, measure it, load it, compare several."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from relational_rnn._check import InputError, describe
from relational_rnn._reading.plain import read_text
from relational_rnn._reading.structure import check_entries
from relational_rnn.nn.cores import FastWeightSizes, count_parameters, state_bytes_after
from relational_rnn.recipes.babi import BabiRun, CoreName, DataConfig
from relational_rnn.recipes.babi_problem import (
    BabiProblem,
    TrainingStories,
    absolute,
    build,
    build_data,
    build_model,
    build_vocabulary,
    test_stories,
    training_stories,
)
from relational_rnn.recipes.comparison import Trial, TuningConfig, run_grid
from relational_rnn.recipes.evaluation import RunEvaluation
from relational_rnn.recipes.running import (
    as_json,
    check_grid,
    load_weights,
    print_report,
    read_config_file,
    read_result,
    say_nothing,
    spent_on,
)
from relational_rnn.tasks.babi.batching import BabiData
from relational_rnn.tasks.babi.encoding import Vocabulary
from relational_rnn.tasks.babi.model import StoryModel
from relational_rnn.training import Outcome, Progress, RunFolder, fit, from_json
from relational_rnn.training import evaluate as measure_batches
from relational_rnn.training.json_files import Json, read_json_object, write_json

PASSED = 0.95
"""A task counts as solved above this accuracy (Weston et al. 2015)."""


def train(
    config: BabiRun,
    folder: Path | str,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_report: Callable[[str], None] | None = None,
    stories: TrainingStories | None = None,
) -> Outcome:
    """Train a run into a folder.

    Args:
        config: everything that decides the run.
        folder: the run folder; see `training.run_folder` for what it will hold.
        resume: continue a run that was stopped, from its last checkpoint.
        on_progress: called now and then; None shows the progress on standard error.
        on_report: called once for each thing to know about the data; None prints it on standard error.
        stories: those of `training_stories(config.data)`, where they are at hand already.

    Raises:
        InputError: what was given cannot be used, or the disk is full; see `training.fit`.
        KeyboardInterrupt: stopped with Ctrl-C; the message says how to continue.
    """
    config = absolute(config)
    config = dataclasses.replace(config, fast=config.fast.of(config.core))  # a recipe has sizes whatever the core
    config.rivals.check("train", config.core)
    configuration = as_json(config)
    RunFolder.claim(Path(folder), configuration, resume=resume)  # refused before minutes are spent on reading
    stories = stories if stories is not None else training_stories(config.data)
    problem = build(config, stories)
    report = [*stories.report, *problem.data.report]
    for line in report:
        (on_report or print_report)(line)
    counts = problem.data.question_counts()
    files: dict[str, Json] = {
        "vocabulary.json": json.loads(problem.data.vocabulary.to_json()),
        "data.json": {
            "questions": {split: {str(task): n for task, n in tasks.items()} for split, tasks in counts.items()},
            "report": [*report],
        },
    }
    return fit(
        problem,
        Path(folder),
        optimizer=config.optimizer,
        loop=config.loop,
        seed=config.seed,
        configuration=configuration,
        resume=resume,
        on_progress=on_progress,
        files=files,
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LoadedRun:
    """A trained model with all that is needed to use it."""

    folder: Path
    """Where it was trained."""
    config: BabiRun
    """How."""
    model: StoryModel
    """With the weights that did best on the validation stories; on the CPU, in evaluation mode."""
    vocabulary: Vocabulary
    """The words it reads and the answers it chooses from."""


def read_config(folder: Path | str) -> BabiRun:
    """The configuration of the run in a folder.

    Raises:
        InputError: there is no run on bAbI in the folder, or it was written by another version of this package.
    """
    path, content = read_config_file(Path(folder))
    if "task" in content:
        raise InputError(describe(str(folder), "the run is not on bAbI", got=content["task"]))
    model = content.get("model")
    if isinstance(model, dict) and "question_first" in model:
        problem = "it was trained by a version that told the core the question while it read"
        raise InputError(describe(str(path), f"{problem}; that is no longer in the package; train again"))
    return from_json(BabiRun, content, where=str(path))


def load(folder: Path | str) -> LoadedRun:
    """Load the best weights of a run.

    Raises:
        InputError: there is no run in the folder, no weights yet, or a file of it cannot be read.
    """
    folder = Path(folder)
    config = read_config(folder)
    path = folder / "vocabulary.json"
    vocabulary = Vocabulary.from_json(read_text(path), where=str(path))
    model = load_weights(lambda: build_model(config, vocabulary), folder)
    return LoadedRun(folder=folder, config=config, model=model, vocabulary=vocabulary)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation(RunEvaluation):
    """How a run does on stories it has not learned from; `mean_accuracy` is the mean of the tasks' accuracies, and the
    state is that after the longest story of the split."""

    per_task: Mapping[int, float]
    """Accuracy of each task."""
    tasks_above_95: int
    """Tasks with more than 95 % right answers."""
    questions: int
    """How many were asked."""


def evaluate(folder: Path | str, *, split: str = "test", data: DataConfig | Path | str | None = None) -> Evaluation:
    """Measure the best weights of a run.

    The result on the run's own test stories is kept in result.json; others are only returned.

    Args:
        folder: the run folder.
        split: "test", or "valid" for the validation stories of the run.
        data: other test stories than those of the run: a path (read like the run's files), or a whole `DataConfig`.

    Raises:
        InputError: see `load` and `tasks.babi.reading.read_babi`; a word the model does not know; an unknown split.
    """
    folder = Path(folder)
    if split not in ("test", "valid"):
        expected = "'test' or 'valid'"
        raise InputError(describe("evaluate", "split is not a known choice", got=repr(split), expected=expected))
    if split == "valid" and data is not None:
        problem = "the validation stories are those of the run; other data has none"
        raise InputError(describe("evaluate", problem, got=f"split 'valid' and data {data}"))
    run = load(folder)
    config = run.config.data
    if isinstance(data, DataConfig):
        config = data
    elif data is not None:
        config = dataclasses.replace(
            DataConfig(path=Path(data), tasks=config.tasks, max_sentences=config.max_sentences),
            **({"language": config.language, "partial": config.partial} if config.path is not None else {}),
        )
    if split == "valid":
        stories = training_stories(config)
        problem = BabiProblem(run.model, build_data(run.config, stories, run.vocabulary))
        report, part, batches = stories.report, problem.data.valid, problem.valid_batches()
    else:
        tests, report = test_stories(config)
        if data is None:  # a partial set may test what it does not teach
            untaught = sorted(tests.keys() - _tasks_trained(folder))
            tests = {task: stories for task, stories in tests.items() if task not in untaught}
            report += tuple(f"task {task}: not measured, the run had no training stories of it" for task in untaught)
        batching = BabiData({}, tests, run.vocabulary, batch_questions=512, max_sentences=config.max_sentences)
        problem = BabiProblem(run.model, batching)
        part, batches = batching.test, list(batching.test_batches())
    assert part is not None
    start = time.perf_counter()
    totals = measure_batches(problem, batches)
    seconds = time.perf_counter() - start
    spent = spent_on(folder)
    evaluation = Evaluation(
        split=split,
        mean_accuracy=totals.accuracy,
        per_task=totals.group_accuracy,
        tasks_above_95=sum(accuracy > PASSED for accuracy in totals.group_accuracy.values()),
        questions=totals.count,
        loss=totals.loss,
        parameters=count_parameters(run.model),
        state_bytes=state_bytes_after(run.model.core, int(part.lengths.max())),
        train_seconds=spent.seconds,
        processor_seconds=spent.processor_seconds,
        evaluate_seconds=seconds,
        core=run.config.core,
        seed=run.config.seed,
        steps=spent.steps,
        report=(*report, *part.report, *spent.unfinished(run.config.loop.steps)),
    )
    if split == "test" and data is None:
        write_json(folder / "result.json", evaluation.to_json())
    return evaluation


def _tasks_trained(folder: Path) -> set[int]:
    path = folder / "data.json"
    content: dict[str, Any] = read_json_object(path)
    check_entries(content, {"questions": Mapping[str, Mapping[int, int]]}, {}, where=str(path))
    check_entries(content["questions"], {"train": Any}, {}, where=f"{path}, questions")
    return {int(task) for task in content["questions"]["train"]}


def compare(
    base: BabiRun,
    cores: Sequence[CoreName],
    seeds: Sequence[int],
    folder: Path | str,
    *,
    tuning: TuningConfig | None = None,
    jobs: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
    on_report: Callable[[str], None] | None = None,
    on_trials: Callable[[Sequence[Trial]], None] | None = None,
    on_run: Callable[[Path, Evaluation], None] | None = None,
) -> dict[Path, Evaluation]:
    """Train and measure a run for every core and seed; called again, it goes on where it was stopped.

    Args:
        base: the configuration of all runs but for core and seed.
        cores: names of cores.
        seeds: seeds of runs.
        folder: gets one run folder `<core>-<seed>` for each.
        tuning: learning rates that every core tries first, in `folder`/trials; None for the base's.
        jobs: how many runs are trained at the same time, each in a process of its own; a script that asks for several
            does so under `if __name__ == "__main__"`, since these processes import it.
        on_progress: see `train`; None shows each run's progress on standard error. One job only.
        on_report: see `train`; called for the data once, where there is a run to train.
        on_trials: called with the trials of `tuning` when they are done.
        on_run: called with the folder and the measurement of each run as soon as it is there.

    Returns:
        the measurements by run folder, seeds within cores in the given order.

    Raises:
        InputError: a core or a seed is given twice or not at all; a folder holds a run of another configuration;
            training diverges with every learning rate to try; `jobs` below 1, or several and `on_progress`.
    """
    check_grid(cores, seeds, base.rivals, FastWeightSizes())  # a recipe has sizes for the core that wants them
    base = absolute(base)

    def prepare() -> Callable[..., object]:
        stories = training_stories(base.data)
        for line in (*stories.report, *build_data(base, stories, build_vocabulary(base.data, stories)).report):
            (on_report or print_report)(line)
        return partial(train, on_report=say_nothing, stories=stories)

    def measure(config: BabiRun, path: Path) -> Evaluation:
        return read_result(path, Evaluation, config.loop.steps) or evaluate(path)

    return run_grid(
        base,
        cores,
        seeds,
        Path(folder),
        tuning=tuning,
        jobs=jobs,
        configuration=as_json,
        prepare=prepare,
        measure=measure,
        on_progress=on_progress,
        on_trials=on_trials,
        on_run=on_run,
    )
