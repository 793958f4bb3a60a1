"""Measuring what the layer costs on this machine, beside PyTorch's own layers; `relational-rnn benchmark` is the door.

The results are pages and figures only in `relational_rnn.reports`.
"""

from relational_rnn.benchmarks.checking import CheckFailed
from relational_rnn.benchmarks.running import Benchmark, Stage, run
from relational_rnn.benchmarks.shapes import SHAPE_NAMES, SHAPES, SWEEP_NAMES, Case, Shape, ShapeName, SweepName
from relational_rnn.benchmarks.whole_training import RECIPES

__all__ = [
    "RECIPES",
    "SHAPES",
    "SHAPE_NAMES",
    "SWEEP_NAMES",
    "Benchmark",
    "Case",
    "CheckFailed",
    "Shape",
    "ShapeName",
    "Stage",
    "SweepName",
    "run",
]
