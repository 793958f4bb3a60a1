"""A little text and a run on it that takes well under a second."""

from __future__ import annotations

from pathlib import Path

from relational_rnn.nn.cores import MemorySizes
from relational_rnn.runs import train
from relational_rnn.tasks.language.corpus import CorpusConfig
from relational_rnn.tasks.language.model import LanguageModelConfig
from relational_rnn.tasks.language.recipes import LanguageRun
from relational_rnn.training import AveragingConfig, LoopConfig, OptimizerConfig, Progress

LINES = (
    "the cat sat on a mat",
    "two birds saw the cat",
    "and a cat saw two birds on the mat",
    "birds sat and sat",
)


def write_text(path: Path, lines: int = 100) -> Path:
    """Lines of 23 characters on average: about 1,850 characters of training text in 100 of them."""
    path.write_text("".join(LINES[number * number % 7 % 4] + "\n" for number in range(lines)), encoding="utf-8")
    return path


def little_run(text: Path, **changes) -> LanguageRun:
    """12 updates of 2 x 3 streams; a pass takes 7 of them."""
    settings = {
        "memory": MemorySizes(mem_slots=2, head_size=6, num_heads=2),
        "model": LanguageModelConfig(embedding_size=8, window=5, output_dropout=0.2, input_dropout=0.1),
        "data": CorpusConfig(path=text, vocabulary="character"),
        "optimizer": OptimizerConfig(learning_rate=5e-3, warmup_steps=3),
        "loop": LoopConfig(steps=12, validate_every=5, checkpoint_every=4, log_every=1),
        "averaging": AveragingConfig(kind="ema", decay=0.8),
        "accumulate": 2,
        "batch_size": 3,
        "chunk": 43,
        "valid_streams": 2,
        "seed": 3,
    }
    return LanguageRun(**{**settings, **changes})


def quiet(progress: Progress) -> None:
    pass


def silent(line: str) -> None:
    pass


def train_quietly(config: LanguageRun, folder: Path, **arguments):
    return train(config, folder, **{"on_progress": quiet, "on_report": silent, **arguments})
