"""Running what was exported, and comparing it with the core."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from cores_table import INPUTS, draw
from torch import Tensor

from relational_rnn.nn.core import Core, State
from relational_rnn.testing import assert_as_good_as

BATCHES = (1, 5)  # neither is the size that was traced
STEPS = 7


def flat(state: State) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else list(state.values())


def states(core: Core, batch: int) -> list[State]:
    """The initial state, and one after a few steps."""
    with torch.no_grad():
        return [core.initial_state(batch), core(draw(batch, 2, INPUTS, seed=3, dtype=torch.float32))[1]]


def precise(value: Any) -> Any:
    """Float64 in place of float32."""
    if isinstance(value, dict):
        return {name: precise(tensor) for name, tensor in value.items()}
    return value.double() if isinstance(value, Tensor) and value.dtype == torch.float32 else value


def results(core: Core, call: Callable[..., Any], *inputs: Any, **marks: Any) -> tuple[list[Tensor], list[Tensor]]:
    """What `call` of a core gives, and what it gives in float64."""
    with torch.no_grad():
        y, after = call(core, *inputs, **marks)
        truth, exact = call(copy.deepcopy(core).double(), *map(precise, inputs), **marks)
    return [y, *flat(after)], [truth, *flat(exact)]


def step_calls(core: Core):
    """Inputs of a step, with what the core gives for them."""
    for batch in BATCHES:
        for state in states(core, batch):
            x = draw(batch, INPUTS, dtype=torch.float32)
            yield [x, *flat(state)], *results(core, lambda one, *given: one.step(*given), x, state)


def sequence_calls(core: Core):
    """Inputs of a sequence with lengths and resets, and what the core gives for them."""
    for batch in BATCHES:
        lengths = torch.arange(batch) * 2 % (STEPS + 1)  # 0 2 4 6 0
        lengths[-1] = STEPS
        reset = draw(batch, STEPS, seed=4) > 0.5
        for state in states(core, batch):
            x = draw(batch, STEPS, INPUTS, dtype=torch.float32)
            marks = {"lengths": lengths, "reset": reset}
            made = results(core, lambda one, *given, **marks: one(*given, **marks), x, state, **marks)
            yield [x, *flat(state), lengths, reset], *made


def run_program(program, inputs: list[Tensor]) -> list[Tensor]:
    return list(program.module()(*inputs))


def run_onnx(session, inputs: list[Tensor]) -> list[Tensor]:
    names = [value.name for value in session.get_inputs()]
    arrays = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})
    return [torch.from_numpy(array) for array in arrays]


def onnx_session(path):
    """A session of the file; onnxruntime is asked to be quiet about graphs it can improve."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def assert_as_good(got: list[Tensor], expected: list[Tensor], truth: list[Tensor]) -> None:
    """Same shapes and dtypes, and as close to the truth as the core is."""
    for a, b, exact in zip(got, expected, truth, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if a.dtype.is_floating_point:
            assert_as_good_as("exported", a, b, exact)
        else:
            assert torch.equal(a, b)


def assert_same(got: list[Tensor], expected: list[Tensor], *, bound: float) -> None:
    """Same shapes and dtypes, and equal to `bound` relative to each tensor's largest number."""
    for a, b in zip(got, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        largest = b.double().abs().max().item() if b.numel() else 0.0
        torch.testing.assert_close(a.double(), b.double(), rtol=0.0, atol=bound * largest)
