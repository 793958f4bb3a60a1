"""Judging a run on language: the best weights on a whole text, with and without its past."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn.nn.core import state_bytes
from relational_rnn.nn.cores import count_parameters
from relational_rnn.recipes.evaluation import RunEvaluation
from relational_rnn.recipes.language_folder import check_same_text, load_language, run_files
from relational_rnn.recipes.language_problem import SlowWork, read_corpus
from relational_rnn.recipes.running import spent_on
from relational_rnn.tasks.language.judging import Predictions, by_frequency, read_text
from relational_rnn.tasks.language.model import LanguageModel
from relational_rnn.tasks.language.sources import TextFile
from relational_rnn.tasks.language.tokens import Tokens
from relational_rnn.tasks.language.vocabulary import Vocabulary, VocabularyKind
from relational_rnn.training.json_files import write_json

RESETS = (10, 30, 100, 300, 1000)
"""After so many tokens the memory is reset, where the cost of losing the past is measured."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LanguageEvaluation(RunEvaluation):
    """How a run predicts a text that it has not learned from, read as one stream with the state carried.

    `split` is "text" for a text that was handed over, `loss` and `mean_accuracy` are those of a token, and the state is
    that of all cores after a chunk, when a window is full.
    """

    task: str
    """ "language"."""
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
    """While training, by then."""


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
        on_progress: called with (tokens read, tokens to read, once for each way of reading); None says it on standard
            error every ten seconds.

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
        check_same_text(folder, run_files(corpus))
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
    seconds = time.perf_counter() - start
    spent, config = spent_on(folder), run.config
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
        resets={k: _figures(predictions) for k, predictions in zip(usable, forgetting, strict=True)},
        tokens=found.tokens,
        parameters=count_parameters(run.model),
        state_bytes=_state_bytes(run.model),
        train_seconds=spent.seconds,
        processor_seconds=spent.processor_seconds,
        evaluate_seconds=seconds,
        core=config.core,
        seed=config.seed,
        steps=spent.steps,
        tokens_seen=spent.steps * config.accumulate * config.batch_size * config.chunk,
        report=spent.unfinished(config.loop.steps),
    )
    if split == "test" and text is None:
        write_json(folder / "result.json", evaluation.to_json())
    return evaluation


def _own_text(path: Path, vocabulary: Vocabulary, line_ends: bool) -> Tokens:
    if not path.is_file():
        problem = "this is a folder, not a text file" if path.is_dir() else "there is no such file"
        raise InputError(describe(str(path), problem))
    text = "".join(TextFile(path, str(path)).pieces())  # as the text of a corpus is read: line ends as they stand
    numbers = vocabulary.encode(text, where=str(path))
    if len(numbers) < 2:
        raise InputError(describe(str(path), "the text has no token to predict", got=f"{len(numbers)} tokens"))
    words = len(text.split()) + text.count("\n") * line_ends
    return Tokens(numbers, np.zeros(1, np.int64), words=words, characters=len(text))


def _figures(predictions: Predictions) -> dict[str, float]:
    return {"perplexity": predictions.perplexity, "bits_per_character": predictions.bits_per_character}


def _state_bytes(model: LanguageModel) -> int:
    """Of the states that one text carries, where every window is full."""
    with torch.no_grad():
        _, state = model(torch.zeros(1, model.config.window, dtype=torch.int64))
    return sum(state_bytes(layer) for layer in state)
