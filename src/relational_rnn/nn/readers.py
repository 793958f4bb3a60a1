"""How a question looks at the state of a core: by attention to rows, linearly at matrices.

Axes: M questions, S size of a question, R rows of a state, H heads, K key, V value, F = H * V.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relational_rnn._check import InputError, check_counts, check_positive, check_room, check_shape, describe

if TYPE_CHECKING:
    from relational_rnn.nn.core import State


class Look(NamedTuple):
    """What one look finds."""

    found: Tensor  # [M, S], a linear map of the values
    values: Tensor  # [M, F], what the heads read from the state, side by side
    where: Tensor  # where it looked: attention of every head to every row [M, H, R], or queries [M, H, K]


class StateReader(nn.Module, ABC):
    """Looks that a question takes at a state, one after the other; `Core.reader` makes the reader of a core.

    What a look reads is added to the query of the next, so that one fact leads to another without a map that would have
    to be learned first (TPR-RNN: Schlag and Schmidhuber, 2018, arXiv 1811.12143).
    """

    values_size: int
    """How many numbers a look reads, F."""

    @abstractmethod
    def open(self, state: State) -> Any:
        """What all looks at the states of M questions share."""

    @abstractmethod
    def look(self, index: int, question: Tensor, opened: Any, before: Tensor | None = None) -> Look:
        """Look `index`, from 0, of the questions [M, S]; each look has weights of its own.

        `opened` is what `open` gave, `before` the `values` [M, F] of the look before. An index or a shape that does not
        fit is refused.
        """


class RowReader(StateReader):
    r"""Attention to the rows of a state (Vaswani et al., 2017, arXiv:1706.03762, section 3.2). Every head reads

    $$ \textstyle\sum_r a_r v_r, \qquad a_r = \mathrm{softmax}_r(q^\top k_r / \sqrt{K}) $$

    with keys and values from the rows, the same for all looks; a linear map of all heads follows. The query q is a
    linear map of the question, plus what the look before has read. In a state without rows a look finds the map's bias.

    Args:
        rows: from a state to (rows [M, R, row_size], mask [M, R] true where a row exists, or None): `Core.rows`.
        size: features of a question and of what is found, S.
        looks: how many looks there are.
        heads: heads of each look; they divide `size`.

    Shape:
        look: found [M, S], values [M, S], attention of every head to every row [M, H, R].

    Raises:
        InputError: a number below 1, or heads that do not divide `size`.

    Example:
        >>> from relational_rnn.nn import LSTM
        >>> core = LSTM(5, 8)
        >>> reader = RowReader(core.rows, 8, size=6, looks=2, heads=3)
        >>> opened = reader.open(core.initial_state(7))
        >>> [tensor.shape for tensor in reader.look(1, torch.zeros(7, 6), opened)]
        [torch.Size([7, 6]), torch.Size([7, 6]), torch.Size([7, 3, 1])]
    """

    def __init__(
        self, rows: Callable[[State], tuple[Tensor, Tensor | None]], row_size: int, size: int, looks: int, heads: int
    ) -> None:
        super().__init__()
        check_positive("RowReader", row_size=row_size, size=size, heads=heads)
        check_counts("RowReader", looks=looks)
        check_room("RowReader", 2 * size * row_size, 2 * looks * size * size)
        if size % heads:
            raise InputError(describe("RowReader", "heads must divide size", got=f"{heads}, {size}"))
        self.rows, self.heads, self.size, self.looks = rows, heads, size, looks
        self.values_size = size
        self.keys_values = nn.Linear(row_size, 2 * size)
        self.queries = nn.ModuleList(nn.Linear(size, size) for _ in range(looks))
        self.outputs = nn.ModuleList(nn.Linear(size, size) for _ in range(looks))

    def open(self, state: State) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values [M, R, H, K], and the mask [M, R]."""
        rows, mask = self.rows(state)
        keys, values = self.keys_values(rows).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return keys, values, mask

    def look(
        self, index: int, question: Tensor, opened: tuple[Tensor, Tensor, Tensor | None], before: Tensor | None = None
    ) -> Look:
        keys, values, mask = opened
        check_look(self, index, question, before)
        q = self.queries[index](question)
        q = (q if before is None else q + before).unflatten(-1, (self.heads, -1))
        scores = torch.einsum("mhk,mrhk->mhr", q, keys) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        if mask is not None:
            weights = weights * mask[:, None]
        read = torch.einsum("mhr,mrhk->mhk", weights, values).flatten(-2)
        return Look(self.outputs[index](read), read, weights)


class MatrixReader(StateReader):
    r"""Looks at matrices that map keys to values. Every head has a query q of length 1 and reads S^T q (Schlag et al.,
    2021, arXiv:2102.11174, equation 4), as the cores that write these matrices do.

    Before it is scaled, a query is a linear map of the question, plus what the look before has read from that head if
    keys and values have the same size.

    Args:
        matrices: from a state to its matrices [M, H, K, V], of `shape` (H, K, V).
        size: features of a question and of what is found, S.
        looks: how many looks there are.

    Shape:
        look: found [M, S], values [M, H * V], queries of length 1 [M, H, K].

    Raises:
        InputError: a number below 1, or a shape of other than three.

    Example:
        >>> reader = MatrixReader(lambda state: state, (3, 4, 2), size=6, looks=2)
        >>> opened = reader.open(torch.zeros(7, 3, 4, 2))
        >>> [tensor.shape for tensor in reader.look(1, torch.zeros(7, 6), opened)]
        [torch.Size([7, 6]), torch.Size([7, 6]), torch.Size([7, 3, 4])]
    """

    def __init__(self, matrices: Callable[[State], Tensor], shape: tuple[int, int, int], size: int, looks: int) -> None:
        super().__init__()
        if not isinstance(shape, tuple | list) or len(shape) != 3:
            problem = "shape must be three numbers"
            raise InputError(describe("MatrixReader", problem, got=repr(shape), expected="(heads, key, value)"))
        heads, keys, values = shape
        check_positive("MatrixReader", heads=heads, keys=keys, values=values, size=size)
        check_counts("MatrixReader", looks=looks)
        check_room("MatrixReader", looks * size * heads * (keys + values))
        self.matrices, self.heads, self.size, self.looks = matrices, heads, size, looks
        self.values_size, self.chained = heads * values, keys == values
        self.queries = nn.ModuleList(nn.Linear(size, heads * keys) for _ in range(looks))
        self.outputs = nn.ModuleList(nn.Linear(heads * values, size) for _ in range(looks))

    def open(self, state: State) -> Tensor:
        """The matrices [M, H, K, V]."""
        return self.matrices(state)

    def look(self, index: int, question: Tensor, opened: Tensor, before: Tensor | None = None) -> Look:
        check_look(self, index, question, before)
        query = self.queries[index](question)
        query = query + before if before is not None and self.chained else query
        queries = F.normalize(query.unflatten(-1, (self.heads, -1)), dim=-1)
        read = torch.einsum("mhk,mhkv->mhv", queries, opened).flatten(-2)
        return Look(self.outputs[index](read), read, queries)


def check_look(reader: RowReader | MatrixReader, index: int, question: Tensor, before: Tensor | None) -> None:
    """Refuse an index that is out of range, a question that is not [M, S], or values that are not [M, F]."""
    where = type(reader).__name__
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < reader.looks:
        raise InputError(describe(where, "there is no such look", got=repr(index), expected=f"0 to {reader.looks - 1}"))
    check_shape(where, "question", question, {"M": None, "S": reader.size})
    if before is not None:
        check_shape(where, "before", before, {"M": question.shape[0], "F": reader.values_size})
