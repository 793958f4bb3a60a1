"""What `RelationalMemory.from_sonnet` accepts and refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relational_rnn import InputError, RelationalMemory

SIZES = dict(mem_slots=3, head_size=2, num_heads=2)


@pytest.fixture
def arrays(rng):
    """Variables of a module of SIZES for inputs of 5 numbers, laid out by hand from the original's names and shapes."""
    shapes = {
        "linear/w": (5, 4),
        "linear/b": (4,),
        "linear_1/w": (4, 12),
        "linear_1/b": (12,),
        "layer_norm/gamma": (12,),
        "layer_norm/beta": (12,),
        "layer_norm_1/gamma": (4,),
        "layer_norm_1/beta": (4,),
        "layer_norm_2/gamma": (4,),
        "layer_norm_2/beta": (4,),
        "mlp/linear_0/w": (4, 4),
        "mlp/linear_0/b": (4,),
        "mlp/linear_1/w": (4, 4),
        "mlp/linear_1/b": (4,),
        "linear_2/w": (4, 8),
        "linear_2/b": (8,),
        "linear_3/w": (4, 8),
        "linear_3/b": (8,),
    }
    return {f"relational_memory/{name}": torch.randn(shape, generator=rng).numpy() for name, shape in shapes.items()}


def test_a_file_and_a_mapping_give_the_same_layer(arrays, tmp_path):
    np.savez(tmp_path / "rmc.npz", **arrays)
    from_file = RelationalMemory.from_sonnet(tmp_path / "rmc.npz", **SIZES).state_dict()
    from_mapping = RelationalMemory.from_sonnet(arrays, **SIZES).state_dict()
    assert all(torch.equal(from_file[name], value) for name, value in from_mapping.items())
    assert np.array_equal(from_file["cells.0.gate_memory.weight"].numpy().T, arrays["relational_memory/linear_3/w"])


def test_the_arrays_decide_the_dtype(arrays):
    layer = RelationalMemory.from_sonnet({k: v.astype(np.float64) for k, v in arrays.items()}, **SIZES)
    assert {p.dtype for p in layer.parameters()} == {torch.float64}


def refusal(arrays, **changes):
    with pytest.raises(InputError) as error:
        RelationalMemory.from_sonnet(arrays, **{**SIZES, **changes})
    return str(error.value)


def test_a_changed_name_is_refused(arrays):
    arrays["relational_memory/linear_9/w"] = arrays.pop("relational_memory/linear_3/w")
    assert refusal(arrays) == (
        "RelationalMemory.from_sonnet: the variables are not those of a module of these sizes\n"
        "  got       missing: relational_memory/linear_3/w; unknown: relational_memory/linear_9/w\n"
        "  hint      check num_blocks, attention_mlp_layers and gate_style."
    )


def test_another_number_of_blocks_is_refused(arrays):
    assert "missing: relational_memory/layer_norm_3/beta" in refusal(arrays, num_blocks=2)


def test_a_changed_shape_is_refused(arrays):
    arrays["relational_memory/linear_1/w"] = arrays["relational_memory/linear_1/w"].T
    assert refusal(arrays) == (
        "RelationalMemory.from_sonnet: relational_memory/linear_1/w has the wrong shape\n"
        "  got       (12, 4)\n"
        "  expected  (4, 12)"
    )


def test_a_changed_dtype_is_refused(arrays):
    arrays["relational_memory/linear_1/b"] = arrays["relational_memory/linear_1/b"].astype(np.float16)
    assert refusal(arrays) == (
        "RelationalMemory.from_sonnet: the arrays must all have one dtype\n"
        "  got       float32 (relational_memory/linear/w), float16 (relational_memory/linear_1/b)\n"
        "  expected  all float32 or all float64"
    )


def test_pickled_arrays_are_not_loaded(arrays, tmp_path):
    np.savez(tmp_path / "rmc.npz", **arrays, extra=np.array([{"code": 1}], dtype=object))
    assert "cannot be read as an .npz file of arrays" in refusal(tmp_path / "rmc.npz")


def test_a_missing_file_is_refused(tmp_path):
    assert "rmc.npz: cannot be read: No such file" in refusal(tmp_path / "rmc.npz")


def test_another_formulation_and_given_sizes_are_refused(arrays):
    assert "these weights have another formulation" in refusal(arrays, formulation="chapter", gate_style=None)
    assert "input_size comes from the arrays" in refusal(arrays, input_size=5)


def test_slots_that_compete_are_refused_though_their_arrays_would_fit(arrays):
    assert refusal(arrays, gate_style="competitive") == (
        "RelationalMemory.from_sonnet: the original has no slots that compete, and its gates have the same sizes but "
        "another meaning\n"
        "  expected  gate_style='unit', 'memory' or None"
    )


def test_a_mistyped_size_is_refused(arrays):
    with pytest.raises(InputError, match="RelationalMemory: there is no argument 'num_head'"):
        RelationalMemory.from_sonnet(arrays, mem_slots=3, head_size=2, num_head=2)
