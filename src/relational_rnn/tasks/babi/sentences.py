"""Sentences and questions as vectors.

Shape legend: W words of a sentence, E embedding size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relational_rnn._check import InputError, describe


class SentenceEncoder(nn.Module):
    """A sentence as the sum of its word embeddings, each times a learned vector of its position, then LayerNorm.

    Henaff et al. 2017, arXiv 1612.03969, eq. 1. The position vectors start around 1 with standard deviation 1/2: from
    exactly 1, a bag of words, the tasks in which the order of words matters are learned much later. Statements and
    questions share the embeddings and have position vectors of their own.

    Args:
        words: how many words there are, padding not counted.
        max_words: the longest sentence, in words.
        size: features, E.
    """

    tables = ("embedding", "statement_positions", "question_positions")
    """Parameters whose rows are looked up one by one: no matrices to an optimizer."""

    def __init__(self, words: int, max_words: int, size: int) -> None:
        super().__init__()
        self.words, self.max_words = words, max_words
        self.embedding = nn.Parameter(torch.randn(words, size) / math.sqrt(size))
        self.statement_positions = nn.Parameter(1 + torch.randn(max_words, size) / 2)
        self.question_positions = nn.Parameter(1 + torch.randn(max_words, size) / 2)
        self.statement_norm = nn.LayerNorm(size)
        self.question_norm = nn.LayerNorm(size)

    def statements(self, numbers: Tensor) -> Tensor:
        """[..., W] word numbers to [..., E]."""
        return self.statement_norm(self._sum(numbers, self.statement_positions))

    def questions(self, numbers: Tensor) -> Tensor:
        """[..., W] word numbers to [..., E]."""
        return self.question_norm(self._sum(numbers, self.question_positions))

    def _sum(self, numbers: Tensor, positions: Tensor) -> Tensor:
        width = numbers.shape[-1]
        if width > self.max_words:
            problem = "a sentence has more words than the model has positions"
            raise InputError(describe("SentenceEncoder", problem, got=width, expected=f"at most {self.max_words}"))
        # One table of (position, word) products, so that no [..., W, E] tensor is needed; row 0 of each is padding.
        padded = F.pad(self.embedding, (0, 0, 1, 0))
        table = (positions[:width, None] * padded).flatten(0, 1)
        offsets = torch.arange(width, device=numbers.device) * (self.words + 1)
        flat = (numbers + offsets).reshape(-1, width)
        return F.embedding_bag(flat, table, mode="sum").view(*numbers.shape[:-1], -1)
