"""bAbI as something to train on."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from relational_rnn._check import InputError, describe
from relational_rnn._reading.json_text import Json, read_json_object
from relational_rnn._reading.plain import read_text
from relational_rnn._reading.structure import check_entries
from relational_rnn.nn.cores import CORE_NAMES, READ_AS_MATRICES, state_bytes_after
from relational_rnn.runs import Asked, Column, Example, LoadedRun, RunEvaluation, Workload
from relational_rnn.runs.evaluation import Table
from relational_rnn.tasks.babi.batching import BabiData
from relational_rnn.tasks.babi.encoding import Vocabulary
from relational_rnn.tasks.babi.model import StoryModel
from relational_rnn.tasks.babi.problem import (
    BabiProblem,
    TrainingStories,
    build_data,
    build_vocabulary,
    test_stories,
    training_stories,
)
from relational_rnn.tasks.babi.published import PUBLISHED
from relational_rnn.tasks.babi.recipes import RECIPES, BabiRun, DataConfig
from relational_rnn.tasks.babi.story import TASK_NAMES
from relational_rnn.training import evaluate as measure_batches

PASSED = 0.95
"""A task counts as solved above this accuracy (Weston et al. 2015)."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BabiEvaluation(RunEvaluation):
    """How a run does on stories it has not learned from; `mean_accuracy` is the mean of the tasks' accuracies, and the
    state is that after the longest story of the split."""

    per_task: Mapping[int, float]
    """Accuracy of each task."""
    tasks_above_95: int
    """Tasks with more than 95 % right answers."""
    questions: int
    """How many were asked."""

    COUNTED = "questions"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("mean accuracy", "mean_accuracy", "{:.1f}", scale=100, unit=" %"),
        Column("tasks above 95 %", "tasks_above_95", "{:.3g}"),
    )

    def groups(self) -> Mapping[str, float]:
        return {f"{task} {TASK_NAMES.get(task, '')}".strip(): accuracy for task, accuracy in self.per_task.items()}

    def line(self) -> str:
        return f"{self.mean_accuracy:.1%} of test questions right, {self.tasks_above_95} tasks above 95 %"

    def tables(self) -> Sequence[Table]:
        rows = [[name, f"{100 * accuracy:.1f}"] for name, accuracy in self.groups().items()]
        return [(["task", "accuracy, %"], [*rows, ["mean", f"{100 * self.mean_accuracy:.1f}"]])]

    def summary(self) -> str:
        of = f"{self.tasks_above_95} of {len(self.per_task)} tasks above 95 %"
        return f"{of} on {self.questions:,} {self.split} questions"


class BabiWorkload(Workload[BabiRun]):
    """The 20 bAbI tasks, one model for all of them."""

    config = BabiRun
    recipes = RECIPES
    evaluation = BabiEvaluation
    published = PUBLISHED
    group_noun = "task"
    group_names = tuple(f"{task} {name}" for task, name in TASK_NAMES.items())
    curves_over = "step"
    accuracy_note = "Accuracies are shares of test questions answered exactly;"
    short: Mapping[str, str] = {"--data": "--data.path", "--partial": "--data.partial"}
    data_help = (
        "With `--data PATH` it reads the published files, from a folder or an archive, and with `--partial` also a set "
        "that is not complete (short for --data.path and --data.partial). Without them, stories are generated."
    )
    train_examples = (
        "--data data/tasks_1-20_v1-2.tar.gz --core rmc --out runs/babi/rmc-0",
        "--recipe demo --core lstm --data.tasks 1 4 --loop.steps 100 --out runs/first",
    )
    compare_examples = (
        "--data data/tasks_1-20_v1-2.tar.gz --cores rmc lstm --seeds 0 1 2 --out runs/babi",
        "--recipe demo --data.tasks 1 4 --loop.steps 20 --cores rmc gru --out runs/quick",
    )

    def check_version(self, content: Mapping[str, Json], where: str) -> None:
        model = content.get("model")
        if isinstance(model, dict) and "question_first" in model:
            problem = "it was trained by a version that told the core the question while it read"
            raise InputError(describe(where, f"{problem}; that is no longer in the package; train again"))

    def absolute(self, config: BabiRun) -> BabiRun:
        if config.data.path is None:
            return config
        return dataclasses.replace(config, data=dataclasses.replace(config.data, path=Path(config.data.path).resolve()))

    def check(self, where: str, config: BabiRun, cores: Sequence[str]) -> None:
        heads = config.model.read_heads
        having = [core for core in CORE_NAMES if core not in READ_AS_MATRICES]
        if heads not in {recipe().model.read_heads for recipe in RECIPES.values()} and not set(cores) & set(having):
            problem = f"model.read_heads would have no effect on {', '.join(cores)}"
            hint = f"the cores that have it: {', '.join(having)}."
            raise InputError(describe(where, problem, got=heads, hint=hint))

    def read(self, config: BabiRun) -> TrainingStories:
        return training_stories(config.data)

    def vocabulary(self, config: BabiRun, data: TrainingStories) -> Vocabulary:
        return build_vocabulary(config.data, data)

    def read_vocabulary(self, folder: Path, config: BabiRun) -> Vocabulary:
        path = folder / "vocabulary.json"
        return Vocabulary.from_json(read_text(path), where=str(path))

    def make_model(self, config: BabiRun, vocabulary: Vocabulary) -> StoryModel:
        return StoryModel.build(
            vocabulary, config.core, config.memory, config.model, rivals=config.rivals, fast=config.fast.of(config.core)
        )

    def make_problem(self, model: StoryModel, config: BabiRun, data: TrainingStories) -> BabiProblem:
        return BabiProblem(model, build_data(config, data, build_vocabulary(config.data, data)), data.report)

    def report(self, problem: BabiProblem) -> Sequence[str]:
        return problem.report

    def files(self, problem: BabiProblem) -> dict[str, Json]:
        counts = problem.data.question_counts()
        return {
            "vocabulary.json": json.loads(problem.data.vocabulary.to_json()),
            "data.json": {
                "questions": {split: {str(task): n for task, n in tasks.items()} for split, tasks in counts.items()},
                "report": [*problem.report],
            },
        }

    def measure(self, run: LoadedRun[BabiRun], *, split: str, data: DataConfig | Path | str | None) -> dict[str, Any]:
        if split == "valid" and data is not None:
            problem = "the validation stories are those of the run; other data has none"
            raise InputError(describe("evaluate", problem, got=f"split 'valid' and data {data}"))
        own = run.config.data
        if isinstance(data, Path | str):
            data = self.other_data(run.config, Path(data), partial=own.partial)
        config = own if data is None else data
        if split == "valid":
            stories = training_stories(config)
            problem = BabiProblem(run.model, build_data(run.config, stories, run.vocabulary))
            report, part, batches = stories.report, problem.data.valid, problem.valid_batches()
        else:
            tests, report = test_stories(config)
            if data is None:  # a partial set may test what it does not teach
                untaught = sorted(tests.keys() - _tasks_trained(run.folder))
                tests = {task: stories for task, stories in tests.items() if task not in untaught}
                report += tuple(
                    f"task {task}: not measured, the run had no training stories of it" for task in untaught
                )
            batching = BabiData({}, tests, run.vocabulary, batch_questions=512, max_sentences=config.max_sentences)
            problem = BabiProblem(run.model, batching)
            part, batches = batching.test, list(batching.test_batches())
        assert part is not None
        start = time.perf_counter()
        totals = measure_batches(problem, batches)
        return {
            "mean_accuracy": totals.accuracy,
            "per_task": totals.group_accuracy,
            "tasks_above_95": sum(accuracy > PASSED for accuracy in totals.group_accuracy.values()),
            "questions": totals.count,
            "loss": totals.loss,
            "state_bytes": state_bytes_after(run.model.core, int(part.lengths.max())),
            "evaluate_seconds": time.perf_counter() - start,
            "report": (*report, *part.report),
        }

    def other_data(self, config: BabiRun, path: Path, *, partial: bool) -> DataConfig:
        own = config.data
        language = own.language if own.path is not None else DataConfig().language
        return DataConfig(
            path=path, partial=partial, language=language, tasks=own.tasks, max_sentences=own.max_sentences
        )

    def details(self, result: Mapping[str, Any]) -> dict[str, Any]:
        return {name: result[name] for name in ("per_task", "tasks_above_95")}

    def inspect(self, run: LoadedRun[BabiRun], asked: Asked) -> Any:
        from relational_rnn.tasks.babi.story_page import inspect_story

        return inspect_story(run, asked)

    def worst_examples(self, run: LoadedRun[BabiRun], count: int) -> Sequence[Example]:
        from relational_rnn.tasks.babi.story_page import worst_stories

        return worst_stories(run, count)

    def starting(self, config: BabiRun, typed: Sequence[str]) -> BabiRun:
        if "--data.path" not in typed:
            return config
        # how many stories a recipe generates means nothing where they come from files
        return dataclasses.replace(
            config, data=DataConfig(tasks=config.data.tasks, max_sentences=config.data.max_sentences)
        )


def _tasks_trained(folder: Path) -> set[int]:
    path = folder / "data.json"
    content: dict[str, Any] = read_json_object(path)
    check_entries(content, {"questions": Mapping[str, Mapping[int, int]]}, {}, where=str(path))
    check_entries(content["questions"], {"train": Any}, {}, where=f"{path}, questions")
    return {int(task) for task in content["questions"]["train"]}


WORKLOAD = BabiWorkload()
