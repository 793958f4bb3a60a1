"""The memory plan of a run, held against what a real batch of a smaller one keeps."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from relational_rnn import InputError
from relational_rnn.recipes import LANGUAGE_RECIPES
from relational_rnn.recipes.language_memory import kept_for_backward, plan_memory
from relational_rnn.recipes.language_problem import build_language_model
from relational_rnn.training import AveragingConfig

VOCABULARY = 211


def reduced(core: str = "rmc", **changes):
    """The paper's model with the sizes of its parts 50 times smaller, and all of its parts."""
    config = LANGUAGE_RECIPES["wikitext-103"]()
    memory = dataclasses.replace(config.memory, head_size=12, backend="reference" if core == "rmc" else "auto")
    model = dataclasses.replace(config.model, embedding_size=10, core_input=50, window=7)
    return dataclasses.replace(config, core=core, memory=memory, model=model, batch_size=3, chunk=11, **changes)


@pytest.mark.parametrize("core", ["rmc", "lstm", "transformer"])
def test_a_plan_is_what_a_real_batch_keeps(core):
    config = reduced(core)
    plan = plan_memory(config, VOCABULARY)
    model = build_language_model(config, VOCABULARY)
    text = torch.randint(VOCABULARY, (3, 7))
    with torch.no_grad():
        state = model(text)[1]
    kept, carried = kept_for_backward(model, torch.randint(VOCABULARY, (3, 11)), state)
    # Fused attention keeps sums of a row where the plain definition keeps the row.
    assert plan.activations == pytest.approx(kept, rel=0.1 if core == "transformer" else 0.001)
    assert plan.carried == 6 * carried
    assert plan.parameters == sum(4 * parameter.numel() for parameter in model.parameters())
    assert plan.activations > plan.logits == 4 * 3 * 11 * VOCABULARY


def test_activations_grow_with_the_chunk_and_the_batch_and_an_average_is_counted():
    plan = plan_memory(reduced(), VOCABULARY)
    longer = plan_memory(dataclasses.replace(reduced(), chunk=22), VOCABULARY)
    wider = plan_memory(dataclasses.replace(reduced(), batch_size=6), VOCABULARY)
    assert longer.activations == pytest.approx(2 * plan.activations, rel=0.05)
    assert wider.activations == pytest.approx(2 * plan.activations, rel=0.05)
    averaged = plan_memory(reduced(averaging=AveragingConfig(kind="ema")), VOCABULARY)
    assert averaged.total == plan.total + plan.parameters
    assert plan.total == 4 * plan.parameters + plan.activations + plan.carried


@pytest.mark.slow
def test_the_papers_model_has_the_papers_parts_and_fits_one_gpu():
    config = LANGUAGE_RECIPES["wikitext-103"]()
    with torch.device("meta"):
        model = build_language_model(config, 267_735)
    core = model.core()
    assert (core.width, core.mem_slots, len(core.cell().mlp)) == (2500, 1, 5)
    assert model.core_input is not None
    assert (model.core_input.out_features, model.projection.in_features, model.embedding.embedding_dim) == (
        2500,
        2500,
        512,
    )
    assert config.batch_size * config.accumulate == 384
    plan = plan_memory(config, 267_735)
    assert plan.total < 20 * 2**30


def test_an_adaptive_softmax_is_refused():
    with pytest.raises(InputError, match="depends on the words of a batch"):
        plan_memory(LANGUAGE_RECIPES["wikitext-2-small"](), 33_278)
