"""Files of weights: our own folders, the ports' and the original's."""

from __future__ import annotations

import functools
import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from fuzz.engine import Family
from fuzz.mutations import damage, damaged_json
from relational_rnn import RelationalMemory
from relational_rnn.nn import DNC, GRU, FastWeightMemory, Transformer
from relational_rnn.nn._importing import sonnet_variables
from relational_rnn.nn.compat import PortedRelationalMemory

SIZES = {"mem_slots": 3, "head_size": 4}
MADE = (
    lambda: RelationalMemory(5, **SIZES, num_heads=2),
    lambda: GRU(3, 4),
    lambda: Transformer(3, 8, num_layers=2, num_heads=2, feedforward_size=10),
    lambda: DNC(3, 6, memory_slots=5, word_size=4, read_heads=2),
    lambda: FastWeightMemory(3, 12, num_heads=4, key_size=10, value_size=6),
    lambda: PortedRelationalMemory(5, **SIZES),
)


@functools.cache
def saved(number: int) -> tuple[type, bytes, bytes]:
    """The class and the two files of a layer."""
    layer = MADE[number]()
    with tempfile.TemporaryDirectory() as folder:
        layer.save_pretrained(folder)
        return type(layer), *((Path(folder) / name).read_bytes() for name in ("config.json", "model.safetensors"))


def make_folder(rng: random.Random) -> dict[str, Any]:
    number = rng.randrange(len(MADE))
    _, config, weights = saved(number)
    if rng.random() < 0.6:
        content = json.loads(config)
        config = damaged_json(rng, content)
        # so that the header, which repeats the configuration, does not refuse it first
        weights = safetensors.torch.save(safetensors.torch.load(weights))
    else:
        weights = damage(rng, weights, (config,))
    return {"layer": number, "config.json": config, "model.safetensors": weights}


def run_folder(case: dict[str, Any], folder: Path) -> bool:
    for name, content in case.items():
        if name != "layer":
            (folder / name).write_bytes(content)
    layer = saved(case["layer"])[0].from_pretrained(folder)
    layer(torch.zeros(2, 3, layer.input_size, dtype=next(layer.parameters()).dtype))
    return True


@functools.cache
def port_files() -> dict[str, bytes]:
    """The same weights as three kinds of file."""
    weights = PortedRelationalMemory(5, **SIZES).port_state_dict()
    files = {".safetensors": safetensors.torch.save({name: t.clone() for name, t in weights.items()})}
    for suffix, zipped in ((".pt", True), (".pth", False)):
        buffer = io.BytesIO()
        torch.save(weights, buffer, _use_new_zipfile_serialization=zipped)
        files[suffix] = buffer.getvalue()
    return files


def make_port(rng: random.Random) -> tuple[str, bytes]:
    suffix = rng.choice(list(port_files()))
    return suffix, damage(rng, port_files()[suffix], tuple(port_files().values()))


def run_port(case: tuple[str, bytes], folder: Path) -> bool:
    path = folder / f"weights{case[0]}"
    path.write_bytes(case[1])
    RelationalMemory.from_l0sg(path, **SIZES, compat="l0sg")
    return True


@functools.cache
def sonnet_files() -> tuple[bytes, ...]:
    layer = RelationalMemory(5, **SIZES)
    arrays = {
        name: (p.T if transposed else p).detach().numpy()
        for name, (p, transposed) in sonnet_variables(layer.cell()).items()
    }
    files = []
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **arrays)
        files.append(buffer.getvalue())
    buffer = io.BytesIO()
    np.save(buffer, arrays["relational_memory/linear/w"])
    return *files, buffer.getvalue()


def make_sonnet(rng: random.Random) -> bytes:
    return damage(rng, rng.choice(sonnet_files()), sonnet_files())


def run_sonnet(case: bytes, folder: Path) -> bool:
    (folder / "weights.npz").write_bytes(case)
    RelationalMemory.from_sonnet(folder / "weights.npz", **SIZES)
    return True


FAMILIES = [
    Family("weights: from_pretrained", 4, make_folder, run_folder),
    Family("weights: from_l0sg", 5, make_port, run_port),
    Family("weights: from_sonnet", 5, make_sonnet, run_sonnet),
]
