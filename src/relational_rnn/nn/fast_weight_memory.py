"""A memory of fast weights that is read before it is written."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as every_module

from relational_rnn._check import InputError, check_choice, check_positive, check_room, describe
from relational_rnn.nn._inputs import check_sequence, place_of
from relational_rnn.nn._plain import first_beyond, linear_of, norm_of
from relational_rnn.nn._recurrent import RecurrentCore
from relational_rnn.nn._stateful import blank
from relational_rnn.nn.core import Numbers, State, Tensors, select_state
from relational_rnn.nn.fast_weight_trace import FastWeightTrace, Step
from relational_rnn.nn.initial_weights import draw_truncated_normal
from relational_rnn.nn.readers import MatrixReader
from relational_rnn.nn.sizes import SizesOfFastWeights
from relational_rnn.ops.fast_weight_scan import (
    FAST_WEIGHT_BACKENDS,
    FastWeightBackend,
    FastWeightParameters,
    FastWeightScan,
    FastWeightState,
    Read,
    choose,
)
from relational_rnn.ops.fast_weight_scan.cpu import fast_weight_scan_cpu
from relational_rnn.ops.fast_weight_scan.reference import unit
from relational_rnn.ops.fast_weight_scan.step import prepare
from relational_rnn.ops.relational_scan import BackendReport
from relational_rnn.ops.relational_scan.pieces import in_pieces, valid_steps
from relational_rnn.ops.relational_scan.ready import StepCache

# Axes: G = B * H matrices: inside a step, batch and heads are one axis, as batched products want it; the others are
# those of the class.

_PIECE_ROWS = 2048  # sequences times steps whose input is projected together without gradients
KEPT_AT_FIRST = 8.0
"""The first bias of forgetting: a step keeps sigmoid(8) = 99.97 %."""
WRITTEN_AT_FIRST = 4.0
"""The first bias of the strength: a write is nearly whole. Chains are not learned from facts written by half."""


class FastWeightMemory(RecurrentCore[Tensors]):
    r"""A memory that maps keys to values. A step reads it, then corrects what it holds.

    Each head keeps a matrix S from keys to values. A step takes the input and reads R times, each time in view of what
    the read before has found. Here S is the memory before the step, key(z) scales each head's K numbers to length 1,
    and each LN is a layer norm of its own:

    $$ (h, c) = W_x x_t + b + U y_{t-1}, \qquad h \leftarrow \mathrm{LN}(h + R_j [S^\top \mathrm{key}(Q_j h)])
       \quad (j = 1 \ldots R), \qquad h \leftarrow \mathrm{LN}(h + A\, \mathrm{relu}(B h)) $$

    The key k = key(c) comes from the input and the output before, so that a value that follows its name is written
    under it; not from the reads, so that facts about one thing lie under one key. A linear map of h gives q (scaled to
    length 1), the value v, and by sigmoids the strength beta in (0, max_strength) and the share to keep alpha. The
    memory forgets, writes the difference between the value and what it holds for the key, and is read once more:

    $$ S_t = \alpha_t S_{t-1} + k_t\, (\beta_t (v_t - \alpha_t S_{t-1}^\top k_t))^\top, \qquad
       y_t = \mathrm{LN}(h + P [S_t^\top q_t]) $$

    `GatedDeltaNet` has the same rule of writing, but writes what depends on the inputs alone, so that a sequence is
    computed in linear time. Here a write depends on what was read, so steps come one after another.

    Sources: fast weights, Schmidhuber (1992); reading before writing, TPR-RNN (Schlag and Schmidhuber, 2018, arXiv
    1811.12143); several reads in a row, FWM (Schlag et al., 2021, arXiv 2011.07831); the delta rule, DeltaNet (Schlag
    et al., 2021, arXiv 2102.11174), with forgetting, Yang et al. (2024, arXiv 2412.06464); max_strength = 2, with which
    a write can turn round what a key holds, to count modulo 2, Grazzi et al. (2024, arXiv 2411.12537).

    Args:
        reads: reads before the write, R.
        carry: whether a step sees the output of the step before (U y). Without it, the memory is the whole state, and
            keys come from the input alone.
        max_strength: the strongest correction, in (0, 2].
        backend: what runs whole sequences: "reference" (PyTorch operations, step by step), "cpu" (compiled kernels,
            forward and backward), or "auto", which chooses, as `backend_report` tells. A name is obeyed or refused.
            Single steps are run by the kernels where no gradient is wanted; traces are always PyTorch operations.

    Shape:
        With I = input_size, W = hidden_size, H = num_heads, K = key_size and V = value_size: x [B, T, I];
        output [B, T, W]; state {"fast": [B, H, K, V], "carried": [B, W]}, zeros at the start; without `carry`
        {"fast": [B, H, K, V]} alone.

    Example:
        >>> core = FastWeightMemory(input_size=5, hidden_size=8, num_heads=2, key_size=4, value_size=6)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state["fast"].shape, state["carried"].shape
        (torch.Size([7, 11, 8]), torch.Size([7, 2, 4, 6]), torch.Size([7, 8]))
    """

    attended = "fast"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_heads: int = 4,
        key_size: int = 16,
        value_size: int = 16,
        reads: int = 1,
        carry: bool = True,
        max_strength: float = 1.0,
        backend: FastWeightBackend = "auto",
    ) -> None:
        super().__init__()
        SizesOfFastWeights.among(locals())
        check_positive("FastWeightMemory", input_size=input_size, hidden_size=hidden_size)
        check_choice("FastWeightMemory", "backend", backend, FAST_WEIGHT_BACKENDS)
        self.input_size = input_size
        self.output_size = self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.key_size = key_size
        self.value_size = value_size
        self.max_strength = max_strength
        self.backend: FastWeightBackend = backend
        keys, values = num_heads * key_size, num_heads * value_size
        self.parts = (keys, values, num_heads, num_heads)  # q of every head, v, beta, alpha
        outputs = input_size + 3 * hidden_size + keys + reads * (keys + values) + sum(self.parts) + values
        check_room("FastWeightMemory", hidden_size * outputs, input_size * keys, keys * value_size)
        self.input = nn.Linear(input_size, hidden_size)
        self.write_key = nn.Linear(input_size, keys)
        self.recurrent = nn.Linear(hidden_size, hidden_size + keys, bias=False) if carry else None
        self.read_key = nn.ModuleList(nn.Linear(hidden_size, keys) for _ in range(reads))
        self.read_value = nn.ModuleList(nn.Linear(values, hidden_size) for _ in range(reads))
        self.read_norm = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(reads))
        self.mlp_in = nn.Linear(hidden_size, hidden_size)
        self.mlp_out = nn.Linear(hidden_size, hidden_size)
        self.mlp_norm = nn.LayerNorm(hidden_size)
        self.write = nn.Linear(hidden_size, sum(self.parts))
        self.out = nn.Linear(values, hidden_size)
        self.out_norm = nn.LayerNorm(hidden_size)
        self._steps = StepCache()
        self.reset_parameters()

    def __getstate__(self) -> dict[str, Any]:
        # a shallow copy, too, has steps of its own: what is ready is of the modules that this one has now
        return {**self.__dict__, "_steps": StepCache()}

    def reset_parameters(self) -> None:
        draw_truncated_normal(self)
        # what a read finds counts only once the core has learned what to look for
        for from_value in self.read_value:
            assert isinstance(from_value, nn.Linear)
            nn.init.zeros_(from_value.weight)
        strengths, keeps = self.write.bias.detach()[-2 * self.num_heads :].chunk(2)
        nn.init.constant_(strengths, WRITTEN_AT_FIRST)
        nn.init.constant_(keeps, KEPT_AT_FIRST)

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int]]:
        fast = {"B": batch_size, "H": self.num_heads, "K": self.key_size, "V": self.value_size}
        carried = {} if self.recurrent is None else {"carried": {"B": batch_size, "W": self.hidden_size}}
        return {"fast": fast, **carried}

    def project_input(self, x: Tensor) -> Tensor:
        return torch.cat([self.input(x), self.write_key(x)], -1)

    def advance(self, projected_t: Tensor, state: Tensors) -> Tensors:
        taken = self.take(projected_t, state)
        return {"fast": taken.memory.unflatten(0, (-1, self.num_heads)), "carried": taken.output}

    def output(self, state: Tensors) -> Tensor:
        return state["carried"]

    def strip(self, state: Tensors) -> Tensors:
        return state if self.recurrent is not None else {"fast": state["fast"]}

    def reader(self, size: int, looks: int, heads: int) -> MatrixReader:
        """How a question looks at a state: with a query of its own for every head. `heads` is for attention."""
        return MatrixReader(itemgetter("fast"), (self.num_heads, self.key_size, self.value_size), size, looks)

    def step(self, x_t: Tensor, state: State, *, reset: Tensor | None = None) -> tuple[Tensor, Tensors]:
        if reset is None and isinstance(state, dict):  # one that is ready was checked before
            taken = self._ready_step(x_t, state)
            if taken is not None:
                return taken
        return super().step(x_t, state, reset=reset)

    def run_step(self, x_t: Tensor, state: Tensors, reset: Tensor | None) -> tuple[Tensor, Tensors]:
        if reset is not None:
            state = select_state(reset, self.initial_state(x_t.shape[0]), state)
        taken = self._ready_step(x_t, state, checked=True)
        return super().run_step(x_t, state, None) if taken is None else taken

    def _ready_step(self, x_t: Tensor, state: Tensors, *, checked: bool = False) -> tuple[Tensor, Tensors] | None:
        """A step without gradients by the compiled kernels; or None. What is not `checked` is taken only if a step of
        its size was taken before."""
        if self.backend == "reference" or torch.compiler.is_compiling() or every_module._has_any_global_hook():
            return None
        if len(state) != 1 + (self._modules.get("recurrent") is not None):
            return None
        given = [state[name] for name in ("fast", "carried") if name in state]
        taken = self._steps.step(x_t, *given)
        plain = [*self._inner(), self.input, self.write_key] if taken is None and checked else []
        if plain and not torch.is_grad_enabled() and first_beyond(self, plain, without_bias=self.recurrent) is None:
            inputs = linear_of(self.input), linear_of(self.write_key)
            start, params = FastWeightState(*given), self._parameters_of_scan()
            if prepare(self._steps, x_t, start, params, inputs, self, plain, ("num_heads", "max_strength")):
                taken = self._steps.step(x_t, *given)
        if taken is None:
            return None
        y, after = taken
        return y, {name: t for name, t in after._asdict().items() if t is not None}

    def run(self, x: Tensor, state: Tensors, lengths: Tensor | None, reset: Tensor | None) -> tuple[Tensor, Tensors]:
        given = [x, lengths, reset, *state.values(), *self.parameters()]
        together = max(1, _PIECE_ROWS // max(1, x.shape[0]))
        (y,), after = in_pieces(self._by_kernels, together, x, state, lengths, reset, given=given)
        return y, after

    def _by_kernels(
        self, x: Tensor, state: Tensors, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[list[Tensor], Tensors]:
        """All steps by the kernels; by operations where they do not run."""
        scan = self._scan(x, state, lengths, reset, states=False)
        if scan is None:
            y, after = super().run(x, state, lengths, reset)
            return [y], after
        assert scan.outputs is not None
        return [scan.outputs], {name: t for name, t in scan.final._asdict().items() if t is not None}

    def run_until(self, x: Tensor, state: Tensors, rows: Tensor, at: Tensor) -> Tensors:
        scan = self._scan(x, state, None, None, states=True)
        if scan is None:
            return super().run_until(x, state, rows, at)
        every = {"fast": scan.states, "carried": scan.outputs}

        def pick(first: Tensor, after: Tensor | None) -> Tensor:
            """Of a state's tensor before the first step and after every one."""
            assert after is not None
            chosen = after[rows, (at - 1).clamp(min=0)]
            return torch.where((at > 0).view(-1, *[1] * (first.dim() - 1)), chosen, first[rows])

        return {name: pick(first, every[name]) for name, first in state.items()}

    def backend_report(self, x: Tensor | None = None) -> BackendReport:
        """What runs the sequence `x` [B, T, I] now, and why; without `x`, what runs a long sequence.

        Raises:
            InputError: the backend that was asked for cannot run it.

        Example:
            >>> print(FastWeightMemory(input_size=5, hidden_size=8, backend="reference").backend_report())
            backend='reference' runs 'reference': it was asked for
        """
        if x is None:
            device, dtype = place_of(self)
            x = torch.zeros(1, 64, self.input_size, device=device, dtype=dtype)
        if self.backend == "reference":
            return BackendReport(asked=self.backend, runs="reference", why="it was asked for")
        odd = self._beyond_kernels()
        if odd is not None:
            why = f"the CPU scan cannot run here: it calls no inner modules, and {odd}"
            return BackendReport(asked=self.backend, runs="reference", why=why)
        state = FastWeightState(**self.initial_state(x.shape[0]))
        return choose(self.backend, self.project_input(x), state, self._parameters_of_scan())

    def _beyond_kernels(self) -> str | None:
        """Why the kernels, which do not call the inner layers, would miss something; or None. Refused by name."""
        odd = first_beyond(self, self._inner(), without_bias=self.recurrent)
        if odd is not None and self.backend == "cpu":
            problem = f"backend 'cpu' cannot run here: it calls no inner modules, and {odd}"
            hint = "backend='reference' calls every module, and so does 'auto' here."
            raise InputError(describe("FastWeightMemory", problem, hint=hint))
        return odd

    def _project_together(self, x: Tensor) -> Tensor:
        """`project_input` by one product, where its two layers are no more than their weights."""
        if first_beyond(self, [self.input, self.write_key]) is not None:
            return self.project_input(x)
        weights, biases = zip(linear_of(self.input), linear_of(self.write_key), strict=True)
        return F.linear(x, torch.cat(weights), torch.cat(biases))

    def _inner(self) -> list[nn.Module]:
        """The modules that the kernels compute without calling them."""
        inner = [self.mlp_in, self.mlp_out, self.mlp_norm, self.write, self.out, self.out_norm]
        inner += [*self.read_key, *self.read_value, *self.read_norm]
        return inner if self.recurrent is None else [*inner, self.recurrent]

    def _scan(
        self, x: Tensor, state: Tensors, lengths: Tensor | None, reset: Tensor | None, *, states: bool
    ) -> FastWeightScan | None:
        """The sequence by the kernels, or None where the steps are taken one by one."""
        if self.backend == "reference" or self._beyond_kernels() is not None:
            return None
        if lengths is not None:
            x = blank(x, valid_steps(lengths, x.shape[1]))
        projected, params = self._project_together(x), self._parameters_of_scan()
        given = FastWeightState(**state)
        initial = None if reset is None else FastWeightState(**self.initial_state(x.shape[0]))
        if choose(self.backend, projected, given, params, initial).runs == "reference" or 0 in x.shape[:2]:
            return None
        return fast_weight_scan_cpu(
            projected,
            given,
            params,
            lengths=lengths,
            reset=reset,
            initial=initial,
            outputs_wanted=not states or self.recurrent is not None,
            states_wanted=states,
        )

    def _parameters_of_scan(self) -> FastWeightParameters:
        """The parameters as `fast_weight_scan` takes them."""
        reads = zip(self.read_key, self.read_value, self.read_norm, strict=True)
        return FastWeightParameters(
            num_heads=self.num_heads,
            max_strength=self.max_strength,
            recurrent=None if self.recurrent is None else self.recurrent.weight,
            reads=tuple(Read(linear_of(key), linear_of(value), norm_of(norm)) for key, value, norm in reads),
            mlp_in=linear_of(self.mlp_in),
            mlp_out=linear_of(self.mlp_out),
            mlp_norm=norm_of(self.mlp_norm),
            write=linear_of(self.write),
            out=linear_of(self.out),
            out_norm=norm_of(self.out_norm),
        )

    def take(self, projected_t: Tensor, state: Tensors) -> Step:
        """One step, with all that it computed."""
        memory = state["fast"].flatten(0, 1)
        if self.recurrent is not None:
            projected_t = projected_t + self.recurrent(state["carried"])
        h, key = projected_t.tensor_split([self.hidden_size], -1)
        read_keys, reads = [], []
        for to_key, from_value, norm in zip(self.read_key, self.read_value, self.read_norm, strict=True):
            # Autocast multiplies in half precision; lengths, shares and the memory keep their own.
            read_keys.append(unit(to_key(h).to(memory.dtype).reshape(-1, 1, self.key_size)))
            reads.append(torch.bmm(read_keys[-1], memory))
            h = norm(h + from_value(self.side_by_side(reads[-1])))
        h = self.mlp_norm(h + self.mlp_out(torch.relu(self.mlp_in(h))))
        query, value, strength, keep = self.write(h).to(memory.dtype).split(self.parts, -1)
        key, query = (part.to(memory.dtype).reshape(-1, 1, self.key_size) for part in (key, query))
        keys = unit(torch.cat([key, query], 1))
        value = value.reshape(-1, 1, self.value_size)
        strength = self.max_strength * torch.sigmoid(strength).reshape(-1, 1, 1)
        keep = torch.sigmoid(keep).reshape(-1, 1, 1)
        memory, found = write_and_read(memory, keys, value, strength, keep)
        y = self.out_norm(h + self.out(self.side_by_side(found)))
        return Step(read_keys, reads, keys, value, strength, keep, found, memory, y.to(memory.dtype))

    def side_by_side(self, values: Tensor) -> Tensor:
        """Values [G, 1, V] of every head as vectors [B, H * V]."""
        return values.reshape(-1, self.num_heads * self.value_size)

    def trace(
        self, x: Tensor, state: State | None = None, *, lengths: Numbers | None = None, reset: Tensor | None = None
    ) -> FastWeightTrace:
        """What every step wrote and read; the arguments and the arithmetic are those of a call.

        The trace is differentiable. `trace.origins(query)` says which writes a read of the memory comes from. It costs
        the time of a call, and for each step and row of the batch little more than the H * K * V numbers of the memory.

        Example:
            >>> core = FastWeightMemory(input_size=5, hidden_size=8, num_heads=2, key_size=4, value_size=6, reads=3)
            >>> trace = core.trace(torch.zeros(7, 11, 5))
            >>> trace.keys.shape, trace.read.shape  # batch, time, (read,) head, numbers of a key or value
            (torch.Size([7, 11, 2, 4]), torch.Size([7, 11, 3, 2, 6]))
            >>> trace.origins(trace.output_keys[:, -1]).shape
            torch.Size([7, 11, 2])
        """
        lengths = check_sequence(self, x, lengths, reset)
        batch, steps = x.shape[:2]
        first, now = self.initial_state(batch), self.started(state, batch)
        start = now["fast"]
        happens = valid_steps(torch.full((batch,), steps, device=x.device) if lengths is None else lengths, steps)
        if steps == 0:  # one step that does not happen has the shapes
            x, happens, reset = x.new_zeros(batch, 1, self.input_size), happens.new_zeros(batch, 1), None
        taken, memories = [], []
        for t, projected_t in enumerate(self.project_input(blank(x, happens)).unbind(1)):
            if reset is not None:
                now = select_state(reset[:, t] & happens[:, t], first, now)
            step = self.take(projected_t, now)
            after = {"fast": step.memory.unflatten(0, (-1, self.num_heads)), "carried": step.output}
            now = select_state(~happens[:, t], now, after)
            taken.append(step)
            memories.append(now["fast"])
        return FastWeightTrace.of(taken, memories, start, happens, reset, steps)


def write_and_read(
    memory: Tensor, keys: Tensor, value: Tensor, strength: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """The gated delta rule on `memory` [G, K, V]: the memory after the write, and what is read from it [G, 1, V].

    `keys` [G, 2, K] are those of the write and of the read; `value` is [G, 1, V], `strength` (beta) and `keep` (alpha)
    [G, 1, 1].
    """
    key, query = keys.chunk(2, 1)
    held, seen = torch.bmm(keep * keys, memory).chunk(2, 1)  # of what is kept, which may be in range where all is not
    correction = strength * (value - held)
    # What the query reads after the write is what it saw before and its share of the correction. So the memory, by far
    # the largest tensor of a step, is not read again.
    found = seen + (query * key).sum(-1, keepdim=True) * correction
    return keep * memory + torch.bmm(key.mT, correction), found
