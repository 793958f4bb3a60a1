"""Runs on language: the whole configuration of one, and functions that return the ones worth repeating."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from relational_rnn._check import check_positive
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.runs.config import RunConfig
from relational_rnn.tasks.language.corpus import CorpusConfig
from relational_rnn.tasks.language.model import LanguageModelConfig
from relational_rnn.training import AveragingConfig, LoopConfig, OptimizerConfig

ON_A_GPU: dict[str, Any] = {
    "checkpoint_every": 1000,
    "log_every": 100,
    "accelerator": "cuda",
    "precision": "bf16-mixed",
    "deterministic": False,
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LanguageRun(RunConfig):
    """Everything that decides a run on language."""

    model: LanguageModelConfig = dataclasses.field(default_factory=LanguageModelConfig)
    """What stands around the core, the same for every core."""
    data: CorpusConfig = dataclasses.field(default_factory=CorpusConfig)
    """The text, and how it becomes tokens."""
    averaging: AveragingConfig = dataclasses.field(default_factory=AveragingConfig)
    """Whether an average of the weights is what is judged and saved."""
    batch_size: int = 32
    """Streams of text that are read side by side, each with a state of its own."""
    chunk: int = 64
    """Tokens of a stream between two updates; the state goes on to the next chunk, gradients do not."""
    accumulate: int = 1
    """Batches whose gradients are added up before an update: an update sees accumulate * batch_size streams."""
    valid_streams: int = 16
    """Streams that the validation text is cut into while training; 1 reads it as the test is read, and takes longer."""

    task_name: ClassVar[str] = "language"

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        counts = {name: getattr(self, name) for name in ("batch_size", "chunk", "accumulate", "valid_streams")}
        check_positive("LanguageRun", **counts)


def shakespeare_char() -> LanguageRun:
    """Characters of tiny-shakespeare: one memory of 256 numbers and 16 heads; the best of 24 trials by Muon.

    Expected score: 2.52 ± 0.03 bits per character on the test text (three seeds); LSTM 2.38, Transformer 2.47, each
    with its own settings (docs/results/shakespeare-char.md).
    Time: 67 seconds of one processor core. Machine: 2-core AMD EPYC, torch 2.13.
    Command: `relational-rnn train language --data.path data/tiny-shakespeare.txt`.
    """
    return LanguageRun(
        memory=MemorySizes(mem_slots=1, head_size=16, num_heads=16, gate_style="memory"),
        model=LanguageModelConfig(embedding_size=64, window=128),
        data=CorpusConfig(vocabulary="character"),
        optimizer=OptimizerConfig(method="muon", learning_rate=1e-2, warmup_steps=60, weight_decay=0.01, clip_norm=1.0),
        loop=LoopConfig(steps=600, validate_every=300, checkpoint_every=300, log_every=50, threads=1),
        batch_size=32,
        chunk=64,
    )


def wikitext_2() -> LanguageRun:
    """Words of WikiText-2 with the dropouts of Merity et al. (2018): one memory of 1,024 numbers, tied softmax.

    Expected score: not measured yet; the choices of dropout and learning rate are not tuned. Time: not measured yet.
    Machine: one GPU. Command: `relational-rnn train language --recipe wikitext-2 --data.path data/wikitext-2`.
    """
    return LanguageRun(
        memory=MemorySizes(mem_slots=1, head_size=256, num_heads=4),
        model=LanguageModelConfig(
            embedding_size=400, window=256, word_dropout=0.1, input_dropout=0.5, output_dropout=0.5
        ),
        data=CorpusConfig(vocabulary="word"),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=500, weight_decay=0.05, clip_norm=0.25),
        loop=LoopConfig(steps=40_000, validate_every=1000, **ON_A_GPU),
        averaging=AveragingConfig(kind="ema", decay=0.999),
        batch_size=64,
        chunk=70,
    )


def wikitext_2_small() -> LanguageRun:
    """Words of WikiText-2 on two cores: one memory of 256 numbers and an adaptive softmax.

    Expected score: perplexity 202.2 on the test text after four fifths of one pass (LSTM 207.2; one seed, three trials
    for each). Time: 327 seconds of one processor core. Machine: 2-core Intel Xeon, torch 2.13.
    Command: `relational-rnn train language --recipe wikitext-2-small --data.path data/wikitext-2`.
    """
    return LanguageRun(
        memory=MemorySizes(mem_slots=1, head_size=16, num_heads=16),
        model=LanguageModelConfig(
            embedding_size=128,
            softmax="adaptive",
            cutoffs=(2000, 10_000),
            window=128,
            input_dropout=0.1,
            output_dropout=0.1,
        ),
        data=CorpusConfig(vocabulary="word"),
        optimizer=OptimizerConfig(method="muon", learning_rate=1e-2, warmup_steps=60, weight_decay=0.01, clip_norm=0.5),
        loop=LoopConfig(steps=1500, validate_every=500, checkpoint_every=250, log_every=50, threads=1),
        batch_size=32,
        chunk=35,
    )


def wikitext_103() -> LanguageRun:
    """The paper's model (A.4) on WikiText-103: one memory of 2,500 numbers, 6 batches of 64 streams, tied softmax.

    Expected score: not measured yet (published: 31.6 test perplexity, Santoro et al. 2018). Time: not measured yet.
    Machine: one GPU. Command: `relational-rnn train language --recipe wikitext-103 --data.path data/wikitext-103`.
    """
    return LanguageRun(
        memory=MemorySizes(mem_slots=1, head_size=625, num_heads=4, attention_mlp_layers=5),
        model=LanguageModelConfig(embedding_size=512, core_input=2500, input_dropout=0.5, window=256),
        data=CorpusConfig(vocabulary="word"),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=0, decay="none", weight_decay=0.0, clip_norm=0.1),
        loop=LoopConfig(steps=200_000, validate_every=5000, **ON_A_GPU),
        batch_size=64,
        chunk=100,
        accumulate=6,
    )


LANGUAGE_RECIPES: dict[str, Callable[[], LanguageRun]] = {
    "shakespeare-char": shakespeare_char,
    "wikitext-2": wikitext_2,
    "wikitext-2-small": wikitext_2_small,
    "wikitext-103": wikitext_103,
}
"""The recipes by their names; the first one is what a run on language starts from."""
