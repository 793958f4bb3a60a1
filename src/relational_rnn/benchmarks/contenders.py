"""Who takes part: every backend of the layer, PyTorch's own layers, and the port of L0SG where a checkout is named."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError
from relational_rnn.benchmarks.l0sg import load_port
from relational_rnn.benchmarks.shapes import Case, Shape, lstm_flop, memory_flop, transformer_flop
from relational_rnn.nn import RelationalMemory
from relational_rnn.nn.cores import count_on_meta, count_parameters, nearest_size
from relational_rnn.ops.relational_scan import (
    BACKENDS,
    ActivationMode,
    Backend,
    relational_scan_reference,
    relational_step,
)

LAYER = "relational_rnn:"
RECOMPUTE = ", recompute"
STEP, LSTM, LSTM_STATE, TRANSFORMER, L0SG = (
    f"{LAYER}step",
    "nn.LSTM",
    "nn.LSTM, equal state",
    "nn.TransformerEncoder",
    "L0SG",
)
TRANSFORMER_LAYERS, TRANSFORMER_HEADS = 3, 4
STEPS_PER_TURN = 100
"""Single steps that are timed together, each from the state that the one before it left, as a stream is read."""
DEFINITION_STEPS = 1024
"""The plain definition is timed up to here, as it takes the same time for every step; and so is the Transformer where
no sweep over T asks for it, as every step of it takes longer than the one before."""
LONE_CONTENDERS = {"T": (LSTM, TRANSFORMER), "slots": (LSTM, LSTM_STATE, TRANSFORMER), "batch": (LSTM, TRANSFORMER)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """On what and in which numbers."""

    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    l0sg: Path | None = None
    """A checkout of the port; building it runs its code."""

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """Something that can be timed."""

    name: str
    run: Callable[[], list[Tensor]]
    """One pass: the output and, in a training pass, the gradients of the input and of every parameter."""
    parameters: int
    state_size: int
    """Numbers it carries from step to step for one sequence, after the last step."""
    flop: float
    """Operations of the pass that cannot be avoided."""
    turn: Callable[[], object]
    """What is timed: the pass, or `STEPS_PER_TURN` single steps."""


def names(case: Case, setting: Setting) -> tuple[list[str], dict[str, str]]:
    """The contenders of a case, and why others cannot run (by name, one line)."""
    found: list[str] = [STEP] if case.run == "step" else []
    refused: dict[str, str] = {}
    long = case.shape.steps > DEFINITION_STEPS
    for backend in BACKENDS:
        name = f"{LAYER}{backend}"
        if interpreted(backend, setting.device):
            refused[name] = INTERPRETED
            continue
        slow = backend == "reference" and (case.sweep == "recompute" or (long and case.sweep in ("T", None)))
        if backend == "auto" or slow:
            continue
        for suffix in ("", RECOMPUTE) if case.sweep == "recompute" else ("",):
            try:
                memory(case.shape, setting, name + suffix).backend_report(_input(case, setting))
                found.append(name + suffix)
            except InputError as error:
                refused[name + suffix] = str(error).splitlines()[0]
    if case.sweep not in ("recompute", None):
        found += LONE_CONTENDERS[case.sweep]
    elif case.sweep is None:
        found += [LSTM, LSTM_STATE] if case.run == "step" or long else [LSTM, LSTM_STATE, TRANSFORMER]
        found += [L0SG] if setting.l0sg is not None else []
    return found, refused


def interpreted(backend: str, device: str) -> bool:
    """Whether a backend could run there under an interpreter alone, which tells nothing about speed."""
    return backend == "triton" and device == "cpu"


INTERPRETED = "on the CPU it runs under Triton's interpreter alone, which is for tests"


def chosen_backend(case: Case, setting: Setting) -> str:
    """What backend="auto" runs at this case."""
    if case.run == "step":
        return "step"
    return memory(case.shape, setting, f"{LAYER}auto").backend_report(_input(case, setting)).runs


def build(case: Case, setting: Setting, name: str) -> Contender:
    """A contender with weights and inputs that are functions of the case alone."""
    s = case.shape
    x = _input(case, setting)
    torch.manual_seed(1)
    if name.startswith(LAYER):
        layer = memory(s, setting, name)
        flop, state_size = memory_flop(s), s.state_size
        if name == STEP:
            x_t, start = x[:, 0], layer.initial_state(s.batch)
            module, call = layer, lambda state=None: layer.step(x_t, start if state is None else state)
        else:
            module, call = layer, lambda state=None: layer(x, state)
    elif name in (LSTM, LSTM_STATE):
        hidden = lstm_size(s, equal_state=name == LSTM_STATE)
        lstm = _to(nn.LSTM(s.input_size, hidden, batch_first=True), setting)
        module, call = lstm, lambda state=None: lstm(x, state)
        flop, state_size = lstm_flop(s, hidden), 2 * hidden
    elif name == TRANSFORMER:
        encoder = _to(CausalEncoder(s.input_size, *transformer_size(s), steps=s.steps), setting)
        encoder.train(case.run == "train")
        module, call = encoder, lambda state=None: (encoder(x), state)
        flop = transformer_flop(s, encoder.width, encoder.feedforward, TRANSFORMER_LAYERS)
        state_size = 2 * TRANSFORMER_LAYERS * encoder.width * s.steps
    else:
        assert name == L0SG
        assert setting.l0sg is not None
        module, call = _port(s, setting, x)
        flop, state_size = memory_flop(s), s.state_size
    run = one_pass(case, x, module, lambda: call()[0] if name == STEP else _of(case, call()[0]))
    return Contender(
        name=name,
        run=run,
        turn=run if case.run != "step" else some_steps(call),
        parameters=count_parameters(module),
        state_size=state_size,
        flop=flop * (3 if case.run == "train" else 1),
    )


def one_pass(case: Case, x: Tensor, module: nn.Module, call: Callable[[], Tensor]) -> Callable[[], list[Tensor]]:
    """What is timed: the call, and in a training pass its backward to the input and to every parameter."""
    if case.run != "train":

        def infer() -> list[Tensor]:
            with torch.no_grad():
                return [call()]

        return infer
    with torch.no_grad():
        shape = call().shape
    cotangent = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(x)
    leaves = [x, *module.parameters()]

    def train() -> list[Tensor]:
        y = call()
        return [y.detach(), *torch.autograd.grad(y, leaves, cotangent)]

    return train


def some_steps(call: Callable[[Any], tuple[Tensor, Any]]) -> Callable[[], Any]:
    """Single steps in a row without gradients, as many as a turn has; gives the state after the last one."""

    def steps() -> Any:
        state = None
        with torch.no_grad():
            for _ in range(STEPS_PER_TURN):
                _, state = call(state)
        return state

    return steps


def definition(case: Case, setting: Setting, *, exact: bool = False) -> list[Tensor]:
    """What every backend must give: the same pass by the plain definition, on the weights and the input of `build`.

    With `exact` it is computed in float64, from the same numbers.
    """
    torch.manual_seed(1)
    layer = memory(case.shape, setting, f"{LAYER}reference")
    x = _input(case, setting)
    if exact:
        layer, x = layer.double(), x.detach().double().requires_grad_(x.requires_grad)
    cell = layer.cell()

    def call() -> Tensor:
        start, params = cell.initial_memory(case.shape.batch), cell.scan_parameters()
        if case.run == "step":
            return relational_step(x[:, 0].unsqueeze(1), start, params).memory.flatten(1)
        return relational_scan_reference(x.unsqueeze(2), start, params).memories.flatten(2)

    return one_pass(case, x, layer, call)()


def memory(s: Shape, setting: Setting, name: str) -> RelationalMemory:
    """The layer with the backend that a contender's name ends with."""
    backend = name.removeprefix(LAYER).removesuffix(RECOMPUTE)
    activations: ActivationMode = "recompute" if name.endswith(RECOMPUTE) else "store"
    layer = RelationalMemory(
        s.input_size,
        s.mem_slots,
        s.head_size,
        num_heads=s.num_heads,
        key_size=s.key_size,
        attention_mlp_layers=s.mlp_layers,
        backend="auto" if name == STEP else cast(Backend, backend),
        activations=activations,
    )
    calm(layer)
    return _to(layer, setting)


def calm(layer: RelationalMemory) -> None:
    """Change the initial weights so that float32 can be judged, whatever the length; the time does not depend on them.

    As it is drawn, the layer is chaotic over thousands of steps: a rounding error grows like any other. A smaller gain
    of the last layer norm makes it forget instead. And no unit of the MLP may be so near to the kink of its ReLU that
    rounding decides whether it is on: biases of 1 and -1 in turn, beside small weights, keep them all away from it.
    """
    cell = layer.cell()
    with torch.no_grad():
        for block in cell.blocks:
            cast(nn.LayerNorm, block.mlp_norm).weight.mul_(0.25)
        for linear in cell.mlp:
            assert isinstance(linear, nn.Linear)
            linear.weight.mul_(0.1)
            linear.bias[::2] = 1
            linear.bias[1::2] = -1


@functools.cache
def memory_parameters(s: Shape) -> int:
    """Trainable numbers of the relational memory; what rivals are sized to."""
    return count_on_meta(lambda: memory(s, Setting(device="meta"), f"{LAYER}auto"))


@functools.cache
def lstm_size(s: Shape, *, equal_state: bool) -> int:
    """Hidden size of an LSTM with as many parameters as the relational memory, or as many numbers in h and c."""
    if equal_state:
        return max(1, s.state_size // 2)
    target = memory_parameters(s)
    return nearest_size(lambda size: count_on_meta(lambda: nn.LSTM(s.input_size, size)), target)


@functools.cache
def transformer_size(s: Shape) -> tuple[int, int]:
    """Width and feed-forward size of an encoder with as many parameters as the relational memory."""
    target = memory_parameters(s)

    def count(width: int, feedforward: int) -> int:
        return count_on_meta(lambda: CausalEncoder(s.input_size, width, feedforward, steps=1))

    width = 8 * nearest_size(lambda eighth: count(8 * eighth, 32 * eighth), target)
    return width, nearest_size(lambda size: count(width, size), target)


class CausalEncoder(nn.Module):
    """`nn.TransformerEncoder` behind a linear layer, every step attending to itself and to those before.

    No positions are added: they would cost next to nothing. Dropout is 0. In a training pass PyTorch's causal attention
    runs, which never writes the T x T weights down; for inference its own fast path.

    >>> encoder = CausalEncoder(5, 8, 16, steps=3)
    >>> encoder(torch.zeros(7, 3, 5)).shape
    torch.Size([7, 3, 8])
    """

    def __init__(self, input_size: int, width: int, feedforward: int, *, steps: int) -> None:
        super().__init__()
        self.width = width
        self.feedforward = feedforward
        self.embed = nn.Linear(input_size, width)
        layer = nn.TransformerEncoderLayer(width, TRANSFORMER_HEADS, feedforward, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, TRANSFORMER_LAYERS, enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(steps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.embed(x), mask=self.mask, is_causal=True)


def _port(s: Shape, setting: Setting, x: Tensor) -> tuple[nn.Module, Callable[..., tuple[Tensor, Any]]]:
    assert setting.l0sg is not None
    kind: Any = load_port(setting.l0sg).RelationalMemory
    port = kind(
        mem_slots=s.mem_slots,
        head_size=s.head_size,
        input_size=s.input_size,
        num_heads=s.num_heads,
        key_size=s.key_size,
        attention_mlp_layers=s.mlp_layers,
        return_all_outputs=True,
    )
    port = _to(port, setting)
    start = port.initial_state(s.batch).to(x)
    return port, lambda state=None: port(x, start if state is None else state)


def _input(case: Case, setting: Setting) -> Tensor:
    s = case.shape
    x = torch.randn(s.batch, s.steps, s.input_size, generator=torch.Generator().manual_seed(0))
    return x.to(setting.torch_device, setting.torch_dtype).requires_grad_(case.run == "train")


def _of(case: Case, y: Tensor) -> Tensor:
    """The output of the only step where one step is measured."""
    return y[:, 0] if case.run == "step" else y


def _to(module: Any, setting: Setting) -> Any:
    return module.to(setting.torch_device, setting.torch_dtype)
