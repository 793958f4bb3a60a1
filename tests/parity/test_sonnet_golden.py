"""The layer against vectors recorded from the original module: outputs, memory, gates, loss and every gradient.

The recordings (float64) and their layout are in `golden/`; the bounds are relative to each array's largest magnitude.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from relational_rnn import RelationalMemory
from relational_rnn.nn._importing import sonnet_variables
from relational_rnn.ops.relational_scan import BACKENDS, relational_step

GOLDEN = Path(__file__).parent / "golden"
INDEX = json.loads((GOLDEN / "index.json").read_text(encoding="utf-8"))
CASES = {case["file"].removesuffix(".npz"): case for case in INDEX["cases"]}
BOUNDS = {torch.float64: (1e-10, 1e-10), torch.float32: (2e-5, 5e-5)}  # outputs, gradients


def recorded(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def layer_of(case, arrays, dtype, **options):
    """The layer of a case with its recorded weights, and its input as the layer takes it: [B, T, I] or [B, T, n, I]."""
    weights = {key.removeprefix("var/"): value for key, value in arrays.items() if key.startswith("var/")}
    rows = case["input_shape"][0] if case["treat_input_as_matrix"] else None
    layer = RelationalMemory.from_sonnet(weights, input_rows=rows, **case["cell"], **options).to(dtype)
    x = torch.from_numpy(arrays["x"]).to(dtype).transpose(0, 1)
    return layer, x.flatten(2 if rows is None else 3).contiguous()


def assert_close(what, got, expected, bound):
    expected = torch.as_tensor(expected)
    assert got.shape == expected.shape, what
    error = (got.detach().double() - expected).abs().max() / expected.abs().max()
    assert error <= bound, f"{what}: relative error {error:.2e} above {bound:.0e}"


def test_all_recorded_cases_are_here():
    assert sorted(CASES) == sorted(path.stem for path in GOLDEN.glob("*.npz"))
    assert len(CASES) == 18


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("start", ["init", "rand"])
@pytest.mark.parametrize("backend", [b for b in BACKENDS if b not in ("auto", "triton")])
@pytest.mark.parametrize("name", CASES)
def test_layer_reproduces_the_original(name, backend, start, dtype):
    case, arrays = CASES[name], recorded(name)
    layer, x = layer_of(case, arrays, dtype, backend=backend)
    bound, gradient_bound = BOUNDS[dtype]
    expected = {key.removeprefix(f"{start}/"): value for key, value in arrays.items() if key.startswith(f"{start}/")}
    memory = torch.from_numpy(expected["h0"]).to(dtype).requires_grad_()
    x.requires_grad_()

    y, final = layer(x, memory)
    assert_close("outputs", y.transpose(0, 1), expected["out"], bound)
    assert_close("final memory", final, expected["mem_final"], bound)
    if start == "init":
        assert_close("initial state", layer.initial_state(case["batch"]), expected["h0"], 0.0)

    before_last = y[:, -2].view_as(memory)
    rows = x[:, -1] if layer.input_rows is not None else x[:, -1:]
    last = relational_step(rows, before_last, layer.cell().scan_parameters())
    if case["cell"]["gate_style"] is None:
        assert last.input_gate is None
        assert last.forget_gate is None
        assert "input_gate" not in expected
    else:
        assert_close("input gate", last.input_gate, expected["input_gate"], bound)
        assert_close("forget gate", last.forget_gate, expected["forget_gate"], bound)

    weights = torch.from_numpy(arrays["wl"]).to(dtype).transpose(0, 1)
    loss = (y * weights).sum()
    terms = (arrays["wl"] * expected["out"]).astype(np.float64)
    # The loss is a sum of signed terms, so its rounding is judged by their size, not by what is left of them.
    assert abs(loss.item() - float(expected["loss"])) <= bound * np.abs(terms).sum()

    variables = sonnet_variables(layer.cell())
    assert {f"grad/{v}" for v in variables} | {"grad/@x", "grad/@h0"} == {k for k in expected if k.startswith("grad/")}
    gradients = torch.autograd.grad(loss, [x, memory, *(parameter for parameter, _ in variables.values())])
    expected_x = torch.from_numpy(expected["grad/@x"]).transpose(0, 1).reshape(x.shape)
    assert_close("gradient of x", gradients[0], expected_x, gradient_bound)
    assert_close("gradient of h0", gradients[1], expected["grad/@h0"], gradient_bound)
    for (variable, (_, transposed)), gradient in zip(variables.items(), gradients[2:], strict=True):
        got = gradient.T if transposed else gradient
        assert_close(f"gradient of {variable}", got, expected[f"grad/{variable}"], gradient_bound)


@pytest.mark.parametrize("name", CASES)
def test_step_by_step_is_the_recorded_sequence(name):
    arrays = recorded(name)
    layer, x = layer_of(CASES[name], arrays, torch.float64)
    memory = torch.from_numpy(arrays["rand/h0"])
    for t in range(x.shape[1]):
        y, memory = layer.step(x[:, t], memory)
        assert_close(f"output {t}", y, arrays["rand/out"][t], 1e-10)


def test_every_parameter_of_the_layer_is_loaded():
    arrays = recorded("sonnet_20")
    layer, _ = layer_of(CASES["sonnet_20"], arrays, torch.float64)
    loaded = {id(parameter) for parameter, _ in sonnet_variables(layer.cell()).values()}
    assert loaded == {id(parameter) for parameter in layer.parameters()}


# The same recordings through the other doors of the layer.


@pytest.mark.parametrize("door", ["packed", "chunks", "single sequences", "lengths and resets"])
@pytest.mark.parametrize("name", CASES)
def test_other_ways_in_give_the_recorded_sequence(name, door):
    arrays = recorded(name)
    layer, x = layer_of(CASES[name], arrays, torch.float64)
    start = torch.from_numpy(arrays["rand/h0"])
    if door == "packed":
        y, final = layer(pack_sequence(list(x)), start)
        y, _ = pad_packed_sequence(y, batch_first=True)
    elif door == "chunks":
        parts, final = [], start
        with torch.inference_mode():
            for part in x.split(2, dim=1):
                y, final = layer(part, final)
                parts.append(y)
        y = torch.cat(parts, 1)
    elif door == "single sequences":
        pairs = [layer(row, memory) for row, memory in zip(x, start, strict=True)]
        y, final = (torch.stack(tensors) for tensors in zip(*pairs, strict=True))
    else:
        x, start = torch.cat([x, x * torch.nan], 1), torch.zeros_like(start) + 3
        lengths, reset = torch.full((3,), 5), torch.zeros(3, 10, dtype=torch.bool)
        reset[:, 0] = True
        y, final = layer(x, start, lengths=lengths, reset=reset)
        assert not y[:, 5:].any()
        y = y[:, :5]
    run = "init" if door == "lengths and resets" else "rand"
    assert_close("outputs", y.transpose(0, 1), arrays[f"{run}/out"], 1e-10)
    assert_close("final memory", final, arrays[f"{run}/mem_final"], 1e-10)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("sonnet_20", "sonnet_23") else pytest.mark.slow) for name in CASES]
)
def test_compiled_layer_reproduces_the_original(name):
    torch._dynamo.reset()
    arrays = recorded(name)
    layer, x = layer_of(CASES[name], arrays, torch.float64)
    memory = torch.from_numpy(arrays["rand/h0"]).requires_grad_()
    x.requires_grad_()
    y, final = torch.compile(layer, backend="aot_eager", fullgraph=True)(x, memory)
    assert_close("outputs", y.transpose(0, 1), arrays["rand/out"], 1e-10)
    assert_close("final memory", final, arrays["rand/mem_final"], 1e-10)
    weights = torch.from_numpy(arrays["wl"]).transpose(0, 1)
    variables = sonnet_variables(layer.cell())
    gradients = torch.autograd.grad((y * weights).sum(), [memory, *(parameter for parameter, _ in variables.values())])
    assert_close("gradient of h0", gradients[0], arrays["rand/grad/@h0"], 1e-10)
    for (variable, (_, transposed)), gradient in zip(variables.items(), gradients[1:], strict=True):
        got = gradient.T if transposed else gradient
        assert_close(f"gradient of {variable}", got, arrays[f"rand/grad/{variable}"], 1e-10)
