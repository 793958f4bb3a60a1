"""Saving and loading, for every core of the table."""

import inspect
import json

import torch
from cores_table import INPUTS, draw


def test_a_saved_core_computes_the_same(case, tmp_path):
    core = case.core()
    core.save_pretrained(tmp_path / "new" / "folder")
    loaded = type(core).from_pretrained(tmp_path / "new" / "folder")
    assert type(loaded) is type(core)
    x = draw(2, 4, INPUTS)
    torch.testing.assert_close(loaded(x), core(x), rtol=0.0, atol=0.0)


def test_the_dtype_is_kept(case, tmp_path):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        case.core(dtype).save_pretrained(tmp_path)
        loaded = type(case.core()).from_pretrained(tmp_path)
        assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}


def test_saved_twice_is_the_same_bytes(case, tmp_path):
    core = case.core()
    core.save_pretrained(tmp_path / "a")
    type(core).from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["config.json", "model.safetensors"]


def test_the_configuration_is_the_constructors_arguments(case, tmp_path):
    core = case.core()
    core.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["class"] == type(core).__name__
    assert config["arguments"]["input_size"] == INPUTS
    # Defaults are written out too, so that a later default does not change an old file.
    assert set(config["arguments"]) == set(inspect.signature(type(core)).parameters) - {"device", "dtype"}
