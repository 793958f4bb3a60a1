"""A text as numbers, in memory or in a file that is mapped into it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """One part of a corpus.

    Words and characters are those of the text, whatever the vocabulary, so that perplexity per word and bits per
    character mean the same for every vocabulary. White space parts words; a line end counts as one word, as WikiText
    counts its `<eos>` (but not where the corpus has `line_ends=False`), and as one character. Characters are Unicode
    code points.
    """

    numbers: np.ndarray
    """[n] the tokens, in the smallest unsigned type that holds them all; a read-only map of a file, or an array."""
    starts: np.ndarray
    """[d] int64, ascending: where a document starts. The first one starts at 0."""
    words: int
    """Words in the text, line ends included as said above."""
    characters: int
    """Characters in the text."""

    def __len__(self) -> int:
        return len(self.numbers)

    def counts(self, size: int) -> np.ndarray:
        """int64 [size] how often every token of a vocabulary of this size occurs.

        >>> Tokens(np.array([0, 2, 2], np.uint8), np.array([0]), words=3, characters=9).counts(4).tolist()
        [1, 0, 2, 0]
        """
        counts = np.zeros(size, np.int64)
        for start in range(0, len(self.numbers), BLOCK):
            counts += np.bincount(self.numbers[start : start + BLOCK], minlength=size)
        return counts


def smallest_type(size: int) -> np.dtype:
    """The smallest unsigned type that holds the numbers 0 to size - 1.

    >>> [str(smallest_type(size)) for size in (256, 257, 65536, 65537)]
    ['uint8', 'uint16', 'uint16', 'uint32']
    """
    return np.min_scalar_type(size - 1)
