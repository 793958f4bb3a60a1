"""Language as something to train on: a text, and how the best weights of a run predict one."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from relational_rnn._check import InputError, describe
from relational_rnn._reading.json_text import Json, read_json_object
from relational_rnn._reading.plain import read_text as read_plain
from relational_rnn._reading.tensors import shapes_in_safetensors
from relational_rnn.nn.core import state_bytes
from relational_rnn.runs import Asked, Breakdown, Column, LoadedRun, Published, RunEvaluation, Workload
from relational_rnn.runs.evaluation import Table
from relational_rnn.runs.folder import spent_on
from relational_rnn.tasks.language.corpus import Corpus, Tokens
from relational_rnn.tasks.language.judging import by_frequency, read_text
from relational_rnn.tasks.language.model import LanguageModel
from relational_rnn.tasks.language.problem import LanguageProblem, SlowWork, read_corpus
from relational_rnn.tasks.language.recipes import LANGUAGE_RECIPES, LanguageRun
from relational_rnn.tasks.language.sources import TextFile
from relational_rnn.tasks.language.streams import check_target
from relational_rnn.tasks.language.vocabulary import Vocabulary, VocabularyKind, split_words
from relational_rnn.training import Outcome

RESETS = (10, 30, 100, 300, 1000)
"""After so many tokens the memory is reset to measure what it costs to lose the past."""
# (words of the training text with line ends, model, perplexity per word, what a reader must know of it, source)
_L0SG = "L0SG 2018, README of github.com/L0SG/relational-rnn-pytorch"
_SANTORO = "Santoro et al. 2018, arXiv 1806.01822, table 2"
_FIGURES = (
    (2_088_628, "RMC", 107.21, "11 million parameters", _L0SG),
    (2_088_628, "LSTM", 105.56, "11 million parameters", _L0SG),
    (103_227_021, "RMC", 31.6, "one memory of 2,500 numbers, 384 streams", _SANTORO),
    (103_227_021, "LSTM (Rae et al. 2018)", 34.3, "as listed there", _SANTORO),
    (103_227_021, "LSTM (Grave et al. 2017)", 48.7, "as listed there", _SANTORO),
    (103_227_021, "Quasi-RNN", 33.0, "as listed there", _SANTORO),
    (103_227_021, "Temporal CNN", 45.2, "as listed there", _SANTORO),
    (103_227_021, "Gated CNN", 37.2, "as listed there", _SANTORO),
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LanguageEvaluation(RunEvaluation):
    """How a run predicts a text that it has not learned from, read as one stream with the state carried.

    `split` is "text" for a text that was handed over, `loss` and `mean_accuracy` are per token, and `state_bytes` are
    those of all cores when a window is full.
    """

    vocabulary: VocabularyKind
    """What a token is."""
    perplexity: float
    """Per word."""
    bits_per_character: float
    """Mean cross entropy of a character, in bits."""
    per_group: Mapping[str, float]
    """Accuracy by how often the token occurs in the training text; empty for a text that was handed over."""
    per_group_perplexity: Mapping[str, float]
    """Perplexity per token of the same groups."""
    per_group_tokens: Mapping[str, int]
    """How many tokens are in each."""
    resets: Mapping[int, Mapping[str, float]]
    """Perplexity per word and bits per character when the memory is reset every so many tokens."""
    tokens: int
    """Of the text."""
    tokens_seen: int
    """In training, by then."""

    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("perplexity per word", "perplexity", "{:,.2f}"),
        Column("bits per character", "bits_per_character", "{:.4f}"),
        Column("accuracy", "mean_accuracy", "{:.1f}", scale=100, unit=" %"),
        Column("tokens seen in training", "tokens_seen", "{:,.0f}"),
    )

    def __post_init__(self) -> None:
        for every, figures in self.resets.items():
            lacking = [column.name for column in MEASURES if column.name not in figures]
            if lacking:
                got = f"every {every} tokens: {', '.join(figures) or 'nothing'}"
                raise InputError(describe("result", "resets lacks a figure", got=got, expected=lacking[0]))

    def groups(self) -> Mapping[str, float]:
        return self.per_group

    def line(self) -> str:
        return f"{self._judged()} on {self.tokens:,} tokens"

    def tables(self) -> Sequence[Table]:
        by_frequency = [
            [name, f"{self.per_group_tokens[name]:,}", f"{perplexity:,.2f}", f"{100 * self.per_group[name]:.1f}"]
            for name, perplexity in self.per_group_perplexity.items()
        ]
        by_reset = [
            [name, *(column.form.format(figures[column.name]) for column in MEASURES)]
            for name, figures in _by_reset(self.to_json()).items()
        ]
        tables = [
            (["occurrences in training", "tokens", "perplexity", "accuracy, %"], by_frequency),
            (["memory reset", *(column.heading for column in MEASURES)], by_reset),
        ]
        return tables if self.per_group else tables[1:]

    def summary(self) -> str:
        return f"{self._judged()}, {100 * self.mean_accuracy:.1f} % of {self.tokens:,} {self.split} tokens right"

    def _judged(self) -> str:
        return f"perplexity {self.perplexity:,.2f} per word, {self.bits_per_character:.4f} bits per character"


MEASURES = LanguageEvaluation.COLUMNS[:2]
"""What a text is judged by: perplexity and bits."""


def _by_reset(result: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """The figures of `MEASURES` by how often the memory is reset."""
    return {**{f"every {int(k):,} tokens": figures for k, figures in result["resets"].items()}, "never": result}


def token_name(config: Mapping[str, Any]) -> str:
    """What a token of a run is, given its config.json."""
    return str(config.get("data", {}).get("vocabulary", "word"))


class LanguageWorkload(Workload[LanguageRun]):
    """To predict the next token of a text."""

    config = LanguageRun
    recipes = LANGUAGE_RECIPES
    evaluation = LanguageEvaluation
    best_by = "loss"
    curves_over = "step"
    accuracy_note = (
        "The whole test text is read as one stream with the memory carried; perplexity is per word, accuracy the share "
        "of tokens that were the most probable one;"
    )
    pickles_data = False  # other processes map the token files themselves
    published = tuple(
        Published(
            data={"vocabulary": "word"},
            found={"text": {"train": {"words": words}}},
            model=model,
            metric="perplexity",
            value=perplexity,
            setting=setting,
            source=source,
        )
        for words, model, perplexity, setting, source in _FIGURES
    )
    short: Mapping[str, str] = {"--data": "--data.path"}
    data_help = (
        "With `--data PATH` (short for --data.path) it reads a text file, which is split into training, validation and "
        "test text, or a folder or an archive with these three."
    )
    train_examples = (
        "--data data/tiny-shakespeare.txt --out runs/shakespeare/rmc-0",
        "--recipe wikitext-2-small --data data/wikitext-2 --core lstm",
        "--data my-notes.txt --data.vocabulary bpe --data.vocabulary-size 2000",
    )
    compare_examples = (
        "--data data/tiny-shakespeare.txt --cores rmc lstm transformer --seeds 0 1 2",
        "--recipe wikitext-2-small --data data/wikitext-2 --cores rmc lstm",
    )

    def absolute(self, config: LanguageRun) -> LanguageRun:
        if config.data.path is None:
            return config
        path = Path(config.data.path).expanduser().resolve()
        return dataclasses.replace(config, data=dataclasses.replace(config.data, path=path))

    def read(self, config: LanguageRun) -> Corpus:
        return read_corpus(config)

    def vocabulary(self, config: LanguageRun, data: Corpus) -> Vocabulary:
        return data.vocabulary

    def read_vocabulary(self, folder: Path, config: LanguageRun) -> Vocabulary:
        path, weights = folder / "vocabulary.json", folder / "model.safetensors"
        vocabulary = Vocabulary.from_json(read_plain(path), where=str(path))
        shapes = shapes_in_safetensors(weights, problem="the weights cannot be read") if weights.exists() else {}
        (rows, *_) = shapes.get("embedding.weight") or (
            vocabulary.size,
        )  # other faults of the weights are told elsewhere
        if rows != vocabulary.size:
            problem = "the vocabulary does not match the weights beside it"
            hint = "put the vocabulary.json back that the run began with."
            got, expected = f"{vocabulary.size:,} tokens", f"{rows:,}, as in {weights.name}"
            raise InputError(describe(str(path), problem, got=got, expected=expected, hint=hint))
        return vocabulary

    def make_model(self, config: LanguageRun, vocabulary: Vocabulary) -> LanguageModel:
        return LanguageModel.build(
            vocabulary.size, config.core, config.memory, config.model, rivals=config.rivals, fast=config.fast
        )

    def make_problem(self, model: LanguageModel, config: LanguageRun, data: Corpus) -> LanguageProblem:
        return LanguageProblem(model, data, config)

    def report(self, problem: LanguageProblem) -> Sequence[str]:
        return problem.corpus.report

    def files(self, problem: LanguageProblem) -> dict[str, Json]:
        return _run_files(problem.corpus)

    def check_resumed(self, folder: Path, files: Mapping[str, Json]) -> None:
        for name in files:
            path = folder / name
            if not path.exists() and not (folder / "last.ckpt").exists():  # killed before it was written
                continue
            if read_json_object(path) != files[name]:
                what = "vocabulary" if name == "vocabulary.json" else "number of tokens"
                problem = f"the text is not the one that the run began with: its {what} is another"
                hint = "put the text back as it was, or start a new run in another folder."
                raise InputError(describe(str(path), problem, hint=hint))

    def best(self, outcome: Outcome) -> str:
        loss = outcome.valid_loss
        bits, perplexity = loss / math.log(2), math.exp(min(loss, 700))
        return f"best validation loss {loss:.3f} nats per token ({bits:.3f} bits, perplexity {perplexity:,.1f})"

    def fit_options(self, config: LanguageRun) -> dict[str, Any]:
        return {"accumulate": config.accumulate, "averaging": config.averaging}

    def measure(
        self,
        run: LoadedRun[LanguageRun],
        *,
        split: str,
        data: Path | str | None,
        resets: Sequence[int] = RESETS,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """See `Workload.measure`; the text is read as one stream with the state carried.

        Args:
            run: what is measured.
            split: "test" or "valid".
            data: another text than the run's, a file in UTF-8; it is read with the run's vocabulary.
            resets: also measure with the memory reset every so many tokens, for each of these.
            on_progress: called with (tokens read, tokens to read in all ways of reading); None says it on standard
                error every ten seconds.
        """
        if data is not None and split != "test":
            problem = "a text of your own has no split"
            raise InputError(describe("evaluate", problem, got=f"split {split!r} and {data}"))
        config, counts = run.config, None
        if data is not None:
            part = _own_text(Path(data), run.vocabulary, config.data.line_ends)
        else:
            corpus = read_corpus(config)
            self.check_resumed(run.folder, _run_files(corpus))
            part = corpus.test if split == "test" else corpus.valid
            counts = corpus.train.counts(run.vocabulary.size)
        start = time.perf_counter()
        say = on_progress or SlowWork("reading", "tokens")
        usable = [k for k in resets if k < len(part) - 1]
        found, *forgetting = (
            read_text(
                run.model,
                part,
                reset_every=every,
                progress=lambda done, total, turn=turn: say(turn * total + done, (1 + len(usable)) * total),
            )
            for turn, every in enumerate([None, *usable])
        )
        bands = by_frequency(found, counts) if counts is not None else []
        return {
            "split": split if data is None else "text",
            "vocabulary": config.data.vocabulary,
            "perplexity": found.perplexity,
            "bits_per_character": found.bits_per_character,
            "loss": found.loss,
            "mean_accuracy": found.accuracy,
            "per_group": {band.name: band.accuracy for band in bands},
            "per_group_perplexity": {band.name: band.perplexity for band in bands},
            "per_group_tokens": {band.name: band.tokens for band in bands},
            "resets": {
                every: {column.name: getattr(predictions, column.name) for column in MEASURES}
                for every, predictions in zip(usable, forgetting, strict=True)
            },
            "tokens": found.tokens,
            "tokens_seen": spent_on(run.folder).steps * config.accumulate * config.batch_size * config.chunk,
            "state_bytes": _state_bytes(run.model),
            "evaluate_seconds": time.perf_counter() - start,
        }

    def main_measure(self, config: Mapping[str, Any]) -> str:
        return "bits_per_character" if token_name(config) == "character" else "perplexity"

    def breakdowns(self, result: Mapping[str, Any], groups: Mapping[str, float]) -> Sequence[Breakdown]:
        frequency = Breakdown(
            caption="Perplexity by occurrences in the training text",
            by="occurrences",
            values=result["per_group_perplexity"],
            form="{:,.2f}",
            scale=1,
        )
        resets = [
            Breakdown(
                caption=f"{column.heading.capitalize()}, with the memory reset",
                by="memory reset",
                values={name: figures[column.name] for name, figures in _by_reset(result).items()},
                form=column.form,
                scale=1,
            )
            for column in MEASURES
        ]
        return [frequency, *resets]

    def details(self, result: Mapping[str, Any]) -> dict[str, Any]:
        names = [column.name for column in MEASURES]
        return {
            **{name: result[name] for name in (*names, "mean_accuracy")},
            "tokens_seen": int(result["tokens_seen"]),
            "perplexity_by_frequency": result["per_group_perplexity"],
            "resets": {name: {k: figures[name] for k, figures in result["resets"].items()} for name in names},
        }

    def figures(self, groups: Sequence[Any]) -> Sequence[Any]:
        from relational_rnn.tasks.language.figures import text_figures

        return text_figures(groups)

    def inspect(self, run: LoadedRun[LanguageRun], asked: Asked) -> Any:
        from relational_rnn.tasks.language.language_page import inspect_text

        return inspect_text(run, asked)

    def other_data(self, config: LanguageRun, path: Path, *, partial: bool) -> Path:
        if partial:
            raise InputError(describe("evaluate", "--partial has no effect on a text"))
        return path

    def folder(self, config: LanguageRun, recipe: str, *, asked: bool) -> Path:
        if asked or config.data.path is None:
            return Path("runs") / recipe
        path = Path(config.data.path).absolute()
        return Path("runs") / ((path.name if path.is_dir() else path.stem.removesuffix(".tar")) or recipe)


def _run_files(corpus: Corpus) -> dict[str, Json]:
    """What a run folder keeps about its text: the contents of two files, by their names."""
    parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    counts: dict[str, Json] = {
        split: {"tokens": len(text), "words": text.words, "characters": text.characters}
        for split, text in parts.items()
    }
    return {
        "vocabulary.json": json.loads(corpus.vocabulary.to_json()),
        "data.json": {"text": counts, "report": [*corpus.report]},
    }


def _own_text(path: Path, vocabulary: Vocabulary, line_ends: bool) -> Tokens:
    if not path.is_file():
        problem = "this is a folder, not a text file" if path.is_dir() else "there is no such file"
        raise InputError(describe(str(path), problem))
    text = "".join(TextFile(path, str(path)).pieces())  # read as the text of a corpus: line ends stay as they are
    numbers = vocabulary.encode(text, where=str(path))
    check_target(str(path), numbers)
    return Tokens(numbers, np.zeros(1, np.int64), words=len(split_words(text, line_ends)), characters=len(text))


def _state_bytes(model: LanguageModel) -> int:
    """Of the states that one text carries when every window is full."""
    with torch.no_grad():
        _, state = model(torch.zeros(1, model.config.window, dtype=torch.int64))
    return sum(state_bytes(layer) for layer in state)


WORKLOAD = LanguageWorkload()
