"""Text as tokens, many rows at once: rows are laid out in cells of which some stay empty, then the gaps are closed.

Shape legend: B rows, W cells of a row, T characters of the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EMPTY = 0
"""A cell without a character; the padding of a batch."""


class Alphabet:
    """Characters or words, and their tokens: 1 is the first of them, 0 is padding.

    >>> digits = Alphabet("0123456789")
    >>> digits.encode("305"), digits.decode([4, 1, 6, 0]), len(digits)
    ([4, 1, 6], '305', 11)
    """

    def __init__(self, symbols: Sequence[str], *, between: str = "") -> None:
        self.symbols = tuple(symbols)
        self.between = between
        self._token = {symbol: token for token, symbol in enumerate(self.symbols, start=1)}

    def __len__(self) -> int:
        """How many tokens there are, padding included."""
        return len(self.symbols) + 1

    def __getitem__(self, symbol: str) -> int:
        return self._token[symbol]

    def encode(self, text: Sequence[str]) -> list[int]:
        """The tokens of characters, or of words."""
        return [self._token[symbol] for symbol in text]

    def decode(self, tokens: Sequence[int] | Tensor) -> str:
        """The text of tokens; padding has none."""
        return self.between.join(self.symbols[int(token) - 1] for token in tokens if int(token) != EMPTY)


def constant(tokens: Sequence[int], like: Tensor) -> Tensor:
    """[B, W] the same tokens in every row; `like` [B, ...] gives rows and device."""
    return torch.tensor(tokens, dtype=torch.int64, device=like.device).expand(len(like), -1)


def digit_cells(values: Tensor, width: int) -> Tensor:
    """[B] whole numbers of at least 0 as [B, width] digits 0 to 9, and -1 before the first one.

    >>> digit_cells(torch.tensor([305, 7, 0]), 4).tolist()
    [[-1, 3, 0, 5], [-1, -1, -1, 7], [-1, -1, -1, 0]]
    """
    powers = 10 ** torch.arange(width - 1, -1, -1, device=values.device)
    digits = values.unsqueeze(1) // powers % 10
    return digits.where((values.unsqueeze(1) >= powers) | (powers == 1), -1)


def same_width(cells: Sequence[Tensor]) -> list[Tensor]:
    """Tensors [B, W] with empty cells added on the right, up to the widest of them."""
    width = max(tensor.shape[1] for tensor in cells)
    return [torch.nn.functional.pad(tensor, (0, width - tensor.shape[1])) for tensor in cells]


def close_gaps(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of cells as (tokens [B, T], lengths [B]): what is not empty, in order, from the left.

    >>> close_gaps(torch.tensor([[0, 5, 0, 7], [0, 0, 3, 0]]))
    (tensor([[5, 7],
            [3, 0]]), tensor([2, 1]))
    """
    filled = cells != EMPTY
    lengths = filled.sum(1)
    order = (~filled).to(torch.uint8).argsort(dim=1, stable=True)
    return cells.gather(1, order)[:, : max(1, int(lengths.max()))], lengths
