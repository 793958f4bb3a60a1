"""The cells of the layer, and what a caller may hand to it, brought to the layout in which it computes: [B, T, ...]."""

# Shape legend: B batch, T time steps, I input features, n input rows, N memory slots, L layers, W memory width

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from relational_rnn._check import InputError, check_shape, describe
from relational_rnn._reading.guard import damaged
from relational_rnn.nn._inputs import START_HINT, STEPS_HINT, Device, check_kind, check_reset, check_whole_numbers
from relational_rnn.nn.core import Core, Numbers, State
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan.loop import happening

ReadHeadKind = Literal["flatten", "mean", "weighted", "attention", "input"]
READ_HEADS = get_args(ReadHeadKind)
WHERE = "RelationalMemory"
PAIR_HINT = "there is no pair (h, c): the memory is one tensor, as a call returns it."


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a sequence came in, and what belongs to it."""

    batched: bool = True  # False: neither the sequence nor the state has a batch axis
    batch_first: bool = True  # False: time is the first axis of the sequence and the batch the second
    packed: PackedSequence | None = None  # the sequence itself where it came packed

    def axes(self, batch: int | None, steps: int | None) -> dict[str, int | None]:
        """The caller's leading axes of a sequence."""
        if not self.batched:
            return {"T": steps}
        return {"B": batch, "T": steps} if self.batch_first else {"T": steps, "B": batch}

    def to_inner(self, tensor: Tensor) -> Tensor:
        """From the caller's axes to [B, T, ...]."""
        if not self.batched:
            return tensor.unsqueeze(0)
        return tensor if self.batch_first else tensor.transpose(0, 1)

    def to_outer(self, tensor: Tensor) -> Tensor:
        """From [B, T, ...] to the caller's axes."""
        return self.to_inner(tensor) if self.batched else tensor.squeeze(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Everything that came with one call, in the layer's own layout."""

    layout: Layout
    x: Tensor  # [B, T, I] or [B, T, n, I]
    memories: list[Tensor]  # one [B, N, W] per layer
    lengths: Tensor | None  # [B]
    reset: Tensor | None  # [B, T]
    query: Tensor | None  # [B, 1, W] or [B, T, W]

    @property
    def happens(self) -> Tensor | None:
        """[B, T], true within the lengths, or None without lengths."""
        return happening(self.lengths, self.x.shape[1], self.x.device)

    def marks(self, cell: RelationalMemoryCell, memory: Tensor) -> dict[str, Tensor | None]:
        """The lengths and resets of a scan of one layer."""
        initial = None if self.reset is None else cell.initial_memory(memory.shape[0], dtype=memory.dtype)
        return {"lengths": self.lengths, "reset": self.reset, "initial": initial}


class ReadHead(nn.Module):
    r"""From a memory of N slots m_1 ... m_N, W wide, to one vector h:

    - "flatten": h = [m_1; ...; m_N], the whole memory, as in the paper;
    - "mean": $h = \frac 1 N \sum_i m_i$;
    - "weighted": $h = \sum_i w_i m_i$, one learned number per slot, 1 / N at the start;
    - "attention": $h = \sum_i \alpha_i m_i$, $\alpha = \mathrm{softmax}_i(q \cdot m_i / \sqrt W)$ with a learned query
      q, or with the caller's;
    - "input": the input's own row after the attention blocks (of n rows, the mean): what the input found in the memory
      before this step.

    Shape:
        memory [..., N, W], input_rows [..., n, W] or None, query [..., W] or None; returns [..., N * W] for "flatten"
        and [..., W] otherwise.
    """

    def __init__(self, kind: ReadHeadKind, slots: int, width: int, *, device: torch.device, dtype: torch.dtype):
        super().__init__()
        self.kind = kind
        self.output_size = slots * width if kind == "flatten" else width
        self.weights = self.query = None
        if kind == "weighted":
            self.weights = nn.Parameter(torch.empty(slots, device=device, dtype=dtype))
        elif kind == "attention":
            self.query = nn.Parameter(torch.empty(width, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights 1 / N; the query normal of std 1, cut at two std."""
        if self.weights is not None:
            nn.init.constant_(self.weights, 1 / len(self.weights))
        if self.query is not None:
            nn.init.trunc_normal_(self.query)

    def forward(self, memory: Tensor, input_rows: Tensor | None = None, query: Tensor | None = None) -> Tensor:
        if self.kind == "flatten":
            return memory.flatten(-2)
        if self.kind == "mean":
            return memory.mean(-2)
        if self.kind == "input":
            assert input_rows is not None
            return input_rows.mean(-2)
        if self.weights is not None:
            return self.weights @ memory
        query = self.query if query is None else query
        assert query is not None
        scores = (memory @ query.unsqueeze(-1)).squeeze(-1) * memory.shape[-1] ** -0.5  # [..., N]
        return (torch.softmax(scores, dim=-1).unsqueeze(-2) @ memory).squeeze(-2)

    def extra_repr(self) -> str:
        return self.kind


class LayeredCells(Core):
    """The part of `RelationalMemory` that holds its cells, and opens what it is called with."""

    mem_slots: int
    width: int
    num_layers: int
    batch_first: bool
    check_finite: bool
    cells: nn.ModuleList
    read_head: ReadHead

    def cell(self, layer: int = 0) -> RelationalMemoryCell:
        """The parameters of one layer, the lowest by default."""
        cell = self.cells[layer]
        if not isinstance(cell, RelationalMemoryCell):
            problem = f"cells.{layer} is not a cell of a relational memory"
            hint = "put other modules in the places within it, such as its input."
            got, expected = type(cell).__name__, "RelationalMemoryCell"
            raise InputError(describe(WHERE, problem, got=got, expected=expected, hint=hint))
        return cell

    def initial_state(self, batch_size: int, *, device: Device = None, dtype: torch.dtype | None = None) -> Tensor:
        """The memory before the first step, [batch_size, N, W] or [L, batch_size, N, W]; a fresh tensor every time."""
        cells = [self.cell(i) for i in range(self.num_layers)]
        return join_state([cell.initial_memory(batch_size, device=device, dtype=dtype) for cell in cells])

    def _open(
        self,
        x: Tensor | PackedSequence,
        state: State | None,
        lengths: Numbers | None = None,
        reset: Tensor | None = None,
        query: Tensor | None = None,
    ) -> Given:
        """Check the arguments of a call and bring them to the inner layout."""
        row_axes = self.cell().row_axes()
        if isinstance(x, PackedSequence):
            if lengths is not None:
                raise InputError(describe(WHERE, "a PackedSequence has its own lengths", got="lengths=..."))
            layout = Layout(packed=x)
            with damaged(WHERE, "the parts of this PackedSequence do not fit", hint="make it with pack_sequence."):
                x, lengths = pad_packed_sequence(x, batch_first=True)  # back in the order before packing
            lengths = lengths.to(x.device)
        else:
            single = isinstance(x, Tensor) and x.dim() == 1 + len(row_axes)
            layout = Layout(batched=not single, batch_first=self.batch_first)
        check_shape(WHERE, "x", x, {**layout.axes(None, None), **row_axes})
        check_kind(self, "x", x)
        x = layout.to_inner(x)
        batch, steps = x.shape[:2]
        if lengths is not None:
            if not layout.batched:
                hint = "cut it to its length."
                raise InputError(describe(WHERE, "a single sequence has no lengths", got="lengths=...", hint=hint))
            lengths = check_whole_numbers(WHERE, "lengths", lengths, {"B": batch}, x.device, highest=steps)
        if reset is not None:
            check_reset(WHERE, reset, layout.axes(batch, steps), x.device)
            reset = layout.to_inner(reset)
        if query is not None:
            once: dict[str, int | None] = {"B": batch} if layout.batched else {}
            if isinstance(query, Tensor) and query.dim() == len(once) + 1:
                self._check_query(query, once)
                query = query.unsqueeze(-2) if layout.batched else query.view(1, 1, -1)
            else:
                self._check_query(query, layout.axes(batch, steps))
                query = layout.to_inner(query)
        memories = self._split_state(state, batch, batched=layout.batched)
        given = Given(layout=layout, x=x, memories=memories, lengths=lengths, reset=reset, query=query)
        if self.check_finite:
            refuse_nan(x, memories, given.happens)
        return given

    def _check_query(self, query: Tensor, leading: Mapping[str, int | None]) -> None:
        """Refuse a query that the read head does not take, or of the wrong shape or kind."""
        if self.read_head.kind != "attention":
            got, expected = f"read_head={self.read_head.kind!r}", "read_head='attention'"
            raise InputError(describe(WHERE, "this read head takes no query", got=got, expected=expected))
        check_shape(WHERE, "query", query, {**leading, "W": self.width})
        check_kind(self, "query", query)

    def _split_state(self, state: State | None, batch: int, *, batched: bool) -> list[Tensor]:
        """From a state, or None for the initial one, to one memory [B, N, W] per layer."""
        if state is None:
            return [self.cell(i).initial_memory(batch) for i in range(self.num_layers)]
        if not isinstance(state, Tensor):
            hint = PAIR_HINT if isinstance(state, tuple | list) else START_HINT
            raise InputError(describe(WHERE, "state must be a tensor", got=type(state).__name__, hint=hint))
        axes: dict[str, int | None] = {} if self.num_layers == 1 else {"L": self.num_layers}
        axes |= ({"B": batch} if batched else {}) | {"N": self.mem_slots, "W": self.width}
        of_steps = state.dim() == len(axes) + 1 and state.shape[-2:] == (self.mem_slots, self.width)
        check_shape(WHERE, "state", state, axes, hint=STEPS_HINT if of_steps else START_HINT)
        check_kind(self, "state", state)
        layers = [state] if self.num_layers == 1 else list(state.unbind(0))
        layers = layers if batched else [memory.unsqueeze(0) for memory in layers]
        for i, memory in enumerate(layers):
            self.cell(i).look_for_zeros(WHERE, memory)
        return layers


def join_state(memories: list[Tensor], *, batched: bool = True) -> Tensor:
    """The inverse of `_split_state`."""
    state = memories[0] if len(memories) == 1 else torch.stack(memories)
    return state if batched else state.squeeze(-3)


def pack_like(packed: PackedSequence, y: Tensor, lengths: Tensor) -> PackedSequence:
    """`y` [B, T, ...] packed in the order of `packed`."""
    if packed.sorted_indices is not None:
        y, lengths = y.index_select(0, packed.sorted_indices), lengths.index_select(0, packed.sorted_indices)
    data = pack_padded_sequence(y, lengths.cpu(), batch_first=True).data
    return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


def refuse_nan(x: Tensor, memories: list[Tensor], happens: Tensor | None) -> None:
    """Refuse NaN and infinities, naming the first step and row that has one."""
    if torch.compiler.is_compiling():
        raise InputError(describe(WHERE, "check_finite looks at values and cannot be compiled"))
    bad = ~torch.isfinite(x).flatten(2).all(-1)  # [B, T]
    if happens is not None:
        bad &= happens
    for row, step in bad.nonzero().tolist()[:1]:
        raise InputError(describe(WHERE, f"x is not finite at step {step} of batch row {row}"))
    for layer, memory in enumerate(memories):
        for (row,) in (~torch.isfinite(memory).flatten(1).all(-1)).nonzero().tolist()[:1]:
            of = f" of layer {layer}" if len(memories) > 1 else ""
            raise InputError(describe(WHERE, f"state{of} is not finite in batch row {row}"))
