"""The one table of cores: a new core is one row here, and every suite in test_cores_*.py runs on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from relational_rnn.nn._growing import CachedAttentionCore
from relational_rnn.nn.attention import AttentionLSTM
from relational_rnn.nn.compat import PortedRelationalMemory
from relational_rnn.nn.core import Core, State, map_state
from relational_rnn.nn.dnc import DNC
from relational_rnn.nn.fast_weight_memory import FastWeightMemory
from relational_rnn.nn.gated_delta_net import GatedDeltaNet
from relational_rnn.nn.gru import GRU
from relational_rnn.nn.lstm import LSTM
from relational_rnn.nn.ntm import NTM
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.nn.rnn import RNN
from relational_rnn.nn.transformer import Transformer
from relational_rnn.nn.universal_transformer import UniversalTransformer
from relational_rnn.ops.relational_scan.cpu import kernels_report

# Distinct on every axis, so that swapped axes cannot pass.
BATCH, STEPS, INPUTS = 5, 7, 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """A core small enough for every suite."""

    name: str
    create: Callable[[], Core]
    """The core with INPUTS features per step."""
    autocast_error: float = 1.0
    """Factor on how far an output under autocast may be off; another one than 1 has its reason beside it."""
    excluded: dict[str, str] = field(default_factory=dict)
    """Tests that do not run on this core, by name without `test_`, each with its reason."""

    def core(self, dtype: torch.dtype = torch.float64) -> Core:
        """A fresh core, the same one at every call, with no bias and no gain left at its special starting value."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            core = self.create().double()
            with torch.no_grad():
                for parameter in core.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape, dtype=torch.float64))
        return core.to(dtype)


WINDOWED = dict.fromkeys(
    (
        "exported_step_is_the_step",
        "exported_sequence_is_the_sequence",
        "onnx_step_is_the_step",
        "onnx_sequence_is_the_sequence",
    ),
    "the exported state has as many columns as the window, holes among them; tests of its own compare it",
)
REFUSED = "the backend refuses it by name; its own tests pin how"
REFUSED_BY_CPU = {
    name: REFUSED
    for name in (
        "autocast_is_close_to_float32",
        "zeros_give_numbers_in_every_precision",
        "vmap_over_the_batch",
        "vmap_over_an_ensemble",
        "gradients_of_every_row_on_its_own",
        "compile_is_one_graph",
    )
}
UNBATCHED = {"x_of_the_wrong_rank": "also takes input without a batch axis; its own tests pin what it refuses"}
CASES = [
    Case(
        name="rmc",
        create=lambda: RelationalMemory(INPUTS, 4, 2, num_heads=3, key_size=5),
        excluded=UNBATCHED,
    ),
    Case(
        name="rmc_chapter",
        create=lambda: RelationalMemory(
            INPUTS, 4, 3, num_heads=2, gate_style=None, formulation="chapter", read_head="attention", output_size=9
        ),
        excluded=UNBATCHED,
    ),
    Case(
        name="rmc_cpu",
        create=lambda: RelationalMemory(
            INPUTS,
            4,
            2,
            num_heads=3,
            num_blocks=2,
            gate_style="memory",
            backend="cpu" if kernels_report().startswith("compiled") else "reference",
            activations="recompute",
        ),
        excluded=UNBATCHED | REFUSED_BY_CPU,
    ),
    Case(
        name="rmc_reference",
        create=lambda: RelationalMemory(INPUTS, 4, 2, num_heads=3, key_size=5, backend="reference"),
        excluded=UNBATCHED,
    ),
    Case(
        name="rmc_competitive",
        create=lambda: RelationalMemory(INPUTS, 4, 2, num_heads=3, key_size=5, gate_style="competitive"),
        excluded=UNBATCHED,
    ),
    Case(
        name="rmc_competitive_blocks",
        create=lambda: RelationalMemory(
            INPUTS, 6, 5, num_heads=2, num_blocks=2, gate_style="competitive", read_head="input", backend="reference"
        ),
        excluded=UNBATCHED,
    ),
    Case(name="ported", create=lambda: PortedRelationalMemory(INPUTS, 4, 2, num_heads=3, num_blocks=2, key_size=5)),
    Case(name="rnn", create=lambda: RNN(INPUTS, 6)),
    Case(name="gru", create=lambda: GRU(INPUTS, 6)),
    Case(name="lstm", create=lambda: LSTM(INPUTS, 6)),
    Case(name="attention", create=lambda: AttentionLSTM(INPUTS, 6)),
    Case(
        name="transformer",
        create=lambda: Transformer(INPUTS, 8, num_layers=3, num_heads=2, feedforward_size=10),
    ),
    Case(
        name="transformer_window",
        create=lambda: Transformer(INPUTS, 8, num_layers=2, num_heads=2, feedforward_size=10, window=4),
        excluded=WINDOWED,
    ),
    Case(
        name="attention_window",
        create=lambda: AttentionLSTM(INPUTS, 6, window=3),
        excluded=WINDOWED,
    ),
    Case(
        name="ntm",
        create=lambda: NTM(INPUTS, 6, memory_slots=5, word_size=4, read_heads=2, write_heads=3, output_size=8),
    ),
    Case(
        name="universal",
        create=lambda: UniversalTransformer(INPUTS, 8, num_passes=3, num_heads=2, feedforward_size=10),
    ),
    Case(
        name="deltanet",
        create=lambda: GatedDeltaNet(INPUTS, 6, num_heads=2, feedforward_size=10, chunk_size=3),
        # A read near 0, of a query at a right angle to the keys, is scaled up to size 1, and its rounding with it.
        autocast_error=4.0,
    ),
    Case(name="dnc", create=lambda: DNC(INPUTS, 6, memory_slots=5, word_size=4, read_heads=2, output_size=8)),
    Case(
        name="fastweights",
        create=lambda: FastWeightMemory(INPUTS, 12, num_heads=4, key_size=10, value_size=6, reads=2, max_strength=2.0),
    ),
    Case(
        name="fastweights_alone",
        create=lambda: FastWeightMemory(INPUTS, 9, num_heads=4, key_size=6, value_size=2, carry=False),
    ),
]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers, the same ones for the same shape and seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1000 + seed), dtype=torch.float64).to(dtype)


def some_state(core: Core, batch_size: int = BATCH, steps: int = 2) -> State:
    """A state that is not the initial one: the state after a few random steps."""
    dtype = next(core.parameters()).dtype
    with torch.no_grad():
        return core(draw(batch_size, steps, INPUTS, seed=99, dtype=dtype))[1]


def row_of(core: Core, state: State, row: int) -> State:
    """The state of one row as a batch of one, without the stored steps that it no longer sees."""
    state = map_state(lambda tensor: tensor[row : row + 1], state)
    return core.compact(state) if isinstance(core, (AttentionLSTM, CachedAttentionCore)) else state


def assert_same_row(core: Core, a: State, row_a: int, b: State, row_b: int, **tolerance: float) -> None:
    """Row `row_a` of state `a` equals row `row_b` of state `b`."""
    tolerance = tolerance or {"rtol": 0.0, "atol": 1e-12}
    torch.testing.assert_close(row_of(core, a, row_a), row_of(core, b, row_b), **tolerance)


def assert_same_state(core: Core, a: State, b: State, batch_size: int = BATCH, **tolerance: float) -> None:
    """Both states are the same, row by row."""
    for row in range(batch_size):
        assert_same_row(core, a, row, b, row, **tolerance)


def assert_close(a: Tensor, b: Tensor, **tolerance: float) -> None:
    """Equal to float64 rounding, unless told otherwise."""
    torch.testing.assert_close(a, b, **(tolerance or {"rtol": 0.0, "atol": 1e-12}))


def one_row_by_steps(
    core: Core, x: Tensor, state: State | None, length: int, reset: Tensor | None = None
) -> tuple[Tensor, State]:
    """The plainest reading of the contract, for one row alone: step by step, starting anew at every reset."""
    state = core.initial_state(1) if state is None else state
    y = torch.zeros(x.shape[0], core.output_size, dtype=x.dtype)
    for t in range(length):
        if reset is not None and reset[t]:
            state = core.initial_state(1)
        y_t, state = core.step(x[t].unsqueeze(0), state)
        y[t] = y_t.squeeze(0)
    return y, state
