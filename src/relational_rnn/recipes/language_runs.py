"""Runs on language from the outside: train one, measure it, load it, compare several."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.nn.core import state_bytes
from relational_rnn.nn.cores import count_parameters
from relational_rnn.recipes.babi import CoreName
from relational_rnn.recipes.language import LanguageRun
from relational_rnn.recipes.language_problem import (
    LanguageProblem,
    absolute_text,
    build_language_model,
    read_corpus,
)
from relational_rnn.recipes.running import (
    as_json,
    check_grid,
    finish_runs,
    load_weights,
    print_report,
    progress_of,
    read_config_file,
    read_result,
)
from relational_rnn.tasks.language.corpus import Corpus
from relational_rnn.tasks.language.judging import Predictions, by_frequency, cost_of_forgetting, read_text
from relational_rnn.tasks.language.model import LanguageModel
from relational_rnn.tasks.language.tokens import Tokens
from relational_rnn.tasks.language.vocabulary import Vocabulary, VocabularyKind
from relational_rnn.training import Outcome, Progress, RunFolder, fit, from_json
from relational_rnn.training.json_files import Json, read_json_object, write_json

RESETS = (10, 30, 100, 300, 1000)
"""After so many tokens the memory is reset, where the cost of losing the past is measured."""


def language_config_json(config: LanguageRun) -> dict[str, Json]:
    """The configuration as config.json holds it: the name of the task comes first."""
    return {"task": config.task_name, **as_json(config)}


def train_language(
    config: LanguageRun,
    folder: Path | str,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_report: Callable[[str], None] | None = None,
    corpus: Corpus | None = None,
) -> Outcome:
    """Train a run into a folder.

    Args:
        config: everything that decides the run.
        folder: the run folder; see `training.run_folder` for what it will hold.
        resume: continue a run that was stopped, from its last checkpoint: the states of all streams are in it, so that
            it goes on in the middle of a pass.
        on_progress: called now and then; None shows the progress on standard error.
        on_report: called once for each thing to know about the text; None prints it on standard error.
        corpus: that of `read_corpus(config)`, where it is at hand already.

    Raises:
        InputError: what was given cannot be used; a resumed run's text is not the one that it began with; see
            `read_corpus`, `LanguageModel.build`, `TrainingStreams` and `training.fit`.
        KeyboardInterrupt: stopped with Ctrl-C; the message says how to continue.
    """
    config, folder = absolute_text(config), Path(folder)
    configuration = language_config_json(config)
    place = RunFolder.claim(folder, configuration, resume=resume)  # refused before minutes are spent on reading
    corpus = corpus if corpus is not None else read_corpus(config)
    files = _files(corpus)
    if place.resumed:
        _check_same_text(folder, files)
    problem = LanguageProblem(build_language_model(config, corpus.vocabulary.size), corpus, config)
    for line in corpus.report:
        (on_report or print_report)(line)
    return fit(
        problem,
        folder,
        optimizer=config.optimizer,
        loop=config.loop,
        seed=config.seed,
        configuration=configuration,
        resume=resume,
        on_progress=on_progress,
        files=files,
        accumulate=config.accumulate,
        averaging=config.averaging,
        best_by="loss",
    )


def _files(corpus: Corpus) -> dict[str, Json]:
    """What a run folder keeps about its text."""
    parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    counts: dict[str, Json] = {
        split: {"tokens": len(text), "words": text.words, "characters": text.characters}
        for split, text in parts.items()
    }
    return {
        "vocabulary.json": json.loads(corpus.vocabulary.to_json()),
        "data.json": {"text": counts, "report": [*corpus.report]},
    }


def _check_same_text(folder: Path, files: Mapping[str, Json]) -> None:
    """Refuse a text that has changed since the run began."""
    for name in files:
        path = folder / name
        if read_json_object(path) != files[name]:
            what = "vocabulary" if name == "vocabulary.json" else "number of tokens"
            problem = f"the text is not the one that the run began with: its {what} is another"
            hint = "put the text back as it was, or start a new run in another folder."
            raise InputError(describe(str(path), problem, hint=hint))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LoadedLanguageRun:
    """A trained model with all that is needed to use it."""

    folder: Path
    """Where it was trained."""
    config: LanguageRun
    """How."""
    model: LanguageModel
    """With the weights that did best on the validation text; on the CPU, in evaluation mode."""
    vocabulary: Vocabulary
    """Between its tokens and text."""


def read_language_config(folder: Path | str) -> LanguageRun:
    """The configuration of the run in a folder.

    Raises:
        InputError: there is no run on language in it, or it was written by another version of this package.
    """
    path, content = read_config_file(Path(folder))
    task = content.pop("task", "babi")
    if task != LanguageRun.task_name:
        raise InputError(describe(str(folder), "the run is not on language", got=task))
    return from_json(LanguageRun, content, where=str(path))


def load_language(folder: Path | str) -> LoadedLanguageRun:
    """Load the best weights of a run.

    Raises:
        InputError: there is no run on language in the folder, no weights yet, a file of it cannot be read, or the
            vocabulary does not match the weights.
    """
    folder = Path(folder)
    config = read_language_config(folder)
    vocabulary = read_vocabulary(folder)
    _check_vocabulary(folder, vocabulary)
    model = load_weights(build_language_model(config, vocabulary.size), folder)
    return LoadedLanguageRun(folder=folder, config=config, model=model, vocabulary=vocabulary)


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of the run in a folder.

    Raises:
        InputError: the file cannot be read.
    """
    path = folder / "vocabulary.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(describe(str(path), f"the vocabulary cannot be read: {error}")) from error
    return Vocabulary.from_json(text, where=str(path))


def _check_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Refuse a vocabulary of another size than the embedding; what else is wrong with the weights is said elsewhere."""
    path = folder / "model.safetensors"
    if not path.exists():
        return
    try:
        with safe_open(path, framework="pt") as file:
            shape = file.get_slice("embedding.weight").get_shape()
    except (SafetensorError, OSError):
        return
    if shape[0] != vocabulary.size:
        problem = "the vocabulary does not match the weights beside it"
        hint = "put the vocabulary.json back that the run began with."
        got, expected = f"{vocabulary.size:,} tokens", f"{shape[0]:,}, as in {path.name}"
        raise InputError(describe(str(folder / "vocabulary.json"), problem, got=got, expected=expected, hint=hint))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LanguageEvaluation:
    """How a run predicts a text that it has not learned from, read as one stream with the state carried."""

    split: str
    """ "test", "valid", or "text" for one that was handed over."""
    task: str
    """ "language"."""
    vocabulary: VocabularyKind
    """What a token is."""
    perplexity: float
    """Per word."""
    bits_per_character: float
    """Mean cross entropy of a character, in bits."""
    loss: float
    """Mean cross entropy of a token, in nats."""
    mean_accuracy: float
    """Share of tokens that were the most probable one."""
    per_group: Mapping[str, float]
    """The same by how often the token occurs in the training text; empty for a text that was handed over."""
    per_group_perplexity: Mapping[str, float]
    """Perplexity per token of the same groups."""
    per_group_tokens: Mapping[str, int]
    """How many tokens are in each."""
    resets: Mapping[int, Mapping[str, float]]
    """Perplexity per word and bits per character when the memory is reset every so many tokens."""
    tokens: int
    """Of the text."""
    parameters: int
    """Trainable numbers of the whole model."""
    state_bytes: int
    """Of all cores' states after a chunk; a window is full then."""
    train_seconds: float
    """Training and validation, all sittings."""
    evaluate_seconds: float
    """This evaluation."""
    core: str
    """Name of the core."""
    seed: int
    """Of the run."""
    steps: int
    """Updates done; fewer than the budget where the run is not finished."""
    tokens_seen: int
    """While training, by then."""
    report: tuple[str, ...]
    """What a user should know: a run that is not finished."""

    def to_json(self) -> dict[str, Json]:
        """As result.json holds it."""
        entries: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        entries["resets"] = {str(k): figures for k, figures in self.resets.items()}
        return {**entries, "report": list(self.report)}

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> LanguageEvaluation:
        """What `to_json` gave."""
        resets = {int(k): v for k, v in entries["resets"].items()}
        return cls(**{**entries, "resets": resets, "report": tuple(entries["report"])})


def evaluate_language(
    folder: Path | str,
    *,
    split: str = "test",
    text: Path | str | None = None,
    resets: Sequence[int] = RESETS,
    on_progress: Callable[[int, int], None] | None = None,
) -> LanguageEvaluation:
    """Measure the best weights of a run on a whole text, read as one stream with the state carried.

    The result on the run's own test text is kept in result.json; others are only returned.

    Args:
        folder: the run folder.
        split: "test", or "valid" for the validation text that the best weights were chosen on.
        text: another text than the run's, a file in UTF-8; it is read with the run's vocabulary.
        resets: also measure with the memory reset every so many tokens, for each of these.
        on_progress: called with (tokens read, tokens of the text) while the text is read as one stream.

    Raises:
        InputError: see `load_language`; an unknown split, or one beside a text; a text that cannot be read, or has
            something that the vocabulary does not know; the run's text has changed.
    """
    folder = Path(folder)
    check_choice("evaluate", "split", split, ("test", "valid"))
    if text is not None and split != "test":
        raise InputError(describe("evaluate", "a text of your own has no split", got=f"split {split!r} and {text}"))
    run = load_language(folder)
    counts = None
    if text is not None:
        part = _own_text(Path(text), run.vocabulary, run.config.data.line_ends)
    else:
        corpus = read_corpus(run.config)
        _check_same_text(folder, _files(corpus))
        part = corpus.test if split == "test" else corpus.valid
        counts = corpus.train.counts(run.vocabulary.size)
    start = time.perf_counter()
    found = read_text(run.model, part, progress=on_progress)
    forgetting = cost_of_forgetting(run.model, part, resets)
    seconds = time.perf_counter() - start
    steps, train_seconds = progress_of(folder)
    config = run.config
    unfinished = f"the run is not finished: {steps:,} of {config.loop.steps:,} steps"
    bands = by_frequency(found, counts) if counts is not None else []
    evaluation = LanguageEvaluation(
        split=split if text is None else "text",
        task=config.task_name,
        vocabulary=config.data.vocabulary,
        perplexity=found.perplexity,
        bits_per_character=found.bits_per_character,
        loss=found.loss,
        mean_accuracy=found.accuracy,
        per_group={band.name: band.accuracy for band in bands},
        per_group_perplexity={band.name: band.perplexity for band in bands},
        per_group_tokens={band.name: band.tokens for band in bands},
        resets={k: _figures(predictions) for k, predictions in forgetting.items()},
        tokens=found.tokens,
        parameters=count_parameters(run.model),
        state_bytes=_state_bytes(run.model),
        train_seconds=train_seconds,
        evaluate_seconds=seconds,
        core=config.core,
        seed=config.seed,
        steps=steps,
        tokens_seen=steps * config.accumulate * config.batch_size * config.chunk,
        report=(unfinished,) if steps < config.loop.steps else (),
    )
    if split == "test" and text is None:
        write_json(folder / "result.json", evaluation.to_json())
    return evaluation


def _own_text(path: Path, vocabulary: Vocabulary, line_ends: bool) -> Tokens:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(describe(str(path), f"the text cannot be read: {error}")) from error
    numbers = vocabulary.encode(text, where=str(path))
    if len(numbers) < 2:
        raise InputError(describe(str(path), "the text has no token to predict", got=f"{len(numbers)} tokens"))
    words = len(text.split()) + text.count("\n") * line_ends
    return Tokens(numbers, np.zeros(1, np.int64), words=words, characters=len(text))


def _figures(predictions: Predictions) -> dict[str, float]:
    return {"perplexity": predictions.perplexity, "bits_per_character": predictions.bits_per_character}


def _state_bytes(model: LanguageModel) -> int:
    """Of the states that one text carries, where every window is full."""
    import torch

    with torch.no_grad():
        _, state = model(torch.zeros(1, model.config.window, dtype=torch.int64))
    return sum(state_bytes(layer) for layer in state)


def compare_language(
    base: LanguageRun,
    cores: Sequence[CoreName],
    seeds: Sequence[int],
    folder: Path | str,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_report: Callable[[str], None] | None = None,
    on_run: Callable[[Path, LanguageEvaluation], None] | None = None,
) -> dict[Path, LanguageEvaluation]:
    """Train and measure a run for every core and seed; called again, it goes on where it was stopped.

    Args:
        base: the configuration of all runs but for core and seed.
        cores: names of cores.
        seeds: seeds of runs.
        folder: gets one run folder `<core>-<seed>` for each.
        on_progress: see `train_language`.
        on_report: see `train_language`; called for the text once, not once per run.
        on_run: called with the folder and the measurement of each run as soon as it is there.

    Returns:
        the measurements by run folder, seeds within cores in the given order.

    Raises:
        InputError: a core or a seed is given twice or not at all; no size of a core fits; a folder holds a run of
            another configuration; see `train_language`.
    """
    check_grid(cores, seeds)
    base = absolute_text(base)
    corpus = read_corpus(base)
    for core in cores:  # a rival that has no fitting size is found now, not after the first hours
        LanguageProblem(
            build_language_model(dataclasses.replace(base, core=core), corpus.vocabulary.size), corpus, base
        )
    for line in corpus.report:
        (on_report or print_report)(line)
    runs = {
        Path(folder) / f"{core}-{seed}": dataclasses.replace(base, core=core, seed=seed)
        for core in cores
        for seed in seeds
    }

    def train_one(config: LanguageRun, path: Path, resume: bool) -> None:
        train_language(config, path, resume=resume, on_progress=on_progress, on_report=lambda line: None, corpus=corpus)

    def measure(config: LanguageRun, path: Path) -> LanguageEvaluation:
        return read_result(path, LanguageEvaluation, config.loop.steps) or evaluate_language(path)

    return finish_runs(runs, configuration=language_config_json, train=train_one, measure=measure, on_run=on_run)
