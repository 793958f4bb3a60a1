"""Runs on any task: train one, measure it, load it, compare several."""

from relational_rnn.nn.cores import CoreName
from relational_rnn.runs.comparing import Trial, TuningConfig, best_trials, compare
from relational_rnn.runs.config import RunConfig
from relational_rnn.runs.evaluation import Column, RunEvaluation, comparison, mean_and_spread
from relational_rnn.runs.folder import Run, evaluate, load, load_weights, read_config, read_run
from relational_rnn.runs.training import build, initial_weights, train
from relational_rnn.runs.workload import Asked, Breakdown, Example, LoadedRun, Published, Workload, workload_of

__all__ = [
    "Asked",
    "Breakdown",
    "Column",
    "CoreName",
    "Example",
    "LoadedRun",
    "Published",
    "Run",
    "RunConfig",
    "RunEvaluation",
    "Trial",
    "TuningConfig",
    "Workload",
    "best_trials",
    "build",
    "compare",
    "comparison",
    "evaluate",
    "initial_weights",
    "load",
    "load_weights",
    "mean_and_spread",
    "read_config",
    "read_run",
    "train",
    "workload_of",
]
