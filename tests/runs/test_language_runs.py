"""Runs on language: trained, killed and resumed, measured, compared, refused."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("lightning_fabric")

import language_runs as little
from language_runs import little_run, train_quietly, write_text

from relational_rnn import InputError
from relational_rnn.nn.cores import count_parameters
from relational_rnn.runs import build, compare, evaluate, load, read_config
from relational_rnn.tasks.language.corpus import CorpusConfig
from relational_rnn.tasks.language.judging import read_text
from relational_rnn.tasks.language.problem import VALIDATION, SlowWork, read_corpus
from relational_rnn.tasks.language.recipes import LANGUAGE_RECIPES
from relational_rnn.tasks.language.workload import WORKLOAD, LanguageEvaluation
from relational_rnn.training import AveragingConfig


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELATIONAL_RNN_CACHE", str(tmp_path_factory.getbasetemp() / "language-cache"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "cats.txt")


@pytest.fixture(scope="module")
def undisturbed(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    os.environ["RELATIONAL_RNN_CACHE"] = str(tmp_path_factory.getbasetemp() / "language-cache")
    train_quietly(little_run(text), folder)
    return folder


class Stop(Exception):
    pass


def stop_at(step: int):
    def listen(progress) -> None:
        if progress.step >= step:
            raise Stop

    return listen


def assert_same_run(got: Path, expected: Path) -> None:
    rows = [(folder / "metrics.csv").read_text().splitlines() for folder in (got, expected)]
    names = rows[1][0].split(",")
    kept = [
        [[c for name, c in zip(names, row.split(","), strict=True) if "seconds" not in name] for row in of]
        for of in rows
    ]
    assert kept[0] == kept[1]
    assert (got / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    a, b = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (got, expected))
    torch.testing.assert_close(a["model"], b["model"], rtol=0, atol=0)
    torch.testing.assert_close(a["relational_rnn"]["carried"], b["relational_rnn"]["carried"], rtol=0, atol=0)


def test_it_learns(text, tmp_path):
    base = little_run(text)
    loop = dataclasses.replace(base.loop, steps=120, validate_every=60, checkpoint_every=60)
    rate = dataclasses.replace(base.optimizer, learning_rate=0.02)
    outcome = train_quietly(dataclasses.replace(base, loop=loop, optimizer=rate, chunk=20), tmp_path / "run")
    assert outcome.valid_loss < 1.2  # the characters alone, without their order, have 2.6


def test_the_folder_holds_the_vocabulary_and_what_is_known_of_the_text(undisturbed):
    vocabulary = json.loads((undisturbed / "vocabulary.json").read_text())
    assert "".join(sorted(vocabulary["symbols"])) == "\n abcdehimnorstw"
    data = json.loads((undisturbed / "data.json").read_text())
    assert data["text"]["train"]["tokens"] == data["text"]["train"]["characters"] > 1500


# Steps 5 and 10 follow a validation, which has a state of its own; a window that is not full yet is in the checkpoint.
@pytest.mark.parametrize("core", ["rmc", "lstm", "transformer"])
def test_a_run_broken_off_resumes_byte_for_byte_whatever_it_carries(core, text, tmp_path):
    model = dataclasses.replace(little_run(text).model, window=50)
    config = little_run(text, core=core, model=model, chunk=13)
    train_quietly(config, tmp_path / "undisturbed")
    with pytest.raises(Stop):
        train_quietly(config, tmp_path / "run", on_progress=stop_at(6))
    train_quietly(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")


def test_a_state_that_is_not_carried_would_be_noticed(text, undisturbed, tmp_path, monkeypatch):
    from relational_rnn.tasks.language.problem import LanguageProblem

    def forget(self, state):
        self.states = {int(k): self.model.initial_state(3) for k in state}

    with pytest.raises(Stop):
        train_quietly(little_run(text), tmp_path / "run", on_progress=stop_at(6))
    monkeypatch.setattr(LanguageProblem, "load_state_dict", forget)
    train_quietly(little_run(text), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != (undisturbed / "model.safetensors").read_bytes()


def test_gradients_added_up_are_those_of_all_streams_at_once(text, tmp_path):
    model = dataclasses.replace(little_run(text).model, output_dropout=0.0, input_dropout=0.0)
    loop = dataclasses.replace(little_run(text).loop, precision="64-true")
    parts = little_run(text, model=model, averaging=AveragingConfig(), loop=loop)
    whole = dataclasses.replace(parts, accumulate=1, batch_size=6)
    for name, config in (("parts", parts), ("whole", whole)):
        train_quietly(config, tmp_path / name)
    a, b = (torch.load(tmp_path / name / "last.ckpt", weights_only=True)["model"] for name in ("parts", "whole"))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("core", ["rmc", "transformer"])
def test_bfloat16_is_obeyed(core, text, tmp_path):
    base = little_run(text, core=core)
    for precision in ("32-true", "bf16-mixed"):
        loop = dataclasses.replace(base.loop, precision=precision)
        train_quietly(dataclasses.replace(base, loop=loop), tmp_path / precision)
    a, b = (
        float((tmp_path / name / "metrics.csv").read_text().splitlines()[-1].split(",")[4])
        for name in ("32-true", "bf16-mixed")
    )
    assert a == pytest.approx(b, rel=0.02)
    assert a != b


def test_the_streams_of_a_part_go_on_where_they_were_and_gradients_do_not(text):
    config = little_run(text, averaging=AveragingConfig())
    problem = build(config)
    problem.model.eval()
    chunks = [problem.train_batch(number) for number in range(4)]  # two updates of two parts
    assert [chunk.place for chunk in chunks] == [0, 1, 0, 1]
    for chunk in chunks:
        problem.measure(chunk)
    assert not any(t.requires_grad for state in problem.states.values() for t in state)
    for place in (0, 1):
        text_read = torch.cat([chunk.inputs for chunk in chunks if chunk.place == place], 1)
        with torch.no_grad():
            expected = problem.model(text_read)[1]
        torch.testing.assert_close(problem.states[place], expected)


def test_validation_leaves_the_streams_alone_and_is_not_saved(text):
    problem = build(little_run(text))
    problem.measure(problem.train_batch(0))
    before = problem.states[0][0].clone()
    for batch in problem.valid_batches():
        problem.measure(batch)
    assert torch.equal(problem.states[0][0], before)
    assert VALIDATION in problem.states
    assert list(problem.state_dict()) == ["0"]


def test_an_evaluation_reads_the_whole_text_with_the_state_carried(text, undisturbed):
    found = evaluate(undisturbed, resets=(10, 50))
    run = load(undisturbed)
    corpus = read_corpus(run.config)
    read = read_text(run.model, corpus.test, chunk=9)
    assert found.loss == pytest.approx(read.loss, rel=1e-6)
    assert found.perplexity == pytest.approx(np.exp(read.loss * len(corpus.test) / corpus.test.words), rel=1e-6)
    assert found.tokens == len(corpus.test)
    assert found.parameters == count_parameters(run.model)
    assert found.state_bytes == 4 * 2 * 12
    assert list(found.resets) == [10, 50]
    assert sum(found.per_group_tokens.values()) == len(corpus.test) - 1
    assert found.tokens_seen == 12 * 2 * 3 * 43
    assert LanguageEvaluation.from_json(json.loads((undisturbed / "result.json").read_text())) == found
    kept = found.to_json()
    with pytest.raises(
        InputError, match=r"r\.json: result: resets lacks a figure\n  got       every 10 tokens: perplexity"
    ):
        LanguageEvaluation.from_json(kept | {"resets": {"10": {"perplexity": 2.0}}}, where="r.json")
    valid = evaluate(undisturbed, split="valid", resets=())
    assert valid.split == "valid"
    assert valid.loss != found.loss
    assert LanguageEvaluation.from_json(json.loads((undisturbed / "result.json").read_text())) == found


def test_progress_of_an_evaluation_goes_from_nothing_to_all_ways_of_reading(undisturbed):
    told = []
    found = evaluate(
        undisturbed, split="valid", resets=(20, 10**6), on_progress=lambda done, total: told.append((done, total))
    )
    targets = found.tokens - 1
    assert told[-1] == (2 * targets, 2 * targets)
    assert (targets, 2 * targets) in told
    assert told == sorted(told)
    assert list(found.resets) == [20]


def test_what_takes_long_is_said_now_and_then(monkeypatch, capsys):

    now = [0.0]
    monkeypatch.setattr("relational_rnn.tasks.language.problem.time.monotonic", lambda: now[0])
    say = SlowWork("reading", "tokens")
    for second in (3, 9, 11, 12, 22):
        now[0] = float(second)
        say(second, 30)
    assert capsys.readouterr().err == "reading: 11 of 30 tokens\nreading: 22 of 30 tokens\n"


def test_another_text_is_read_with_the_vocabulary_of_the_run(undisturbed, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("the cat sat on two mats\n")
    found = evaluate(undisturbed, data=other, resets=())
    assert (found.split, found.tokens) == ("text", 24)
    assert found.perplexity == pytest.approx(np.exp(found.loss * 24 / 7))  # six words and a line end
    other.write_text("the dog\n")
    with pytest.raises(InputError, match=r"other\.txt: the vocabulary lacks characters of this text\n.*'g' \(line 1\)"):
        evaluate(undisturbed, data=other)
    with pytest.raises(InputError, match=r"gone\.txt: there is no such file"):
        evaluate(undisturbed, data=tmp_path / "gone.txt")
    with pytest.raises(InputError, match="this is a folder, not a text file"):
        evaluate(undisturbed, data=tmp_path)
    other.write_bytes(b"the cat\nsat \xff\n")
    with pytest.raises(InputError, match=r"other\.txt, line 2: this is not UTF-8 text"):
        evaluate(undisturbed, data=other)
    other.write_text("")
    with pytest.raises(InputError, match="the text has no token to predict"):
        evaluate(undisturbed, data=other)


def test_another_text_is_read_as_the_text_of_a_corpus_is(tmp_path):
    """Line ends stand for themselves, and a byte order mark is no character."""
    content = b"the cat sat\r\non a mat\r\n"
    (tmp_path / "train.txt").write_bytes(content * 20)
    (tmp_path / "valid.txt").write_bytes(content)
    (tmp_path / "test.txt").write_bytes(content * 2)
    train_quietly(little_run(tmp_path), tmp_path / "run")
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbf" + content * 2)
    own, other = (evaluate(tmp_path / "run", data=path, resets=()) for path in (None, tmp_path / "marked.txt"))
    assert (other.loss, other.perplexity, other.tokens) == (own.loss, own.perplexity, own.tokens)


def test_a_comparison_goes_on_where_it_was_stopped(text, tmp_path):
    def again(**arguments):
        return compare(
            little_run(text),
            ("rmc", "gru"),
            (3, 4),
            tmp_path,
            on_report=little.silent,
            **{"on_progress": little.quiet, **arguments},
        )

    done = []

    def stop_after_two(folder, found):
        done.append(folder.name)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(on_run=stop_after_two)
    trained = []
    found = again(on_progress=lambda progress: trained.append(progress.step))
    assert [path.name for path in found] == ["rmc-3", "rmc-4", "gru-3", "gru-4"]
    assert trained.count(12) == 2
    by_name = {path.name: evaluation for path, evaluation in found.items()}
    assert by_name["gru-3"].parameters == pytest.approx(by_name["rmc-3"].parameters, rel=0.1)
    assert by_name["rmc-3"].loss != by_name["rmc-4"].loss


def test_a_text_that_changed_is_refused_by_resume_and_evaluation(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        write_text(folder / f"{split}.txt")
    with pytest.raises(Stop):
        train_quietly(little_run(folder), tmp_path / "run", on_progress=stop_at(6))
    (folder / "test.txt").write_text("the cat\n")
    for again in (
        lambda: train_quietly(little_run(folder), tmp_path / "run", resume=True),
        lambda: evaluate(tmp_path / "run"),
    ):
        with pytest.raises(InputError, match=r"data\.json: the text is not the one that the run began with"):
            again()
    (folder / "train.txt").write_text((folder / "train.txt").read_text() + "quick\n")
    with pytest.raises(InputError, match=r"vocabulary\.json: the text is not the one .* its vocabulary is another"):
        train_quietly(little_run(folder), tmp_path / "run", resume=True)


def test_a_vocabulary_that_does_not_match_the_weights_is_refused(undisturbed, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "vocabulary.json", "metrics.csv"):
        (folder / name).write_bytes((undisturbed / name).read_bytes())
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    vocabulary["symbols"].append("z")
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    with pytest.raises(InputError) as error:
        load(folder)
    assert str(error.value) == (
        f"{folder / 'vocabulary.json'}: the vocabulary does not match the weights beside it\n"
        "  got       17 tokens\n"
        "  expected  16, as in model.safetensors\n"
        "  hint      put the vocabulary.json back that the run began with."
    )
    (folder / "vocabulary.json").write_text("{")
    with pytest.raises(InputError, match="is not readable JSON"):
        load(folder)
    (folder / "vocabulary.json").unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load(folder)


def test_what_cannot_be_trained_is_said_before_anything_is_written(text, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(InputError, match="there is no text to read"):
        train_quietly(dataclasses.replace(little_run(text), data=CorpusConfig()), folder)
    with pytest.raises(InputError, match="shorter than one chunk of every stream"):
        train_quietly(little_run(text, chunk=1000), folder)
    with pytest.raises(InputError, match="there is no such file or folder"):
        train_quietly(little_run(tmp_path / "gone.txt"), folder)
    with pytest.raises(InputError, match="no size of the core"):
        compare(
            little_run(text, memory=dataclasses.replace(little_run(text).memory, head_size=1)),
            ("rmc", "transformer"),
            (0,),
            folder,
            on_report=little.silent,
        )
    assert not folder.exists()


def test_runs_of_other_tasks_are_told_apart(undisturbed, tmp_path):
    assert read_config(undisturbed).task_name == "language"
    (tmp_path / "config.json").write_text(json.dumps({"task": "nth-farthest"}))
    with pytest.raises(InputError, match="the run is not on language"):
        load(tmp_path, "language")


@pytest.mark.parametrize("name", LANGUAGE_RECIPES)
def test_every_recipe_has_a_model_of_equal_size_for_every_rival(name):
    config = LANGUAGE_RECIPES[name]()
    size = {"shakespeare-char": 65, "wikitext-103": 267_735}.get(name, 33_278)
    counts = []
    for core in ("rmc", "lstm", "transformer"):
        with torch.device("meta"):
            counts.append(
                count_parameters(
                    WORKLOAD.make_model(dataclasses.replace(config, core=core), SimpleNamespace(size=size))
                )
            )
    assert max(counts) < 1.02 * min(counts)
