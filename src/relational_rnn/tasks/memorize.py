"""Memorization: a sequence is given back as it was, reversed, or twice (Zaremba and Sutskever 2014, arXiv 1410.4615;
Santoro et al. 2018, A.2).

Shape legend: B sequences, T symbols of the longest, K answers of the longest.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.runs import Published
from relational_rnn.tasks.contract import NO_ANSWER, Split, Task, TaskBatch, TaskShape
from relational_rnn.tasks.generated import TaskRun, TaskWorkload, decoding, decoding_small

MemorizeMode = Literal["copy", "reverse", "double"]
MEMORIZE_MODES: tuple[MemorizeMode, ...] = ("copy", "reverse", "double")
FURTHER = (1.25, 1.5, 2.0)
"""How much longer than any training sequence those are that measure what is beyond training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memorize(Task):
    """Random symbols, which the decoder gives back when the input is over, and then says that it is done.

        mode     input    answer
        copy     7 3 3    7 3 3 end
        reverse  7 3 3    3 3 7 end
        double   7 3 3    7 3 3 7 3 3 end

    Training shows every length from 1 to `length`; runs are judged at `length` and, apart, at 1.25, 1.5 and 2 times as
    much. Symbols are the tokens 1 to `symbols`; classes are the symbols from 0, then the end.

    Plateau: a decoder that knows the length alone is right with probability (n / symbols + 1) / (n + 1), n symbols: a
    little over 10 % for 10 symbols. Records (share of right characters): 100 % for all three by the Universal
    Transformer up to length 55 (Dehghani et al. 2019); the memories of the paper are at 99 to 100 % too, at a length
    that it does not state.

    Example:
        >>> from relational_rnn.tasks.contract import draw_batch
        >>> batch = draw_batch(Memorize(mode="reverse", length=4), "valid", 0, seed=0, size=1)
        >>> batch.inputs.tolist(), batch.targets.tolist()
        ([[10, 4, 4, 2]], [[1, 3, 3, 9, 10]])
    """

    mode: MemorizeMode = "copy"
    """What to give back."""
    length: int = 60
    """The longest training sequence, in symbols."""
    symbols: int = 10
    """How many different symbols there are."""

    name: ClassVar[str] = "memorize"

    def __post_init__(self) -> None:
        check_choice("Memorize", "mode", self.mode, MEMORIZE_MODES)
        check_positive("Memorize", length=self.length, symbols=self.symbols)
        if self.symbols < 2:
            raise InputError(describe("Memorize", "there must be two different symbols", got=self.symbols))

    @property
    def judged(self) -> tuple[int, ...]:
        """The lengths of test sequences: the longest of training first, then those beyond it."""
        return tuple(dict.fromkeys((self.length, *(round(factor * self.length) for factor in FURTHER))))

    @property
    def shape(self) -> TaskShape:
        groups = tuple(f"length {length}" for length in self.judged)
        return TaskShape(
            inputs=self.symbols + 1,
            tokens=True,
            classes=self.symbols + 1,
            answer="decoded",
            steps=self.length + self._repeats * self.length + 1,
            groups=groups,
            beyond=groups[1:],
        )

    @property
    def _repeats(self) -> int:
        return 2 if self.mode == "double" else 1

    def draw(self, count: int, generator: torch.Generator, *, split: Split, level: int | None = None) -> TaskBatch:
        device = generator.device
        groups = torch.zeros(count, dtype=torch.int64, device=device)
        if split == "train":
            lengths = torch.randint(1, self.length + 1, (count,), device=device, generator=generator)
        else:
            if split == "test":
                groups = torch.randint(len(self.judged), (count,), device=device, generator=generator)
            lengths = torch.tensor(self.judged, device=device)[groups]
        longest = int(lengths.max())
        symbols = torch.randint(self.symbols, (count, longest), device=device, generator=generator)
        size = lengths.unsqueeze(1)
        inputs = (symbols + 1).where(torch.arange(longest, device=device) < size, 0)
        at = torch.arange(self._repeats * longest + 1, device=device).expand(count, -1)
        source = (size - 1 - at).clamp(min=0) if self.mode == "reverse" else at % size
        end = self._repeats * size
        targets = (
            symbols.gather(1, source.clamp(max=longest - 1)).where(at < end, NO_ANSWER).where(at != end, self.symbols)
        )
        return TaskBatch(inputs, lengths, targets, groups)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MemorizeRun(TaskRun):
    """Everything that decides a run on memorization."""

    data: Memorize = dataclasses.field(default_factory=Memorize)
    """The task."""

    task_name: ClassVar[str] = Memorize.name


def memorize_small() -> MemorizeRun:
    """Up to 10 digits to give back (`--data.mode` copy, reverse or double).

    Expected score: at length 10, 99.9 ± 0.1 % of the digits on copy and 100.0 % on reverse (three seeds; an LSTM the
    same), 99.2 % on double (one seed); double reaches 99.9 ± 0.1 % (three seeds; LSTM 99.7 ± 0.2 %) with
    `--optimizer.learning-rate 8e-3 --loop.steps 12000`. Over lengths 12, 15 and 20, 65.2 % on copy and 66.3 % on
    reverse. Time: 296 and 298 processor seconds on copy and reverse, 528 for the longer run on double. Machine: 2-core
    CPU, one thread.
    Command: `relational-rnn train memorize --recipe memorize-small`.
    """
    return MemorizeRun(**decoding_small(Memorize(length=10), MemorySizes(mem_slots=4, head_size=16, num_heads=4), 8000))


def memorize() -> MemorizeRun:
    """Up to 60 digits to give back (`--data.mode` copy, reverse or double), trained as the paper's (A.2).

    Expected score: not measured yet (published: 99 to 100 %, at a length that is not stated). Time: not measured yet.
    Machine: one GPU. Command: `relational-rnn train memorize --recipe memorize --loop.accelerator cuda`.
    """
    return MemorizeRun(**decoding(Memorize()))


_FIGURES = {
    "copy": {"LSTM": 0.78, "Transformer": 0.98, "Universal Transformer": 1.0},
    "reverse": {"LSTM": 0.91, "Transformer": 0.81, "Universal Transformer": 1.0},
    "double": {"LSTM": 0.51, "Transformer": 0.94, "Universal Transformer": 1.0},
}
PUBLISHED = tuple(
    Published(
        data={"mode": mode},
        model=model,
        value=value,
        setting="characters; length up to 55",
        source="Dehghani et al. 2019, arXiv 1807.03819",
    )
    for mode, figures in _FIGURES.items()
    for model, value in figures.items()
)
WORKLOAD = TaskWorkload(MemorizeRun, {"memorize-small": memorize_small, "memorize": memorize}, PUBLISHED)
