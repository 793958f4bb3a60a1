"""The relational memory as a layer: a whole sequence in, the memory after every step out."""

# Shape legend: B batch, T time steps, I input features, n input rows, N memory slots,
#               W memory width (heads * head size), M questions (rows picked from a batch)

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_shape, describe
from relational_rnn.nn._inputs import check_kind, check_questions, check_sequence
from relational_rnn.nn._recurrent import asked_steps, blank
from relational_rnn.nn._sonnet import load_sonnet
from relational_rnn.nn.core import Core, State
from relational_rnn.nn.relational_memory_cell import GateStyle, InitialMemory, RelationalMemoryCell
from relational_rnn.ops.relational_scan import Formulation, relational_scan


class RelationalMemory(Core):
    r"""A recurrent layer whose state is a small table of slots that attend to one another.

    At each step the input becomes one more row under the table, every row attends to every row (multi-head attention,
    then an MLP, each with a residual and layer normalisation), and the first N rows are gated back into the memory
    (Santoro et al., 2018, arXiv:1806.01822, equations 1 to 7):

    $$ \tilde M_t = \mathrm{attend}([M_{t-1};\, W x_t])_{1:N}, \qquad
       M_t = i_t \odot \tanh(\tilde M_t) + f_t \odot M_{t-1} $$

    `formulation="sonnet"` is the arithmetic of the authors' released code; `formulation="chapter"` is a block without
    gates or a residual around the attention, M' = MultiHead(X, X, X), M = LayerNorm(M' + FF(M')), and needs
    `gate_style=None`. Both are spelled out in `relational_rnn/ops/relational_scan/reference.py`.

    Args:
        input_size: numbers per input row, I.
        mem_slots: slots in the memory, N. No parameter's shape depends on it.
        head_size: numbers per head and slot; the memory is W = num_heads * head_size wide.
        num_heads: attention heads.
        num_blocks: attention blocks per step; each has its own attention and layer norms, the MLP is shared.
        key_size: size of queries and keys per head; None means head_size.
        attention_mlp_layers: linear layers of the MLP, with ReLU between them.
        gate_style: "unit" (a gate per number), "memory" (one per slot), or None.
        forget_bias: constant added to the forget gate before its sigmoid; not trained.
        input_bias: constant added to the input gate before its sigmoid; not trained.
        input_rows: None for one row per step; n for a matrix of n rows per step, each of which attends.
        formulation: "sonnet" or "chapter".
        initial_memory: "identity", slot i starts as the i-th unit vector.
        batch_first: inputs and outputs are [B, T, ...] (the default, unlike `nn.LSTM`).
        device: where the parameters live.
        dtype: the parameters' dtype.

    Shape:
        - `x`: `[B, T, I]`, or `[B, T, n, I]` with `input_rows=n`.
        - `state`, the memory: `[B, N, W]`, or None for `initial_state(B)`.
        - returns `(y, memory)`: `y` is `[B, T, N * W]`, the memory after every step laid flat, and `memory` is
          `[B, N, W]`, so that `y[:, -1] == memory.flatten(1)` when every row runs to its end.

    Nothing is detached: gradients flow into `state` and through every step. Call `memory.detach()` between chunks for
    truncated backpropagation.

    Raises:
        InputError: an argument, or the shape of an input, cannot be used.

    Example:
        >>> layer = RelationalMemory(input_size=5, mem_slots=3, head_size=4, num_heads=2)
        >>> y, memory = layer(torch.zeros(7, 11, 5))
        >>> y.shape, memory.shape
        (torch.Size([7, 11, 24]), torch.Size([7, 3, 8]))
        >>> y, memory = layer(torch.zeros(7, 2, 5), memory)  # two more steps
    """

    def __init__(
        self,
        input_size: int,
        mem_slots: int,
        head_size: int,
        *,
        num_heads: int = 1,
        num_blocks: int = 1,
        key_size: int | None = None,
        attention_mlp_layers: int = 2,
        gate_style: GateStyle | None = "unit",
        forget_bias: float = 1.0,
        input_bias: float = 0.0,
        input_rows: int | None = None,
        formulation: Formulation = "sonnet",
        initial_memory: InitialMemory = "identity",
        batch_first: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if not isinstance(batch_first, bool):
            raise InputError(describe("RelationalMemory", "batch_first must be True or False", got=repr(batch_first)))
        cell = RelationalMemoryCell(
            input_size,
            mem_slots,
            head_size,
            num_heads=num_heads,
            num_blocks=num_blocks,
            key_size=key_size,
            attention_mlp_layers=attention_mlp_layers,
            gate_style=gate_style,
            forget_bias=forget_bias,
            input_bias=input_bias,
            input_rows=input_rows,
            formulation=formulation,
            initial_memory=initial_memory,
            device=device,
            dtype=dtype,
        )
        self.cells = nn.ModuleList([cell])
        self.input_size = input_size
        self.mem_slots = mem_slots
        self.width = cell.width
        self.output_size = mem_slots * self.width
        self.input_rows = input_rows
        self.batch_first = batch_first

    def first_cell(self) -> RelationalMemoryCell:
        """The cell of the first (or only) layer."""
        cell = self.cells[0]
        assert isinstance(cell, RelationalMemoryCell)
        return cell

    def initial_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """The memory before the first step, [batch_size, N, W]; device and dtype default to the parameters'."""
        return self.first_cell().initial_memory(batch_size, device=device, dtype=dtype)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """One step: `x_t` [B, I] (or [B, n, I]) and the memory before it to (output [B, N * W], memory after it)."""
        axes = {"B": None, **self._row_axes()}
        check_shape("RelationalMemory", "x_t", x_t, axes)
        check_kind(self, "x_t", x_t)
        memory = self._check_state(state, x_t.shape[0])
        memory = self.first_cell()(x_t, memory)
        return memory.flatten(1), memory

    def forward(
        self, x: Tensor, state: State | None = None, *, lengths: Tensor | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The whole sequence.

        Args:
            x: [B, T, I] or [B, T, n, I]; [T, B, ...] with `batch_first=False`.
            state: the memory before the first step [B, N, W], or None for `initial_state(B)`.
            lengths: [B] whole numbers in 0..T; outputs past a length are 0, the memory is that of the last valid step.
            reset: [B, T] booleans ([T, B] with `batch_first=False`); true means that the row returns to its initial
                memory *before* that step.

        Returns:
            (y [B, T, N * W] or [T, B, N * W], memory [B, N, W] after each row's last valid step).
        """
        memories, memory = self._scan(x, state, lengths=lengths, reset=reset)
        y = memories.flatten(2)
        return (y if self.batch_first else y.transpose(0, 1)), memory

    def snapshots(self, x: Tensor, rows: Tensor, at: Tensor, state: State | None = None) -> Tensor:
        """The memory of row `rows[m]` after its first `at[m]` steps, for every m: [M, N, W]; 0 steps is the start.

        One pass over the sequence, then a gather.
        """
        in_order = x if self.batch_first else x.transpose(0, 1)
        check_sequence(self, in_order, None, None, features=self._row_axes())
        check_questions(self, in_order, rows, at)
        in_order = blank(in_order, asked_steps(in_order, rows, at))
        start = self.initial_state(in_order.shape[0]) if state is None else state
        memories, _ = self._scan(in_order if self.batch_first else in_order.transpose(0, 1), start)
        assert isinstance(start, Tensor)
        return torch.cat([start.unsqueeze(1), memories], dim=1)[rows, at]

    def rows(self, state: State) -> tuple[Tensor, None]:
        """The slots [B, N, W], all of which exist."""
        assert isinstance(state, Tensor)
        return state, None

    @classmethod
    def from_sonnet(cls, source: str | Path | Mapping[str, np.ndarray], **sizes: Any) -> Self:
        """A layer with the weights of a Sonnet v1 `RelationalMemory`.

        Args:
            source: an .npz file, or a mapping, from variable name ("relational_memory/linear/w", ...) to array; all
                arrays float32 or all float64, which becomes the layer's dtype.
            sizes: the arguments of the constructor that the module was built with, all but `input_size` and `dtype`,
                which the arrays tell. An input of several axes per step counts as one row of their product, or, where
                it was treated as a matrix, as rows of the product of all axes but the first.

        Raises:
            InputError: a variable is missing, unknown, or of another shape or dtype than these sizes have.

        Example:
            >>> layer = RelationalMemory.from_sonnet("rmc.npz", mem_slots=4, head_size=32)  # doctest: +SKIP
        """
        return load_sonnet(cls, source, sizes)

    def _row_axes(self) -> dict[str, int | None]:
        """Axes of the input of one step, after the batch's."""
        return {"I": self.input_size} if self.input_rows is None else {"n": self.input_rows, "I": self.input_size}

    def _check_state(self, state: State, batch: int) -> Tensor:
        hint = "start a sequence with layer.initial_state(batch_size), or pass state=None."
        if not isinstance(state, Tensor):
            problem = "state must be one tensor, the memory"
            raise InputError(describe("RelationalMemory", problem, got=type(state).__name__, hint=hint))
        axes = {"B": batch, "N": self.mem_slots, "W": self.width}
        check_shape("RelationalMemory", "state", state, axes, hint=hint)
        check_kind(self, "state", state)
        return state

    def _scan(
        self, x: Tensor, state: State | None, *, lengths: Tensor | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Batch first throughout: (memories [B, T, N, W], memory [B, N, W])."""
        leading = ("B", "T") if self.batch_first else ("T", "B")
        check_shape("RelationalMemory", "x", x, {leading[0]: None, leading[1]: None, **self._row_axes()})
        if not self.batch_first:
            x = x.transpose(0, 1)
            reset = None if reset is None else reset.transpose(0, 1)
        check_sequence(self, x, lengths, reset, features=self._row_axes())
        batch = x.shape[0]
        memory = self.initial_state(batch) if state is None else self._check_state(state, batch)
        return relational_scan(
            x if self.input_rows is not None else x.unsqueeze(-2),
            memory,
            self.first_cell().scan_parameters(),
            lengths=lengths,
            reset=reset,
            initial=None if reset is None else self.initial_state(batch),
        )
