"""Text that is generated: what is drawn, what is kept, what is refused."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from relational_rnn import InputError
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.language.generating import Sampling, continue_text, generate_tokens
from relational_rnn.tasks.language.model import LanguageModel, LanguageModelConfig
from relational_rnn.tasks.language.vocabulary import Vocabulary

LETTERS = Vocabulary.build("character", ["to be or not to be\n"])
WORDS = Vocabulary.build("word", ["to be or not to be\n"], line_ends=True)


def make(vocabulary: Vocabulary = LETTERS, core: str = "rmc") -> LanguageModel:
    torch.manual_seed(8)
    config = LanguageModelConfig(embedding_size=10, window=6)
    sizes = MemorySizes(mem_slots=2, head_size=12, num_heads=2)
    return LanguageModel.build(vocabulary.size, core, sizes, config)


def test_top_k_and_top_p_keep_the_most_probable():
    scores = torch.tensor([[0.1, 0.4, 0.2, 0.25, 0.05], [0.6, 0.1, 0.1, 0.1, 0.1]]).log()
    assert Sampling().probabilities(scores).allclose(scores.exp())
    two = Sampling(top_k=2).probabilities(scores)
    assert two[0].allclose(torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65)
    some = Sampling(top_p=0.65).probabilities(scores)
    assert some[0].allclose(torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65)
    assert some[1].allclose(torch.tensor([0.6, 0.1, 0, 0, 0]) / 0.7)
    both = Sampling(top_k=3, top_p=0.5).probabilities(scores)  # of 0.85, 0.47 and 0.29 are needed
    assert both[0].allclose(torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65)
    assert Sampling(top_k=99).probabilities(scores).allclose(scores.exp())


def test_temperature_sharpens_and_zero_takes_the_best():
    scores = torch.tensor([0.2, 0.5, 0.3]).log()
    half = torch.tensor([0.04, 0.25, 0.09])
    assert Sampling(temperature=0.5).probabilities(scores).allclose(half / half.sum())
    assert Sampling(temperature=0).probabilities(scores).tolist() == [0, 1, 0]


def test_draws_follow_the_probabilities():
    model = make()
    with torch.no_grad():
        expected = model.log_probabilities(model(torch.tensor([[1, 2]]))[0][0, -1]).exp()
    drawn = [next(generate_tokens(model, [1, 2], seed=seed)) for seed in range(500)]
    found = torch.bincount(torch.tensor(drawn), minlength=LETTERS.size) / 500
    assert (found - expected).abs().max() < 0.07


@pytest.mark.parametrize("core", ["rmc", "lstm", "transformer"])
def test_what_is_generated_is_what_the_whole_text_would_give(core):
    model, prompt = make(core=core), [3, 1, 2]
    tokens = list(islice(generate_tokens(model, prompt, sampling=Sampling(temperature=0)), 40))
    with torch.no_grad():
        scores = model.log_probabilities(model(torch.tensor([[*prompt, *tokens[:-1]]]))[0][0])
    assert scores[2:].argmax(-1).tolist() == tokens


def test_a_long_prompt_is_read_in_chunks_and_dropout_is_off():
    model = make()
    model.train()
    prompt = [number % LETTERS.size for number in range(600)]
    model.config = LanguageModelConfig(embedding_size=10, output_dropout=0.9)
    following = generate_tokens(model, prompt, sampling=Sampling(temperature=0))
    a = [next(following) for _ in range(5)]
    assert not model.training
    following.close()
    assert model.training
    model.eval()
    with torch.no_grad():
        assert int(model.log_probabilities(model(torch.tensor([prompt]))[0][0, -1]).argmax()) == a[0]


def test_the_seed_decides():
    def some(seed):
        return list(islice(generate_tokens(make(), [1], seed=seed), 30))

    assert some(3) == some(3) != some(4)


def test_the_state_does_not_grow_and_nothing_else_is_kept(monkeypatch):
    model, sizes = make(core="transformer"), []
    step = LanguageModel.step

    def watched(self, tokens, state):
        sizes.append(sum(t.numel() for layer in state for t in layer.values()))
        return step(self, tokens, state)

    monkeypatch.setattr(LanguageModel, "step", watched)
    list(islice(generate_tokens(model, [1]), 30))
    assert len(set(sizes[6:])) == 1


def test_text_comes_piece_by_piece_and_begins_with_the_prompt():
    pieces = continue_text(make(), LETTERS, "to be", tokens=7)
    assert "".join(islice(pieces, 5)) == "to be"
    assert len("".join(pieces)) == 7
    words = list(continue_text(make(WORDS), WORDS, "to  be", tokens=4))
    assert words[:2] == ["to", " be"]
    assert len(words) == 6


@pytest.mark.parametrize(
    ("problem", "changes"),
    [
        ("temperature is out of range", {"temperature": -0.5}),
        ("temperature is out of range", {"temperature": float("nan")}),
        ("top_k must be a whole number of at least 1", {"top_k": 0}),
        ("top_p is out of range", {"top_p": 1.5}),
        ("top_k and top_p would have no effect at temperature 0", {"temperature": 0, "top_k": 3}),
    ],
)
def test_impossible_sampling_is_refused(problem, changes):
    with pytest.raises(InputError, match=problem):
        Sampling(**changes)


def test_impossible_prompts_are_refused_before_anything_is_drawn():
    with pytest.raises(InputError, match="the prompt holds no token"):
        continue_text(make(), LETTERS, "", tokens=3)
    with pytest.raises(InputError, match="prompt") as error:
        continue_text(make(), LETTERS, "to xe", tokens=3)
    assert "'x'" in str(error.value)
    with pytest.raises(InputError, match="the prompt has a number that is no token"):
        generate_tokens(make(), [LETTERS.size])
    with pytest.raises(InputError, match="tokens must be a whole number of at least 1"):
        continue_text(make(), LETTERS, "to", tokens=0)
