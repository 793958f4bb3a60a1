"""The training loop, run folders and checkpoints; knows no task and no model by name."""

from relational_rnn._reading.structure import from_json
from relational_rnn._signals import Terminated
from relational_rnn.training.averaging import AveragingConfig, WeightAverage
from relational_rnn.training.config import LATER, LoopConfig, OptimizerConfig, to_json
from relational_rnn.training.loop import Outcome, fit
from relational_rnn.training.problem import (
    Carrier,
    DivergedError,
    Divisible,
    Measure,
    Problem,
    Taught,
    Totals,
    evaluate,
    rows_of_part,
)
from relational_rnn.training.progress import BestBy, ConsoleProgress, Progress
from relational_rnn.training.run_folder import METRICS_COLUMNS, RunFolder, read_metrics

__all__ = [
    "LATER",
    "METRICS_COLUMNS",
    "AveragingConfig",
    "BestBy",
    "Carrier",
    "ConsoleProgress",
    "DivergedError",
    "Divisible",
    "LoopConfig",
    "Measure",
    "OptimizerConfig",
    "Outcome",
    "Problem",
    "Progress",
    "RunFolder",
    "Taught",
    "Terminated",
    "Totals",
    "WeightAverage",
    "evaluate",
    "fit",
    "from_json",
    "read_metrics",
    "rows_of_part",
    "to_json",
]
