"""The class for scripts written for `transformers`: what it reads, keeps, writes and refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")

from relational_rnn import InputError
from relational_rnn.nn.cores import CORE_NAMES, MemorySizes
from relational_rnn.tasks.language.generating import Sampling, generate_tokens
from relational_rnn.tasks.language.huggingface import (
    RelationalForCausalLM,
    RelationalLanguageConfig,
    save_for_transformers,
    tokenizer_of,
)
from relational_rnn.tasks.language.model import LanguageModel, LanguageModelConfig
from relational_rnn.tasks.language.vocabulary import Vocabulary

VOCABULARY = 19
CORES = [name for name in CORE_NAMES if name != "universal"]


def make(core: str = "rmc", **around) -> LanguageModel:
    torch.manual_seed(6)
    config = LanguageModelConfig(embedding_size=10, window=6, **around)
    sizes = MemorySizes(mem_slots=2, head_size=12, num_heads=2)
    return LanguageModel.build(VOCABULARY, core, sizes, config).eval()


def tokens(rows: int, steps: int, seed: int = 1) -> torch.Tensor:
    """None of them is 0, which stands for padding here."""
    return torch.randint(1, VOCABULARY, (rows, steps), generator=torch.Generator().manual_seed(seed))


def greedy(model, inputs, **arguments):
    return model.generate(inputs, **{"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, **arguments})


@pytest.mark.parametrize("core", ["rmc", "lstm", "transformer"])
def test_generate_keeps_the_memory_and_gives_what_the_whole_text_gives(core):
    model, seen = make(core), []
    wrapped = RelationalForCausalLM.from_model(model)
    hook = model.register_forward_hook(lambda module, given, output: seen.append(given[0].shape[1]))
    found = greedy(wrapped, tokens(1, 5))
    hook.remove()
    assert seen == [5, *[1] * 11]
    following = generate_tokens(model, tokens(1, 5)[0].tolist(), sampling=Sampling(temperature=0))
    assert found[0, 5:].tolist() == [next(following) for _ in range(12)]
    assert torch.equal(greedy(wrapped, tokens(1, 5), use_cache=False), found)


def test_sampling_with_all_its_choices_runs_and_a_seed_repeats_it():
    wrapped = RelationalForCausalLM.from_model(make())

    def some(seed):
        torch.manual_seed(seed)
        return greedy(
            wrapped, tokens(2, 4), do_sample=True, top_k=7, top_p=0.9, temperature=0.7, num_return_sequences=3
        )

    assert some(1).shape == (6, 16)
    assert torch.equal(some(1), some(1))
    assert not torch.equal(some(1), some(2))


@pytest.mark.parametrize("core", CORES)
def test_padding_on_the_left_is_forgotten(core):
    wrapped = RelationalForCausalLM.from_model(make(core))
    text = tokens(2, 6)
    mask = torch.ones_like(text)
    mask[0, :2] = 0
    found = greedy(wrapped, text, attention_mask=mask)
    assert torch.equal(found[0, 2:], greedy(wrapped, text[:1, 2:])[0])
    assert torch.equal(found[1], greedy(wrapped, text[1:])[0])


def test_the_state_goes_on_where_a_call_ended():
    wrapped, text = RelationalForCausalLM.from_model(make("transformer", layers=2)), tokens(3, 9)
    whole = wrapped(text)
    first = wrapped(text[:, :4])
    second = wrapped(text[:, 4:], state=first.state)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), whole.logits)
    assert wrapped(text, use_cache=False).state is None
    assert torch.equal(wrapped(text, logits_to_keep=2).logits, whole.logits[:, -2:])
    assert torch.equal(wrapped(text, return_dict=False)[0], whole.logits)


@pytest.mark.parametrize("around", [{}, {"softmax": "adaptive", "cutoffs": (4,)}])
def test_the_loss_is_that_of_the_next_tokens(around):
    model, text = make(**around), tokens(3, 8)
    labels = text.clone()
    labels[0, 3:] = -100
    loss = RelationalForCausalLM.from_model(model)(text, labels=labels).loss
    features = model(text)[0][:, :-1]
    there = labels[:, 1:] != -100
    torch.testing.assert_close(loss, model.score(features[there], labels[:, 1:][there])[0].mean())


@pytest.mark.parametrize("core", CORES)
def test_files_give_the_same_model_back(core, tmp_path):
    from transformers import AutoModelForCausalLM

    model, text = make(core, layers=2, residual=True), tokens(2, 7)
    save_for_transformers(model, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, RelationalForCausalLM)
    assert not loaded.training
    assert torch.equal(loaded(text).logits, RelationalForCausalLM.from_model(model)(text).logits)
    assert loaded.state_dict().keys() == {f"model.{name}" for name in model.state_dict()}
    assert dataclasses.asdict(loaded.model.config) == dataclasses.asdict(model.config)


DAMAGES = {
    "config.json": [
        (lambda c: {**c, "core": 5}, "core must be a dict"),
        (lambda c: {**c, "core": {"class": "GRU"}}, "lacks arguments"),
        (lambda c: {**c, "around": {"embedding_size": "10"}}, "embedding_size has the wrong type"),
        (lambda c: {**c, "vocab_size": 10**12}, "vocab_size is too large"),
        (lambda c: {**c, "vocab_size": VOCABULARY + 1}, "has another shape than the configuration gives it"),
    ],
    "model.safetensors": [(lambda w: {n: t for n, t in w.items() if "weight_hh" not in n}, "it lacks the weight")],
}


@pytest.mark.parametrize(("name", "change", "said"), [(n, *pair) for n, pairs in DAMAGES.items() for pair in pairs])
def test_files_that_are_damaged_are_refused(name, change, said, tmp_path):
    save_for_transformers(make("gru"), tmp_path)
    path = tmp_path / name
    if path.suffix == ".json":
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    else:
        save_file(change(load_file(path)), path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=said):
        RelationalForCausalLM.from_pretrained(tmp_path)


def test_it_trains_in_a_loop_of_ones_own():
    wrapped, text = RelationalForCausalLM.from_model(make()).train(), tokens(4, 12)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        output = wrapped(text, labels=text)
        assert output.state is None
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [
        ("beam search", {"num_beams": 3}),
        ("beam sample", {"num_beams": 3, "do_sample": True}),
        ("assisted generation", {"prompt_lookup_num_tokens": 3}),
    ],
)
def test_decoding_that_goes_back_is_refused_by_name(mode, arguments):
    with pytest.raises(InputError, match=f"generate: {mode} cannot work: it goes back to states"):
        greedy(RelationalForCausalLM.from_model(make()), tokens(1, 4), **arguments)


def test_what_would_have_no_effect_is_refused():
    wrapped, text = RelationalForCausalLM.from_model(make()), tokens(2, 4)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1]])
    with pytest.raises(InputError, match="padding in the middle"):
        wrapped(text, attention_mask=mask)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with pytest.raises(InputError, match="a row is padded on the right"):
        wrapped(text, attention_mask=mask)
    assert torch.equal(wrapped(text, attention_mask=mask, use_cache=False).logits, wrapped(text).logits)
    with pytest.raises(InputError, match="a row begins with padding"):
        wrapped(text, attention_mask=mask.flip(1), state=wrapped(text).state)
    with pytest.raises(InputError, match="does not take position_ids"):
        wrapped(text, position_ids=torch.arange(4))
    with pytest.raises(InputError, match="the vocabulary of a trained model cannot grow"):
        wrapped.resize_token_embeddings(30)


def test_an_unknown_core_is_refused():
    with pytest.raises(InputError, match="core is not a known choice"):
        RelationalLanguageConfig(core={"class": "os.system", "arguments": {"input_size": 1}}).build()


def test_no_warning_is_given():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        greedy(RelationalForCausalLM.from_model(make()), tokens(1, 3))


TEXT = "\nto  be, or\tnot\n\nto be: that is\xa0the question\n" + "ein Käfig ging\x1ceinen Vogel suchen \n" * 2
KINDS = [
    ("word", True, {}),
    ("word", False, {}),
    ("word", True, {"size": 9}),
    ("character", True, {}),
    ("character", True, {"size": 9}),
    ("bpe", True, {"size": 270}),
]


@pytest.mark.parametrize(("kind", "line_ends", "size"), KINDS)
def test_a_tokenizer_of_the_library_reads_as_the_vocabulary_does(kind, line_ends, size, tmp_path):
    from transformers import AutoTokenizer

    vocabulary = Vocabulary.build(kind, [TEXT], line_ends=line_ends, **size)
    model = LanguageModel.build(vocabulary.size, "gru", MemorySizes(mem_slots=1, head_size=4), LanguageModelConfig())
    save_for_transformers(model, tmp_path, vocabulary)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    numbers = vocabulary.encode(TEXT).tolist()
    assert loaded(TEXT)["input_ids"] == tokenizer_of(vocabulary)(TEXT)["input_ids"] == numbers
    for cut in (numbers, numbers[1:], numbers[:7]):
        assert loaded.decode(cut) == vocabulary.decode(cut)
    assert len(loaded) == vocabulary.size
    assert loaded.unk_token_id == vocabulary.unknown


@pytest.mark.parametrize("kind", ["word", "character"])
def test_a_tokenizer_without_an_unknown_token_refuses_what_it_does_not_know(kind):
    tokenizer = tokenizer_of(Vocabulary.build(kind, [TEXT]))
    with pytest.raises(Exception, match="UNK"):
        tokenizer("xylophone")


def test_a_tokenizer_is_saved_only_with_its_own_model(tmp_path):
    with pytest.raises(InputError, match="the vocabulary does not match the model"):
        save_for_transformers(make(), tmp_path / "x", Vocabulary.build("character", [TEXT]))
    assert not (tmp_path / "x").exists()


def test_a_configuration_of_a_vocabulary_alone_gives_a_model_of_a_useful_size():
    model = RelationalForCausalLM(RelationalLanguageConfig(vocab_size=20))
    assert model.model.core().output_size == 256
    assert 100_000 < model.num_parameters() < 1_000_000
    larger = RelationalLanguageConfig(vocab_size=20, around={"embedding_size": 12, "core_input": 30}).build()
    assert (larger.core().arguments["input_size"], larger.embedding.weight.shape) == (30, (20, 12))


def test_the_library_s_trainer_trains_it(tmp_path):
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    model = RelationalForCausalLM.from_model(make())
    before = model.model.embedding.weight.detach().clone()
    rows = [{"input_ids": row, "labels": row} for row in tokens(8, 5)]
    settings = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to=[], save_strategy="no", use_cpu=True
    )
    Trainer(model, settings, train_dataset=rows).train()
    assert not torch.equal(model.model.embedding.weight, before)


def test_a_full_disk_leaves_the_saved_model_that_was_there(tmp_path, monkeypatch):
    words = Vocabulary.build("character", ["abcdefghijklmnopqrs"])
    save_for_transformers(make(), tmp_path, words)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_for_transformers(make("lstm"), tmp_path, words)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
