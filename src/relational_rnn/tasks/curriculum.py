"""A curriculum that advances: the level of difficulty is part of what training has learned, and saved with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_choice, check_positive, describe, is_number


class Curriculum(nn.Module):
    """The level that training batches are drawn at, and the rule by which it rises.

    The losses of `window` updates are averaged. There are two rules, and each curriculum has one of them. By
    `improvement`: where the mean is not at least this share lower than that of the window before, the level has taught
    what it can, and the next one begins, and with it the count of windows, so that a level lasts two windows at least.
    By `mastered`: the next level begins once the mean is at most this. After the last level nothing changes any more.

    It is a module so that its state is saved and resumed with the weights; it has no parameters.

    Args:
        levels: how many there are.
        window: updates.
        improvement: the least relative fall of the loss from one window to the next that keeps a level.
        mastered: the loss, in nats, at which a level is done with, or one for each level; instead of `improvement`.

    Raises:
        InputError: a number out of range, or both rules, or none.

    Example:
        >>> curriculum = Curriculum(levels=3, window=2, improvement=0.05)
        >>> for loss in (2.0, 1.0, 1.0, 0.5, 0.75, 0.75):  # windows of 1.5, 0.75 (better) and 0.75 (no better)
        ...     curriculum.update(torch.tensor(loss))
        >>> curriculum.level
        1
    """

    current: Tensor
    updates: Tensor
    total: Tensor
    before: Tensor

    def __init__(
        self,
        levels: int,
        *,
        window: int,
        improvement: float | None = None,
        mastered: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        where = "Curriculum"
        check_positive(where, levels=levels, window=window)
        if (improvement is None) == (mastered is None):
            got = f"improvement {improvement!r}, mastered {mastered!r}"
            raise InputError(describe(where, "improvement or mastered must be given, and not both", got=got))
        if improvement is not None and (not is_number(improvement) or not 0 < improvement < 1):
            raise InputError(describe(where, "improvement must be a share between 0 and 1", got=repr(improvement)))
        ends = [mastered] * levels if isinstance(mastered, int | float) else list(mastered or ())
        if mastered is not None and not all(is_number(end) and end > 0 for end in ends):
            raise InputError(describe(where, "mastered must be a loss above 0", got=repr(mastered)))
        if mastered is not None and len(ends) != levels:
            problem = "mastered must be one loss, or one for each level"
            raise InputError(describe(where, problem, got=f"{len(ends)} losses", expected=levels))
        self.levels, self.window, self.improvement, self.ends = levels, window, improvement, ends
        self.register_buffer("current", torch.zeros((), dtype=torch.int64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))
        self.register_buffer("before", torch.full((), torch.inf, dtype=torch.float64))

    @property
    def level(self) -> int:
        """From 0 to `levels` - 1."""
        return int(self.current)

    @torch.no_grad()
    def update(self, loss: Tensor) -> None:
        """Take the mean loss of one update's batch."""
        self.total += loss.detach()
        self.updates += 1
        if int(self.updates) < self.window:
            return
        mean = self.total / self.window
        if self._is_done(mean):
            self.current.add_(1).clamp_(max=self.levels - 1)
            self.before.fill_(torch.inf)
        else:
            self.before.copy_(mean)
        self.total.zero_()
        self.updates.zero_()

    def _is_done(self, mean: Tensor) -> bool:
        """Whether a window of this mean loss ends the level."""
        if self.improvement is not None:
            return bool(mean > self.before * (1 - self.improvement))
        return bool(mean <= self.ends[self.level])


LESSONS = ("none", "lessons")
"""The curricula of tasks that can be taught in lessons, each begun when the one before is mastered."""


def check_lessons(task: Any) -> None:
    """Refuse a task, a dataclass with `curriculum`, `window` and `mastered`, whose lessons cannot be.

    Raises:
        InputError: an unknown curriculum, a number out of range, or one that would have no effect.
    """
    where = type(task).__name__
    check_choice(where, "curriculum", task.curriculum, LESSONS)
    check_positive(where, window=task.window)
    if not is_number(task.mastered) or not task.mastered > 0:
        raise InputError(describe(where, "mastered must be above 0", got=repr(task.mastered)))
    defaults = {field.name: field.default for field in fields(task)}
    changed = [name for name in ("window", "mastered") if getattr(task, name) != defaults[name]]
    if changed and task.curriculum == "none":
        problem = f"{' and '.join(changed)} would have no effect: there are no lessons"
        raise InputError(describe(where, problem, got="curriculum 'none'", expected="curriculum 'lessons'"))
