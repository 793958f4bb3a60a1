"""The parameters of one relational memory, and one step of it."""

# Shape legend: B batch, I input features, n input rows, N memory slots, H heads, K key size, V value size per head,
#               M memory width H * V, F = H * (2K + V), G gate width M or 1

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module
from torch.utils.hooks import RemovableHandle

from relational_rnn._check import InputError, check_positive, check_room, check_shape, describe
from relational_rnn.nn._inputs import Device, check_kind, check_place, start_at
from relational_rnn.nn._plain import first_beyond, hooked, linear_of, norm_of, remake_weights
from relational_rnn.nn._pretrained import OF_CELL, remembering
from relational_rnn.nn.initial_weights import draw_truncated_normal
from relational_rnn.nn.sizes import FORGET_BIAS, GateStyle, InitialMemory, SizesOfLayer
from relational_rnn.ops.relational_scan.loop import happening
from relational_rnn.ops.relational_scan.readable import watcher
from relational_rnn.ops.relational_scan.ready import StepCache
from relational_rnn.ops.relational_scan.reference import (
    Block,
    CalledBlock,
    CalledParameters,
    Formulation,
    Linear,
    Scan,
    ScanParameters,
)
from relational_rnn.ops.relational_scan.scan import Backend
from relational_rnn.ops.relational_scan.step import After, prepare, relational_step_after

RANDOM_STD = 0.1
EQUAL = (
    "the same weights act on every slot, so slots that start equal stay equal for ever and the memory holds no more "
    "than one slot would"
)
CELL_HINT = "start with cell.initial_memory(batch_size), or pass memory=None."


@functools.cache
def warn_once(text: str) -> None:
    """Warn; the same text never again."""
    warnings.warn(text, UserWarning, stacklevel=4)


def _below(gate: nn.Module | None, share: nn.Module | None) -> Linear:
    """The linear layer of the gates, with that of competing slots' shares under it."""
    if share is None:
        return linear_of(gate)
    assert isinstance(share, nn.Linear)
    weight, bias = linear_of(gate)
    below = torch.zeros_like(bias) if share.bias is None else share.bias
    return Linear(torch.cat([weight, share.weight]), torch.cat([bias, below]))


def _that_never_runs(register: Callable[..., RemovableHandle]) -> Callable[..., RemovableHandle]:
    """`register`, with a warning."""

    @functools.wraps(register)
    def warning(self: nn.Module, *args: Any, **kwargs: Any) -> RemovableHandle:
        warnings.warn(
            "a hook on a block of attention never runs, as a step calls the modules within it alone: put it on one of "
            "those, such as its qkv, or on the cell.",
            UserWarning,
            stacklevel=2,
        )
        return register(self, *args, **kwargs)

    return warning


class AttentionBlock(nn.Module):
    """The parameters of one attention block. Like an `nn.ModuleDict` it is never called, and a hook on it warns."""

    def __init__(self, width: int, qkv_width: int, formulation: Formulation, device: torch.device, dtype: torch.dtype):
        super().__init__()
        self.qkv = nn.Linear(width, qkv_width, device=device, dtype=dtype)
        self.mlp_norm = nn.LayerNorm(width, device=device, dtype=dtype)
        self.qkv_norm = self.attention_norm = self.out = None
        if formulation == "sonnet":
            self.qkv_norm = nn.LayerNorm(qkv_width, device=device, dtype=dtype)
            self.attention_norm = nn.LayerNorm(width, device=device, dtype=dtype)
        else:
            self.out = nn.Linear(width, width, device=device, dtype=dtype)

    def scan_block(self) -> Block:
        own = self._modules
        qkv, mlp_norm = linear_of(own["qkv"]), norm_of(own["mlp_norm"])
        if own.get("out") is not None:
            return Block(qkv, mlp_norm, out=linear_of(own["out"]))
        return Block(qkv, mlp_norm, qkv_norm=norm_of(own["qkv_norm"]), attention_norm=norm_of(own["attention_norm"]))

    register_forward_hook = _that_never_runs(nn.Module.register_forward_hook)
    register_forward_pre_hook = _that_never_runs(nn.Module.register_forward_pre_hook)
    register_full_backward_hook = _that_never_runs(nn.Module.register_full_backward_hook)
    register_full_backward_pre_hook = _that_never_runs(nn.Module.register_full_backward_pre_hook)


class RelationalMemoryCell(nn.Module):
    r"""One step of a relational memory, as `nn.LSTMCell` is one step of an LSTM.

    The arguments and the equations are those of `relational_rnn.nn.RelationalMemory`.

    Shape:
        - `x`: `[B, input_size]`, or `[B, input_rows, input_size]` when `input_rows` is given.
        - `memory`: `[B, mem_slots, num_heads * head_size]`, or None for `initial_memory(B)`.
        - returns the memory after the step, of the same shape.
        - all of it without `B` where `x` has no batch axis.

    Raises:
        InputError: an argument, or the shape, dtype or device of a tensor, does not fit.

    Example:
        >>> cell = RelationalMemoryCell(input_size=5, mem_slots=3, head_size=4, num_heads=2)
        >>> memory = cell(torch.zeros(7, 5))
        >>> memory = cell(torch.zeros(7, 5), memory)
        >>> memory.shape
        torch.Size([7, 3, 8])
    """

    argument_hints = OF_CELL

    @remembering
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
        device: Device = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        sizes = SizesOfLayer.among(locals())
        where, width = sizes.where, sizes.width
        check_positive(where, input_size=input_size, **({} if input_rows is None else {"input_rows": input_rows}))
        self.input_size = input_size
        self.mem_slots = mem_slots
        self.width = width
        self.input_rows = input_rows
        self.gate_style = gate_style
        self.settings = sizes.settings
        check_place(where, device, dtype)
        device = torch.get_default_device() if device is None else torch.device(device)
        dtype = torch.get_default_dtype() if dtype is None else dtype

        qkv_width = num_heads * (2 * self.settings.key_size + head_size)
        of_a_block = width * (qkv_width + width * (formulation == "chapter"))
        gates = 0 if gate_style is None else 2 * width * width * ((input_rows or 1) + 1)
        own = width * (input_size + attention_mlp_layers * width)
        check_room(where, own, num_blocks * of_a_block, gates, mem_slots * width)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.input = nn.Linear(input_size, width, **place)
        blocks = (AttentionBlock(width, qkv_width, formulation, device, dtype) for _ in range(num_blocks))
        self.blocks = nn.ModuleList(blocks)
        self.mlp = nn.ModuleList(nn.Linear(width, width, **place) for _ in range(attention_mlp_layers))
        self.gate_input = self.gate_memory = None
        if gate_style is not None:
            gates = {"memory": 2, "competitive": width}.get(gate_style, 2 * width)
            self.gate_input = nn.Linear((input_rows or 1) * width, gates, **place)
            self.gate_memory = nn.Linear(width, gates, **place)
        self.share_query = self.share_key = None
        if gate_style == "competitive":  # matrices of their own: Muon would give the smaller of two gradients little
            self.share_query = nn.Linear((input_rows or 1) * width, width, **place)
            # no bias: it would add the same to the scores of all slots
            self.share_key = nn.Linear(width, width, bias=False, **place)
        self.start = initial_memory
        self.initial: Tensor | None
        if initial_memory == "learned":
            self.initial = nn.Parameter(torch.empty(mem_slots, width, **place))
        elif initial_memory == "random":
            self.register_buffer("initial", torch.empty(mem_slots, width, **place))
        else:
            self.initial = None
        self._steps = StepCache()
        if initial_memory == "zeros":
            warn_once(f"initial_memory='zeros': {EQUAL}; 'identity', 'random' and 'learned' start them apart.")
        self.reset_parameters()

    def __getstate__(self) -> dict[str, Any]:
        # a shallow copy, too, has steps of its own: what is ready is of the modules that the cell had then
        return {**self.__dict__, "_steps": StepCache()}

    def reset_parameters(self) -> None:
        """Draw everything anew, as the constructor does."""
        draw_truncated_normal(self)
        if self.initial is not None:
            if self.start == "random":
                nn.init.normal_(self.initial, std=RANDOM_STD)
            else:
                nn.init.eye_(self.initial)

    def scan_parameters(self) -> ScanParameters:
        """The parameters as the functions in `relational_rnn.ops.relational_scan` take them, of plain modules."""
        own, gated = self._modules, self._modules.get("gate_input") is not None
        return ScanParameters(
            settings=self.settings,
            input=linear_of(own["input"]),
            blocks=tuple(block.scan_block() for block in self._within("blocks") if isinstance(block, AttentionBlock)),
            mlp=tuple(map(linear_of, self._within("mlp"))),
            gate_input=_below(own["gate_input"], own.get("share_query")) if gated else None,
            gate_memory=_below(own["gate_memory"], own.get("share_key")) if gated else None,
        )

    def step_parameters(self) -> ScanParameters | CalledParameters:
        """The parameters, or the modules themselves where calling one of them is more than its weight and bias."""
        why = self.beyond_weights()
        if why is None:
            return self.scan_parameters()
        blocks = [block for block in self.blocks if isinstance(block, AttentionBlock)]
        gates = {name: getattr(self, name) for name in ("gate_input", "gate_memory", "share_query", "share_key")}
        return CalledParameters(
            settings=self.settings,
            why=why,
            input=self.input,
            blocks=tuple(CalledBlock(b.qkv, b.mlp_norm, b.qkv_norm, b.attention_norm, b.out) for b in blocks),
            mlp=tuple(self.mlp),
            **gates,
        )

    def beyond_weights(self) -> str | None:
        """Which inner module is more than its weight and bias, and why; None where all are plain."""
        return first_beyond(self, self._inner(), without_bias=self._modules.get("share_key"))

    def stands_alone(self) -> str | None:
        """Why every step has to call this cell, where calling the modules in it is not enough; or None."""
        if hooked(self):
            return "has hooks"
        if type(self).forward is not RelationalMemoryCell.forward or "forward" in self.__dict__:
            return "has a forward of its own"
        return None

    def _within(self, name: str) -> list[nn.Module | None]:
        modules = self._modules[name]
        assert modules is not None
        return list(modules._modules.values())

    def _inner(self) -> list[nn.Module]:
        """The modules that a step computes with."""
        own = self._modules
        found = [own.get(name) for name in ("input", "gate_input", "gate_memory", "share_query", "share_key")]
        found += self._within("mlp")
        where, hint = "RelationalMemoryCell", "put hooks and other modules in the places within it, such as its qkv."
        for i, block in enumerate(self._within("blocks")):
            if not isinstance(block, AttentionBlock):
                problem = f"blocks.{i} is not a block of attention, and a step cannot be computed with it"
                got, expected = type(block).__name__, "AttentionBlock"
                raise InputError(describe(where, problem, got=got, expected=expected, hint=hint))
            if type(block).forward is not AttentionBlock.forward or "forward" in block.__dict__:
                problem = f"blocks.{i} has a forward, which would never run: a step calls the modules within it alone"
                raise InputError(describe(where, problem, got=type(block).__name__, hint=hint))
            found += block._modules.values()
        return [module for module in found if module is not None]

    def ready_step(
        self, rows: Tensor, memory: Tensor, *, input_rows: bool = False, checked: bool = False
    ) -> After | None:
        """A step without gradients by the compiled kernels, of `rows` [B, n, I] and `memory` [B, N, M]; or None.

        `input_rows`: whether the attended rows of the input are wanted too. Tensors that are not `checked` are taken
        only if a step of their size was taken before.
        """
        if torch.compiler.is_compiling() or every_module._has_any_global_hook():
            return None
        after = self._steps.step(rows, memory, kind=input_rows)
        if after is not None or not checked or torch.is_grad_enabled():
            return after
        if self.beyond_weights() is not None or self.stands_alone() is not None:
            return None
        with torch.inference_mode(False), torch.no_grad():  # a joined weight is written into at every step, in any mode
            params = self.scan_parameters()
            joined = [
                *self._joined("gate_input", "share_query", params),
                *self._joined("gate_memory", "share_key", params),
            ]
        if prepare(self._steps, rows, memory, params, self, self._inner(), input_rows=input_rows, joined=joined):
            return self._steps.step(rows, memory, kind=input_rows)
        return None

    def _joined(self, gate: str, share: str, params: ScanParameters) -> Iterator[tuple[Tensor, Tensor]]:
        """Which parameters lie where in the linear layer that `_below` has put together of a gate's and a share's."""
        above, below = self._modules.get(gate), self._modules.get(share)
        if above is None or below is None:
            return
        for name in ("weight", "bias"):
            of_all: Tensor = getattr(getattr(params, gate), name)
            of_gate, of_share = above._parameters[name], below._parameters[name]
            assert of_gate is not None
            yield of_all[: len(of_gate)], of_gate
            if of_share is not None:
                yield of_all[len(of_gate) :], of_share

    def step_after(self, rows: Tensor, memory: Tensor, *, input_rows: bool = False, backend: Backend = "auto") -> After:
        """A step of checked `rows` [B, n, I] and `memory` [B, N, M]; see `relational_step_after`."""
        if backend in ("auto", "cpu"):
            after = self.ready_step(rows, memory, input_rows=input_rows, checked=True)
            if after is not None:
                return after
        return relational_step_after(rows, memory, self.step_parameters(), input_rows=input_rows, backend=backend)

    def by_calls(self, rows: Tensor, memory: Tensor, lengths: Tensor | None, reset: Tensor | None) -> Scan:
        """`relational_scan` of `rows` [B, T, n, I] and `memory` [B, N, M], where every step is a call of the cell."""
        initial = None if reset is None else self.initial_memory(memory.shape[0], dtype=memory.dtype)
        happens, memories = happening(lengths, rows.shape[1], rows.device), []
        if happens is not None:
            rows = rows.where(happens[:, :, None, None], 0)
        x = rows.squeeze(2) if self.input_rows is None else rows
        for t, x_t in enumerate(x.unbind(1)):
            before = memory
            if reset is not None and initial is not None:
                before = torch.where(reset[:, t, None, None], initial, memory)
            after = self(x_t, before)
            memory = after if happens is None else torch.where(happens[:, t, None, None], after, memory)
            memories.append(after if happens is None else after.where(happens[:, t, None, None], 0))
        if not memories:
            return Scan(memory.new_zeros(rows.shape[0], 0, *memory.shape[1:]), memory, None)
        return Scan(torch.stack(memories, dim=1), memory, None)

    def initial_memory(self, batch_size: int, *, device: Device = None, dtype: torch.dtype | None = None) -> Tensor:
        """The memory before the first step, [batch_size, N, M]; device and dtype default to the parameters'.

        - "identity": slot i is the i-th unit vector, as in the original; slots beyond the width are equal zeros.
        - "zeros": all slots are equal, and stay equal.
        - "random": drawn once, normal of std 0.1, and stored with the weights.
        - "learned": a parameter, the identity before training.
        """
        device, dtype = start_at(self, batch_size, device, dtype, self.mem_slots * self.width)
        remake_weights(self)
        if self.initial is not None:
            return self.initial.to(device=device, dtype=dtype).repeat(batch_size, 1, 1)
        if self.start == "zeros":
            return torch.zeros(batch_size, self.mem_slots, self.width, device=device, dtype=dtype)
        return torch.eye(self.mem_slots, self.width, device=device, dtype=dtype).repeat(batch_size, 1, 1)

    def extra_repr(self) -> str:
        heads = self.settings.num_heads
        shown = {"mem_slots": self.mem_slots, "head_size": self.width // heads, "num_heads": heads}
        shown |= {"key_size": self.settings.key_size, "gate_style": self.gate_style, "initial_memory": self.start}
        shown |= {} if self.input_rows is None else {"input_rows": self.input_rows}
        shown |= {} if self.settings.formulation == "sonnet" else {"formulation": self.settings.formulation}
        return ", ".join([str(self.input_size), *(f"{name}={value!r}" for name, value in shown.items())])

    def look_for_zeros(self, where: str, memory: Tensor) -> None:
        """Warn, once, of a start whose slots are all zeros. What was computed, or lies on a GPU, is not looked at."""
        if self.mem_slots == 1 or self.start == "zeros" or memory.requires_grad or not memory.is_cpu:
            return
        if memory.numel() == 0 or watcher() is not None:  # of what watches, some has no values
            return
        if not bool(memory.flatten(1).any(1).all()):
            start = "Start with initial_state(batch_size) (of a cell: initial_memory) and pass reset= at a new episode."
            warn_once(f"{where}: a state of zeros was passed: {EQUAL}. {start}")

    def row_axes(self) -> dict[str, int | None]:
        """The axes of one step's input, but for the batch."""
        return {"I": self.input_size} if self.input_rows is None else {"n": self.input_rows, "I": self.input_size}

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """The memory after one step; see the class."""
        where = "RelationalMemoryCell"
        batched = not (isinstance(x, Tensor) and x.dim() == len(self.row_axes()))
        check_shape(where, "x", x, {"B": None, **self.row_axes()} if batched else self.row_axes())
        check_kind(self, "x", x)
        x = x if batched else x.unsqueeze(0)
        if memory is None:
            memory = self.initial_memory(x.shape[0])
        else:
            axes: dict[str, int | None] = {"N": self.mem_slots, "M": self.width}
            check_shape(where, "memory", memory, {"B": x.shape[0], **axes} if batched else axes, hint=CELL_HINT)
            check_kind(self, "memory", memory)
            memory = memory if batched else memory.unsqueeze(0)
            self.look_for_zeros(where, memory)
        rows = x if self.input_rows is not None else x.unsqueeze(-2)
        memory = self.step_after(rows, memory).memory
        return memory if batched else memory.squeeze(0)
