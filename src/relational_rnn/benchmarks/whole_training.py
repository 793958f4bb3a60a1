"""Whole training runs of a recipe, one for each backend, from the same configuration."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from relational_rnn.benchmarks.contenders import LAYER
from relational_rnn.benchmarks.shapes import Benchmark
from relational_rnn.nn.core import Core
from relational_rnn.ops.relational_scan import Backend
from relational_rnn.runs import build
from relational_rnn.tasks.babi.batching import Batch
from relational_rnn.tasks.babi.problem import BabiProblem, TrainingStories
from relational_rnn.tasks.babi.recipes import RECIPES, BabiRun, DataConfig
from relational_rnn.training import fit


class CoreClock:
    """How long a core works in training: its forward, and its backward from the gradient of the state that it returned
    to that of its input. Watches its `snapshots` and `forward`."""

    def __init__(self, core: Core, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._began = 0.0
        self._within = False
        for name in ("snapshots", "forward"):
            setattr(core, name, self._watched(getattr(core, name)))

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(x: Tensor, *arguments: Any, **choices: Any) -> Any:
            if self._within:  # one of the two calls the other
                return call(x, *arguments, **choices)
            self._within = True
            start = self._clock()
            try:
                result = call(x, *arguments, **choices)
            finally:
                self._within = False
            if torch.is_grad_enabled():
                self.seconds += self._clock() - start
                after = result[1] if isinstance(result, tuple) else result
                assert isinstance(after, Tensor), "only the relational memory is watched"
                after.register_hook(self._begin)
                x.register_hook(self._end)
            return result

        return watched

    def _begin(self, gradient: Tensor) -> None:
        self._began = self._clock()

    def _end(self, gradient: Tensor) -> None:
        self.seconds += self._clock() - self._began


def recipe_run(benchmark: Benchmark) -> BabiRun:
    """The configuration of the recipe, cut to its steps with one validation after the last."""
    assert benchmark.recipe is not None
    steps, data = benchmark.recipe_steps, benchmark.data
    # the batches that most of a run has
    config = replace(RECIPES[benchmark.recipe](), first_tasks=(), first_steps=0)
    if benchmark.quick:
        few = DataConfig(tasks=(1, 4), train_questions=60)
        config = replace(config, data=few, batch_questions=16, rare_tasks=(), rare_share=1.0)
    elif data is not None:
        config = replace(config, data=DataConfig(path=data, partial=benchmark.partial))
    ends = {"validate_every": steps, "checkpoint_every": steps, "checkpoint_seconds": None}
    loop = replace(config.loop, steps=steps, threads=benchmark.threads, **ends)
    return replace(config, loop=loop)


def time_training(config: BabiRun, backend: str, stories: TrainingStories) -> dict[str, Any]:
    """Train with one backend in a folder that is thrown away, and say how long it took."""
    config = replace(config, memory=replace(config.memory, backend=cast(Backend, backend)))
    problem = build(config, stories)
    assert isinstance(problem, BabiProblem)
    core, draw = CoreClock(problem.model.core), problem.train_batch
    asked: list[float] = []
    worked: list[float] = []

    def train_batch(step: int) -> Batch:
        """Note when the batch was asked for, and how long the core had worked by then."""
        asked.append(time.perf_counter())
        worked.append(core.seconds)
        return draw(step)

    problem.train_batch = train_batch
    with tempfile.TemporaryDirectory() as folder:
        outcome = fit(
            problem,
            Path(folder) / "run",
            optimizer=config.optimizer,
            loop=config.loop,
            seed=config.seed,
            configuration=config.to_json(),
            on_progress=lambda progress: None,
        )
    # From one batch asked for to the next; what follows the last one is the validation.
    durations = [after - before for before, after in pairwise(asked)]
    total = asked[-1] - asked[0]
    return {
        "contender": f"{LAYER}{backend}",
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 3),
        "steps_per_second": round(len(durations) / total, 3),
        "median_ms": round(1e3 * statistics.median(durations), 3),
        "min_ms": round(1e3 * min(durations), 3),
        "max_ms": round(1e3 * max(durations), 3),
        "core_share": round((worked[-1] - worked[0]) / total, 4),
        "data_share": round(outcome.data_seconds / outcome.seconds, 4),
        "valid_accuracy": round(outcome.valid_accuracy, 4),
        "valid_loss": round(outcome.valid_loss, 4),
    }
