"""Recipes: functions that return the whole configuration of a run, and what can be done with one."""

from relational_rnn.recipes.babi import RECIPES, BabiRun, DataConfig, babi, demo
from relational_rnn.recipes.babi_problem import BabiProblem, build
from relational_rnn.recipes.babi_runs import Evaluation, LoadedRun, compare, evaluate, load, read_config, train

__all__ = [
    "RECIPES",
    "BabiProblem",
    "BabiRun",
    "DataConfig",
    "Evaluation",
    "LoadedRun",
    "babi",
    "build",
    "compare",
    "demo",
    "evaluate",
    "load",
    "read_config",
    "train",
]
