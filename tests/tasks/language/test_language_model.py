"""The model around the cores: what it reads, carries, drops and refuses."""

from __future__ import annotations

import pytest
import torch

from relational_rnn import InputError
from relational_rnn.nn import GRU, LSTM, RelationalMemory, Transformer, UniversalTransformer
from relational_rnn.nn.core import State
from relational_rnn.nn.cores import CORE_NAMES, MemorySizes, count_parameters
from relational_rnn.tasks.language.model import (
    LanguageModel,
    LanguageModelConfig,
    detached,
    drop_alike,
    recurrent_weights,
)

VOCABULARY, BATCH, STEPS, EMBEDDING = 23, 3, 11, 12
SIZES = MemorySizes(mem_slots=2, head_size=16, num_heads=3)
CORES = [name for name in CORE_NAMES if name != "universal"]
# One choice each of what stands around a core; widths differ from the embedding's and from each other.
AROUND = {
    "plain": LanguageModelConfig(embedding_size=EMBEDDING, window=4),
    "layers": LanguageModelConfig(embedding_size=EMBEDDING, core_input=10, layers=2, softmax="free", window=4),
    "residual": LanguageModelConfig(embedding_size=EMBEDDING, core_input=14, layers=2, residual=True, window=4),
    "adaptive": LanguageModelConfig(embedding_size=17, softmax="adaptive", cutoffs=(5, 16), window=4),
}


def make(core: str = "lstm", config: LanguageModelConfig = AROUND["plain"]) -> LanguageModel:
    torch.manual_seed(5)
    return LanguageModel.build(VOCABULARY, core, SIZES, config).double().eval()


def text(rows: int = BATCH, steps: int = STEPS, seed: int = 1) -> torch.Tensor:
    return torch.randint(VOCABULARY, (rows, steps), generator=torch.Generator().manual_seed(seed))


def numbers(state: State) -> list[torch.Tensor]:
    return [state] if isinstance(state, torch.Tensor) else list(state.values())


# What stands around does not know which core it is: three kinds of state are enough for it.
PAIRS = [(core, "plain") for core in CORES] + [
    (core, around) for core in ("rmc", "lstm", "transformer") for around in AROUND if around != "plain"
]


@pytest.mark.parametrize(("core", "around"), PAIRS)
def test_chunks_and_steps_and_the_whole_text_are_one(core, around):
    model, tokens = make(core, AROUND[around]), text()
    with torch.no_grad():
        whole, end = model(tokens)
        first, state = model(tokens[:, :4])
        second, state = model(tokens[:, 4:], state)
        torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-12)
        step = model.initial_state(BATCH)
        for t in range(STEPS):
            scores, step = model.step(tokens[:, t], step)
            expected = model.log_probabilities(whole[:, t])
            torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)
    for a, b in zip(end, step, strict=True):
        for x, y in zip(numbers(a), numbers(b), strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
    assert whole.shape == (BATCH, STEPS, model.features)


@pytest.mark.parametrize("core", CORES)
def test_a_reset_forgets_what_came_before_and_a_row_knows_nothing_of_another(core):
    model, tokens = make(core), text()
    reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[1, 6] = True
    with torch.no_grad():
        y = model(tokens, reset=reset)[0]
        torch.testing.assert_close(y[1, 6:], model(tokens[1:2, 6:])[0][0], rtol=0, atol=1e-12)
        torch.testing.assert_close(y[1, :6], model(tokens[1:2, :6])[0][0], rtol=0, atol=1e-12)
        torch.testing.assert_close(y[2], model(tokens[2:3])[0][0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("core", ["transformer", "attention"])
def test_a_core_that_keeps_every_step_keeps_no_more_than_its_window(core):
    model = make(core)
    state = None
    with torch.no_grad():
        for seed in range(3):
            state = model(text(seed=seed), state)[1]
    assert {tensor.shape[1] for tensor in numbers(state[0]) if tensor.dtype == torch.bool} == {3}


@pytest.mark.parametrize("core", CORES)
def test_gradients_flow_into_the_past_until_they_are_cut(core):
    model = make(core).train()
    state = model(text(steps=3))[1]
    for cut in (False, True):
        features, _ = model(text(seed=2), detached(state) if cut else state)
        carried = [t for layer in state for t in numbers(layer) if t.is_floating_point()]
        loss = (features * torch.randn(features.shape, dtype=features.dtype)).sum()
        gradients = torch.autograd.grad(loss, carried, allow_unused=True, retain_graph=True)
        found = any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)
        assert found is not cut


@pytest.mark.parametrize("around", AROUND)
def test_scores_are_those_of_the_probabilities(around):
    model = make("lstm", AROUND[around])
    features = torch.randn(300, model.features, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    targets = text(1, 300)[0]
    scores = model.log_probabilities(features)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(300, dtype=torch.float64))
    losses, correct = model.score(features, targets)
    torch.testing.assert_close(losses, -scores.gather(1, targets[:, None])[:, 0])
    assert torch.equal(correct, scores.argmax(-1) == targets)
    assert 0 < correct.sum() < 300


def test_a_tied_softmax_has_no_matrix_of_its_own():
    model = make("lstm")
    sizes = {name for name, p in model.named_parameters() if p.dim() == 2 and VOCABULARY in p.shape}
    assert sizes == {"embedding.weight"}
    features = torch.randn(2, 3, EMBEDDING, dtype=torch.float64)
    expected = features @ model.embedding.weight.T + model.bias
    torch.testing.assert_close(model.logits(features), expected)


@pytest.mark.parametrize(("core", "around"), PAIRS)
def test_every_core_has_as_many_parameters_as_the_memory(core, around):
    with torch.device("meta"):
        wanted = count_parameters(LanguageModel.build(VOCABULARY, "rmc", SIZES, AROUND[around]))
        count = count_parameters(LanguageModel.build(VOCABULARY, core, SIZES, AROUND[around]))
    assert abs(count - wanted) <= 0.1 * wanted


def test_the_layers_have_weights_of_their_own():
    model = make("rmc", AROUND["layers"])
    first, second = model.cores
    assert first.input_size == 10
    assert second.input_size == first.output_size == SIZES.mem_slots * 48
    assert not torch.equal(first.cell().mlp[0].weight, second.cell().mlp[0].weight)


@pytest.mark.parametrize("core", ["rmc", "lstm", "transformer", "deltanet"])
def test_bfloat16_is_near_and_its_state_can_be_carried_on(core):
    model, tokens = make(core).float(), text()
    exact = model.log_probabilities(model(tokens)[0])
    with torch.autocast("cpu", torch.bfloat16):
        first, state = model(tokens[:, :5])
        second, state = model(tokens[:, 5:], detached(state))
        near = model.log_probabilities(torch.cat([first, second], 1))
    assert near.dtype == torch.float32
    assert (near - exact).abs().max() < 0.1
    assert not torch.equal(near, exact)


def test_features_are_dropped_for_all_steps_alike_and_words_as_a_whole():
    torch.manual_seed(3)
    dropped = drop_alike(torch.ones(4, 9, 50), 0.3, True)
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert len(torch.unique(dropped[:, 0], dim=0)) == 4
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    words = drop_alike(torch.ones(200, 6), 0.25, True)
    assert torch.equal(words, words[:, :1].expand_as(words))
    assert 0.1 < (words[:, 0] == 0).float().mean() < 0.4
    assert torch.equal(drop_alike(torch.ones(20, 6), 0.25, False), torch.ones(20, 6))


KINDS = ("word_dropout", "input_dropout", "output_dropout", "layer_dropout", "weight_dropout")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_dropout_acts_while_training_and_only_then(kind):
    config = LanguageModelConfig(embedding_size=EMBEDDING, layers=2, **{kind: 0.4})
    model, tokens = make("rmc", config), text()
    plain = make("rmc", LanguageModelConfig(embedding_size=EMBEDDING, layers=2))
    with torch.no_grad():
        assert torch.equal(model(tokens)[0], plain(tokens)[0])
        model.train()
        torch.manual_seed(1)
        a = model(tokens)[0]
        assert not torch.allclose(a, model(tokens)[0])
        torch.manual_seed(1)
        assert torch.equal(a, model(tokens)[0])


@pytest.mark.parametrize(
    ("core", "names"),
    [
        (LSTM(5, 6), {"weight_hh_l0"}),
        (
            RelationalMemory(5, 2, 4, num_blocks=2),
            {
                "cells.0.blocks.0.qkv.weight",
                "cells.0.blocks.1.qkv.weight",
                "cells.0.mlp.0.weight",
                "cells.0.mlp.1.weight",
                "cells.0.gate_memory.weight",
            },
        ),
    ],
)
def test_recurrent_weights_are_those_that_meet_the_state(core, names):
    assert set(recurrent_weights(core)) == names


def test_dropped_weights_get_a_gradient_only_where_they_were_kept():
    config = LanguageModelConfig(embedding_size=EMBEDDING, weight_dropout=0.5)
    model = LanguageModel(VOCABULARY, GRU(EMBEDDING, 7), config)
    torch.manual_seed(2)
    model(text())[0].square().sum().backward()
    share = (model.core().weight_hh_l0.grad == 0).float().mean()
    assert 0.3 < share < 0.7
    assert (model.core().weight_ih_l0.grad != 0).all()


@pytest.mark.parametrize("core", ["transformer", "ntm", "dnc", "deltanet"])
def test_weight_dropout_is_refused_by_name_where_there_is_nothing_recurrent(core):
    config = LanguageModelConfig(embedding_size=EMBEDDING, weight_dropout=0.5)
    with pytest.raises(InputError, match="weight_dropout is not defined for the core"):
        LanguageModel.build(VOCABULARY, core, SIZES, config)


@pytest.mark.parametrize(
    ("problem", "changes"),
    [
        ("cutoffs belong to the adaptive softmax", {"cutoffs": (3,)}),
        ("cutoffs belong to the adaptive softmax", {"softmax": "adaptive"}),
        ("cutoffs must be whole numbers of at least 1, rising", {"softmax": "adaptive", "cutoffs": (5, 3)}),
        ("the rarest band would have no features", {"softmax": "adaptive", "cutoffs": (5, 9), "embedding_size": 15}),
        ("softmax is not a known choice", {"softmax": "hierarchical"}),
        ("input_dropout must be a share", {"input_dropout": 1.0}),
        ("layer_dropout would have no effect", {"layer_dropout": 0.1}),
        ("window must be a whole number of at least 1", {"window": 0}),
    ],
)
def test_impossible_configurations_are_refused(problem, changes):
    with pytest.raises(InputError, match=problem):
        LanguageModelConfig(**changes)


def test_impossible_models_are_refused():
    config = LanguageModelConfig(embedding_size=EMBEDDING)
    with pytest.raises(InputError, match="the core's input size does not fit"):
        LanguageModel(VOCABULARY, GRU(EMBEDDING + 1, 4), config)
    with pytest.raises(InputError, match="a Universal Transformer cannot read a text without end"):
        LanguageModel(VOCABULARY, UniversalTransformer(EMBEDDING, 8), config)
    adaptive = LanguageModelConfig(embedding_size=17, softmax="adaptive", cutoffs=(5, VOCABULARY))
    with pytest.raises(InputError, match="has a cutoff beyond the vocabulary"):
        LanguageModel(VOCABULARY, GRU(17, 4), adaptive)
    model = make()
    two_states = model.initial_state(BATCH) * 2
    with pytest.raises(InputError, match="state has one entry for each layer"):
        model(text(), two_states)


def test_a_window_of_ones_own_is_kept():
    model = LanguageModel(VOCABULARY, Transformer(EMBEDDING, 8, window=7), AROUND["plain"])
    assert model.core().window == 7
