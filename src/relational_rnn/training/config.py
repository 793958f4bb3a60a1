"""Typed configuration of training, and the JSON form of every configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from relational_rnn._check import (
    InputError,
    check_choice,
    check_counts,
    check_flags,
    check_from_zero,
    check_positive,
    check_range,
    describe,
    is_text,
)
from relational_rnn._reading.json_text import Json

Method = Literal["adamw", "muon"]
Decay = Literal["cosine", "linear", "none"]
Accelerator = Literal["cpu", "cuda", "mps", "auto"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"]

LATER = {"later": True}
"""Metadata of a field that earlier files lack: its default does what was done then, and is not written."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) or Muon, with warm-up, decay and gradient clipping."""

    method: Method = "adamw"
    """AdamW for all parameters; or Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon), which makes
    every update of a matrix orthogonal, for the matrices, and AdamW for embeddings, biases and gains. Muon's steps are
    scaled to the size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that one learning rate does for both."""
    learning_rate: float = 1e-3
    """The highest learning rate, reached at the end of the warm-up."""
    warmup_steps: int = 100
    """The learning rate rises in a straight line from 0 over this many steps."""
    decay: Decay = "cosine"
    """The way from the highest learning rate, after the warm-up, to the last one at the end of the budget."""
    decay_fraction: float = 1.0
    """The rate stays at the highest first and falls in this last part of what follows the warm-up (unused by decay
    "none"). A task in lessons wants its last lesson begun by then."""
    final_fraction: float = 0.05
    """The last learning rate as a fraction of the highest (unused by decay "none", which stays at the highest)."""
    weight_decay: float = 0.01
    """Pulls matrices towards 0; vectors and scalars (biases, gains) are left alone."""
    clip_norm: float | None = 1.0
    """Gradients are scaled down to this norm, all parameters together; None for no clipping."""
    beta1: float = 0.9
    """Memory of the running mean of the gradients."""
    beta2: float = 0.999
    """Memory of the running mean of the squared gradients."""

    def __post_init__(self) -> None:
        where = "OptimizerConfig"
        check_choice(where, "method", self.method, get_args(Method))
        check_range(where, "learning_rate", self.learning_rate, 0.0, above=True)
        check_from_zero(where, warmup_steps=self.warmup_steps)
        check_choice(where, "decay", self.decay, get_args(Decay))
        check_range(where, "decay_fraction", self.decay_fraction, 0.0, 1.0, above=True)
        check_range(where, "final_fraction", self.final_fraction, 0.0, 1.0)
        check_range(where, "weight_decay", self.weight_decay, 0.0)
        if self.clip_norm is not None:
            check_range(where, "clip_norm", self.clip_norm, 0.0, above=True)
        check_range(where, "beta1", self.beta1, 0.0, 0.9999999)
        check_range(where, "beta2", self.beta2, 0.0, 0.9999999)


def learning_rate_at(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of update number `step` (from 0) in a budget of `steps`.

    >>> config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, decay="linear", final_fraction=0.0)
    >>> [learning_rate_at(config, step, 8) for step in (0, 3, 4, 6, 8)]
    [0.25, 1.0, 1.0, 0.5, 0.0]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    falling = config.decay_fraction * (steps - config.warmup_steps)  # how many of the last steps
    done = max(0.0, (step - (steps - falling)) / max(1, falling))
    if config.decay == "none":
        return config.learning_rate
    shape = 1.0 - done if config.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return config.learning_rate * (config.final_fraction + (1.0 - config.final_fraction) * shape)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """How long to train, how often to look and to save, and on what."""

    steps: int = 2000
    """The budget: updates of the parameters."""
    validate_every: int = 500
    """Validate after every so many steps, and after the last one."""
    checkpoint_every: int = 100
    """Save what a killed run needs to continue after every so many steps; every validation saves too."""
    checkpoint_seconds: float | None = 60.0
    """Save as well when so many seconds have passed since the last time; None leaves it to the steps."""
    log_every: int = 10
    """A point in TensorBoard's training curves and a sign of life after every so many steps."""
    accelerator: Accelerator = "cpu"
    """Where to compute: one device of this kind; "auto" takes the first of cuda, mps and cpu that is there."""
    precision: Precision = "32-true"
    """Number format, in the words of Lightning Fabric."""
    threads: int | None = None
    """CPU threads; None leaves PyTorch's choice. Another number of threads may round differently."""
    deterministic: bool = True
    """Refuse operations that may give other numbers in a second run with the same seed."""
    processes: int = dataclasses.field(default=1, metadata=LATER)
    """Train in so many processes, each on its part of every batch, with cuda on a GPU of its own; not on texts, nor in
    lessons. All items of a batch weigh the same, whatever the sizes of the parts. One process validates and writes."""

    def __post_init__(self) -> None:
        where = "LoopConfig"
        every = {name: getattr(self, name) for name in ("validate_every", "checkpoint_every", "log_every")}
        check_positive(where, steps=self.steps, **every, processes=self.processes)
        if self.checkpoint_seconds is not None:
            check_range(where, "checkpoint_seconds", self.checkpoint_seconds, 0.0, above=True)
        check_choice(where, "accelerator", self.accelerator, get_args(Accelerator))
        check_choice(where, "precision", self.precision, get_args(Precision))
        if self.threads is not None:
            check_counts(where, threads=self.threads)  # OpenMP crashes over what the system does not give
        check_flags(where, deterministic=self.deterministic)


def to_json(value: Any) -> Json:
    """A configuration as JSON: dataclasses and mappings become objects, tuples lists, paths strings.

    Raises:
        InputError: a path or a string is not text.

    >>> to_json(OptimizerConfig())["learning_rate"]
    0.001
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {f.name: to_json(v) for f, v in fields if not (f.metadata.get("later") and v == _default(f))}
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Path | str) and not is_text(value):
        raise InputError(describe(ascii(str(value)), "a configuration holds text in UTF-8 alone"))
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no place in a configuration")


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def differences(old: Json, new: Json, path: str = "") -> list[str]:
    """One line for every value in which two configurations differ.

    >>> differences({"seed": 1, "loop": {"steps": 10}}, {"seed": 1, "loop": {"steps": 20}})
    ['loop.steps is 10 there and 20 here']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f"{path}.{name}" if path else name
            if name not in old or name not in new:
                lines.append(f"{inner} is only {'there' if name in old else 'here'}")
            else:
                lines += differences(old[name], new[name], inner)
        return lines
    # 1 and 1.0 are the same setting; True and 1 are not
    same = old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [f"{path} is {old!r} there and {new!r} here"]
