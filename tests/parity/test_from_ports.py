"""Weights of the two copied ports: loaded, and judged by their formulas, written out here in numpy, number by number.

What the formulas say (and the original does not): statistics of the layer norms over rows and features together, with
a gain and a bias per row and feature; one MLP layer used again and again, a ReLU after each use; the same attention
block used again and again; gate biases stored with the weights.
"""

from __future__ import annotations

import ast
import re

import numpy as np
import pytest
import safetensors.torch
import torch

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn.compat import PortedRelationalMemory

BATCH, STEPS, INPUTS = 3, 5, 6
SIZES = dict(mem_slots=4, head_size=3, num_heads=2)
CASES = {
    "plain": SIZES,
    "memory-gates": SIZES | dict(gate_style="memory", num_blocks=2),
    "no-gates": SIZES | dict(gate_style=None, attention_mlp_layers=1),
    "keys": SIZES | dict(key_size=5, attention_mlp_layers=3),
    "blocks": SIZES | dict(mem_slots=1, num_blocks=3),
    "more-slots-than-numbers": dict(mem_slots=7, head_size=5),
}
METHODS = {"l0sg": RelationalMemory.from_l0sg, "textgan": RelationalMemory.from_textgan}


def full(sizes):
    return dict(num_heads=1, num_blocks=1, key_size=None, attention_mlp_layers=2, gate_style="unit") | sizes


def state_dict(sizes, dtype=torch.float64, seed=0):
    """What the port's module of these sizes would store: its names and shapes, with random numbers."""
    s = full(sizes)
    width, rows = s["num_heads"] * s["head_size"], s["mem_slots"] + 1
    qkv = s["num_heads"] * (2 * (s["key_size"] or s["head_size"]) + s["head_size"])
    gates = {"unit": 2 * width, "memory": 2, None: 0}[s["gate_style"]]
    shapes = {
        "forget_bias": (),
        "input_bias": (),
        "qkv_projector.weight": (qkv, width),
        "qkv_projector.bias": (qkv,),
        "qkv_layernorm.weight": (rows, qkv),
        "qkv_layernorm.bias": (rows, qkv),
        "attended_memory_layernorm.weight": (rows, width),
        "attended_memory_layernorm.bias": (rows, width),
        "attended_memory_layernorm2.weight": (rows, width),
        "attended_memory_layernorm2.bias": (rows, width),
        "input_projector.weight": (width, INPUTS),
        "input_projector.bias": (width,),
        "input_gate_projector.weight": (gates, width),
        "input_gate_projector.bias": (gates,),
        "memory_gate_projector.weight": (gates, width),
        "memory_gate_projector.bias": (gates,),
    }
    generator = torch.Generator().manual_seed(seed)

    def draw(shape):
        return (0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)

    tensors = {name: draw(shape) for name, shape in shapes.items()}
    shared = {"weight": draw((width, width)), "bias": draw((width,))}
    for i in range(s["attention_mlp_layers"]):
        tensors |= {f"attention_mlp.{i}.{kind}": tensor for kind, tensor in shared.items()}
    return tensors


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def norm(table, gain, bias):
    """All numbers of one sequence's table [rows, features] share one mean and one variance."""
    out = np.empty_like(table)
    for b in range(table.shape[0]):
        numbers = table[b].ravel()
        mean = numbers.sum() / numbers.size
        variance = ((numbers - mean) ** 2).sum() / numbers.size
        out[b] = (table[b] - mean) / np.sqrt(variance + 1e-5) * gain + bias
    return out


def attention(table, w, s):
    key, value = s["key_size"] or s["head_size"], s["head_size"]
    size = 2 * key + value
    qkv = norm(
        table @ w["qkv_projector.weight"].T + w["qkv_projector.bias"],
        w["qkv_layernorm.weight"],
        w["qkv_layernorm.bias"],
    )
    heads = []
    for h in range(s["num_heads"]):
        mine = qkv[:, :, h * size : (h + 1) * size]
        q, k, v = mine[:, :, :key], mine[:, :, key : 2 * key], mine[:, :, 2 * key :]
        scores = np.einsum("brk,bsk->brs", q, k) / np.sqrt(key)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(np.einsum("brs,bsv->brv", weights / weights.sum(-1, keepdims=True), v))
    return np.concatenate(heads, -1)


def formula(weights, sizes, x, memory):
    """The memory after every step, [B, T, N, W]."""
    s, w = full(sizes), {name: tensor.double().numpy() for name, tensor in weights.items()}
    after = []
    for t in range(x.shape[1]):
        row = x[:, t] @ w["input_projector.weight"].T + w["input_projector.bias"]
        table = np.concatenate([memory, row[:, None]], 1)
        for _ in range(s["num_blocks"]):
            table = norm(
                table + attention(table, w, s),
                w["attended_memory_layernorm.weight"],
                w["attended_memory_layernorm.bias"],
            )
            processed = table
            for i in range(s["attention_mlp_layers"]):
                processed = processed @ w[f"attention_mlp.{i}.weight"].T + w[f"attention_mlp.{i}.bias"]
                processed = np.maximum(processed, 0)
            table = norm(
                table + processed, w["attended_memory_layernorm2.weight"], w["attended_memory_layernorm2.bias"]
            )
        new = table[:, : s["mem_slots"]]
        if s["gate_style"] is not None:
            gates = np.tanh(memory) @ w["memory_gate_projector.weight"].T + w["memory_gate_projector.bias"]
            gates = gates + (row @ w["input_gate_projector.weight"].T + w["input_gate_projector.bias"])[:, None]
            half = gates.shape[-1] // 2
            into, keep = gates[..., :half] + w["input_bias"], gates[..., half:] + w["forget_bias"]
            new = sigmoid(into) * np.tanh(new) + sigmoid(keep) * memory
        memory = new
        after.append(memory)
    return np.stack(after, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("port", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_the_layer_computes_the_ports_formulas(name, port, dtype, rng):
    weights = state_dict(CASES[name], dtype)
    layer = METHODS[port](weights, compat=port, **CASES[name])
    assert {parameter.dtype for parameter in layer.parameters()} == {dtype}
    x = torch.randn(BATCH, STEPS, INPUTS, generator=rng, dtype=torch.float64)
    memory = torch.randn(BATCH, layer.mem_slots, layer.width, generator=rng, dtype=torch.float64)
    expected = torch.from_numpy(formula(weights, CASES[name], x.numpy(), memory.numpy()))

    y, last = layer.double()(x, memory)  # float32 weights in float64 arithmetic: only the formulas are compared
    assert (y - expected.flatten(2)).abs().max() < 1e-11
    assert (last - expected[:, -1]).abs().max() < 1e-11
    y, _ = layer.float()(x.float(), memory.float())
    assert (y - expected.flatten(2)).abs().max() < 1e-5 * expected.abs().max()


def test_the_start_is_the_identity():
    sizes = CASES["more-slots-than-numbers"]
    layer = RelationalMemory.from_l0sg(state_dict(sizes), compat="l0sg", **sizes)
    assert torch.equal(layer.initial_state(2), torch.eye(7, 5, dtype=torch.float64).expand(2, -1, -1))


def test_the_relational_memory_computes_another_function(rng):
    """The port's weights, squeezed into the original's places, give other numbers: the refusal is not a formality."""
    weights = state_dict(SIZES)
    ported = RelationalMemory.from_l0sg(weights, compat="l0sg", **SIZES)
    layer = RelationalMemory(INPUTS, dtype=torch.float64, **SIZES)
    cell = layer.cell()
    with torch.no_grad():
        places = {"input_projector": cell.input, "qkv_projector": cell.blocks[0].qkv}
        places |= {"input_gate_projector": cell.gate_input, "memory_gate_projector": cell.gate_memory}
        places |= {f"attention_mlp.{i}": linear for i, linear in enumerate(cell.mlp)}
        for name, linear in places.items():
            linear.weight.copy_(weights[f"{name}.weight"])
            linear.bias.copy_(weights[f"{name}.bias"])
    x = torch.randn(BATCH, STEPS, INPUTS, generator=rng, dtype=torch.float64)
    assert (ported(x)[0] - layer(x)[0]).abs().max() > 0.1


def test_gradients_reach_the_state_and_the_gate_biases():
    layer = RelationalMemory.from_l0sg(state_dict(SIZES), compat="l0sg", **SIZES)
    memory = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    y, _ = layer(torch.ones(2, 3, INPUTS, dtype=torch.float64), memory)
    gradients = torch.autograd.grad(y.square().sum(), [memory, layer.forget_bias, layer.input_bias])
    assert all(gradient.abs().min() > 0 for gradient in gradients)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_and_prefixes(suffix, tmp_path):
    weights, path = state_dict(SIZES), tmp_path / f"generator{suffix}"
    stored = {f"lstm.{name}": tensor.clone() for name, tensor in weights.items()} | {"lstm2out.bias": torch.zeros(9)}
    if suffix == ".pt":
        torch.save(stored, path)
    else:
        safetensors.torch.save_file(stored, path)
    from_file = RelationalMemory.from_textgan(path, prefix="lstm.", compat="textgan", **SIZES)
    from_mapping = RelationalMemory.from_textgan(weights, compat="textgan", **SIZES)
    assert isinstance(from_file, PortedRelationalMemory)
    for name, tensor in from_mapping.state_dict().items():
        assert torch.equal(from_file.state_dict()[name], tensor)


@pytest.mark.parametrize("name", CASES)
def test_the_weights_go_back(name):
    weights = state_dict(CASES[name])
    back = RelationalMemory.from_l0sg(weights, compat="l0sg", **CASES[name]).port_state_dict()
    unused = {"forget_bias", "input_bias"} if full(CASES[name])["gate_style"] is None else set()
    assert set(back) == set(weights)
    assert all(torch.equal(back[key], tensor) for key, tensor in weights.items() if key not in unused)


def refusal(weights, port="l0sg", **options):
    with pytest.raises(InputError) as error:
        METHODS[port](weights, **{**SIZES, "compat": port, **options})
    return str(error.value)


@pytest.mark.parametrize("port", METHODS)
def test_without_compat_the_differences_are_named(port):
    method = METHODS[port].__name__
    assert refusal(state_dict(SIZES), port, compat=None) == (
        f"RelationalMemory.{method}: these weights belong to another function than the original's: layer norms over "
        "slots and features together with weights for every slot, one MLP layer applied repeatedly with a ReLU after "
        "the last time too, all weights shared by the attention blocks, trained gate biases\n"
        f"  hint      pass compat='{port}' for a PortedRelationalMemory, which computes that function."
    )
    assert "compat is not a known choice" in refusal(state_dict(SIZES), port, compat="sonnet")


def test_a_changed_key_is_refused():
    weights = state_dict(SIZES)
    weights["qkv_projection.bias"] = weights.pop("qkv_projector.bias")
    assert refusal(weights) == (
        "RelationalMemory.from_l0sg: the keys are not those of a module of these sizes\n"
        "  got       missing: qkv_projector.bias; unknown: qkv_projection.bias\n"
        "  hint      check attention_mlp_layers and prefix; words' embeddings and decoders are not part of the layer."
    )
    assert "missing: attention_mlp.2.bias, attention_mlp.2.weight" in refusal(state_dict(SIZES), attention_mlp_layers=3)
    assert "input_projector.weight must be a matrix" in refusal(state_dict(SIZES), prefix="input_")


def test_a_model_around_the_layer_is_named_and_the_way_around_it_works():
    around = {name: torch.zeros(2, 3, dtype=torch.float64) for name in ("encoder.weight", "decoder.bias")}
    said = refusal(state_dict(SIZES) | around)
    assert "missing: none; unknown: decoder.bias, encoder.weight" in said
    left_out = re.search(r"if name not in (\(.*?\))}", said)
    assert left_out
    assert ast.literal_eval(left_out[1]) == ("decoder.bias", "encoder.weight")
    prefixed = {f"memory.{name}": tensor for name, tensor in (state_dict(SIZES) | around).items()}
    assert "('memory.decoder.bias', 'memory.encoder.weight')" in refusal(prefixed, prefix="memory.")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("qkv_layernorm.weight", (6 * 3,)), ("attended_memory_layernorm.bias", (6,)), ("forget_bias", (1,))],
)
def test_a_changed_shape_is_refused(name, shape):
    """The first two are the shapes that the original's layer norms have."""
    weights = state_dict(SIZES)
    expected = tuple(weights[name].shape)
    weights[name] = torch.zeros(shape, dtype=torch.float64)
    assert refusal(weights) == (
        f"RelationalMemory.from_l0sg: {name} has the wrong shape\n  got       {shape}\n  expected  {expected}"
    )


def test_a_changed_dtype_is_refused():
    weights = state_dict(SIZES)
    weights["input_bias"] = weights["input_bias"].float()
    assert refusal(weights) == (
        "RelationalMemory.from_l0sg: the tensors must all have one dtype\n"
        "  got       torch.float64 (forget_bias), torch.float32 (input_bias)\n"
        "  expected  all torch.float32 or all torch.float64"
    )


@pytest.mark.parametrize("name", ["input_size", "forget_bias", "input_bias"])
def test_what_the_weights_say_cannot_be_given(name):
    assert f"RelationalMemory.from_l0sg: {name} comes from the tensors" in refusal(state_dict(SIZES), **{name: 1})


def test_a_mistyped_size_is_refused():
    assert "PortedRelationalMemory: there is no argument 'num_head'" in refusal(state_dict(SIZES), num_head=2)


def test_layers_of_the_mlp_that_differ_are_refused():
    weights = state_dict(SIZES)
    weights["attention_mlp.1.weight"] = weights["attention_mlp.1.weight"] + 1e-6
    assert refusal(weights) == (
        "RelationalMemory.from_l0sg: attention_mlp.0 and .1 differ, where the port has one layer under both names"
    )


def test_no_code_is_loaded_from_a_file(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(2, 3), path)
    said = refusal(path)
    assert f"{path} cannot be read as a file of tensors" in said
    assert "hint      save the module's state_dict(), not the module." in said
    path.write_bytes(b"")
    assert "cannot be read as a file of tensors" in refusal(path)
    assert "cannot be read: No such file" in refusal(tmp_path / "nowhere.safetensors")
    torch.save([torch.zeros(2)], path)
    assert "does not hold a state dict\n  got       list" in refusal(path)
