"""Recipes: functions that return the whole configuration of a run, and what can be done with one."""

from relational_rnn.recipes.babi import RECIPES, BabiRun, DataConfig, babi, babi_long, demo
from relational_rnn.recipes.babi_problem import BabiProblem, build
from relational_rnn.recipes.babi_runs import Evaluation, LoadedRun, compare, evaluate, load, read_config, train
from relational_rnn.recipes.comparison import Trial, TuningConfig, best_trials
from relational_rnn.recipes.language import LANGUAGE_RECIPES, LanguageRun
from relational_rnn.recipes.language_evaluation import LanguageEvaluation, evaluate_language
from relational_rnn.recipes.language_folder import LoadedLanguageRun, load_language, read_language_config
from relational_rnn.recipes.language_memory import MemoryPlan, plan_memory
from relational_rnn.recipes.language_problem import LanguageProblem, build_language, read_corpus
from relational_rnn.recipes.language_runs import compare_language, train_language
from relational_rnn.recipes.pretrained import pretrained_babi
from relational_rnn.recipes.task_runs import (
    LoadedTaskRun,
    TaskEvaluation,
    TaskProblem,
    build_task,
    compare_task,
    evaluate_task,
    load_task,
    read_task_config,
    task_of,
    train_task,
)
from relational_rnn.recipes.tasks import TASK_RECIPES, TASK_RUNS, TaskRun

__all__ = [
    "LANGUAGE_RECIPES",
    "RECIPES",
    "TASK_RECIPES",
    "TASK_RUNS",
    "BabiProblem",
    "BabiRun",
    "DataConfig",
    "Evaluation",
    "LanguageEvaluation",
    "LanguageProblem",
    "LanguageRun",
    "LoadedLanguageRun",
    "LoadedRun",
    "LoadedTaskRun",
    "MemoryPlan",
    "TaskEvaluation",
    "TaskProblem",
    "TaskRun",
    "Trial",
    "TuningConfig",
    "babi",
    "babi_long",
    "best_trials",
    "build",
    "build_language",
    "build_task",
    "compare",
    "compare_language",
    "compare_task",
    "demo",
    "evaluate",
    "evaluate_language",
    "evaluate_task",
    "load",
    "load_language",
    "load_task",
    "plan_memory",
    "pretrained_babi",
    "read_config",
    "read_corpus",
    "read_language_config",
    "read_task_config",
    "task_of",
    "train",
    "train_language",
    "train_task",
]
