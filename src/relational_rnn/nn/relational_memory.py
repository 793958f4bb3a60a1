"""The relational memory as a layer: a whole sequence in, the memory after every step out."""

# Shape legend: B batch, T time steps, I input features, n input rows, N memory slots, L layers, O output features,
#               W memory width (heads * head size), M questions (rows picked from a batch)

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from relational_rnn._check import (
    InputError,
    check_choice,
    check_counts,
    check_flags,
    check_positive,
    check_room,
    check_shape,
    describe,
)
from relational_rnn.nn._importing import ForeignWeights
from relational_rnn.nn._inputs import Device, check_kind, check_questions, check_reset, place_of
from relational_rnn.nn._layered_cells import (
    READ_HEADS,
    WHERE,
    Given,
    LayeredCells,
    Layout,
    ReadHead,
    ReadHeadKind,
    join_state,
    pack_like,
    refuse_nan,
)
from relational_rnn.nn._stateful import asked_lengths
from relational_rnn.nn.core import Numbers, State
from relational_rnn.nn.initial_weights import draw_truncated_normal
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.nn.sizes import FORGET_BIAS, GateStyle, InitialMemory, SizesOfLayer
from relational_rnn.ops.relational_scan.loop import ActivationMode
from relational_rnn.ops.relational_scan.reference import CalledParameters, Formulation, Scan
from relational_rnn.ops.relational_scan.scan import Backend, BackendReport, choose, relational_scan
from relational_rnn.ops.relational_scan.trace import Trace, relational_trace


class RelationalMemory(ForeignWeights, LayeredCells):
    r"""A recurrent layer whose state is a small table of slots that attend to one another.

    At each step the input becomes one more row under the table, every row attends to every row (multi-head attention,
    then an MLP, each with a residual and layer normalisation), and the first N rows are gated back into the memory
    (Santoro et al., 2018, arXiv:1806.01822, equations 1 to 7):

    $$ \tilde M_t = \mathrm{attend}([M_{t-1};\, W x_t])_{1:N}, \qquad
       M_t = i_t \odot \tanh(\tilde M_t) + f_t \odot M_{t-1} $$

    With `gate_style="competitive"` a softmax shares every row r of the input out among the slots, as in Slot Attention
    (Locatello et al., 2020, arXiv:2006.15055). A slot moves to its candidate as far as its share and its gate say; a
    slot with a share of 0 keeps its memory bit for bit:

    $$ a_{ir} = \mathrm{softmax}_i\, \frac{k(M_{t-1,i}) \cdot q_r(W x_{t,r})}{\sqrt W}, \qquad
       u_i = \min\bigl(1,\, \min(N, 4)\, i_{t,i}\, \tfrac1n \textstyle\sum_r a_{ir}\bigr), \qquad
       M_t = M_{t-1} + u \odot (\tanh(\tilde M_t) - M_{t-1}) $$

    `formulation="sonnet"` is the arithmetic of the authors' released code. `formulation="chapter"` is a block without
    gates or a residual around the attention: M' = MultiHead(X, X, X), M = LayerNorm(M' + FF(M')).
    `relational_rnn/ops/relational_scan/reference.py` spells both out.

    Args:
        input_size: numbers per input row, I.
        mem_slots: slots in the memory, N. The parameters do not depend on it, except those of "weighted" read heads,
            "random" and "learned" initial memories, `output_size` after a "flatten" head, and layers above the first.
        head_size: numbers per head and slot; the memory is W = num_heads * head_size wide.
        num_blocks: attention blocks per step; each has its own attention and layer norms, the MLP is shared.
        key_size: size of queries and keys per head; None means head_size.
        attention_mlp_layers: linear layers of the MLP, with ReLU between them.
        gate_style: "unit" (two gates per number), "memory" (two per slot), "competitive" (slots compete for the input:
            an input gate per number, keys and queries in place of the forget gate; as many parameters as "unit"), or
            None, which the chapter's formulation needs.
        forget_bias: constant added to the forget gate before its sigmoid; not trained. "competitive" has no such gate
            and refuses any other value than the default.
        input_bias: constant added to the input gate before its sigmoid; not trained.
        input_rows: None for one row per step; n for a matrix of n rows per step, each of which attends.
        formulation: "sonnet" or "chapter".
        initial_memory: "identity" (slot i is the i-th unit vector), "zeros" (warns: equal slots stay equal for ever),
            "random" (small, drawn once), or "learned"; see `RelationalMemoryCell.initial_memory`.
        read_head: what an output is: "flatten" (the whole memory), "mean", "weighted", "attention" or "input"; see
            `ReadHead` for the formulas. All but "flatten" give W numbers.
        output_size: None, or the size O to which a linear layer after the read head projects.
        num_layers: layers on top of each other; each takes the flattened memories of the one below.
        dropout: probability of dropping a number between two layers, in training.
        batch_first: sequences are [B, T, ...] (the default, unlike `nn.LSTM`); False for [T, B, ...].
        check_finite: refuse NaN and infinities in the input. It costs a pass over the input, and on a GPU waits for it.
        backend: what runs whole sequences: "reference", "cpu", "triton", or "auto", which chooses, as `backend_report`
            tells. A name is obeyed or refused. Traces and single steps are plain PyTorch operations; with "auto" and
            "cpu", compiled kernels take single steps without gradients on the CPU.
        activations: "store" keeps what the backward pass needs; "recompute" computes it again, so that peak memory
            grows with the square root of T. It is obeyed or refused (under `torch.func` and `torch.compile`, and where
            inner modules have to be called).

    Shape:
        - `x`: `[B, T, I]`, or `[B, T, n, I]` with `input_rows=n`; without `B` for a single sequence, whose state and
          output then have no batch axis either; or a `PackedSequence`, and then the output is one too.
        - `state`, the memory: `[B, N, W]`, or `[L, B, N, W]` with more than one layer; None for `initial_state(B)`.
        - returns `(y, memory)`: `y` is `[B, T, O]` (O is N * W without `read_head` and `output_size`, the memory after
          every step laid flat), and `memory` is shaped like `state`.

    Nothing is detached: for truncated backpropagation call `memory.detach()` between chunks. Under autocast the memory
    keeps its dtype. Under `torch.compile` a sequence of any length is one node of the graph, whose backward runs the
    steps twice.

    Raises:
        InputError: an argument, or the shape, dtype, device or range of an input, cannot be used.

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
        forget_bias: float = FORGET_BIAS,
        input_bias: float = 0.0,
        input_rows: int | None = None,
        formulation: Formulation = "sonnet",
        initial_memory: InitialMemory = "identity",
        read_head: ReadHeadKind = "flatten",
        output_size: int | None = None,
        num_layers: int = 1,
        dropout: float = 0.0,
        batch_first: bool = True,
        check_finite: bool = False,
        backend: Backend = "auto",
        activations: ActivationMode = "store",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_choice(WHERE, "read_head", read_head, READ_HEADS)
        check_counts(WHERE, num_layers=num_layers)
        check_positive(WHERE, **({} if output_size is None else {"output_size": output_size}))
        check_flags(WHERE, batch_first=batch_first, check_finite=check_finite)
        if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
            raise InputError(describe(WHERE, "dropout must be a probability", got=repr(dropout), expected="0 <= p < 1"))
        if dropout > 0 and num_layers == 1:
            hint = "there is nothing to drop between layers: pass num_layers of at least 2, or dropout=0."
            raise InputError(describe(WHERE, "dropout needs more than one layer", got="num_layers=1", hint=hint))

        sizes = SizesOfLayer.among(locals()).but("backend", "activations")

        def cell(size: int, rows: int | None) -> RelationalMemoryCell:
            return RelationalMemoryCell(size, input_rows=rows, device=device, dtype=dtype, **sizes)

        first = cell(input_size, input_rows)
        above = (num_layers - 1) * mem_slots * first.width * first.width
        check_room(WHERE, above, *(p.numel() for p in first.parameters()))
        self.input_size = input_size
        self.mem_slots = mem_slots
        self.width = first.width
        self.input_rows = input_rows
        self.num_layers = num_layers
        self.dropout = dropout
        self.batch_first = batch_first
        self.check_finite = check_finite
        self.backend: Backend = backend
        self.activations: ActivationMode = activations
        self.cells = nn.ModuleList([first, *(cell(mem_slots * self.width, None) for _ in range(num_layers - 1))])
        weight = first.input.weight
        self.read_head = ReadHead(read_head, mem_slots, self.width, device=weight.device, dtype=weight.dtype)
        self.projection = None
        if output_size is not None:
            read_size = self.read_head.output_size
            check_room(WHERE, read_size * output_size)
            self.projection = nn.Linear(read_size, output_size, device=weight.device, dtype=weight.dtype)
            draw_truncated_normal(self.projection)
        self.output_size = self.read_head.output_size if output_size is None else output_size

    def reset_parameters(self) -> None:
        """Draw everything anew, as the constructor does."""
        for i in range(self.num_layers):
            self.cell(i).reset_parameters()
        self.read_head.reset_parameters()
        if self.projection is not None:
            draw_truncated_normal(self.projection)

    def step(
        self, x_t: Tensor, state: State, *, reset: Tensor | None = None, query: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step: from `x_t` [B, I] (or [B, n, I]) and the memory before it to (output [B, O], memory after it).

        There is no `B` anywhere if `x_t` has no batch axis. `reset` [B] booleans: true where a row returns to its
        initial memory *before* the step. `query` [B, W] replaces the learned query of an "attention" read head.
        """
        quick = self._quick(x_t, state, sequence=False) if query is None and reset is None else None
        if quick is not None:
            return quick
        axes = self.cell().row_axes()
        layout = Layout(batched=not (isinstance(x_t, Tensor) and x_t.dim() == len(axes)))
        check_shape(WHERE, "x_t", x_t, {"B": None, **axes} if layout.batched else axes)
        check_kind(self, "x_t", x_t)
        x_t = layout.to_inner(x_t)
        if query is not None:
            self._check_query(query, {"B": x_t.shape[0]} if layout.batched else {})
            query = layout.to_inner(query)
        memories = self._split_state(state, x_t.shape[0], batched=layout.batched)
        if self.check_finite:
            refuse_nan(x_t.unsqueeze(1), memories, None)
        if reset is not None:
            check_reset(WHERE, reset, {"B": x_t.shape[0]} if layout.batched else {}, x_t.device)
            starts = [self.cell(i).initial_memory(x_t.shape[0], dtype=m.dtype) for i, m in enumerate(memories)]
            pairs = zip(starts, memories, strict=True)
            memories = [torch.where(reset.view(-1, 1, 1), start, memory) for start, memory in pairs]
        rows, input_rows = x_t if self.input_rows is not None else x_t.unsqueeze(-2), None
        for i, memory in enumerate(memories):
            if i > 0:
                rows = self._between(memories[i - 1])
            cell = self.cell(i)
            if self._is_called(i, "reference", "store"):  # single steps are always plain
                memories[i] = cell(rows.squeeze(-2) if cell.input_rows is None else rows, memory)
                continue
            after = cell.step_after(rows, memory, input_rows=self._wants_rows(i), backend=self.backend)
            memories[i], input_rows = after
        y = self._output(memories[-1], input_rows, query, own=True)
        return layout.to_outer(y), join_state(memories, batched=layout.batched)

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: State | None = None,
        *,
        lengths: Numbers | None = None,
        reset: Tensor | None = None,
        query: Tensor | None = None,
    ) -> tuple[Any, Tensor]:
        """The whole sequence, as `Core.forward`.

        Args:
            x: [B, T, I] or [B, T, n, I]; [T, B, ...] with `batch_first=False`; [T, ...] for a single sequence; or a
                `PackedSequence`, whose rows count in the order that they had before they were packed.
            state: the memory before the first step, [B, N, W] or [L, B, N, W], or None for `initial_state(B)`.
            lengths: [B] whole numbers in 0..T; the input past a length may hold anything, even NaN.
            reset: booleans over the first two axes of x ([B, T] for a `PackedSequence`, [T] for a single sequence).
            query: for an "attention" read head, in place of the learned one: [B, W], or one per step, laid out like x.

        Returns:
            (y [B, T, O] laid out like x, the memory after each row's last valid step, shaped like `state`).
        """
        if lengths is None and reset is None and query is None and self.batch_first:
            quick = self._quick(x, state, sequence=True)
            if quick is not None:
                return quick
        given = self._open(x, state, lengths, reset, query)
        scans = self._scan(given, self.num_layers, top=True)
        y = self._output(scans[-1].memories, scans[-1].input_rows, given.query)
        if given.happens is not None and not (self.read_head.kind == "flatten" and self.projection is None):
            y = y.where(given.happens.unsqueeze(-1), 0)  # a projection's bias, and attended padding
        final = join_state([scan.final for scan in scans], batched=given.layout.batched)
        if given.x.shape[1] == 0:  # nothing was computed: the caller's memory stays the caller's
            final = final.clone()
        if given.layout.packed is None:
            return given.layout.to_outer(y), final
        assert given.lengths is not None
        return pack_like(given.layout.packed, y, given.lengths), final

    def trace(
        self,
        x: Tensor | PackedSequence,
        state: State | None = None,
        *,
        lengths: Numbers | None = None,
        reset: Tensor | None = None,
        layer: int | None = None,
    ) -> Trace:
        """Everything that one layer computed at every step: attention, gates, shares, candidate and memory.

        The arguments and the arithmetic are those of a call. The tensors of the `Trace` are laid out like x
        ([B, T, ...] for a `PackedSequence`) and are differentiable. It costs the time of a call, and for each step and
        row num_blocks * num_heads * (N + n)^2 numbers for the attention and up to 4 * N * W for the rest.

        Args:
            layer: which layer, from 0; None for the top one.

        Example:
            >>> layer = RelationalMemory(input_size=5, mem_slots=3, head_size=4, num_heads=2)
            >>> trace = layer.trace(torch.zeros(7, 11, 5))
            >>> trace.attention.shape  # batch, time, block, head, row that looks, row looked at (the input is last)
            torch.Size([7, 11, 1, 2, 4, 4])
            >>> trace = layer.alike(gate_style="competitive").trace(torch.zeros(7, 11, 5))
            >>> trace.share.shape, trace.share[0, 0].sum().round().item()  # which slot took the input
            (torch.Size([7, 11, 3, 1]), 1.0)
        """
        top = self.num_layers - 1 if layer is None else layer
        check_choice(WHERE, "layer", top, range(self.num_layers))
        given = self._open(x, state, lengths, reset)
        rows = self._rows(given.x, self._scan(given, top))
        cell, memory = self.cell(top), given.memories[top]
        alone = cell.stands_alone()
        if alone is not None:
            problem = f"a trace is of the modules in a cell, and cells.{top} {alone}"
            raise InputError(describe(WHERE, problem, hint="put hooks on the modules within the cell."))
        traced = relational_trace(rows, memory, cell.step_parameters(), **given.marks(cell, memory))
        return traced.map(given.layout.to_outer)

    def snapshots(self, x: Tensor, rows: Numbers, at: Numbers, state: State | None = None) -> Tensor:
        """The memory of row `rows[m]` after its first `at[m]` steps, for every m: [M, N, W] or [L, M, N, W]."""
        given = self._open(x, state)
        rows, at = check_questions(self, given.x, rows, at)
        # Steps that no question sees may hold anything, even NaN, as they do past a length.
        scans = self._scan(replace(given, lengths=asked_lengths(given.x, rows, at)), self.num_layers)
        pairs = zip(given.memories, scans, strict=True)
        every = [torch.cat([start.unsqueeze(1), scan.memories], dim=1) for start, scan in pairs]
        return join_state([memories[rows, at] for memories in every])

    def rows(self, state: State) -> tuple[Tensor, None]:
        """The slots of the top layer [B, N, W], all of which exist."""
        assert isinstance(state, Tensor)
        return (state if self.num_layers == 1 else state[-1]), None

    def backend_report(self, x: Tensor | PackedSequence | None = None) -> BackendReport:
        """What runs the sequence `x` now (autocast included), and why; without `x`, what runs a long sequence.

        Raises:
            InputError: the layer's backend cannot run it.

        Example:
            >>> print(RelationalMemory(input_size=5, mem_slots=3, head_size=4, backend="reference").backend_report())
            backend='reference' runs 'reference': it was asked for
        """
        if x is None:
            axes = [size for size in self.cell().row_axes().values() if size is not None]
            device, dtype = place_of(self)
            x = torch.zeros(*((1, 64) if self.batch_first else (64, 1)), *axes, device=device, dtype=dtype)
        given = self._open(x, None)
        rows = self._rows(given.x, [])
        reports = []
        for i, memory in enumerate(given.memories):
            called = self._is_called(i, self.backend, self.activations)
            if called:
                reports.append(called)
                continue
            params = self.cell(i).step_parameters()
            if isinstance(params, CalledParameters) and self.num_layers > 1:
                params = params._replace(why=f"of cells.{i}, {params.why}")
            wanted = self._wants_rows(i)
            reports.append(choose(self.backend, self.activations, rows, memory, params, input_rows=wanted))
            rows = rows[:, :, :1]  # layers above have one row per step
        # All layers run alike, unless some of them hold modules that have to be called.
        return next((report for report in reports if report.runs == "reference"), reports[0])

    def extra_repr(self) -> str:
        shown = {"num_layers": self.num_layers, "output_size": self.output_size, "read_head": self.read_head.kind}
        shown |= {"backend": self.backend, "activations": self.activations}
        return ", ".join([self.cell().extra_repr(), *(f"{name}={value!r}" for name, value in shown.items())])

    def _quick(self, x: Any, state: State | None, *, sequence: bool) -> tuple[Tensor, Tensor] | None:
        """A step, or a sequence of one, like one before: the only check left is that nothing has changed."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled():
            return None
        if type(x) is not Tensor or type(state) is not Tensor or not _is_dense(x) or not _is_dense(state):
            return None
        # the wrong number of axes is refused in words by the checks
        if x.dim() != (2 if self.input_rows is None else 3) + sequence or (sequence and x.shape[1] != 1):
            return None
        if self.num_layers > 1 or self.check_finite or self.backend not in ("auto", "cpu"):
            return None
        cells = self._modules["cells"]  # self.cell() takes a tenth of the step
        cell = None if cells is None else cells._modules["0"]
        if not isinstance(cell, RelationalMemoryCell):
            return None
        x_t = x.squeeze(1) if sequence else x
        rows = x_t if self.input_rows is not None else x_t.unsqueeze(-2)
        after = cell.ready_step(rows, state, input_rows=self.read_head.kind == "input")
        if after is None:
            return None
        y = self._output(after.memory, after.input_rows, own=True)
        return y.unsqueeze(1) if sequence else y, after.memory

    def _wants_rows(self, layer: int) -> bool:
        """Whether the attended rows of the input of a layer are read."""
        return self.read_head.kind == "input" and layer == self.num_layers - 1

    def _is_called(self, layer: int, backend: Backend, activations: ActivationMode) -> BackendReport | None:
        """What runs a layer if every step has to call its cell, or None; refused where that cannot be obeyed."""
        alone = self.cell(layer).stands_alone()
        if alone is None:
            return None
        why, can = f"cells.{layer} {alone}", "can run here"
        if backend not in ("auto", "reference"):
            problem = f"backend {backend!r} cannot run here: it calls no inner modules, and {why}"
            raise InputError(describe(WHERE, problem, hint=f"backend='reference' {can}, and so can 'auto'."))
        if activations == "recompute":
            problem = f"activations='recompute' cannot be obeyed here: {why}"
            raise InputError(describe(WHERE, problem, hint=f"activations='store' {can}."))
        if self._wants_rows(layer):
            problem = f"read_head='input' needs more of a step than a call of its cell gives, and {why}"
            hint = "put hooks and other modules in the places within the cell."
            raise InputError(describe(WHERE, problem, hint=hint))
        return BackendReport(asked=backend, runs="reference", why=f"every step is a call, as {why}")

    def _between(self, memories: Tensor) -> Tensor:
        """What a layer takes from the one below: memories [..., N, W] as one row [..., 1, N * W], with dropout."""
        return F.dropout(memories.flatten(-2).unsqueeze(-2), self.dropout, self.training)

    def _rows(self, x: Tensor, below: list[Scan]) -> Tensor:
        """Input rows [B, T, n, I] of the layer on top of those in `below`."""
        if below:
            return self._between(below[-1].memories)
        return x if self.input_rows is not None else x.unsqueeze(-2)

    def _scan(self, given: Given, layers: int, *, top: bool = False) -> list[Scan]:
        """The lowest `layers` layers over the sequence; with `top`, only the top one keeps every step's memory."""
        scans: list[Scan] = []
        one = given.x.shape[1] == 1 and given.lengths is None and given.reset is None
        for i, memory in enumerate(given.memories[:layers]):
            cell, rows = self.cell(i), self._rows(given.x, scans)
            if top and scans:
                scans[-1] = scans[-1]._replace(memories=memory.new_empty(0))
            wanted = self._wants_rows(i)
            if self._is_called(i, self.backend, self.activations):
                scans.append(cell.by_calls(rows, memory, given.lengths, given.reset))
                continue
            if one and self.backend in ("auto", "cpu"):
                after = cell.ready_step(rows.squeeze(1), memory, input_rows=wanted, checked=True)
                if after is not None:
                    attended = after.input_rows.unsqueeze(1) if after.input_rows is not None else None
                    scans.append(Scan(after.memory.unsqueeze(1), after.memory.clone(), attended))
                    continue
            how: dict[str, Any] = {"backend": self.backend, "activations": self.activations, "input_rows": wanted}
            scans.append(relational_scan(rows, memory, cell.step_parameters(), **given.marks(cell, memory), **how))
        return scans

    def _output(
        self, memory: Tensor, input_rows: Tensor | None, query: Tensor | None = None, *, own: bool = False
    ) -> Tensor:
        """The output; with `own`, never in the same place as the memory."""
        head, projection = self.read_head, self.projection
        y = head(memory, input_rows, query)
        if projection is not None:
            return projection(y)
        return y.clone() if own and head.kind == "flatten" else y


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested
