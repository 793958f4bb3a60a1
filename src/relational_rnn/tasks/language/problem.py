"""From a configuration to a corpus, and to something the training loop can train.

Axes: B streams, T tokens of a chunk, M tokens to predict.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from relational_rnn._check import InputError, describe
from relational_rnn.tasks.language.corpus import Corpus, OnProgress, prepare
from relational_rnn.tasks.language.model import LanguageModel, LanguageState, detached, map_states
from relational_rnn.tasks.language.recipes import LanguageRun
from relational_rnn.tasks.language.streams import NO_TARGET, LanguageBatch, TrainingStreams, evaluation_batches
from relational_rnn.training import Measure

VALIDATION = -1
"""The place of the validation text's state among those of the training streams."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """A batch, and whose state it goes on with."""

    batch: LanguageBatch
    """The next chunk of some streams."""
    place: int
    """Which part of the streams it belongs to, or VALIDATION."""

    def to(self, device: torch.device | str) -> Reading:
        """The same on another device."""
        return Reading(self.batch.to(device), self.place)


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
        self._valid: list[Reading] | None = None

    def train_batch(self, step: int) -> Reading:
        """The training batch of this number (from 0): the next chunk of one part of the streams."""
        update, place = divmod(step, self.config.accumulate)
        whole, rows = self.streams.batch(update), self.config.batch_size
        part = slice(place * rows, (place + 1) * rows)
        reset = None if whole.reset is None else whole.reset[part]
        return Reading(LanguageBatch(whole.inputs[part], whole.targets[part], reset, whole.first), place)

    def valid_batches(self) -> Sequence[Reading]:
        """The whole validation text in `config.valid_streams` streams."""
        if self._valid is None:
            batches = evaluation_batches(self.corpus.valid, self.config.valid_streams, self.config.chunk)
            self._valid = [Reading(batch, VALIDATION) for batch in batches]
        return self._valid

    def measure(self, batch: Reading) -> Measure:
        """The model on the next chunk of its streams; an item is a token."""
        text, place = batch.batch, batch.place
        device = text.inputs.device
        # A resumed run's states come from the disk, before the model is where it will train.
        state = None if text.first else map_states(lambda tensor: tensor.to(device), self.states[place])
        features, state = self.model(text.inputs, state, reset=text.reset)
        self.states[place] = detached(state)  # backpropagation through time ends here
        targets, features = text.targets.flatten(), features.flatten(0, 1)
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


def read_corpus(config: LanguageRun, *, progress: OnProgress | None = None) -> Corpus:
    """The text of a run as tokens; see `tasks.language.corpus.prepare`.

    Args:
        config: the run.
        progress: see `prepare`; None says on standard error how far it is, every ten seconds.

    Raises:
        InputError: no text is named, or it cannot be read.
    """
    if config.data.path is None:
        hint = "name a text with --data.path; `relational-rnn data fetch tiny-shakespeare` downloads one."
        raise InputError(describe("LanguageRun", "there is no text to read", got="data.path None", hint=hint))
    return prepare(config.data, progress=progress or SlowWork("reading the text", "bytes").part)


class SlowWork:
    """Says on standard error how far something is, every ten seconds; what is done faster than that is not mentioned.

    Args:
        what: is done.
        unit: of what is counted.
    """

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        self.part("", done, total)

    def part(self, name: str, done: int, total: int) -> None:
        """The same, for work of several parts that have names."""
        now = time.monotonic()
        if now - self._last >= 10:
            self._last = now
            what = f"{self._what} ({name})" if name else self._what
            print(f"{what}: {done:,} of {total:,} {self._unit}", file=sys.stderr, flush=True)
