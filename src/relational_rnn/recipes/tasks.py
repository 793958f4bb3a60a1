"""Runs on generated tasks: the whole configuration of one, and functions that return the ones worth repeating."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import torch

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.nn.cores import CORE_NAMES, FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.nn.matching import Match
from relational_rnn.recipes.babi import CoreName
from relational_rnn.recipes.checks import check_memory_options, check_seed
from relational_rnn.tasks.associative_recall import AssociativeRecall
from relational_rnn.tasks.contract import Task
from relational_rnn.tasks.memorize import Memorize
from relational_rnn.tasks.model import TaskModelConfig
from relational_rnn.tasks.nth_farthest import NthFarthest
from relational_rnn.tasks.programs import Programs
from relational_rnn.tasks.relations import Relations
from relational_rnn.training import LATER, LoopConfig, OptimizerConfig

DrawnOn = Literal["cpu", "cuda"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TaskRun:
    """Everything that decides a run on a generated task; each task has a subclass with its own `data`."""

    core: CoreName = "rmc"
    """The recurrent core."""
    match: Match = "parameters"
    """What a rival has as much of as the relational memory: parameters, bytes of state, or operations."""
    memory: MemorySizes = dataclasses.field(default_factory=MemorySizes)
    """The relational memory."""
    rivals: RivalSizes = dataclasses.field(default_factory=RivalSizes, metadata=LATER)
    """Heads and layers of the cores that have them."""
    fast: FastWeightSizes = dataclasses.field(default_factory=FastWeightSizes, metadata=LATER)
    """The fast-weight memory, where it is the core."""
    model: TaskModelConfig = dataclasses.field(default_factory=TaskModelConfig)
    """What stands around the core, the same for every core."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    """Optimizer and schedule of the learning rate."""
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    """Budget, validation, device."""
    batch_size: int = 128
    """Sequences of a batch; every batch is new."""
    valid_samples: int = 2048
    """Sequences of the validation set."""
    test_samples: int = 12_800
    """Sequences that a finished run is measured on."""
    drawn_on: DrawnOn = "cpu"
    """The device whose generator draws the batches; the two draw different ones."""
    seed: int = 0
    """Decides initial weights and every batch."""

    task_name: ClassVar[str]

    @property
    def task(self) -> Task:
        """The task with its settings."""
        return getattr(self, "data")  # noqa: B009  (each subclass has its own type of it)

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_choice(where, "core", self.core, CORE_NAMES)
        check_choice(where, "match", self.match, get_args(Match))
        check_choice(where, "drawn_on", self.drawn_on, get_args(DrawnOn))
        check_positive(
            where, batch_size=self.batch_size, valid_samples=self.valid_samples, test_samples=self.test_samples
        )
        check_seed(where, self.seed)
        check_memory_options(where, self.core, self.memory)
        shape = self.task.shape
        if self.model.teacher_forcing and shape.answer != "decoded":
            problem = f"teacher_forcing would have no effect: {self.task_name} decodes nothing"
            raise InputError(describe(where, problem, got=f"answers at the {shape.answer}"))
        if self.model.thinking_steps and shape.answer != "end":
            problem = f"thinking_steps would have no effect: {self.task_name} does not answer at the end alone"
            raise InputError(describe(where, problem, got=f"answers: {shape.answer}"))


def check_device(config: TaskRun) -> None:
    """Refuse to draw batches on a device that is not there."""
    if config.drawn_on == "cuda" and not torch.cuda.is_available():
        problem = "this machine cannot draw batches on 'cuda': PyTorch finds no such device"
        raise InputError(describe(type(config).__name__, problem, hint="leave drawn_on at 'cpu'"))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NthFarthestRun(TaskRun):
    """Everything that decides a run on N-th farthest."""

    data: NthFarthest = dataclasses.field(default_factory=NthFarthest)
    """The task."""

    task_name: ClassVar[str] = NthFarthest.name


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ProgramsRun(TaskRun):
    """Everything that decides a run on learning to execute."""

    data: Programs = dataclasses.field(default_factory=Programs)
    """The task."""

    task_name: ClassVar[str] = Programs.name


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MemorizeRun(TaskRun):
    """Everything that decides a run on memorization."""

    data: Memorize = dataclasses.field(default_factory=Memorize)
    """The task."""

    task_name: ClassVar[str] = Memorize.name


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RelationsRun(TaskRun):
    """Everything that decides a run on relations."""

    data: Relations = dataclasses.field(default_factory=Relations)
    """The task."""

    task_name: ClassVar[str] = Relations.name


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AssociativeRecallRun(TaskRun):
    """Everything that decides a run on multi-query associative recall."""

    data: AssociativeRecall = dataclasses.field(default_factory=AssociativeRecall)
    """The task."""

    task_name: ClassVar[str] = AssociativeRecall.name


def nth_farthest_small() -> NthFarthestRun:
    """N-th farthest with 4 objects of 4 dimensions, the released example's reduced task, in lessons.

    Expected score: 97.3 ± 0.2 % (three seeds; an LSTM at 2e-3 92.4 ± 0.7 %). Time: 13.5 minutes of one core. Machine:
    2-core CPU, one thread.
    Command: `relational-rnn train nth-farthest --recipe nth-farthest-small`.
    """
    return _farthest_in_lessons(
        NthFarthest(objects=4, dimensions=4, curriculum="lessons", mastered=0.58),
        MemorySizes(mem_slots=4, head_size=16, num_heads=4, gate_style="memory"),
        steps=40_000,
    )


def nth_farthest_lessons() -> NthFarthestRun:
    """N-th farthest of the paper's size, 8 objects of 16 dimensions, in lessons, for an hour and a quarter of one core.

    Expected score: 94.3 % (one seed; an LSTM at 2e-3 33.0 %). Time: 69 minutes of one core. Machine: 2-core CPU,
    one thread. The head is as wide as the slot: four heads of 16 numbers ended at 80.7 % after more steps.
    Command: `relational-rnn train nth-farthest --recipe nth-farthest-lessons`.
    """
    return _farthest_in_lessons(
        NthFarthest(curriculum="lessons", mastered=0.65),
        MemorySizes(mem_slots=8, head_size=64, num_heads=1, gate_style="memory"),
        steps=110_000,
    )


def _farthest_in_lessons(task: NthFarthest, memory: MemorySizes, *, steps: int) -> NthFarthestRun:
    """What the recipes in lessons share: slots of 64 numbers, Muon, batches of 128, one thread."""
    return NthFarthestRun(
        data=task,
        memory=memory,
        model=TaskModelConfig(head_size=128, head_layers=4),
        optimizer=OptimizerConfig(method="muon", warmup_steps=200, final_fraction=0.01, weight_decay=0.0, beta2=0.95),
        loop=LoopConfig(steps=steps, validate_every=1000, checkpoint_every=1000, log_every=100, threads=1),
    )


def nth_farthest_paper() -> NthFarthestRun:
    """N-th farthest as in the paper (A.1): 8 objects of 16 dimensions, 8 slots of 256 numbers, batches of 1,600.

    Expected score: not measured yet (published: 91 %). Time: not measured yet. Machine: one GPU.
    Command: `relational-rnn train nth-farthest --recipe nth-farthest-paper --loop.accelerator cuda --drawn-on cuda`.
    """
    return NthFarthestRun(
        memory=MemorySizes(mem_slots=8, head_size=32, num_heads=8),
        model=TaskModelConfig(head_size=256, head_layers=4),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=1000, decay="none", weight_decay=0.0),
        loop=LoopConfig(steps=500_000, validate_every=5000, checkpoint_every=1000, log_every=100),
        batch_size=1600,
    )


def _decoding(task: Programs | Memorize) -> dict[str, Any]:
    """What the paper trains decoded tasks with (A.2): 4 slots of 256 numbers, one gate per slot, batches of 128."""
    return {
        "data": task,
        "memory": MemorySizes(mem_slots=4, head_size=64, num_heads=4, gate_style="memory"),
        "model": TaskModelConfig(embedding_size=64, head_size=256, head_layers=4),
        "optimizer": OptimizerConfig(learning_rate=1e-3, warmup_steps=1000, decay="none", weight_decay=0.0),
        "loop": LoopConfig(steps=200_000, validate_every=5000, checkpoint_every=1000, log_every=100),
        "batch_size": 128,
    }


def programs_add() -> ProgramsRun:
    """Additions of two numbers of up to five digits, as in the paper (A.2).

    Expected score: not measured yet (published: 99.9 %). Time: not measured yet. Machine: one GPU.
    Command: `relational-rnn train programs --recipe programs-add --loop.accelerator cuda`.
    """
    return ProgramsRun(**_decoding(Programs(mode="add", length=5)))


def programs_control() -> ProgramsRun:
    """Choices and loops, numbers of up to five digits, nesting 2, as in the paper (A.2).

    Expected score: not measured yet (published: 99.6 %). Time: not measured yet. Machine: one GPU.
    Command: `relational-rnn train programs --recipe programs-control --loop.accelerator cuda`.
    """
    return ProgramsRun(**_decoding(Programs(mode="control", length=5, nesting=2)))


def programs_program() -> ProgramsRun:
    """Arithmetic, choices and loops, numbers of up to five digits, nesting 2, as in the paper (A.2).

    Expected score: not measured yet (published: 79.0 %). Time: not measured yet. Machine: one GPU.
    Command: `relational-rnn train programs --recipe programs-program --loop.accelerator cuda`.
    """
    return ProgramsRun(**_decoding(Programs(mode="program", length=5, nesting=2)))


def memorize() -> MemorizeRun:
    """Up to 60 digits to give back (`--data.mode` copy, reverse or double), trained as the paper's (A.2).

    Expected score: not measured yet (published: 99 to 100 %, at a length that is not stated). Time: not measured yet.
    Machine: one GPU. Command: `relational-rnn train memorize --recipe memorize --loop.accelerator cuda`.
    """
    return MemorizeRun(**_decoding(Memorize()))


def _muon(*, learning_rate: float, decay_fraction: float) -> OptimizerConfig:
    """Muon for minutes of one processor core, its rate highest until the last part of the updates."""
    return OptimizerConfig(
        method="muon",
        learning_rate=learning_rate,
        warmup_steps=100,
        decay_fraction=decay_fraction,
        final_fraction=0.01,
        weight_decay=0.0,
        beta2=0.95,
    )


_WIDE = MemorySizes(mem_slots=2, head_size=32, num_heads=4, attention_mlp_layers=1)
"""What does best on programs of those tried: fewer and wider slots."""


def _decoding_small(task: Programs | Memorize, memory: MemorySizes, steps: int) -> dict[str, Any]:
    """For minutes of one processor core: batches of 64, Muon."""
    return {
        "data": task,
        "memory": memory,
        "model": TaskModelConfig(embedding_size=32, head_size=128, head_layers=1),
        "optimizer": _muon(learning_rate=4e-3, decay_fraction=0.4),
        "loop": LoopConfig(steps=steps, validate_every=500, checkpoint_every=500, log_every=50, threads=1),
        "batch_size": 64,
        "test_samples": 4096,
    }


def programs_add_small() -> ProgramsRun:
    """Additions of two numbers of up to three digits.

    Expected score: 99.6 ± 0.4 % of the characters, 98.5 % of whole answers (three seeds; LSTM at 8e-3 99.7 ± 0.0 and
    98.9 %). Time: 124 processor seconds. Machine: 2-core CPU, one thread.
    Command: `relational-rnn train programs --recipe programs-add-small`.
    """
    return ProgramsRun(**_decoding_small(Programs(mode="add", length=3), _WIDE, 3000))


def programs_control_small() -> ProgramsRun:
    """A choice or a loop with numbers of up to two digits.

    Expected score: 70.2 ± 0.6 % of the characters, 50.0 % of whole answers (three seeds; LSTM at 8e-3 76.4 ± 0.8 and
    51.3 %). Time: 296 processor seconds. Machine: 2-core CPU, one thread.
    Command: `relational-rnn train programs --recipe programs-control-small`.
    """
    return ProgramsRun(**_decoding_small(Programs(mode="control", length=2), _WIDE, 4000))


def programs_program_small() -> ProgramsRun:
    """One operation of arithmetic, a choice or a loop, with numbers of up to two digits.

    Expected score: 86.8 ± 0.6 % of the characters, 77.0 % of whole answers (three seeds; LSTM at 8e-3 87.0 ± 1.3 and
    76.9 %). Time: 303 processor seconds. Machine: 2-core CPU, one thread.
    Command: `relational-rnn train programs --recipe programs-program-small`.
    """
    return ProgramsRun(**_decoding_small(Programs(mode="program", length=2), _WIDE, 4000))


def memorize_small() -> MemorizeRun:
    """Up to 10 digits to give back (`--data.mode` copy, reverse or double).

    Expected score: at length 10, 99.9 ± 0.1 % of the digits on copy and 100.0 % on reverse (three seeds; an LSTM the
    same), 99.2 % on double (one seed); double reaches 99.9 ± 0.1 % (three seeds; LSTM 99.7 ± 0.2 %) with
    `--optimizer.learning-rate 8e-3 --loop.steps 12000`. Over lengths 12, 15 and 20, 65.2 % on copy and 66.3 % on
    reverse. Time: 296 and 298 processor seconds on copy and reverse, 528 for the longer run on double. Machine: 2-core
    CPU, one thread.
    Command: `relational-rnn train memorize --recipe memorize-small`.
    """
    return MemorizeRun(
        **_decoding_small(Memorize(length=10), MemorySizes(mem_slots=4, head_size=16, num_heads=4), 8000)
    )


def relations() -> RelationsRun:
    """The chapter's exercise: a memory of 4 slots and one head on chains of up to 3 relations among 8 entities.

    The memory has no gates: with them it took more steps for the first lesson (trials of one seed each).

    The learning rate stays at its highest for the first half, so that a lesson that takes long leaves enough of it:
    along a cosine from the start one seed of two ended at 82.9 %.

    Expected score: 99.3 ± 0.1 % on chains of 3 (three seeds; an LSTM at 4e-3 97.5 ± 0.9 %); 87.1, 76.5 and 67.5 % on
    chains of 4, 5 and 6. Time: 182 processor seconds. Machine: 2-core CPU, one thread.
    Command: `relational-rnn train relations`.
    """
    return RelationsRun(
        data=Relations(entities=8, curriculum="lessons"),
        memory=MemorySizes(mem_slots=4, head_size=64, num_heads=1, gate_style=None),
        model=TaskModelConfig(embedding_size=64, head_size=128, head_layers=2),
        optimizer=_muon(learning_rate=2e-3, decay_fraction=0.5),
        loop=LoopConfig(steps=9000, validate_every=500, checkpoint_every=500, log_every=50, threads=1),
    )


def associative_recall() -> AssociativeRecallRun:
    """Four pairs of 8 keys and 8 values in 32 steps, in lessons of one, two and four pairs.

    The learning rate falls in the last third: along a cosine from the start it was too low when the lesson of four
    pairs began, and 83.9 % were reached.

    Expected score: 100.0 % on four pairs, 51.3 % on eight in twice as many steps (three seeds). Time: 171 processor
    seconds. Machine: 2-core CPU, one thread.
    Command: `relational-rnn train associative-recall`.
    """
    return AssociativeRecallRun(
        data=AssociativeRecall(pairs=4, length=32, vocabulary=16, curriculum="lessons", mastered=0.2),
        memory=MemorySizes(mem_slots=8, head_size=16, num_heads=4),
        model=TaskModelConfig(embedding_size=64, head_size=128, head_layers=1),
        optimizer=_muon(learning_rate=4e-3, decay_fraction=0.3),
        loop=LoopConfig(steps=3000, validate_every=250, checkpoint_every=250, log_every=50, threads=1),
        batch_size=64,
        valid_samples=1024,
        test_samples=2048,
    )


TASK_RUNS: dict[str, type[Any]] = {
    run.task_name: run for run in (NthFarthestRun, ProgramsRun, MemorizeRun, RelationsRun, AssociativeRecallRun)
}
"""The class of runs of every generated task, by the task's name."""
TASK_RECIPES: dict[str, dict[str, Callable[[], Any]]] = {
    "nth-farthest": {
        "nth-farthest-small": nth_farthest_small,
        "nth-farthest-lessons": nth_farthest_lessons,
        "nth-farthest-paper": nth_farthest_paper,
    },
    "programs": {
        "programs-add-small": programs_add_small,
        "programs-control-small": programs_control_small,
        "programs-program-small": programs_program_small,
        "programs-add": programs_add,
        "programs-control": programs_control,
        "programs-program": programs_program,
    },
    "memorize": {"memorize-small": memorize_small, "memorize": memorize},
    "relations": {"relations": relations},
    "associative-recall": {"associative-recall": associative_recall},
}
"""The recipes of every task by their names; the first one is what a task starts from: measured, and done in minutes on
a processor core."""
