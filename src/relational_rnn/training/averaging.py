"""An average of the weights along training, which often predicts better than the last ones."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_choice, describe, is_number

AverageKind = Literal["none", "ema", "mean"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AveragingConfig:
    """Whether validation, and what is saved, use an average of the weights instead of the last ones."""

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
        if isinstance(self.start, bool) or not isinstance(self.start, int) or self.start < 0:
            raise InputError(describe(where, "start must be a whole number, 0 or more", got=repr(self.start)))
        if not is_number(self.decay) or not 0 < self.decay < 1:
            raise InputError(describe(where, "decay must lie between 0 and 1", got=repr(self.decay)))
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        idle = {"none": ("start", "decay"), "mean": ("decay",), "ema": ()}[self.kind]
        for name in idle:
            if getattr(self, name) != defaults[name]:
                problem = f"{name} would have no effect on an average of kind {self.kind!r}"
                raise InputError(describe(where, problem, got=getattr(self, name)))


class WeightAverage:
    """The average of a model's parameters; buffers are not averaged.

    Args:
        model: whose parameters are counted.
        config: how.

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
        if self._count == 0:
            self._mean = [weight.clone() for weight in weights]
        else:
            n = self._count
            kept = n / (n + 1) if self._config.kind == "mean" else min(self._config.decay, (1 + n) / (10 + n))
            # A resumed run's average comes from the disk, and the model may have moved since.
            self._mean = [mean.to(weight.device) for mean, weight in zip(self._mean, weights, strict=True)]
            for mean, weight in zip(self._mean, weights, strict=True):
                mean.lerp_(weight, 1 - kept)
        self._count += 1

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights within; its own, where nothing has been counted yet."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
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
