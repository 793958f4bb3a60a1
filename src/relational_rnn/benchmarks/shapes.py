"""What is measured: shapes, sweeps over one size of a shape, and the arithmetic that each contender cannot avoid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

Pass = Literal["train", "infer", "step"]
"""Forward and backward over a sequence; forward alone, without gradients; one step without gradients."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Sizes of a call: a batch of sequences, and the relational memory that reads them."""

    batch: int
    steps: int
    input_size: int
    mem_slots: int
    num_heads: int
    head_size: int
    key_size: int
    mlp_layers: int = 2

    @property
    def width(self) -> int:
        """Numbers in a slot."""
        return self.num_heads * self.head_size

    @property
    def state_size(self) -> int:
        """Numbers in the state of one sequence."""
        return self.mem_slots * self.width


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One thing to measure: a pass at a shape."""

    name: str
    """What it is called in results: "a", or "T=1024" for a point of a sweep."""
    shape: Shape
    run: Pass
    sweep: str | None = None
    """The sweep it is a point of, or None."""

    @property
    def key(self) -> str:
        """A name of its own among all cases."""
        return f"{self.name}, {self.run}"


SHAPES = {
    # The sequences of the n-th farthest task: few steps, many at once.
    "a": Shape(batch=1600, steps=8, input_size=40, mem_slots=8, num_heads=8, head_size=32, key_size=32),
    # Language modelling on words: one wide slot.
    "b": Shape(batch=32, steps=35, input_size=768, mem_slots=1, num_heads=4, head_size=192, key_size=64, mlp_layers=3),
    "c": Shape(batch=32, steps=20, input_size=128, mem_slots=4, num_heads=4, head_size=16, key_size=16),
    "d": Shape(batch=1, steps=1, input_size=128, mem_slots=4, num_heads=4, head_size=16, key_size=16),
    # The recipe "babi".
    "e": Shape(batch=32, steps=16, input_size=128, mem_slots=8, num_heads=4, head_size=32, key_size=32),
    # A recording, read from end to end: what inference keeps of a step would add up.
    "f": Shape(batch=1, steps=100_000, input_size=16, mem_slots=4, num_heads=2, head_size=8, key_size=8),
}
"""The named shapes; d is one step of c for one sequence, f is for inference alone."""
PASSES: dict[str, tuple[Pass, ...]] = {"d": ("step",), "f": ("infer",)}
"""The passes of shapes that are not measured in training and in inference."""
QUICK = Shape(batch=4, steps=8, input_size=12, mem_slots=3, num_heads=2, head_size=8, key_size=8)
"""What a quick run measures instead of every named shape: it shows that everything works, not how fast."""

ShapeName = Literal["a", "b", "c", "d", "e", "f"]
SweepName = Literal["T", "slots", "batch", "recompute"]
SHAPE_NAMES: tuple[ShapeName, ...] = get_args(ShapeName)
SWEEP_NAMES: tuple[SweepName, ...] = get_args(SweepName)
POINTS: dict[str, tuple[int, ...]] = {
    "T": (128, 1024, 4096, 16384),
    "slots": (1, 4, 16, 64),
    "batch": (1, 16, 256, 4096),
    "recompute": (512, 2048, 8192),
}
"""Sizes of every sweep."""
QUICK_POINTS: dict[str, tuple[int, ...]] = {"T": (4, 16), "slots": (1, 3), "batch": (1, 3), "recompute": (8, 32)}
RECOMPUTE_BATCH = 32
"""Sequences in the sweep that shows how memory grows with T, enough for what a step keeps to stand out."""


def cases(shapes: tuple[ShapeName, ...], sweeps: tuple[SweepName, ...], *, quick: bool = False) -> list[Case]:
    """Everything to measure for the given shapes and sweeps, in order.

    >>> [case.key for case in cases(("c", "d"), ("slots",))]
    ['c, train', 'c, infer', 'd, step', 'slots=1, train', 'slots=4, train', 'slots=16, train', 'slots=64, train']
    """
    found = []
    for name in shapes:
        shape = SHAPES[name]
        if quick:
            shape = replace(QUICK, batch=1, steps=1) if name == "d" else QUICK
        found += [Case(name=name, shape=shape, run=run) for run in PASSES.get(name, ("train", "infer"))]
    base = QUICK if quick else SHAPES["c"]
    for sweep in sweeps:
        for size in (QUICK_POINTS if quick else POINTS)[sweep]:
            name = f"{'recompute T' if sweep == 'recompute' else sweep}={size}"
            found.append(Case(name=name, shape=_at(base, sweep, size, quick), run="train", sweep=sweep))
    return found


def _at(base: Shape, sweep: SweepName, size: int, quick: bool) -> Shape:
    if sweep == "T":
        return replace(base, batch=1, steps=size)
    if sweep == "slots":
        return replace(base, mem_slots=size)
    if sweep == "batch":
        return replace(base, batch=size)
    # Narrow, so that the steps, not the arithmetic, decide how long it takes.
    batch = base.batch if quick else RECOMPUTE_BATCH
    return replace(base, batch=batch, steps=size, input_size=16, num_heads=2, head_size=8, key_size=8)


def memory_flop(s: Shape) -> float:
    """Operations of the relational memory's forward pass that cannot be avoided (unit gates, one block).

    Per sequence and step, with N slots, width W, F numbers in q, k and v of all heads, L layers of the MLP and I input
    features: in the loop 2 N W F + 2 N (N + 1) heads (key + head size) + 2 L N W^2 + 4 N W^2, and once for all steps
    2 I W + 2 W F + 4 W^2.

    >>> round(3 * memory_flop(SHAPES["c"]) / 1e9, 2)
    0.56
    """
    w, qkv = s.width, s.num_heads * (2 * s.key_size + s.head_size)
    attention = 2 * s.mem_slots * (s.mem_slots + 1) * s.num_heads * (s.key_size + s.head_size)
    recurrent = 2 * s.mem_slots * w * qkv + attention + 2 * s.mlp_layers * s.mem_slots * w**2 + 4 * s.mem_slots * w**2
    hoisted = 2 * s.input_size * w + 2 * w * qkv + 4 * w**2
    return float(s.batch * s.steps * (recurrent + hoisted))


def lstm_flop(s: Shape, hidden: int) -> float:
    """The same of an LSTM: 8 h (I + h) per sequence and step."""
    return float(s.batch * s.steps * 8 * hidden * (s.input_size + hidden))


def transformer_flop(s: Shape, width: int, feedforward: int, layers: int) -> float:
    """The same of a causal Transformer: projections and feed-forward parts, and attention to all steps before.

    Per sequence 2 I W T + layers (8 W^2 T + 4 W F T + 2 W T (T + 1)): the last term is the one that grows with T^2.
    """
    per_step = 2 * s.input_size * width + layers * (8 * width**2 + 4 * width * feedforward)
    attention = layers * 2 * width * s.steps * (s.steps + 1)
    return float(s.batch * (s.steps * per_step + attention))
