"""From a configuration to stories, and from stories to something the training loop can train.

Axes: M questions of a batch, A answer classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch.nn.functional as F

from relational_rnn._check import InputError, describe
from relational_rnn.tasks.babi.batching import BabiData, Batch
from relational_rnn.tasks.babi.encoding import BABI, Vocabulary
from relational_rnn.tasks.babi.generation import generate
from relational_rnn.tasks.babi.model import StoryModel
from relational_rnn.tasks.babi.reading import read_babi
from relational_rnn.tasks.babi.recipes import QUESTIONS, BabiRun, DataConfig
from relational_rnn.tasks.babi.story import TASK_NAMES, Story
from relational_rnn.training import Measure, rows_of_part

StoriesByTask = dict[int, list[Story]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainingStories:
    """What a run learns from."""

    train: StoriesByTask
    """Training stories of each task."""
    valid: StoriesByTask | None
    """Validation stories where the files come with their own; None keeps back a tenth of the training stories."""
    report: tuple[str, ...]
    """What a user should know about the files, one line each."""


def training_stories(data: DataConfig) -> TrainingStories:
    """Read or generate the stories to learn from.

    Raises:
        InputError: see `read_babi`; or none of the files asked for is a training file.
    """
    if data.path is None:
        train = {task: generate(task, 2 * data.seed, questions=data.train_questions) for task in data.tasks}
        return TrainingStories(train=train, valid=None, report=())
    files = read_babi(data.path, language=data.language, partial=data.partial, tasks=data.tasks)
    if not files.train:
        raise InputError(describe(str(data.path), "there is no training file of the tasks asked for", got=data.tasks))
    train, report = fill_up(files.train, data) if data.fill_up else (files.train, ())
    return TrainingStories(train=train, valid=files.valid or None, report=files.report + report)


def fill_up(train: StoriesByTask, data: DataConfig) -> tuple[StoriesByTask, tuple[str, ...]]:
    """Training stories with generated ones added to each task that lacks questions, and a line for each such task."""
    wanted = QUESTIONS[data.language]
    filled, report = dict(train), []
    for task in data.tasks:
        stories = train.get(task, [])
        there = sum(len(story.questions) for story in stories)
        if there < wanted:
            filled[task] = [*stories, *generate(task, 2 * data.seed, questions=wanted - there)]
            report.append(f"task {task}: {there:,} published training questions and {wanted - there:,} generated ones")
    return dict(sorted(filled.items())), tuple(report)


def test_stories(data: DataConfig) -> tuple[StoriesByTask, tuple[str, ...]]:
    """Read or generate the test stories, and what a user should know about them.

    Raises:
        InputError: see `read_babi`; or none of the files asked for is a test file.
    """
    if data.path is None:
        # odd seeds are never trained on, whatever the seed of the data
        return {task: generate(task, 2 * data.seed + 1, questions=data.test_questions) for task in data.tasks}, ()
    files = read_babi(data.path, language=data.language, partial=data.partial, tasks=data.tasks)
    if not files.test:
        raise InputError(describe(str(data.path), "there is no test file of the tasks asked for", got=data.tasks))
    return files.test, files.report


def build_vocabulary(data: DataConfig, stories: TrainingStories) -> Vocabulary:
    """The words and answers of what a run learns from.

    English runs on all 20 tasks know every word and every answer of the published tasks, so that their models fit one
    another's stories.
    """
    groups = [*stories.train.values(), *(stories.valid or {}).values()]
    english = data.path is None or data.language.startswith("en")
    return Vocabulary.build(*groups, base=BABI if english and data.tasks == tuple(TASK_NAMES) else None)


class BabiProblem:
    """A story model with its batches; a `training.Problem`.

    Args:
        model: what is trained.
        data: its batches.
        report: what a user should know about the files that they come from.
    """

    def __init__(self, model: StoryModel, data: BabiData, report: Sequence[str] = ()) -> None:
        self.model = model
        self.data = data
        self.report = (*report, *data.report)
        self._valid: list[Batch] | None = None

    def train_batch(self, step: int) -> Batch:
        """The training batch of this step (from 0)."""
        return self.data.train_batch(step)

    def part(self, batch: Batch, index: int, of: int) -> Batch:
        """Some of the stories of a batch, and their questions, for one of several processes."""
        return batch.rows(rows_of_part(len(batch.lengths), index, of))

    def valid_batches(self) -> Sequence[Batch]:
        """Every validation story once."""
        if self._valid is None:
            self._valid = list(self.data.valid_batches())
        return self._valid

    def measure(self, batch: Batch) -> Measure:
        """The model on a batch; an answer that is no class is never right, and its loss counts as 0."""
        logits = self.model(batch)
        known = batch.answers < logits.shape[-1]
        losses = F.cross_entropy(logits, batch.answers.where(known, 0), reduction="none") * known
        return Measure(losses, logits.argmax(-1) == batch.answers, batch.tasks)


def build_data(config: BabiRun, stories: TrainingStories, vocabulary: Vocabulary) -> BabiData:
    """The training and validation batches of a configuration."""
    return BabiData(
        stories.train,
        None,
        vocabulary,
        valid=stories.valid,
        batch_questions=config.batch_questions,
        seed=config.seed,
        max_sentences=config.data.max_sentences,
        rare_tasks=config.rare_tasks,
        rare_share=config.rare_share,
        first_tasks=config.first_tasks,
        first_steps=config.first_steps,
    )
