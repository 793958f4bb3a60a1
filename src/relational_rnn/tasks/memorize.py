"""Memorization: a sequence is given back as it was, reversed, or twice (Zaremba and Sutskever 2014, arXiv 1410.4615;
Santoro et al. 2018, A.2).

Shape legend: B sequences, T symbols of the longest, K answers of the longest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from relational_rnn._check import InputError, check_choice, check_positive, describe
from relational_rnn.tasks.contract import NO_ANSWER, Split, Task, TaskBatch, TaskShape

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
