"""Runs on bAbI: the whole configuration of one, and functions that return the ones worth repeating."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.nn.cores import CORE_NAMES, MemorySizes, RivalSizes
from relational_rnn.recipes.checks import check_memory_options, check_seed
from relational_rnn.tasks.babi.model import ModelConfig
from relational_rnn.tasks.babi.reading import LANGUAGES
from relational_rnn.tasks.babi.story import TASK_NAMES
from relational_rnn.training import LATER, LoopConfig, OptimizerConfig

CoreName = Literal[
    "rmc", "competitive", "rnn", "gru", "lstm", "attention", "transformer", "ntm", "dnc", "universal", "deltanet"
]
"""The cores of `nn.cores.CORE_NAMES`, for type checkers and help texts."""


RecipeName = Literal["babi", "babi-long", "babi-supporting-facts", "demo"]
"""The names of `RECIPES`, for type checkers and help texts."""
QUESTIONS = {"en": 1_000, "en-10k": 10_000}
"""Training questions of each task in the published sets that have no validation files of their own."""


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
        check_positive(where, train_questions=self.train_questions, test_questions=self.test_questions)
        check_seed(where, self.seed)
        if self.fill_up and self.language not in QUESTIONS:
            problem = "fill_up adds English stories to a set without validation files"
            raise InputError(describe(where, problem, got=self.language, expected=" or ".join(QUESTIONS)))
        if self.max_sentences is not None:
            check_positive(where, max_sentences=self.max_sentences)
        if not self.tasks or sorted(set(self.tasks)) != list(self.tasks) or not set(self.tasks) <= set(TASK_NAMES):
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
class BabiRun:
    """Everything that decides a run on bAbI."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """The stories."""
    core: CoreName = "rmc"
    """The recurrent core; all others get as many parameters as the relational memory."""
    memory: MemorySizes = dataclasses.field(default_factory=MemorySizes)
    """The relational memory."""
    rivals: RivalSizes = dataclasses.field(default_factory=RivalSizes, metadata=LATER)
    """Heads and layers of the cores that have them."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """Sentence encoder and answer head, the same around every core."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    """Optimizer and schedule of the learning rate."""
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    """Budget, validation, device."""
    batch_questions: int = 128
    """About how many questions a batch has."""
    rare_tasks: tuple[int, ...] = ()
    """Tasks of which training shows fewer questions than of others."""
    rare_share: float = 1.0
    """How many questions of these there are, as a share of the others'."""
    supporting_facts: float = 0.0
    """Weight of a second loss while training: each reading but the first should look for the words of a sentence that
    the answer follows from (needs model.recalled_words). Answers never get to see which sentences these are."""
    seed: int = 0
    """Decides initial weights, validation stories, batches and dropout."""

    def __post_init__(self) -> None:
        check_choice("BabiRun", "core", self.core, CORE_NAMES)
        check_positive("BabiRun", batch_questions=self.batch_questions)
        check_seed("BabiRun", self.seed)
        check_memory_options("BabiRun", self.core, self.memory)
        if not 0 < self.rare_share <= 1 or bool(self.rare_tasks) != (self.rare_share < 1):
            problem = "rare_tasks and rare_share go together, the share is in (0, 1]"
            raise InputError(describe("BabiRun", problem, got=f"{self.rare_tasks} and {self.rare_share}"))
        if isinstance(self.supporting_facts, bool) or not 0 <= self.supporting_facts < math.inf:
            problem = "supporting_facts must be a number of at least 0"
            raise InputError(describe("BabiRun", problem, got=self.supporting_facts))
        if self.supporting_facts and not self.model.recalled_words:
            problem = "supporting_facts tell which words to look for, and this model looks for none"
            hint = "set model.recalled_words, or leave supporting_facts at 0"
            raise InputError(describe("BabiRun", problem, got="model.recalled_words = 0", hint=hint))
        if not set(self.rare_tasks) <= set(self.data.tasks):
            problem, hint = "rare_tasks are not all among the tasks", "`--rare-tasks --rare-share 1` has none"
            raise InputError(describe("BabiRun", problem, got=self.rare_tasks, expected=self.data.tasks, hint=hint))


def demo() -> BabiRun:
    """All 20 tasks, generated, small enough that four models fit into minutes on two CPU cores.

    A story is read once for each question, with the question known and its words and those linked to them marked.

    Expected score: mean test accuracy 85.4 % for the relational memory, 85.0 % LSTM, 87.5 % LSTM with attention, 87.5 %
    Transformer (one seed). Time: 2:30 for all four, two at a time.
    Machine: 2-core AMD EPYC, one thread, torch 2.13.
    Command: `relational-rnn demo`.
    """
    return BabiRun(
        data=DataConfig(train_questions=5000),
        memory=MemorySizes(mem_slots=1, head_size=16, num_heads=4),
        model=ModelConfig(embedding_size=64, head_size=64, question_first=True, match_words=True, linked_words=2),
        optimizer=OptimizerConfig(method="muon", learning_rate=4e-3, warmup_steps=60, beta2=0.99),
        # One thread: the products are so small that two only wait for each other.
        loop=LoopConfig(steps=1000, validate_every=500, checkpoint_every=250, threads=1),
    )


def babi() -> BabiRun:
    """All 20 tasks in one model, sized for the published files with 10,000 training questions per task.

    A story is read three times before each question, with the question known: the core is told which words are the
    question's, how far the other words of a sentence are from those, from sentence to sentence, and from the second
    reading on which words the one before brought up. Matrices are trained by Muon.

    Expected score: 98.3 +- 0.4 % mean test accuracy, 18 or 19 of 20 tasks above 95 % (published en-10k, task 3 filled
    up with generated stories, three seeds); `babi-long` reaches 99.9 % and all 20. Time: 9 minutes of one core.
    Machine: 2-core Intel Xeon, one thread, torch 2.13.
    Command: `relational-rnn train babi --data PATH`; where files are missing, with `--data.partial --data.fill-up`.
    """
    return BabiRun(
        memory=MemorySizes(mem_slots=1, head_size=32, num_heads=4),
        model=ModelConfig(
            embedding_size=64,
            head_size=64,
            question_first=True,
            reads=3,
            match_words=True,
            linked_words=3,
            recalled_words=4,
        ),
        optimizer=OptimizerConfig(method="muon", learning_rate=3e-3, warmup_steps=100, beta2=0.99),
        loop=LoopConfig(steps=4000, validate_every=500, checkpoint_every=250, threads=1),
        # what is learned soon, and task 3, whose stories cost ten times as much as others
        rare_tasks=(1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 18, 20),
        rare_share=0.2,
    )


def babi_long() -> BabiRun:
    """The recipe `babi` with 10,000 steps and other rare tasks; its weights come with the package.

    Expected score: 99.90 % mean test accuracy, 20 of 20 tasks above 95 % (published en-10k, task 3 filled up with
    generated stories, one seed). Time: 32 minutes of one processor core. Machine: 2-core AMD EPYC, one thread, torch
    2.13.
    Command: `relational-rnn train babi --recipe babi-long --data PATH`.
    """
    return dataclasses.replace(babi(), loop=_LONG, rare_tasks=(1, 2, 4, 6, 9, 10, 11, 12, 13, 15, 16, 18, 20))


def babi_supporting_facts() -> BabiRun:
    """Told while training which sentences an answer follows from, instead of how words are linked; 10,000 steps.

    The published files name the supporting facts of every question. Each reading but the first learns to look for the
    words of one of them, in their published order; to answer, the model gets the story and the question alone, as ever.
    All else is as in `babi-long`, but for which tasks are rare.

    Expected score: 99.92 % mean test accuracy, 20 of 20 tasks above 95 % (published en-10k, task 3 filled up with
    generated stories, one seed). Time: 29 minutes of one processor core. Machine: 2-core AMD EPYC, one thread, torch
    2.13.
    Command: `relational-rnn train babi --recipe babi-supporting-facts --data PATH`.
    """
    base = babi_long()
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, linked_words=0),
        supporting_facts=0.3,
        rare_tasks=(1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 18, 20),
    )


_LONG = LoopConfig(steps=10_000, validate_every=1000, checkpoint_every=500, threads=1)

RECIPES: dict[RecipeName, Callable[[], BabiRun]] = {
    "demo": demo,
    "babi": babi,
    "babi-long": babi_long,
    "babi-supporting-facts": babi_supporting_facts,
}
"""Every recipe by its name."""
