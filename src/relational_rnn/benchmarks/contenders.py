"""Who takes part: every backend of the layer, PyTorch's own layers, and the L0SG port if its checkout is given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError
from relational_rnn.benchmarks.l0sg import load_port
from relational_rnn.benchmarks.shapes import (
    Benchmark,
    Case,
    FastShape,
    Shape,
    fast_flop,
    lstm_flop,
    memory_flop,
    transformer_flop,
)
from relational_rnn.nn import FastWeightMemory, RelationalMemory
from relational_rnn.nn.cores import count_on_meta, count_parameters, nearest_size
from relational_rnn.ops.fast_weight_scan import FAST_WEIGHT_BACKENDS, FastWeightBackend
from relational_rnn.ops.relational_scan import (
    BACKENDS,
    ActivationMode,
    Backend,
    relational_scan_reference,
    relational_step,
)

LAYER = "relational_rnn:"
RECOMPUTE, COMPETING, FAST = ", recompute", "competing slots", "fast weights"
STEP, LSTM, LSTM_STATE = f"{LAYER}step", "nn.LSTM", "nn.LSTM, equal state"
STEP_COMPETING = f"{STEP}, {COMPETING}"
COMPILED = {
    f"{LAYER}reference, torch.compile": "default",
    f"{LAYER}reference, torch.compile, reduce-overhead": "reduce-overhead",
}
"""The plain loop under torch.compile with inductor, and its mode."""
TRANSFORMER, L0SG = "nn.TransformerEncoder", "L0SG"
TRANSFORMER_LAYERS, TRANSFORMER_HEADS = 3, 4
STEPS_PER_TURN = 100
"""Single steps that are timed together; each starts from the state that the one before it left."""
DEFINITION_STEPS = 1024
"""Longer sequences are not timed with the plain definition, whose steps all take the same time; nor with the
Transformer outside the sweep over T, since each of its steps takes longer than the one before."""
RIVALS = {
    None: [LSTM, LSTM_STATE, TRANSFORMER],
    "T": [LSTM, TRANSFORMER],
    "slots": [LSTM, LSTM_STATE, TRANSFORMER],
    "batch": [LSTM, TRANSFORMER],
    "recompute": [],
}
"""Contenders that are not ours, by sweep."""
INTERPRETED = "on the CPU it runs under Triton's interpreter alone, which is for tests"


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """Something that can be timed."""

    run: Callable[[], list[Tensor]]
    """One pass: the output and, in a training pass, the gradients of the input and of every parameter."""
    parameters: int
    state_size: int
    """Numbers in the state of one sequence after the last step."""
    flop: float
    """Operations that the pass cannot avoid."""
    turn: Callable[[], object]
    """What is timed: the pass, or `STEPS_PER_TURN` single steps."""


def names(case: Case, benchmark: Benchmark) -> tuple[list[str], dict[str, str]]:
    """The contenders of a case, and by name why others cannot run."""
    fast = isinstance(case.shape, FastShape)
    found = [STEP] if case.run == "step" else []
    refused: dict[str, str] = {}
    long = case.shape.steps > DEFINITION_STEPS
    for backend in FAST_WEIGHT_BACKENDS if fast else BACKENDS:
        name = f"{LAYER}{backend}"
        slow = backend == "reference" and (case.sweep == "recompute" or (long and case.sweep in ("T", None)))
        if interpreted(backend, benchmark.device):
            refused[name] = INTERPRETED
        if backend == "auto" or slow or name in refused:
            continue
        for suffix in ("", RECOMPUTE) if case.sweep == "recompute" else ("",):
            try:
                memory(case.shape, benchmark, name + suffix).backend_report(_input(case, benchmark))
                found.append(name + suffix)
            except InputError as error:
                refused[name + suffix] = str(error).splitlines()[0]
    for name in newer(case):
        report = memory(case.shape, benchmark, name).backend_report(_input(case, benchmark))
        if report.runs == "reference":
            refused[name] = report.why
        else:
            found.append(name)
    if benchmark.compiled and case.sweep is None and case.run != "step" and not long:
        found += COMPILED
    found += RIVALS[case.sweep]
    if case.sweep is None and (fast or case.run == "step" or long):
        found.remove(TRANSFORMER)
    if case.sweep is None and benchmark.l0sg is not None and not fast:
        found.append(L0SG)
    return found, refused


def newer(case: Case) -> list[str]:
    """The newer memories beside the original at a case: slots that compete at its sizes, fast weights as T grows."""
    if isinstance(case.shape, FastShape) or case.sweep not in (None, "T") or case.shape.mem_slots == 1:
        return []
    if case.run == "step":
        return [STEP_COMPETING]
    return [f"{LAYER}{COMPETING}", *([f"{LAYER}{FAST}"] if case.sweep == "T" else [])]


def interpreted(backend: str, device: str) -> bool:
    """Whether a backend would run under an interpreter, which says nothing about speed."""
    return backend == "triton" and device == "cpu"


def chosen_backend(case: Case, benchmark: Benchmark) -> str:
    """What backend="auto" runs at this case."""
    if case.run == "step":
        return "step"
    return memory(case.shape, benchmark, f"{LAYER}auto").backend_report(_input(case, benchmark)).runs


def build(case: Case, benchmark: Benchmark, name: str) -> Contender:
    """A contender; its weights and inputs follow from the case alone."""
    s = case.shape
    x = _input(case, benchmark)
    torch.manual_seed(1)
    flop, state_size = fast_flop(s) if isinstance(s, FastShape) else memory_flop(s), s.state_size
    module: Any
    if name.startswith(LAYER):
        module = layer = memory(s, benchmark, name)
        if isinstance(layer, FastWeightMemory):
            sizes = fast_shape(s, layer)
            flop, state_size = fast_flop(sizes), sizes.state_size
    elif name in (LSTM, LSTM_STATE):
        hidden = lstm_size(s, equal_state=name == LSTM_STATE)
        module = _move(benchmark, nn.LSTM(s.input_size, hidden, batch_first=True))
        flop, state_size = lstm_flop(s, hidden), 2 * hidden
    elif name == TRANSFORMER:
        assert isinstance(s, Shape)
        module = _move(benchmark, CausalEncoder(s.input_size, *transformer_size(s), steps=s.steps))
        module.train(case.run == "train")
        flop = transformer_flop(s, module.width, module.feedforward, TRANSFORMER_LAYERS)
        state_size = 2 * TRANSFORMER_LAYERS * module.width * s.steps
    else:
        assert name == L0SG
        assert benchmark.l0sg is not None
        assert isinstance(s, Shape)
        module = load_port(benchmark.l0sg).RelationalMemory(**_sizes(s), return_all_outputs=True)
        module = _move(benchmark, module)
    call: Callable[..., Any] = functools.partial(module, x)
    if name in COMPILED:
        call = functools.partial(compiled_loop(module, COMPILED[name]), x)
    elif name.startswith(STEP):
        x_t, start = x[:, 0], module.initial_state(s.batch)
        call = lambda state=start: module.step(x_t, state)  # noqa: E731
    elif name == L0SG:
        start = module.initial_state(s.batch).to(x)
        call = lambda state=start: module(x, state)  # noqa: E731

    def output() -> Tensor:
        if name == TRANSFORMER:
            return call()
        return call()[0][:, 0] if case.run == "step" and not name.startswith(STEP) else call()[0]

    run = one_pass(case, x, module, output)
    return Contender(
        run=run,
        turn=run if case.run != "step" else some_steps(call),
        parameters=count_parameters(module),
        state_size=state_size,
        flop=flop * (3 if case.run == "train" else 1),
    )


def one_pass(case: Case, x: Tensor, module: nn.Module, call: Callable[[], Tensor]) -> Callable[[], list[Tensor]]:
    """The call, and in a training pass its backward to the input and to every parameter."""
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


def some_steps(call: Callable[..., tuple[Tensor, Any]]) -> Callable[[], Any]:
    """The single steps of a turn, without gradients; returns the state after the last one."""

    def steps() -> Any:
        with torch.no_grad():
            _, state = call()
            for _ in range(STEPS_PER_TURN - 1):
                _, state = call(state)
        return state

    return steps


def definition(case: Case, benchmark: Benchmark, name: str, *, exact: bool = False) -> list[Tensor]:
    """The pass by the plain definition, on the weights and the input of `build`; if `exact`, in float64."""
    torch.manual_seed(1)
    layer = memory(case.shape, benchmark, name)
    layer.backend = "reference"
    x = _input(case, benchmark)
    if exact:
        layer, x = layer.double(), x.detach().double().requires_grad_(x.requires_grad)

    def call() -> Tensor:
        if isinstance(layer, FastWeightMemory):
            y = layer(x)[0]
            return y[:, 0] if case.run == "step" else y
        cell = layer.cell()
        start, params = cell.initial_memory(case.shape.batch), cell.scan_parameters()
        if case.run == "step":
            return relational_step(x[:, 0].unsqueeze(1), start, params).memory.flatten(1)
        return relational_scan_reference(x.unsqueeze(2), start, params).memories.flatten(2)

    return one_pass(case, x, layer, call)()


def core_of(name: str) -> str:
    """What a contender of ours computes; those of one core are judged by the same numbers."""
    return next((core for core in (COMPETING, FAST) if name.endswith(core)), "")


def compiled_loop(layer: RelationalMemory | FastWeightMemory, mode: str) -> Callable[[Tensor], Any]:
    """The plain loop under `torch.compile`: its operations, not the operator that a compiled layer calls."""
    if isinstance(layer, FastWeightMemory):

        def fast(x: Tensor) -> Tensor:
            states = layer.states(x, layer.initial_state(x.shape[0]), None)
            return layer.outputs(states, x)

        steps = torch.compile(fast, mode=mode)
        return lambda x: (steps(x), None)
    cell = layer.cell()

    def loop(x: Tensor) -> Tensor:
        start = cell.initial_memory(x.shape[0])
        return relational_scan_reference(x.unsqueeze(2), start, cell.scan_parameters()).memories.flatten(2)

    run = torch.compile(loop, mode=mode)
    return lambda x: (run(x).clone(), None)  # what CUDA graphs return is overwritten by the next run


def memory(s: Shape | FastShape, benchmark: Benchmark, name: str) -> RelationalMemory | FastWeightMemory:
    """The layer with the backend that the contender's name says."""
    return _move(benchmark, _layer(s, name))


def _layer(s: Shape | FastShape, name: str) -> RelationalMemory | FastWeightMemory:
    backend = name.removeprefix(LAYER).split(", ")[0]
    backend = "auto" if backend in ("step", COMPETING, FAST) else backend
    if isinstance(s, FastShape):
        sizes = {one: getattr(s, one) for one in ("input_size", "hidden_size", "num_heads", "key_size", "value_size")}
        return FastWeightMemory(**sizes, backend=cast(FastWeightBackend, backend))
    if core_of(name) == FAST:
        fast = FastWeightMemory(s.input_size, fast_width(s), backend=cast(FastWeightBackend, backend))
        with torch.no_grad():  # or gradients grow over thousands of steps, from output to output
            for weight in fast.recurrent.parameters() if fast.recurrent is not None else ():
                weight.mul_(0.1)
        return fast
    activations: ActivationMode = "recompute" if name.endswith(RECOMPUTE) else "store"
    layer = RelationalMemory(
        **_sizes(s),
        gate_style="competitive" if core_of(name) == COMPETING else "unit",
        backend=cast(Backend, backend),
        activations=activations,
    )
    calm(layer)
    return layer


def fast_shape(s: Shape | FastShape, core: FastWeightMemory) -> FastShape:
    """A call's sizes where fast weights read what is of another shape."""
    sizes = {name: getattr(core, name) for name in ("input_size", "hidden_size", "num_heads", "key_size", "value_size")}
    return FastShape(batch=s.batch, steps=s.steps, **sizes)


def calm(layer: RelationalMemory) -> None:
    """Change the initial weights so that float32 can be judged at any length; the time does not depend on them.

    With its own initial weights the layer is chaotic over thousands of steps, and rounding errors grow. A smaller gain
    of the last layer norm makes it forget. Small weights and biases of 1 and -1 keep the units of the MLP away from the
    kink of their ReLU, where rounding would decide whether a unit is on.
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
def memory_parameters(s: Shape | FastShape) -> int:
    """Trainable numbers of the memory; rivals get as many."""
    return count_on_meta(lambda: _layer(s, f"{LAYER}auto"))


@functools.cache
def fast_width(s: Shape) -> int:
    """Width of fast weights with as many parameters as the relational memory."""
    return nearest_size(lambda size: count_on_meta(lambda: FastWeightMemory(s.input_size, size)), memory_parameters(s))


@functools.cache
def lstm_size(s: Shape | FastShape, *, equal_state: bool) -> int:
    """Hidden size of an LSTM with as many parameters as the relational memory, or as many numbers in h and c."""
    if equal_state:
        return max(1, s.state_size // 2)
    return nearest_size(lambda size: count_on_meta(lambda: nn.LSTM(s.input_size, size)), memory_parameters(s))


@functools.cache
def transformer_size(s: Shape | FastShape) -> tuple[int, int]:
    """Width and feed-forward size of an encoder with as many parameters as the relational memory."""
    target = memory_parameters(s)

    def count(width: int, feedforward: int) -> int:
        return count_on_meta(lambda: CausalEncoder(s.input_size, width, feedforward, steps=1))

    width = 8 * nearest_size(lambda eighth: count(8 * eighth, 32 * eighth), target)
    return width, nearest_size(lambda size: count(width, size), target)


class CausalEncoder(nn.Module):
    """`nn.TransformerEncoder` behind a linear layer; every step attends to itself and to those before.

    It adds no positions, which would cost next to nothing, and has no dropout. A training pass runs PyTorch's causal
    attention, which never writes the T x T weights; inference runs its fast path.

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


def _sizes(s: Shape) -> dict[str, Any]:
    """Arguments of the layer and of the port."""
    names = ("input_size", "mem_slots", "head_size", "num_heads", "key_size")
    return {name: getattr(s, name) for name in names} | {"attention_mlp_layers": s.mlp_layers}


def _input(case: Case, benchmark: Benchmark) -> Tensor:
    s = case.shape
    x = torch.randn(s.batch, s.steps, s.input_size, generator=torch.Generator().manual_seed(0))
    return x.to(benchmark.device, benchmark.torch_dtype).requires_grad_(case.run == "train")


def _move(benchmark: Benchmark, module: Any) -> Any:
    return module.to(benchmark.device, benchmark.torch_dtype)
