"""Every field of every configuration refuses what is not of its kind, in a sentence that names the field."""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import pytest

from relational_rnn import InputError
from relational_rnn.nn.cores import FastWeightSizes, MemorySizes, RivalSizes
from relational_rnn.runs import TuningConfig, workload_of
from relational_rnn.tasks import names
from relational_rnn.tasks.babi.model import ModelConfig
from relational_rnn.tasks.babi.recipes import BabiRun
from relational_rnn.tasks.language.corpus import CorpusConfig
from relational_rnn.tasks.language.generating import Sampling
from relational_rnn.tasks.language.model import LanguageModelConfig
from relational_rnn.tasks.language.recipes import LanguageRun
from relational_rnn.tasks.model import TaskModelConfig
from relational_rnn.training import AveragingConfig, LoopConfig, OptimizerConfig

RUNS = [LanguageRun(), BabiRun(), *(workload_of(name).config() for name in names() if name not in ("babi", "language"))]
CONFIGS = [
    *(FastWeightSizes(), MemorySizes(), RivalSizes(), ModelConfig(), TaskModelConfig(), LanguageModelConfig()),
    *(OptimizerConfig(), LoopConfig(), AveragingConfig(), TuningConfig(), CorpusConfig(), Sampling()),
    *(run.data for run in RUNS[1:]),
    *RUNS,
]
WRONG = {
    int: ["3", True, 2.5],
    float: ["0.5", True],
    bool: ["no", 1],
    Literal: ["nonsense", ["x"]],
    tuple: [5, ("x", "y")],
}


def kinds(hint):
    """The kinds that a field may have, those of files and of other configurations apart."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]
    found = {get_origin(choice) or choice for choice in choices}
    return [kind for kind in WRONG if kind in found]


def is_refused(config, name, value):
    """Whether the configuration says, in a sentence that names the field, that it cannot have the value there."""
    try:
        dataclasses.replace(config, **{name: value})
    except InputError as error:
        return name in str(error)
    return False


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_value_of_another_kind_is_refused(config):
    hints = get_type_hints(type(config))
    fields = [(field.name, kind) for field in dataclasses.fields(config) for kind in kinds(hints[field.name])]
    assert fields
    accepted = [(name, value) for name, kind in fields for value in WRONG[kind] if not is_refused(config, name, value)]
    assert accepted == []
