"""One model for every generated task: an encoder of steps, any recurrent core, and an answer head.

Shape legend: B sequences, T steps, F features of a step, K answers of a sequence, M answers asked for in a batch,
E embedding size, O outputs of the core, C answer classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_flags, check_positive, describe
from relational_rnn.nn.core import Core
from relational_rnn.nn.cores import FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.nn.matching import Match, build_matched
from relational_rnn.tasks.contract import TaskBatch, TaskShape
from relational_rnn.tasks.curriculum import Curriculum


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskModelConfig:
    """Sizes of everything around the core, the same for every core."""

    embedding_size: int = 64
    """Features of a token, E; unused where the inputs are vectors."""
    head_size: int = 256
    """Features of the head's hidden layers."""
    head_layers: int = 4
    """Hidden layers with ReLU between the core's output and the answers."""
    teacher_forcing: bool = False
    """Decoded answers only: each step of the decoder reads the answer before it, the right one while training, the
    model's own when it is measured. Without, the decoder reads nothing but the state of the core."""

    thinking_steps: int = 0
    """Answers at the end only: further steps of the core on a learned input before it answers. In the step that reads a
    question, the slots of a memory do not know it yet when they attend to one another; in the next one they do."""

    def __post_init__(self) -> None:
        check_positive("TaskModelConfig", embedding_size=self.embedding_size, head_size=self.head_size)
        if isinstance(self.head_layers, bool) or not isinstance(self.head_layers, int) or self.head_layers < 0:
            problem = "head_layers must be a whole number of at least 0"
            raise InputError(describe("TaskModelConfig", problem, got=repr(self.head_layers)))
        check_flags("TaskModelConfig", teacher_forcing=self.teacher_forcing)
        if isinstance(self.thinking_steps, bool) or not isinstance(self.thinking_steps, int) or self.thinking_steps < 0:
            problem = "thinking_steps must be a whole number of at least 0"
            raise InputError(describe("TaskModelConfig", problem, got=repr(self.thinking_steps)))


class TaskModel(nn.Module):
    """Reads sequences with a core and answers where the task asks.

    Tokens are embedded, vectors go to the core as they are. The head sees the core's output alone: that after the last
    step (answers at the end, perhaps after some steps to think), that of every step where something is asked, or those
    of further steps after the last one (decoded answers), which start from the state that the input left behind.

    Args:
        shape: of the task.
        core: any core; its input size is `step_size(shape, config)`.
        config: sizes of everything around the core.
        curriculum: where training stands in the task's curriculum; kept here so that it is saved with the weights.

    Raises:
        InputError: the core's input size does not fit, `teacher_forcing` where nothing is decoded, or `thinking_steps`
            where answers are not given at the end alone.

    Example:
        >>> from relational_rnn.nn import LSTM
        >>> from relational_rnn.tasks.contract import draw_batch
        >>> from relational_rnn.tasks.nth_farthest import NthFarthest
        >>> task = NthFarthest(objects=4, dimensions=2)
        >>> model = TaskModel(task.shape, LSTM(14, 8), TaskModelConfig(head_size=16, head_layers=1))
        >>> model(draw_batch(task, "train", 0, seed=0, size=5)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self, shape: TaskShape, core: Core, config: TaskModelConfig, *, curriculum: Curriculum | None = None
    ) -> None:
        size = step_size(shape, config)
        if core.input_size != size:
            problem = "the core's input size does not fit the task"
            raise InputError(describe("TaskModel", problem, got=core.input_size, expected=size))
        if config.teacher_forcing and shape.answer != "decoded":
            problem = "teacher_forcing would have no effect: this task decodes nothing"
            raise InputError(describe("TaskModel", problem, got=f"answers at the {shape.answer}", expected="decoded"))
        if config.thinking_steps and shape.answer != "end":
            problem = "thinking_steps would have no effect: this task does not answer at the end alone"
            raise InputError(describe("TaskModel", problem, got=f"answers: {shape.answer}", expected="end"))
        super().__init__()
        self.config = config
        self.answer = shape.answer
        self.curriculum = curriculum
        self.embedding = nn.Embedding(shape.inputs, size, padding_idx=0) if shape.tokens else None
        decoding = shape.answer == "decoded"
        further = decoding or config.thinking_steps > 0
        self.start = nn.Parameter(torch.randn(size) / size**0.5) if further else None
        self.answered = nn.Embedding(shape.classes, size) if decoding and config.teacher_forcing else None
        self.core = core
        layers: list[nn.Module] = []
        width = core.output_size
        for _ in range(config.head_layers):
            layers += [nn.Linear(width, config.head_size), nn.ReLU()]
            width = config.head_size
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        self.head = nn.Sequential(*layers, nn.Linear(width, shape.classes))

    @classmethod
    def build(
        cls,
        shape: TaskShape,
        core_name: str,
        sizes: MemorySizes,
        config: TaskModelConfig | None = None,
        *,
        rivals: RivalSizes | None = None,
        fast: FastWeightSizes | None = None,
        match: Match = "parameters",
        curriculum: Curriculum | None = None,
    ) -> TaskModel:
        """The model of a task with the core of that name: the relational memory of `sizes`, or a rival of equal cost.

        Raises:
            InputError: see `nn.matching.build_matched`.
        """
        config = config or TaskModelConfig()

        def wrap(core: Core) -> TaskModel:
            return cls(shape, core, config, curriculum=curriculum)

        size = step_size(shape, config)
        core = build_matched(core_name, sizes, size, wrap, rivals=rivals, fast=fast, match=match, steps=shape.steps)
        return wrap(core)

    def forward(self, batch: TaskBatch) -> Tensor:
        """The logits [M, C] of every answer asked for, in the order of `batch.targets[batch.asked]`."""
        inputs = batch.inputs if self.embedding is None else self.embedding(batch.inputs)
        outputs, state = self.core(inputs, lengths=batch.lengths)
        if self.answer == "end":
            if self.config.thinking_steps:
                assert self.start is not None
                outputs, _ = self.core(self.start.expand(len(outputs), self.config.thinking_steps, -1), state)
                return self.head(outputs[:, -1])
            if batch.lengths is None:
                return self.head(outputs[:, -1])
            rows = torch.arange(len(outputs), device=outputs.device)
            return self.head(outputs[rows, batch.lengths - 1])
        if self.answer == "every":
            return self.head(outputs[batch.asked])
        assert self.start is not None
        count, steps = batch.targets.shape
        if self.answered is None:
            outputs, _ = self.core(self.start.expand(count, steps, -1), state)
            return self.head(outputs[batch.asked])
        start = self.start.expand(count, 1, -1)
        if self.training:
            before = self.answered(batch.targets[:, :-1].clamp(min=0))
            outputs, _ = self.core(torch.cat([start, before], 1), state)
            return self.head(outputs[batch.asked])
        logits, x = [], start.squeeze(1)
        for _ in range(steps):
            output, state = self.core.step(x, state)
            logits.append(self.head(output))
            x = self.answered(logits[-1].argmax(-1))
        return torch.stack(logits, 1)[batch.asked]


def step_size(shape: TaskShape, config: TaskModelConfig) -> int:
    """Features of one step of the core."""
    return config.embedding_size if shape.tokens else shape.inputs


def whole_answers(correct: Tensor, batch: TaskBatch) -> Tensor:
    """[B] booleans: every answer of the sequence is right.

    Args:
        correct: [M] booleans, one for each answer asked for.
        batch: what was asked.

    >>> targets = torch.tensor([[3, 1], [2, -1]])
    >>> batch = TaskBatch(torch.zeros(2, 1, 1), None, targets, torch.zeros(2, dtype=torch.int64))
    >>> whole_answers(torch.tensor([True, False, True]), batch).tolist()
    [False, True]
    """
    right = torch.ones_like(batch.asked).masked_scatter_(batch.asked, correct)
    return right.all(1)
