"""The whole sequence as one differentiable operation for the CPU, by compiled kernels; README.md has the derivation."""

# Shape legend: as in reference.py

from __future__ import annotations

import ctypes
import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from relational_rnn.ops.fast_weight_scan.reference import (
    FastWeightParameters,
    FastWeightScan,
    FastWeightState,
    fast_weight_scan_reference,
)
from relational_rnn.ops.relational_scan._native import (
    Kernels,
    LibraryCall,
    Phase,
    find,
    fresh,
    longs,
    over_time,
    pointers,
)
from relational_rnn.ops.relational_scan.readable import (
    backward_against,
    gradients_wanted,
    mode_against,
    packed,
    plain_backward,
    settled,
    tensors_against,
)
from relational_rnn.ops.relational_scan.spec import flatten, refill

TILE_SEQUENCES = 32  # that one thread takes through time together, at most
_ALIGNED = 16  # numbers


class FastCall(LibraryCall):
    """`FastCall` of native/fast_call.h, where the fields are explained."""

    family: ClassVar[str] = "fast"
    room: ClassVar[tuple[str, ...]] = ("packed", "sums", "scratch")
    _fields_ = (
        *longs("batch steps width heads key value reads carry outputs_needed"),
        ("max_strength", ctypes.c_double),
        *longs("tile_batch kept packed_weights next"),
        *pointers("parameters"),
        *over_time("p"),
        *pointers("memory carried initial initial_carried"),
        *longs("initial_batch initial_carried_batch"),
        *pointers("lengths reset outputs memories final final_carried"),
        *over_time("d_outputs"),
        *over_time("d_memories"),
        *pointers("d_memory d_carried d_initial d_initial_carried"),
        *pointers("activations activation_widths differences difference_widths packed sums scratch"),
    )


class FastSizes(NamedTuple):
    """The sizes of a call."""

    batch: int
    steps: int
    width: int
    heads: int
    key: int
    value: int
    reads: int
    carry: bool
    outputs_needed: bool

    @property
    def keys(self) -> int:
        return self.heads * self.key

    @property
    def values(self) -> int:
        return self.heads * self.value

    @property
    def written(self) -> int:
        return self.keys + self.values + 2 * self.heads


def activation_widths(s: FastSizes) -> dict[str, int]:
    """The tables of native/fast_call.h and the numbers in a row of each; 0 for what a call has no use for."""
    w, out = s.width, s.outputs_needed
    widths = {"carried": w * s.carry, "mlp_input": w, "hidden": w, "mlp_total": w, "mlp_stats": 2, "writer": w}
    widths |= {"keys": s.keys, "written": s.written, "scales": 2 * s.heads, "old": s.values}
    widths |= {"found": s.values * out, "out_total": w * out, "out_stats": 2 * out}
    read = {"input": w, "key": s.keys, "scales": s.heads, "found": s.values, "total": w, "stats": 2}
    return widths | {f"{name} {j}": width for j in range(s.reads) for name, width in read.items()}


def difference_widths(s: FastSizes) -> dict[str, int]:
    """The same for the gradients that the weights' products need."""
    w = s.width
    widths = {"input": w, "keys": s.keys, "hidden": w, "mlp": w, "written": s.written, "out": w * s.outputs_needed}
    return widths | {f"{name} {j}": width for j in range(s.reads) for name, width in (("key", s.keys), ("value", w))}


class Tables:
    """Tables [steps, B, width] by name, side by side in one piece of memory."""

    def __init__(
        self, widths: dict[str, int], steps: int, batch: int, dtype: torch.dtype, memory: Tensor | None = None
    ) -> None:
        self._shape, self._widths, self._starts, at = (steps, batch), widths, {}, 0
        for name, width in widths.items():
            self._starts[name] = at
            at += -(-steps * batch * width // _ALIGNED) * _ALIGNED
        self.memory = fresh(at, dtype) if memory is None else memory
        self.widths = (ctypes.c_long * len(widths))(*widths.values())
        start, size = self.memory.data_ptr(), dtype.itemsize
        places = (start + size * at for at in self._starts.values())
        self.addresses = (ctypes.c_void_p * len(widths))(*places)

    def rows(self, name: str, steps: int) -> Tensor:
        """The rows [steps * B, width] of the first steps."""
        count, width = steps * self._shape[1], self._widths[name]
        return self.memory[self._starts[name] :][: count * width].view(count, width)


def unsupported(
    p: Tensor, state: FastWeightState, params: FastWeightParameters, initial: FastWeightState | None = None
) -> str | None:
    """Why `fast_weight_scan_cpu` cannot take these, or None if it can."""
    mode = mode_against()
    if mode is not None:
        return mode
    kernels = find()
    if isinstance(kernels, str):
        return f"it needs the compiled kernels, and {kernels}"
    reason = tensors_against(flatten((p, state, initial or (), params)))
    return reason or misfit(sizes_of(p, state, params, True), state, params, initial)


def sizes_of(p: Tensor, state: FastWeightState, params: FastWeightParameters, outputs_wanted: bool) -> FastSizes:
    batch, steps, projected = p.shape
    _, heads, key, value = state.fast.shape
    carry = params.recurrent is not None
    width = projected - heads * key
    return FastSizes(batch, steps, width, heads, key, value, len(params.reads), carry, carry or outputs_wanted)


def misfit(
    s: FastSizes, state: FastWeightState, params: FastWeightParameters, initial: FastWeightState | None
) -> str | None:
    """What does not go together in sizes, or None: the kernels get addresses and trust them."""
    w = s.width
    if params.num_heads != s.heads:
        return f"num_heads is {params.num_heads} where state.fast has {s.heads} heads"
    wanted: list[tuple[str, Tensor | None, tuple[int, ...]]] = []
    for name, one in (("state", state), ("initial", initial)):
        if one is not None:
            wanted.append((f"{name}.fast", one.fast, (s.batch, s.heads, s.key, s.value)))
            if s.carry:
                wanted.append((f"{name}.carried", one.carried, (s.batch, w)))
    if params.recurrent is not None:
        wanted.append(("recurrent", params.recurrent, (w + s.keys, w)))
    pairs: list[tuple[str, tuple[Tensor, Tensor], tuple[int, ...]]] = [
        ("mlp_in", params.mlp_in, (w, w)),
        ("mlp_out", params.mlp_out, (w, w)),
        ("write", params.write, (s.written, w)),
        ("out", params.out, (w, s.values)),
        ("mlp_norm", params.mlp_norm, (w,)),
        ("out_norm", params.out_norm, (w,)),
    ]
    for j, read in enumerate(params.reads):
        sizes = (s.keys, w), (w, s.values), (w,)
        pairs += [(f"reads[{j}].{name}", one, size) for name, one, size in zip(read._fields, read, sizes, strict=True)]
    for name, (weight, bias), size in pairs:
        wanted += [(f"{name}.weight", weight, size), (f"{name}.bias", bias, size[:1])]
    for name, tensor, size in wanted:
        if tensor is None:
            return f"{name} is missing"
        if tensor.shape != size:
            return f"{name} has {list(tensor.shape)} where the other sizes need {list(size)}"
    return None


def fast_weight_scan_cpu(
    p: Tensor,
    state: FastWeightState,
    params: FastWeightParameters,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: FastWeightState | None = None,
    outputs_wanted: bool = True,
    states_wanted: bool = False,
) -> FastWeightScan:
    """`fast_weight_scan` of one step or more by the compiled kernels, where `unsupported` has nothing against it."""
    sizes = sizes_of(p, state, params, outputs_wanted)
    initial = None if reset is None else initial
    start, first = (
        (None, None) if one is None else (one.fast, one.carried if sizes.carry else None) for one in (state, initial)
    )
    tensors = p, *start, lengths, reset, *first, *flatten(params)
    kernels = find()
    assert not isinstance(kernels, str)
    call = Call(kernels, sizes, params, outputs_wanted, states_wanted, gradients_wanted(tensors))
    outputs, memories, *final = _Scan.apply(call, *tensors)
    return FastWeightScan(outputs, memories, FastWeightState(*final))


class Call(NamedTuple):
    """What a call is, besides its tensors."""

    kernels: Kernels
    sizes: FastSizes
    params: FastWeightParameters
    outputs_wanted: bool
    states_wanted: bool
    kept: bool  # whether gradients will be wanted

    @property
    def threads(self) -> int:
        return min(torch.get_num_threads(), self.sizes.batch)

    @property
    def tile_batch(self) -> int:
        """Sequences per tile; results do not depend on it, except for the order of the sums over rows."""
        batch, threads = self.sizes.batch, self.threads
        tiles = math.ceil(math.ceil(batch / TILE_SEQUENCES) / threads) * threads
        return math.ceil(batch / min(batch, tiles))

    def describe(self, tensors: Any) -> FastCall:
        """What forward and backward calls have in common."""
        p, memory, carried, lengths, reset, initial, initial_carried, *parameters = tensors
        s = self.sizes
        native = FastCall(*s, self.params.max_strength, self.tile_batch, self.kept, True)
        assert self.kernels.library.fast_call_bytes() == ctypes.sizeof(native)
        if reset is not None:
            initial = memory.new_zeros(memory.shape[1:]) if initial is None else initial
            initial_carried = p.new_zeros(s.width) if initial_carried is None else initial_carried
        first, *rest = [settled(t).contiguous() for t in parameters]
        recurrent = [first, None, first[s.width :], None] if s.carry else [None, None, None, None, first]
        native.point(
            parameters=[*recurrent, *rest],
            p=_rows(p),
            memory=packed(memory),
            carried=packed(carried),
            lengths=packed(None if lengths is None else lengths.to(torch.int64)),
            reset=packed(reset),
            initial=packed(initial),
            initial_carried=packed(initial_carried),
        )
        if initial is not None and initial.dim() == 4:
            native.initial_batch = s.keys * s.value
        if initial_carried is not None and initial_carried.dim() == 2:
            native.initial_carried_batch = s.width
        return native

    def tables(self, native: FastCall, dtype: torch.dtype, memory: Tensor | None = None) -> Tables:
        """The activations: of all steps, and one more for the last output, or of one where nothing is kept."""
        s = self.sizes
        rows = (s.steps + s.carry, s.batch) if self.kept else (1, self.threads * self.tile_batch)
        tables = Tables(activation_widths(s), *rows, dtype, memory)
        native.point(activations=tables.addresses, activation_widths=tables.widths)
        return tables

    def plain(self, p: Tensor, memory: Tensor, carried: Any, lengths: Any, reset: Any, *rest: Any) -> Any:
        """The same call by plain operations."""
        initial, initial_carried, *parameters = rest
        made = fast_weight_scan_reference(
            p,
            FastWeightState(memory, carried),
            refill(self.params, iter(parameters)),
            lengths=lengths,
            reset=reset,
            initial=None if initial is None else FastWeightState(initial, initial_carried),
            outputs_wanted=self.outputs_wanted,
            states_wanted=self.states_wanted,
        )
        return made.outputs, made.states, *made.final


def _rows(t: Tensor) -> Tensor:
    """[B, T, ...] as [B, T, n], with what belongs to a step in one piece."""
    t = settled(t).flatten(2)
    return t if t.stride(2) == 1 else t.contiguous()


def _copy(d: Tensor | None, of: Tensor | None) -> Tensor | None:
    """A cotangent of something like `of`, to be worked on."""
    if d is not None:
        return settled(d).clone(memory_format=torch.contiguous_format)
    return None if of is None else of.new_zeros(of.shape)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Any) -> Any:
        s, (p, memory, carried), dtype = call.sizes, tensors[:3], tensors[0].dtype
        native = call.describe(tensors)
        kept = call.tables(native, dtype).memory
        outputs = p.new_empty(s.batch, s.steps, s.width) if call.outputs_wanted else None
        memories = None
        if call.states_wanted or call.kept:
            memories = fresh(s.steps * memory.numel(), dtype).view(s.batch, s.steps, s.heads, s.key, s.value)
        final = memory.new_empty(memory.shape)
        final_carried = None if carried is None else carried.new_empty(carried.shape)
        native.point(outputs=outputs, memories=memories, final=final, final_carried=final_carried)
        call.kernels.give_room(native, dtype, packed=1, scratch=call.threads)
        call.kernels.run(native, (Phase.PACK_FORWARD, Phase.FORWARD), call.threads, dtype)
        ctx.set_materialize_grads(False)
        ctx.call = call
        if call.kept:
            ctx.save_for_backward(*tensors, kept, memories)
        return outputs, memories if call.states_wanted else None, final, final_carried

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        *tensors, kept, memories = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        if backward_against(cotangents):
            return None, *plain_backward(ctx.call.plain, tensors, needed, cotangents)
        gradients = _backward(ctx.call, tensors, kept, memories, cotangents)
        return None, *(d if need else None for d, need in zip(gradients, needed, strict=True))


def _backward(
    call: Call, tensors: Any, kept: Tensor, memories: Tensor, cotangents: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    s, dtype, (memory, carried, lengths) = call.sizes, kept.dtype, tensors[1:4]
    native = call.describe(tensors)
    activations = call.tables(native, dtype, kept)
    differences = Tables(difference_widths(s), s.steps, s.batch, dtype)
    d_outputs, d_memories = (None if d is None else _rows(d) for d in cotangents[:2])
    d_memory, d_carried = _copy(cotangents[2], memory), _copy(cotangents[3], carried)
    d_initial = kept.new_zeros(memory.shape) if native.initial_batch else None
    d_initial_carried = kept.new_zeros(s.batch, s.width) if native.initial_carried_batch and s.carry else None
    native.point(differences=differences.addresses, difference_widths=differences.widths, memories=memories)
    native.point(d_outputs=d_outputs, d_memories=d_memories, d_memory=d_memory, d_carried=d_carried)
    native.point(d_initial=d_initial, d_initial_carried=d_initial_carried)
    tiles = math.ceil(s.batch / native.tile_batch)
    room = call.kernels.give_room(native, dtype, packed=1, scratch=call.threads, sums=tiles)
    call.kernels.run(native, (Phase.PACK_BACKWARD, Phase.BACKWARD), call.threads, dtype)

    # of every weight one product over all rows of all steps, in the order of `flatten`
    steps = s.steps if lengths is None else int(lengths.max())

    def linear(difference: str, activation: str) -> list[Tensor]:
        rows = differences.rows(difference, steps)
        return [torch.mm(rows.T, activations.rows(activation, steps)), rows.sum(0)]

    norms = room["sums"].view(tiles, 2, s.reads + 2, 2, s.width)[:, 0].sum(0)
    found: list[Tensor | None] = []
    if s.carry:
        found.append(torch.cat([linear("input", "carried")[0], linear("keys", "carried")[0]]))
    found += linear("hidden", "mlp_input") + linear("mlp", "hidden") + linear("written", "writer")
    found += linear("out", "found") if s.outputs_needed else [None, None]
    found += norms[s.reads]
    found += norms[s.reads + 1] if s.outputs_needed else [None, None]
    for j in range(s.reads):
        found += linear(f"key {j}", f"input {j}") + linear(f"value {j}", f"found {j}") + list(norms[j])
    d_p = torch.cat([differences.rows(name, s.steps) for name in ("input", "keys")], -1)
    d_p = d_p.view(s.steps, s.batch, -1).transpose(0, 1)
    return [d_p, d_memory, d_carried, None, None, d_initial, d_initial_carried, *found]
