"""A second target while training: readings that look for the words of the supporting facts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from relational_rnn._check import InputError
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.recipes import BabiRun, DataConfig
from relational_rnn.recipes.babi_problem import BabiProblem, build
from relational_rnn.tasks.babi.model import ModelConfig

MODEL = ModelConfig(embedding_size=8, head_size=8, read_heads=2, question_first=True, reads=2, recalled_words=2)
RUN = BabiRun(
    data=DataConfig(tasks=(2, 15), train_questions=40),
    memory=MemorySizes(mem_slots=2, head_size=4, num_heads=2),
    model=MODEL,
    supporting_facts=0.7,
)


def test_they_count_in_training_and_not_in_validation():
    aided = build(RUN)
    plain = BabiProblem(aided.model, aided.data)
    batch = aided.train_batch(0)
    aided.model.train()
    others = aided.model.with_support_losses(batch)[1]
    assert others.min() > 0
    torch.testing.assert_close(aided.measure(batch).losses, plain.measure(batch).losses + 0.7 * others)
    aided.model.eval()
    assert torch.equal(aided.measure(batch).losses, plain.measure(batch).losses)


def test_the_first_look_learns_from_them_alone_where_answers_teach_nothing():
    problem = build(RUN)
    batch = problem.train_batch(0)
    batch.answers.fill_(10**6)  # an answer outside the classes has no loss
    problem.measure(batch).losses.sum().backward()
    gradient = problem.model.recalls[0].queries.weight.grad
    first, second = gradient.unflatten(0, (2, -1))
    assert first.abs().sum() > 0
    assert not second.any()


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan, True])
def test_the_weight_is_checked(weight):
    with pytest.raises(InputError, match="supporting_facts must be a number of at least 0"):
        replace(RUN, supporting_facts=weight)


def test_a_model_that_looks_for_no_words_refuses_them():
    with pytest.raises(InputError, match=r"(?s)this model looks for none.*set model.recalled_words"):
        replace(RUN, model=replace(MODEL, recalled_words=0))
