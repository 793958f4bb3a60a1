"""An average of the weights along training."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_choice, check_from_zero, describe, is_number

AverageKind = Literal["none", "ema", "mean"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AveragingConfig:
    """Whether an average of the weights, instead of the last ones, is validated and saved."""

    kind: AverageKind = "none"
    """ema: an exponential moving average; mean: the plain mean of all weights from a step on (Polyak and Juditsky
    1992); none: the weights as they are."""
    start: int = 0
    """The first update whose weights are counted; before it, the weights as they are."""
    decay: float = 0.999
    """ema: what is kept of the average at every update; less in the first ones, (1 + n) / (10 + n) after n."""

    def __post_init__(self) -> None:
        where = "AveragingConfig"
        check_choice(where, "kind", self.kind, get_args(AverageKind))
        check_from_zero(where, start=self.start)
        if not is_number(self.decay) or not 0 < self.decay < 1:
            raise InputError(describe(where, "decay must lie between 0 and 1", got=repr(self.decay)))
        idle = {"none": {"start": 0, "decay": 0.999}, "mean": {"decay": 0.999}, "ema": {}}[self.kind]
        for name, default in idle.items():
            if getattr(self, name) != default:
                problem = f"{name} would have no effect on an average of kind {self.kind!r}"
                raise InputError(describe(where, problem, got=getattr(self, name)))


class WeightAverage:
    """The average of a model's parameters; buffers are not averaged.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(layer, AveragingConfig(kind="mean", start=1))
    >>> for step in range(3):
    ...     _ = nn.init.constant_(layer.weight, step)
    ...     average.update(step)
    >>> with average.in_place():
    ...     layer.weight.item()
    1.5
    >>> layer.weight.item()
    2.0
    """

    def __init__(self, model: nn.Module, config: AveragingConfig) -> None:
        self._model = model
        self._config = config
        self._count = 0
        self._mean: list[Tensor] = []

    def update(self, step: int) -> None:
        """Count the weights after update number `step` (from 0)."""
        if step < self._config.start:
            return
        weights = [parameter.detach() for parameter in self._model.parameters()]
        n = self._count
        if n == 0:
            self._mean = [weight.clone() for weight in weights]
        else:
            kept = n / (n + 1) if self._config.kind == "mean" else min(self._config.decay, (1 + n) / (10 + n))
            # a resumed run's average comes from the disk, and the model may have moved since
            self._mean = [mean.to(weight.device) for mean, weight in zip(self._mean, weights, strict=True)]
            for mean, weight in zip(self._mean, weights, strict=True):
                mean.lerp_(weight, 1 - kept)
        self._count += 1

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights within, once any have been counted."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        if self._count:
            for parameter, mean in zip(self._model.parameters(), self._mean, strict=True):
                own = parameter.detach().clone()
                parameter.copy_(mean)
                mean.copy_(own)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"count": self._count, "mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._count, self._mean = state["count"], list(state["mean"])
