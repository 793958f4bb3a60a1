"""From a configuration to a corpus, and to something the training loop can train."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from relational_rnn._check import InputError, describe
from relational_rnn.tasks.language.corpus import Corpus, prepare
from relational_rnn.tasks.language.model import LanguageModel, LanguageState, detached, map_states
from relational_rnn.tasks.language.recipes import LanguageRun
from relational_rnn.tasks.language.streams import NO_TARGET, LanguageBatch, TrainingStreams, evaluation_batches
from relational_rnn.training import Measure

VALIDATION = -1
"""The place of the validation text's state among those of the training streams."""


class LanguageProblem:
    """A language model with its text; a `training.Problem`, and a `training.Carrier` of the streams' states."""

    def __init__(self, model: LanguageModel, corpus: Corpus, config: LanguageRun) -> None:
        self.model = model
        self.config = config
        self.corpus = corpus
        self.streams = TrainingStreams(
            corpus.train, config.batch_size * config.accumulate, config.chunk, seed=config.seed
        )
        self.states: dict[int, LanguageState] = {}
        """The state after the last chunk of every part of the streams, and of the validation text; no gradients."""
        self._valid: list[LanguageBatch] | None = None

    def train_batch(self, step: int) -> LanguageBatch:
        """The training batch of this number (from 0): the next chunk of one part of the streams."""
        update, place = divmod(step, self.config.accumulate)
        whole, rows = self.streams.batch(update), self.config.batch_size
        part = slice(place * rows, (place + 1) * rows)
        reset = None if whole.reset is None else whole.reset[part]
        return LanguageBatch(whole.inputs[part], whole.targets[part], reset, whole.first, place)

    def valid_batches(self) -> Sequence[LanguageBatch]:
        """The whole validation text in `config.valid_streams` streams."""
        if self._valid is None:
            batches = evaluation_batches(self.corpus.valid, self.config.valid_streams, self.config.chunk)
            self._valid = [replace(batch, place=VALIDATION) for batch in batches]
        return self._valid

    def measure(self, batch: LanguageBatch) -> Measure:
        """The model on the next chunk of its streams; an item is a token."""
        device, place = batch.inputs.device, batch.place
        # A resumed run's states come from the disk, before the model is where it will train.
        state = None if batch.first else map_states(lambda tensor: tensor.to(device), self.states[place])
        features, state = self.model(batch.inputs, state, reset=batch.reset)
        self.states[place] = detached(state)  # backpropagation through time ends here
        targets, features = batch.targets.flatten(), features.flatten(0, 1)
        if place == VALIDATION:
            there = targets != NO_TARGET
            targets, features = targets[there], features[there]
        losses, correct = self.model.score(features, targets)
        return Measure(losses, correct, torch.zeros_like(targets))

    def state_dict(self) -> dict[str, Any]:
        """The streams' states, so that a resumed run goes on in the middle of a pass."""
        return {str(place): list(state) for place, state in self.states.items() if place != VALIDATION}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.states = {int(place): tuple(layers) for place, layers in state.items()}


def read_corpus(config: LanguageRun) -> Corpus:
    """The text of a run as tokens, by `tasks.language.corpus.prepare`; progress goes to standard error.

    Raises:
        InputError: no text is named, or it cannot be read.
    """
    if config.data.path is None:
        hint = "name a text with --data.path; `relational-rnn data fetch tiny-shakespeare` downloads one."
        raise InputError(describe("LanguageRun", "there is no text to read", got="data.path None", hint=hint))
    say = SlowWork("reading the text", "bytes")
    return prepare(config.data, progress=lambda part, done, total: say(done, total, f" ({part})"))


class SlowWork:
    """Says on standard error how far something is, every ten seconds.

    Args:
        what: is done.
        unit: of what is counted.
    """

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, part: str = "") -> None:
        now = time.monotonic()
        if now - self._last >= 10:
            self._last = now
            print(f"{self._what}{part}: {done:,} of {total:,} {self._unit}", file=sys.stderr, flush=True)
