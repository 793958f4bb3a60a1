"""Runs on bAbI: the whole configuration of one, and functions that return the ones worth repeating."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from relational_rnn._check import (
    InputError,
    check_choice,
    check_flags,
    check_from_zero,
    check_positive,
    describe,
    is_number,
)
from relational_rnn.nn.cores import FastWeightSizes, MemorySizes
from relational_rnn.runs.config import RunConfig
from relational_rnn.tasks.babi.model import ModelConfig
from relational_rnn.tasks.babi.reading import LANGUAGES
from relational_rnn.tasks.babi.story import TASK_NAMES
from relational_rnn.training import LATER, LoopConfig, OptimizerConfig

QUESTIONS = {"en": 1_000, "en-10k": 10_000}
"""Training questions of each task in the published sets that have no validation files of their own."""


def _are_tasks(tasks: object) -> bool:
    return isinstance(tasks, tuple | list) and all(type(task) is int and task in TASK_NAMES for task in tasks)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which stories to read: those of a set of files, or generated ones where no path is given."""

    path: Path | None = None
    """A folder or an archive in the published format; without it, stories are generated."""
    language: str = "en-10k"
    """Which set of an archive (needs a path): en-10k has 10,000 training questions per task, en 1,000."""
    partial: bool = False
    """Read a set from which files are missing, and say what is missing (needs a path)."""
    fill_up: bool = False
    """Add generated training stories where a task has fewer questions than it should, and say how many (needs a
    path)."""
    tasks: tuple[int, ...] = tuple(range(1, 21))
    """Which of the 20 tasks; one model learns them all."""
    max_sentences: int | None = None
    """Keep only the last so many sentences before a question, and report it; by default the whole story counts."""
    train_questions: int = 1000
    """Generated training questions of each task, validation included (without a path)."""
    test_questions: int = 200
    """Generated test questions of each task (without a path)."""
    seed: int = 0
    """Seed of the generated stories (without a path)."""

    def __post_init__(self) -> None:
        where = "DataConfig"
        check_choice(where, "language", self.language, LANGUAGES)
        check_flags(where, partial=self.partial, fill_up=self.fill_up)
        check_positive(where, train_questions=self.train_questions, test_questions=self.test_questions)
        check_from_zero(where, seed=self.seed)
        if self.fill_up and self.language not in QUESTIONS:
            problem = "fill_up adds English stories to a set without validation files"
            raise InputError(describe(where, problem, got=self.language, expected=" or ".join(QUESTIONS)))
        if self.max_sentences is not None:
            check_positive(where, max_sentences=self.max_sentences)
        if not _are_tasks(self.tasks) or not self.tasks or sorted(set(self.tasks)) != list(self.tasks):
            expected = "different numbers from 1 to 20, in order"
            raise InputError(describe(where, "there are no such tasks", got=self.tasks, expected=expected))
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        unused = (
            ("train_questions", "test_questions", "seed")
            if self.path is not None
            else ("language", "partial", "fill_up")
        )
        changed = [name for name in unused if getattr(self, name) != defaults[name]]
        if changed:
            kind = "generated stories" if self.path is not None else "stories read from files"
            found = "a path is given" if self.path is not None else "no path is given"
            raise InputError(describe(where, f"{', '.join(changed)} would have no effect", got=found, expected=kind))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BabiRun(RunConfig):
    """Everything that decides a run on bAbI."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """The stories."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """Sentence encoder and answer head, the same around every core."""
    batch_questions: int = 128
    """About how many questions a batch has."""
    rare_tasks: tuple[int, ...] = ()
    """Tasks of which training shows fewer questions than of others."""
    rare_share: float = 1.0
    """How many questions of these there are, as a share of the others'."""
    first_tasks: tuple[int, ...] = dataclasses.field(default=(), metadata=LATER)
    """Tasks that are learned before all others, alone."""
    first_steps: int = dataclasses.field(default=0, metadata=LATER)
    """For how many updates."""

    task_name: ClassVar[str] = "babi"

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        check_positive("BabiRun", batch_questions=self.batch_questions)
        known = _are_tasks(self.rare_tasks) and is_number(self.rare_share) and 0 < self.rare_share <= 1
        if not known or bool(self.rare_tasks) != (self.rare_share < 1):
            problem = "rare_tasks and rare_share go together, numbers of tasks and a share in (0, 1]"
            raise InputError(describe("BabiRun", problem, got=f"{self.rare_tasks} and {self.rare_share!r}"))
        if not set(self.rare_tasks) <= set(self.data.tasks):
            problem, hint = "rare_tasks are not all among the tasks", "`--rare-tasks --rare-share 1` has none"
            raise InputError(describe("BabiRun", problem, got=self.rare_tasks, expected=self.data.tasks, hint=hint))
        steps = self.first_steps
        known = _are_tasks(self.first_tasks) and type(steps) is int and steps >= 0
        if not known or bool(self.first_tasks) != (steps > 0):
            problem = "first_tasks and first_steps go together, numbers of tasks and a number of updates"
            raise InputError(describe("BabiRun", problem, got=f"{self.first_tasks} and {steps!r}"))
        if steps and steps >= self.loop.steps:
            problem, hint = (
                "no update is left for the other tasks",
                "`--first-tasks --first-steps 0` has no first tasks",
            )
            got = f"first_steps {steps:,} of {self.loop.steps:,}"
            raise InputError(describe("BabiRun", problem, got=got, expected="fewer than loop.steps", hint=hint))
        if not set(self.first_tasks) <= set(self.data.tasks):
            problem, hint = "first_tasks are not all among the tasks", "`--first-tasks --first-steps 0` has none"
            raise InputError(describe("BabiRun", problem, got=self.first_tasks, expected=self.data.tasks, hint=hint))


def demo() -> BabiRun:
    """All 20 tasks, generated, small enough that several models fit into minutes on two processor cores.

    Expected score: mean test accuracy 84.6 % for the fast weights, 77.2 % Transformer, 76.2 % LSTM with attention,
    68.6 % competing slots, 66.9 % relational memory, 66.0 % LSTM (one seed). Time: 397 processor seconds of training
    for all six. Machine: 2-core AMD EPYC (AVX2), one thread each, torch 2.13.
    Command: `relational-rnn demo`.
    """
    return dataclasses.replace(
        babi(),
        data=DataConfig(train_questions=5000),
        memory=MemorySizes(mem_slots=8, head_size=16, num_heads=4),
        fast=FastWeightSizes(reads=2, carry=False),
        rare_tasks=(),
        rare_share=1.0,
        first_tasks=(),
        first_steps=0,
        loop=LoopConfig(steps=1000, validate_every=500, checkpoint_every=250, threads=1),
    )


def babi() -> BabiRun:
    """All 20 tasks in one model, sized for the published files with 10,000 training questions per task.

    The core reads every sentence once, with no question known; a question then looks at its state three times.
    Matrices are trained by Muon.

    Expected score: mean test accuracy 96.6 % for the fast weights, 89.7 % for slots that compete, 88.6 % for the LSTM
    with attention, 67.7 % for the LSTM and 66.5 % for the original memory (published en-10k, with generated stories to
    fill up task 3; one seed each). Time: 11 to 21 minutes of one processor core. Machine: 2-core AMD EPYC (AVX2), one
    thread, torch 2.13.
    Command: `relational-rnn train babi --core fastweights --data PATH`; where files are missing, with `--data.partial
    --data.fill-up`.
    """
    return BabiRun(
        memory=MemorySizes(mem_slots=8, head_size=32, num_heads=4),
        fast=FastWeightSizes(key_size=32, value_size=32, reads=2, carry=False),
        model=ModelConfig(embedding_size=64, head_size=128),
        optimizer=OptimizerConfig(method="muon", learning_rate=3e-3, warmup_steps=100, beta2=0.99),
        # One thread: the products are so small that two only wait for each other.
        loop=LoopConfig(steps=10_000, validate_every=1000, checkpoint_every=500, threads=1),
        # its stories cost ten times as much as others; what is learned soon stays: slots learn from it to compete
        rare_tasks=(3,),
        rare_share=0.2,
        # basic induction: beside other tasks its plateau is not left, and what was learned before them stays
        first_tasks=(16,),
        first_steps=1000,
    )


def babi_long() -> BabiRun:
    """The recipe `babi` with more steps.

    Expected score: 99.2 % mean test accuracy, 19 of 20 tasks above 95 %, for the fast weights (three seeds); 95.1 % and
    17 tasks for eight competing slots of 64 numbers without a first task (two seeds). Published en-10k, with generated
    stories to fill up task 3. Time: 52 to 61 minutes of one core each. Machine: 2-core AMD EPYC (AVX2), one thread,
    torch 2.13.
    Command: `relational-rnn train babi --recipe babi-long --core fastweights --data PATH`; for competing slots with
    `--core competitive --memory.head-size 16 --first-tasks --first-steps 0`.
    """
    return dataclasses.replace(
        babi(),
        loop=LoopConfig(steps=40_000, validate_every=1000, checkpoint_every=1000, threads=1),
        rare_tasks=(1, 3, 4, 6, 9, 10, 11, 12, 13, 20),  # task 3 and what is learned soon
    )


RECIPES: dict[str, Callable[[], BabiRun]] = {"babi": babi, "babi-long": babi_long, "demo": demo}
"""Every recipe by its name; the first one is what a run starts from."""
