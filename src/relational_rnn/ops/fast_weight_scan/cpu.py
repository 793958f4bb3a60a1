"""The whole sequence as one differentiable operation for the CPU, by compiled kernels; README.md has the derivation."""

# Shape legend: as in reference.py; N numbers of a memory, H * K * V

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn.ops.fast_weight_scan._native import (
    Activations,
    Differences,
    FastCall,
    FastSizes,
    Numbers,
    Phase,
    ReadActivations,
    ReadDifferences,
    Tables,
    activation_widths,
    difference_widths,
)
from relational_rnn.ops.fast_weight_scan.reference import (
    FastWeightParameters,
    FastWeightScan,
    FastWeightState,
    fast_weight_scan_reference,
    flatten,
    unflatten,
)
from relational_rnn.ops.relational_scan._native import Kernels, address, addresses, find, fresh
from relational_rnn.ops.relational_scan._plain_backward import own_leaves, pull_back
from relational_rnn.ops.relational_scan.readable import (
    backward_against,
    gradients_wanted,
    mode_against,
    settled,
    tensors_against,
)

TILE_SEQUENCES = 32  # that one thread takes through time together, at most


def unsupported(
    p: Tensor, state: FastWeightState, params: FastWeightParameters, initial: FastWeightState | None = None
) -> str | None:
    """Why `fast_weight_scan_cpu` cannot take these, or None if it can."""
    if torch.compiler.is_compiling():
        return "it cannot be traced, compiled or exported"
    given = [t for t in (*state, *(initial or ())) if t is not None]
    kernels = find()
    if isinstance(kernels, str):
        return f"it needs the compiled kernels, and {kernels}"
    reason = mode_against() or tensors_against([p, *given, *flatten(params)])
    return reason or misfit(sizes_of(p, state, params, True), state, params, initial)


def sizes_of(p: Tensor, state: FastWeightState, params: FastWeightParameters, outputs_wanted: bool) -> FastSizes:
    batch, steps, projected = p.shape
    _, heads, key, value = state.fast.shape
    width = projected - heads * key
    carry = params.recurrent is not None
    return FastSizes(batch, steps, width, heads, key, value, len(params.reads), carry, carry or outputs_wanted)


def misfit(
    s: FastSizes, state: FastWeightState, params: FastWeightParameters, initial: FastWeightState | None
) -> str | None:
    """What does not go together in sizes, or None: the kernels get addresses and trust them."""
    w = s.width
    wanted: list[tuple[str, Tensor | None, tuple[int, ...]]] = []
    for name, one in (("state", state), ("initial", initial)):
        if one is not None:
            wanted.append((f"{name}.fast", one.fast, (s.batch, s.heads, s.key, s.value)))
            if s.carry:
                wanted.append((f"{name}.carried", one.carried, (s.batch, w)))
    if params.num_heads != s.heads:
        return f"num_heads is {params.num_heads} where state.fast has {s.heads} heads"
    if params.recurrent is not None:
        wanted.append(("recurrent", params.recurrent, (w + s.keys, w)))
    linears = [("mlp_in", params.mlp_in, w, w), ("mlp_out", params.mlp_out, w, w)]
    linears += [("write", params.write, s.written, w), ("out", params.out, w, s.values)]
    norms = [("mlp_norm", params.mlp_norm), ("out_norm", params.out_norm)]
    for j, one in enumerate(params.reads):
        linears += [(f"reads[{j}].key", one.key, s.keys, w), (f"reads[{j}].value", one.value, w, s.values)]
        norms.append((f"reads[{j}].norm", one.norm))
    for name, linear, out, into in linears:
        wanted += [(f"{name}.weight", linear.weight, (out, into)), (f"{name}.bias", linear.bias, (out,))]
    for name, norm in norms:
        wanted += [(f"{name}.weight", norm.weight, (w,)), (f"{name}.bias", norm.bias, (w,))]
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
    """`fast_weight_scan` as one operation, by compiled kernels; equals the reference up to rounding.

    float32 or float64, on the CPU. A gradient of a gradient is computed through the reference. Without gradients
    nothing is kept.

    Raises:
        InputError: the tensors are not of a kind that this implementation takes (see `unsupported`), or sizes do not
            go together.
    """
    reason = unsupported(p, state, params, initial)
    if reason is not None:
        hint = "backend='reference' computes the same, and so does 'auto'."
        raise InputError(describe("fast_weight_scan_cpu", f"cannot be used here: {reason}", hint=hint))
    sizes = sizes_of(p, state, params, outputs_wanted)
    initial = None if reset is None else initial
    if 0 in p.shape[:2]:
        made = fast_weight_scan_reference(p, state, params, outputs_wanted=outputs_wanted, states_wanted=states_wanted)
        carried = None if made.final.carried is None else made.final.carried.clone()
        return made._replace(final=FastWeightState(made.final.fast.clone(), carried))  # the caller's stays the caller's
    start, first = (_parts(one, sizes.carry) for one in (state, initial))
    tensors = p, *start, lengths, reset, *first, *flatten(params)
    kernels = find()
    assert not isinstance(kernels, str)
    call = Call(kernels, sizes, params.max_strength, outputs_wanted, states_wanted, gradients_wanted(tensors))
    outputs, memories, *final = _Scan.apply(call, *tensors)
    return FastWeightScan(outputs, memories, FastWeightState(*final))


def _parts(state: FastWeightState | None, carry: bool) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if state is None else (state.fast, state.carried if carry else None)


class Call(NamedTuple):
    """What a call is, besides its tensors."""

    kernels: Kernels
    sizes: FastSizes
    max_strength: float
    outputs_wanted: bool
    states_wanted: bool
    kept: bool
    """Whether gradients will be wanted."""

    @property
    def threads(self) -> int:
        return min(torch.get_num_threads(), self.sizes.batch)

    @property
    def tile_batch(self) -> int:
        """Sequences per tile; results do not depend on it, but for the order of the sums over rows."""
        batch, threads = self.sizes.batch, self.threads
        tiles = math.ceil(math.ceil(batch / TILE_SEQUENCES) / threads) * threads
        return math.ceil(batch / min(batch, tiles))

    @property
    def tiles(self) -> int:
        return math.ceil(self.sizes.batch / self.tile_batch)


class Given(NamedTuple):
    """The tensors of a call, as the kernels want them; kept here because the kernels get addresses only."""

    p: Tensor
    memory: Tensor
    carried: Tensor | None
    lengths: Tensor | None
    reset: Tensor | None
    initial: Tensor | None
    initial_carried: Tensor | None
    parameters: list[Tensor]

    @staticmethod
    def of(p, memory, carried, lengths, reset, initial, initial_carried, *parameters) -> Given:
        if reset is not None and initial is None:
            initial = memory.new_zeros(memory[0].shape)
        if reset is not None and initial_carried is None:
            initial_carried = p.new_zeros(p.shape[2] - memory.shape[1] * memory.shape[2])
        return Given(
            p=_rows(p),
            memory=settled(memory).contiguous(),
            carried=None if carried is None else settled(carried).contiguous(),
            lengths=None if lengths is None else lengths.to(torch.int64).contiguous(),
            reset=None if reset is None else reset.contiguous(),
            initial=None if initial is None else settled(initial).contiguous(),
            initial_carried=None if initial_carried is None else settled(initial_carried).contiguous(),
            parameters=[settled(t).contiguous() for t in parameters],
        )


def _rows(t: Tensor) -> Tensor:
    """[B, T, ...] as [B, T, n], with what belongs to a step in one piece."""
    t = settled(t).flatten(2)
    return t if t.stride(2) == 1 else t.contiguous()


def _copy(d: Tensor | None, of: Tensor | None) -> Tensor | None:
    """A cotangent of something like `of`, to be worked on."""
    if of is None:
        return None
    return torch.zeros_like(of) if d is None else settled(d).clone(memory_format=torch.contiguous_format)


def _describe(call: Call, g: Given, kept: Tables) -> tuple[FastCall, Any]:
    """What forward and backward calls have in common, and what must live as long."""
    s = call.sizes
    assert call.kernels.library.fast_call_bytes() == ctypes.sizeof(FastCall)
    native = FastCall(*s, call.max_strength, call.tile_batch, call.kept)
    first = g.parameters[0]
    recurrent = [first, None, first[s.width :], None] if s.carry else [None] * 4
    parameters = addresses([*recurrent, *g.parameters[s.carry :]])
    native.parameters = ctypes.addressof(parameters)
    native.put(p=g.p)
    native.memory, native.carried = g.memory.data_ptr(), address(g.carried)
    native.lengths, native.reset = address(g.lengths), address(g.reset)
    native.initial, native.initial_carried = address(g.initial), address(g.initial_carried)
    if g.initial is not None and g.initial.dim() == 4:
        native.initial_batch = s.memory
    if g.initial_carried is not None and g.initial_carried.dim() == 2:
        native.initial_carried_batch = s.width
    native.activations = ctypes.addressof(kept.addresses)
    native.activation_widths = ctypes.addressof(kept.widths)
    return native, parameters


def _tables(call: Call, dtype: torch.dtype, memory: Tensor | None = None) -> Tables:
    s = call.sizes
    if not call.kept:
        return Tables(activation_widths(s), 1, call.threads * call.tile_batch, dtype, memory)
    steps = s.steps + s.carry  # one more for the output of the last step
    return Tables(activation_widths(s), steps, s.batch, dtype, memory)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Any) -> Any:
        g, s, dtype = Given.of(*tensors), call.sizes, tensors[0].dtype
        double = dtype == torch.float64
        kept = _tables(call, dtype)
        native, parameters = _describe(call, g, kept)
        outputs = g.p.new_empty(s.batch, s.steps, s.width) if call.outputs_wanted else None
        memories = None
        if call.states_wanted or call.kept:
            memories = fresh(s.batch * s.steps * s.memory, dtype).view(s.batch, s.steps, s.heads, s.key, s.value)
        final = torch.empty_like(g.memory)
        final_carried = None if g.carried is None else torch.empty_like(g.carried)
        room = {what: call.kernels.numbers(native, what, double=double) for what in Numbers}
        packed, scratch = fresh(room[Numbers.PACKED], dtype), fresh(call.threads * room[Numbers.SCRATCH], dtype)
        native.outputs, native.memories = address(outputs), address(memories)
        native.final, native.final_carried = final.data_ptr(), address(final_carried)
        native.packed, native.scratch = packed.data_ptr(), scratch.data_ptr()
        call.kernels.run(native, (Phase.PACK_FORWARD, Phase.FORWARD), call.threads, double=double)
        del parameters
        ctx.set_materialize_grads(False)
        ctx.call = call
        if call.kept:
            ctx.save_for_backward(*tensors, kept.memory, memories)
        return outputs, memories if call.states_wanted else None, final, final_carried

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        *tensors, kept, memories = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        if backward_against(cotangents):
            return None, *_plain_backward(ctx.call, tensors, needed, cotangents)
        gradients = _backward(ctx.call, Given.of(*tensors), kept, memories, cotangents)
        return None, *(d if need else None for d, need in zip(gradients, needed, strict=True))


def _backward(
    call: Call, g: Given, kept: Tensor, memories: Tensor, cotangents: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    s, dtype = call.sizes, g.p.dtype
    double = dtype == torch.float64
    activations = _tables(call, dtype, kept)
    differences = Tables(difference_widths(s), s.steps, s.batch, dtype, None)
    native, parameters = _describe(call, g, activations)
    native.differences = ctypes.addressof(differences.addresses)
    native.difference_widths = ctypes.addressof(differences.widths)
    native.memories = memories.data_ptr()
    d_outputs, d_memories = (None if d is None else _rows(d) for d in cotangents[:2])
    native.put(d_outputs=d_outputs, d_memories=d_memories)
    d_memory, d_carried = _copy(cotangents[2], g.memory), _copy(cotangents[3], g.carried)
    d_initial = torch.zeros_like(g.memory) if native.initial_batch else None
    d_initial_carried = torch.zeros_like(g.carried) if native.initial_carried_batch and g.carried is not None else None
    native.d_memory, native.d_carried = address(d_memory), address(d_carried)
    native.d_initial, native.d_initial_carried = address(d_initial), address(d_initial_carried)
    room = {what: call.kernels.numbers(native, what, double=double) for what in Numbers}
    packed, scratch = fresh(room[Numbers.PACKED], dtype), fresh(call.threads * room[Numbers.SCRATCH], dtype)
    sums = torch.zeros(call.tiles, room[Numbers.SUMS], dtype=dtype, device="cpu")
    native.packed, native.scratch, native.sums = packed.data_ptr(), scratch.data_ptr(), sums.data_ptr()
    call.kernels.run(native, (Phase.PACK_BACKWARD, Phase.BACKWARD), call.threads, double=double)
    del parameters
    norms = sums[:, : room[Numbers.SUMS] // 2].sum(0).view(s.reads + 2, 2, s.width)
    steps = s.steps if g.lengths is None else int(g.lengths.max())
    d_parameters = _parameter_gradients(s, steps, activations.tensors, differences.tensors, norms)
    d_p = torch.cat(differences.tensors[:2], -1).transpose(0, 1)
    return [d_p, d_memory, d_carried, None, None, d_initial, d_initial_carried, *d_parameters]


def _parameter_gradients(
    s: FastSizes, steps: int, activations: list[Tensor], differences: list[Tensor], norms: Tensor
) -> list[Tensor | None]:
    """Of every weight one product over all rows of all steps, in the order of `flatten`; `norms` [R + 2, 2, W]."""
    first, first_reads = len(Activations._fields), len(ReadActivations._fields)
    a = Activations(*activations[:first])
    reads = [ReadActivations(*activations[i : i + first_reads]) for i in range(first, len(activations), first_reads)]
    first, first_reads = len(Differences._fields), len(ReadDifferences._fields)
    d = Differences(*differences[:first])
    d_reads = [ReadDifferences(*differences[i : i + first_reads]) for i in range(first, len(differences), first_reads)]

    def linear(difference: Tensor, activation: Tensor) -> list[Tensor]:
        rows = difference[:steps].flatten(0, 1)
        return [torch.mm(rows.T, activation[:steps].flatten(0, 1)), rows.sum(0)]

    found: list[Tensor | None] = []
    if s.carry:
        found.append(torch.cat([linear(d.input, a.carried)[0], linear(d.keys, a.carried)[0]]))
    found += linear(d.hidden, a.mlp_input) + linear(d.mlp, a.hidden) + linear(d.written, a.writer)
    found += linear(d.out, a.found) if s.outputs_needed else [None, None]
    found += norms[s.reads]
    found += norms[s.reads + 1] if s.outputs_needed else [None, None]
    for one, d_one, norm in zip(reads, d_reads, norms[: s.reads], strict=True):
        found += linear(d_one.key, one.input) + linear(d_one.value, one.found) + list(norm)
    return found


def _plain_backward(
    call: Call, tensors: Sequence[Tensor | None], needed: tuple[bool, ...], cotangents: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """The backward pass by plain operations, through the reference; see `_plain_backward` of the relational scan."""
    tensors = own_leaves(tensors, needed)
    p, memory, carried, lengths, reset, initial, initial_carried, *parameters = tensors
    assert p is not None
    assert memory is not None
    with torch.enable_grad():
        scan = fast_weight_scan_reference(
            p,
            FastWeightState(memory, carried),
            unflatten([t for t in parameters if t is not None], call.sizes.heads, call.max_strength),
            lengths=lengths,
            reset=reset,
            initial=None if initial is None else FastWeightState(initial, initial_carried),
            outputs_wanted=call.outputs_wanted,
            states_wanted=call.states_wanted,
        )
    return pull_back((scan.outputs, scan.states, *scan.final), tensors, needed, cotangents)
