"""The configuration that all runs share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar, Self

from relational_rnn._check import InputError, check_choice, check_from_zero, describe
from relational_rnn._reading.json_text import Json
from relational_rnn.nn.cores import CORE_NAMES, CoreName, FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.training import LATER, LoopConfig, OptimizerConfig, to_json


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """The configuration of every run; a task has a subclass with its data, its model and its batches.

    Raises:
        InputError: a core or a seed that cannot be, or a choice that the core does not have.
    """

    core: CoreName = "rmc"
    """The recurrent core."""
    memory: MemorySizes = dataclasses.field(default_factory=MemorySizes)
    """The relational memory."""
    rivals: RivalSizes = dataclasses.field(default_factory=RivalSizes, metadata=LATER)
    """Heads and layers of the cores that have them."""
    fast: FastWeightSizes = dataclasses.field(default_factory=FastWeightSizes, metadata=LATER)
    """The fast-weight memory, where it is the core."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    """Optimizer and schedule of the learning rate."""
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    """Budget, validation, device."""
    seed: int = 0
    """Decides everything random: initial weights, batches, dropout."""

    task_name: ClassVar[str]
    """What the runs are on, as it is typed."""

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_choice(where, "core", self.core, CORE_NAMES)
        check_from_zero(where, seed=self.seed)
        asked = (self.memory.backend, self.memory.activations)
        if self.core not in ("rmc", "competitive") and asked != ("auto", "store"):
            problem = f"memory.backend and memory.activations would have no effect on the core {self.core!r}"
            hint = "give them to runs of a relational memory (rmc, competitive) alone."
            raise InputError(describe(where, problem, got=asked, expected=("auto", "store"), hint=hint))

    def for_core(self, core: str) -> Self:
        """The same configuration for another core, without the choices that this core lacks."""
        return dataclasses.replace(self, core=core, rivals=self.rivals.of(core), fast=self.fast.of(core))  # type: ignore[arg-type]

    def with_rate(self, rate: float) -> Self:
        """The same with another learning rate."""
        return dataclasses.replace(self, optimizer=dataclasses.replace(self.optimizer, learning_rate=rate))

    def to_json(self) -> dict[str, Json]:
        """As config.json holds it: the name of the task comes first."""
        configuration = to_json(self)
        assert isinstance(configuration, dict)
        return {"task": self.task_name, **configuration}


def check_choices(where: str, config: RunConfig, recipes: Iterable[RunConfig], cores: Iterable[str]) -> None:
    """Refuse choices for rivals and fast weights that none of the cores has; a recipe's own fast weights may stay."""
    cores = list(cores)
    config.rivals.check(where, *cores)
    known = [recipe.fast.asked for recipe in recipes]
    asked = {name: value for name, value in config.fast.asked.items() if value not in [k.get(name) for k in known]}
    dataclasses.replace(FastWeightSizes(), **asked).check(where, *cores)
