"""Folders of the class for Hugging Face's `transformers`, and texts in Parquet files."""

from __future__ import annotations

import functools
import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from fuzz.engine import Family
from fuzz.mutations import damage, damaged_json
from fuzz.runs import write
from relational_rnn.nn.cores import MemorySizes
from relational_rnn.tasks.language.fetching import rows_of
from relational_rnn.tasks.language.model import LanguageModel, LanguageModelConfig

NAMES = ("config.json", "generation_config.json", "model.safetensors")


@functools.cache
def saved(core: str) -> dict[str, bytes]:
    """The files of a small model."""
    from relational_rnn.tasks.language.huggingface import save_for_transformers

    sizes, around = MemorySizes(mem_slots=2, head_size=4, num_heads=2), LanguageModelConfig(embedding_size=6)
    with tempfile.TemporaryDirectory() as folder:
        save_for_transformers(LanguageModel.build(9, core, sizes, around), folder)
        return {name: (Path(folder) / name).read_bytes() for name in NAMES}


def make_folder(rng: random.Random) -> dict[str, bytes]:
    files = dict(saved(rng.choice(("rmc", "gru"))))
    name = rng.choice((*NAMES, NAMES[0]))
    if name != NAMES[2]:
        files[name] = damaged_json(rng, json.loads(files[name]))
    elif rng.random() < 0.5:
        files[name] = damage(rng, files[name], (files["config.json"],))
    else:
        tensors = safetensors.torch.load(files[name])
        one = rng.choice(list(tensors))
        tensor = tensors.pop(one)
        if rng.random() < 0.7:
            tensors[rng.choice((one, "extra", "model.x"))] = rng.choice((tensor.flatten(), tensor.half(), tensor[:0]))
        files[name] = safetensors.torch.save(tensors, metadata={"format": "pt"})
    if rng.random() < 0.05:
        files.pop(name)
    return files


def run_folder(case: dict[str, bytes], folder: Path) -> bool:
    from transformers.utils import logging

    from relational_rnn.tasks.language.huggingface import RelationalForCausalLM

    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    write(folder, case)
    model: Any = RelationalForCausalLM.from_pretrained(folder)
    model(torch.tensor([[1, 2]]))
    model.generate(torch.tensor([[1, 2]]), max_new_tokens=2)
    return True


@functools.cache
def shards() -> tuple[bytes, ...]:
    """The same rows, compressed and not, and a table without them."""
    import pyarrow
    from pyarrow import parquet

    files = []
    for name, rows in (("text", ["to be", "", None, "or not"] * 9), ("other", [1, 2])):
        for compression in ("snappy", "none", "zstd"):
            buffer = io.BytesIO()
            parquet.write_table(pyarrow.table({name: rows}), buffer, compression=compression)
            files.append(buffer.getvalue())
    return tuple(files)


def make_shard(rng: random.Random) -> bytes:
    return damage(rng, rng.choice(shards()), shards())


def run_shard(case: bytes, folder: Path) -> bool:
    write(folder, {"part.parquet": case})
    return bool(list(rows_of([folder / "part.parquet"])))


FAMILIES = [
    Family("transformers: from_pretrained", 3, make_folder, run_folder),
    Family("tables: Parquet", 3, make_shard, run_shard),
]
