"""What is measured: shapes, sweeps over one size of a shape, and the arithmetic that contenders cannot avoid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn, get_args

import torch

from relational_rnn._check import InputError, check_choice, check_counts, check_positive, describe
from relational_rnn.tasks.babi.recipes import RECIPES

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
class FastShape:
    """The same for fast weights, of one read and with the output carried on."""

    batch: int
    steps: int
    input_size: int
    hidden_size: int
    num_heads: int = 4
    key_size: int = 16
    value_size: int = 16

    @property
    def state_size(self) -> int:
        """Numbers in the state of one sequence."""
        return self.num_heads * self.key_size * self.value_size + self.hidden_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One thing to measure: a pass at a shape."""

    name: str
    """In results: "a", or "T=1024" for a point of a sweep."""
    shape: Shape | FastShape
    run: Pass
    sweep: str | None = None
    """The sweep that it is a point of."""

    @property
    def key(self) -> str:
        """Its name among all cases."""
        return f"{self.name}, {self.run}"


SHAPES: dict[str, Shape | FastShape] = {
    # The sequences of the n-th farthest task: few steps, many at once.
    "a": Shape(batch=1600, steps=8, input_size=40, mem_slots=8, num_heads=8, head_size=32, key_size=32),
    # Language modelling on words: one wide slot.
    "b": Shape(batch=32, steps=35, input_size=768, mem_slots=1, num_heads=4, head_size=192, key_size=64, mlp_layers=3),
    "c": Shape(batch=32, steps=20, input_size=128, mem_slots=4, num_heads=4, head_size=16, key_size=16),
    "d": Shape(batch=1, steps=1, input_size=128, mem_slots=4, num_heads=4, head_size=16, key_size=16),
    # Stories, read sentence by sentence.
    "e": Shape(batch=32, steps=16, input_size=128, mem_slots=8, num_heads=4, head_size=32, key_size=32),
    # A recording, read from end to end: what inference keeps of a step would add up.
    "f": Shape(batch=1, steps=100_000, input_size=16, mem_slots=4, num_heads=2, head_size=8, key_size=8),
    # Fast weights of the sizes that tasks have.
    "g": FastShape(batch=32, steps=16, input_size=64, hidden_size=64),
    "h": FastShape(batch=1, steps=1, input_size=64, hidden_size=64),
}
"""The named shapes; d is one step of c for one sequence, h one of g, f is for inference alone."""
PASSES: dict[str, tuple[Pass, ...]] = {"d": ("step",), "f": ("infer",), "h": ("step",)}
"""The passes of a shape, if these are not training and inference."""
QUICK = Shape(batch=4, steps=8, input_size=12, mem_slots=3, num_heads=2, head_size=8, key_size=8)
QUICK_FAST = FastShape(batch=4, steps=8, input_size=12, hidden_size=10, num_heads=2, key_size=6, value_size=5)
"""What a quick run measures instead of the named shapes."""

ShapeName = Literal["a", "b", "c", "d", "e", "f", "g", "h"]
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
DTYPES = ("float32", "float64", "bfloat16")
RECOMPUTE_BATCH = 32
"""Sequences in the sweep that shows how memory grows with T, enough for what a step keeps to stand out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """Everything that decides a benchmark."""

    shapes: tuple[ShapeName, ...] = SHAPE_NAMES
    sweeps: tuple[SweepName, ...] = SWEEP_NAMES
    threads: int | None = None
    """CPU threads; None leaves PyTorch's choice."""
    device: str = "cpu"
    """"cpu" or "cuda"."""
    dtype: str = "float32"
    """One of `DTYPES`."""
    budget_seconds: float = 600.0
    """About how long all of it may take; three runs of everything are made in any case."""
    runs: int | None = None
    """How often everything is timed; None lets the budget decide."""
    quick: bool = False
    """Tiny sizes, to see that everything works; the figures mean nothing."""
    compiled: bool = False
    """Time the plain loop under `torch.compile`, too; compiling takes minutes."""
    l0sg: Path | None = None
    """A checkout of the L0SG port to time too; its code is run."""
    recipe: str | None = None
    """A recipe to train with every backend."""
    recipe_steps: int = 300
    """Updates of such a run."""
    data: Path | None = None
    """Published stories for the recipe; None generates stories."""
    partial: bool = False
    """Read stories although files are missing."""

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def __post_init__(self) -> None:
        where, recipe = "benchmark", self.recipe is not None
        for name, given, known in (("shapes", self.shapes, SHAPE_NAMES), ("sweeps", self.sweeps, SWEEP_NAMES)):
            for value in given:
                check_choice(where, name, value, known)
            if len(set(given)) < len(given):
                raise InputError(describe(where, f"{name} must be given once each", got=" ".join(given)))
        check_choice(where, "device", self.device, ("cpu", "cuda"))
        check_choice(where, "dtype", self.dtype, DTYPES)
        if recipe:
            check_choice(where, "recipe", self.recipe, tuple(RECIPES))
            check_positive(where, recipe_steps=self.recipe_steps)
        if self.threads is not None:
            check_counts(where, threads=self.threads)
        if self.runs is not None:
            check_positive(where, runs=self.runs)

        def refuse(problem: str, got: object, hint: str | None = None) -> NoReturn:
            raise InputError(describe(where, problem, got=got, hint=hint))

        if not self.shapes and not self.sweeps and not recipe:
            refuse("there is nothing to measure", "no shape, no sweep and no recipe")
        if not recipe and (self.data is not None or self.partial or self.recipe_steps != 300):
            refuse("data, partial and recipe_steps are those of a recipe, and none is given", None)
        if recipe and self.recipe_steps < 3:
            refuse("a recipe needs 3 steps to be timed", self.recipe_steps)
        if recipe and (self.device, self.dtype) != ("cpu", "float32"):
            got, hint = f"{self.device}, {self.dtype}", "leave the recipe or the others away"
            refuse("a recipe is timed on the CPU in float32", got, hint)
        if self.partial and self.data is None:
            refuse("partial would have no effect", "no data are given")
        if not 0 < self.budget_seconds < float("inf"):
            refuse("budget_seconds must be a number of seconds above 0", self.budget_seconds)
        if self.device == "cuda" and not torch.cuda.is_available():
            refuse("there is no CUDA device here", "device 'cuda'", "take device 'cpu'")


def cases(shapes: tuple[ShapeName, ...], sweeps: tuple[SweepName, ...], *, quick: bool = False) -> list[Case]:
    """Everything to measure for the given shapes and sweeps, in order.

    >>> [case.key for case in cases(("c", "d"), ("slots",))]
    ['c, train', 'c, infer', 'd, step', 'slots=1, train', 'slots=4, train', 'slots=16, train', 'slots=64, train']
    """
    found = []
    for name in shapes:
        shape = SHAPES[name]
        if quick:
            shape = QUICK if isinstance(shape, Shape) else QUICK_FAST
            shape = replace(shape, batch=1, steps=1) if PASSES.get(name) == ("step",) else shape
        found += [Case(name=name, shape=shape, run=run) for run in PASSES.get(name, ("train", "infer"))]
    base = QUICK if quick else SHAPES["c"]
    assert isinstance(base, Shape)
    # Narrow, so that the steps, not the arithmetic, decide how long a pass with recomputation takes.
    narrow = replace(base, batch=base.batch if quick else RECOMPUTE_BATCH, input_size=16, num_heads=2, head_size=8)
    at: dict[str, Callable[[int], Shape]] = {
        "T": lambda size: replace(base, batch=1, steps=size),
        "slots": lambda size: replace(base, mem_slots=size),
        "batch": lambda size: replace(base, batch=size),
        "recompute": lambda size: replace(narrow, steps=size, key_size=8),
    }
    for sweep in sweeps:
        for size in (QUICK_POINTS if quick else POINTS)[sweep]:
            name = f"{'recompute T' if sweep == 'recompute' else sweep}={size}"
            found.append(Case(name=name, shape=at[sweep](size), run="train", sweep=sweep))
    return found


def memory_flop(s: Shape) -> float:
    """Operations that the relational memory's forward pass cannot avoid (unit gates, one block).

    For each sequence and step, with N slots, width W, F numbers in q, k and v of all heads, L layers of the MLP and I
    input features: 2 N W F + 2 N (N + 1) heads (key + head size) + 2 L N W^2 + 4 N W^2 inside the loop, and
    2 I W + 2 W F + 4 W^2 outside it.

    Where slots compete, queries and keys take the place of one of the two gates: the same number.

    >>> c = Shape(batch=32, steps=20, input_size=128, mem_slots=4, num_heads=4, head_size=16, key_size=16)
    >>> round(3 * memory_flop(c) / 1e9, 2)
    0.56
    """
    w, qkv = s.width, s.num_heads * (2 * s.key_size + s.head_size)
    attention = 2 * s.mem_slots * (s.mem_slots + 1) * s.num_heads * (s.key_size + s.head_size)
    recurrent = 2 * s.mem_slots * w * qkv + attention + 2 * s.mlp_layers * s.mem_slots * w**2 + 4 * s.mem_slots * w**2
    hoisted = 2 * s.input_size * w + 2 * w * qkv + 4 * w**2
    return float(s.batch * s.steps * (recurrent + hoisted))


def fast_flop(s: FastShape) -> float:
    """The same for fast weights, with one read before the write.

    For each sequence and step, with width W, H heads, keys of K and values of V: outside the loop 2 I (W + H K), inside
    it 2 W (W + H K) for the output before, 4 W^2 in the MLP, 2 W (2 H K + 3 H V + 2 H) in the linear maps of reads and
    writes, and 8 H K V with the matrices: three are read, one is written.
    """
    w, keys, values, h = s.hidden_size, s.num_heads * s.key_size, s.num_heads * s.value_size, s.num_heads
    linear = w * (w + keys) + 2 * w * w + w * (2 * keys + 3 * values + 2 * h)
    return float(s.batch * s.steps * (2 * s.input_size * (w + keys) + 2 * linear + 8 * keys * s.value_size))


def lstm_flop(s: Shape | FastShape, hidden: int) -> float:
    """The same for an LSTM: 8 h (I + h) for each sequence and step."""
    return float(s.batch * s.steps * 8 * hidden * (s.input_size + hidden))


def transformer_flop(s: Shape, width: int, feedforward: int, layers: int) -> float:
    """The same for a causal Transformer: projections, feed-forward parts, and attention to the steps before.

    For each sequence 2 I W T + layers (8 W^2 T + 4 W F T + 2 W T (T + 1)); the last term grows as T^2.
    """
    per_step = 2 * s.input_size * width + layers * (8 * width**2 + 4 * width * feedforward)
    attention = layers * 2 * width * s.steps * (s.steps + 1)
    return float(s.batch * (s.steps * per_step + attention))
