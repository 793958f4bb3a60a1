"""What the layer costs on this machine, beside PyTorch's own layers: `relational-rnn benchmark`."""

from relational_rnn.benchmarks.measuring import CheckFailed
from relational_rnn.benchmarks.running import Stage, run
from relational_rnn.benchmarks.shapes import RECIPES, SHAPE_NAMES, SWEEP_NAMES, Benchmark, ShapeName, SweepName

__all__ = [
    "RECIPES",
    "SHAPE_NAMES",
    "SWEEP_NAMES",
    "Benchmark",
    "CheckFailed",
    "ShapeName",
    "Stage",
    "SweepName",
    "run",
]
