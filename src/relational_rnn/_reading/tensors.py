"""Tensors that others wrote: safetensors, and what `torch.save` wrote. No code in them is run."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn._reading.archives import is_zip
from relational_rnn._reading.guard import damaged
from relational_rnn._reading.plain import check_file, open_file


def read_safetensors(path: Path, *, problem: str, where: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file by their names, and the texts in its header.

    Args:
        path: the file.
        problem: what is said of a file that cannot be read.
        where: what messages begin with, by default the path.

    Raises:
        InputError: the file cannot be read.
    """
    check_file(path)
    with damaged(where or path, problem), safetensors.safe_open(path, framework="pt") as file:
        # a copy: the file may be replaced while a mapped tensor is still read
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, not a mapping
        return tensors, dict(file.metadata() or {})


def shapes_in_safetensors(path: Path, *, problem: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file by their names; their numbers are not read.

    Raises:
        InputError: the file cannot be read.
    """
    check_file(path)
    with damaged(path, problem), safetensors.safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118, not a mapping


def read_pickled(path: Path, *, problem: str, where: str | None = None, hint: str | None = None) -> Any:
    """What `torch.save` wrote, where it is tensors and plain values.

    Raises:
        InputError: the file is truncated, damaged, compressed, or holds something that only code could make.
    """
    check_file(path)
    with damaged(where or path, problem, hint=hint):
        if is_zip(path):
            _check_stored(path)
        with open_file(path) as file:
            return torch.load(file, map_location="cpu", weights_only=True)


def state_dict_of(content: object, *, where: str, path: Path) -> dict[str, Tensor]:
    """Names and plain tensors, or an error."""
    if not isinstance(content, Mapping):
        raise InputError(describe(where, f"{path} does not hold a state dict", got=type(content).__name__))
    for name, tensor in content.items():
        if not isinstance(name, str):
            raise InputError(describe(where, f"{path}: the name of a tensor must be text", got=type(name).__name__))
        if not isinstance(tensor, Tensor):
            continue  # whoever reads it says what it should be
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            got = f"{tensor.layout} of {tensor.dtype} on {tensor.device.type}"
            raise InputError(describe(where, f"{path}: {name} must be a plain tensor", got=got))
    return dict(content)


def _check_stored(path: Path) -> None:
    """`torch.save` compresses nothing; a file that does would unpack to any size."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError("a part of it is compressed")
