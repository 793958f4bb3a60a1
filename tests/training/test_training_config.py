"""Configurations check themselves, and survive the way through JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal

import pytest

from relational_rnn import InputError
from relational_rnn.training import LATER, LoopConfig, OptimizerConfig, from_json, to_json
from relational_rnn.training.config import differences, learning_rate_at


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    path: Path | None = None
    tasks: tuple[int, ...] = (1, 2)
    kind: Literal["a", "b"] = "a"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    flag: bool = False
    rate: float = 1.0
    name: str = "x"
    size: int | None = None


@pytest.mark.parametrize(
    "config",
    [
        Outer(),
        Outer(inner=Inner(path=Path("a/b"), tasks=(7,), kind="b"), flag=True, rate=0.25, name="ü", size=3),
        OptimizerConfig(clip_norm=None, decay="none"),
        LoopConfig(threads=2, precision="64-true"),
    ],
)
def test_a_configuration_survives_json(config):
    text = json.dumps(to_json(config))
    assert from_json(type(config), json.loads(text), where="f") == config


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Grown(Outer):
    more: Inner = dataclasses.field(default_factory=Inner, metadata=LATER)
    extra: int = dataclasses.field(default=3, metadata=LATER)


def test_a_field_that_came_later_is_written_only_where_it_is_chosen():
    assert to_json(Grown()) == to_json(Outer())
    chosen = Grown(more=Inner(kind="b"), extra=4)
    content = to_json(chosen)
    assert content == to_json(Outer()) | {"more": {"path": None, "tasks": [1, 2], "kind": "b"}, "extra": 4}
    assert from_json(Grown, content, where="f") == chosen


def test_a_file_from_before_a_field_has_its_default():
    assert from_json(Grown, to_json(Outer(size=3)), where="f") == Grown(size=3)
    with pytest.raises(InputError, match="missing in the configuration: size"):
        from_json(Grown, {name: value for name, value in to_json(Outer()).items() if name != "size"}, where="f")


def changed(**changes):
    return {**to_json(Outer()), **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(nmae="y"), "f: unknown in the configuration: nmae"),
        (
            changed(inner={"path": None, "tasks": [1], "kind": "a", "extra": 1}),
            "unknown in the configuration: inner.extra",
        ),
        (changed(inner={"path": None, "kind": "a"}), "missing in the configuration: inner.tasks"),
        (changed(inner={"path": None, "tasks": [1, "2"], "kind": "a"}), r"inner.tasks\[1\] has the wrong type"),
        (changed(inner={"path": None, "tasks": [1], "kind": "c"}), "inner.kind is not a known choice"),
        (changed(inner={"path": 3, "tasks": [1], "kind": "a"}), "inner.path has the wrong type"),
        (changed(inner=[1]), "inner has the wrong type"),
        (changed(flag=1), "flag has the wrong type"),
        (changed(size=True), "size has the wrong type"),
        (changed(size=1.5), "size has the wrong type"),
        (changed(rate="1"), "rate has the wrong type"),
        (changed(name=None), "name has the wrong type"),
        ([], "the configuration has the wrong type"),
        (changed(optimizer={**to_json(OptimizerConfig()), "beta1": 2}), "beta1 is out of range"),
    ],
)
def test_anything_else_is_refused_by_its_name(content, message):
    with pytest.raises(InputError, match=message):
        from_json(Outer, content, where="f")


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"warmup_steps": -1},
        {"decay": "step"},
        {"decay_fraction": 0.0},
        {"decay_fraction": 1.1},
        {"final_fraction": 1.1},
        {"weight_decay": -0.1},
        {"clip_norm": 0.0},
        {"beta1": 1.0},
        {"beta2": -0.1},
    ],
)
def test_an_optimizer_that_cannot_work_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"OptimizerConfig: {name}"):
        OptimizerConfig(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"validate_every": -1},
        {"checkpoint_every": 1.5},
        {"checkpoint_seconds": 0.0},
        {"log_every": True},
        {"threads": 0},
        {"threads": 100_000},
        {"precision": "fp8"},
        {"accelerator": "gpu"},
    ],
)
def test_a_loop_that_cannot_work_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"LoopConfig: {name}"):
        LoopConfig(**wrong)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("none", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.55, 0.1]),
        ("cosine", [0.5, 1.0, 1.0, 0.55, 0.1]),
    ],
)
def test_the_learning_rate_warms_up_and_decays(decay, expected):
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=2, decay=decay, final_fraction=0.1)
    assert [learning_rate_at(config, step, 12) for step in (0, 1, 2, 7, 12)] == pytest.approx(expected, abs=1e-12)


def test_the_cosine_is_a_cosine():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=0, decay="cosine", final_fraction=0.0)
    assert learning_rate_at(config, 1, 4) == pytest.approx((1 + 2**-0.5) / 2)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_learning_rate_may_stay_high_before_it_decays(decay):
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=2, decay=decay, decay_fraction=0.4, final_fraction=0.1)
    rates = [learning_rate_at(config, step, 12) for step in (0, 1, 2, 8, 10, 12)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 1.0, 0.55, 0.1], abs=1e-12)


def test_differences_name_every_field():
    old = {"a": 1, "b": {"c": True, "d": [1, 2]}, "gone": None}
    new = {"a": 1.0, "b": {"c": 1, "d": [1, 3]}, "new": 0}
    assert differences(old, new) == [
        "b.c is True there and 1 here",
        "b.d is [1, 2] there and [1, 3] here",
        "gone is only there",
        "new is only here",
    ]
