"""Tensors that others wrote: safetensors, and what `torch.save` wrote. No code in them is run."""

from __future__ import annotations

import contextlib
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from relational_rnn._check import InputError, describe
from relational_rnn._reading.archives import is_zip
from relational_rnn._reading.guard import damaged
from relational_rnn._reading.plain import check_file, open_file

SPARE = 64
"""Parameters beyond those of the file that may be made: some have two names, some are made and then replaced."""


def read_safetensors(path: Path, *, problem: str, where: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file by their names, and the texts in its header.

    `problem` is said of a file that cannot be read, in a message that begins with `where`, by default the path.
    """
    check_file(path)
    with damaged(where or path, problem), safetensors.safe_open(path, framework="pt") as file:
        # a copy: the file may be replaced while a mapped tensor is still read
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, not a mapping
        return tensors, dict(file.metadata() or {})


def shapes_in_safetensors(path: Path, *, problem: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, whose numbers are not read; see `read_safetensors`."""
    check_file(path)
    with damaged(path, problem), safetensors.safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118, not a mapping


def read_pickled(path: Path, *, problem: str, where: str | None = None, hint: str | None = None) -> Any:
    """What `torch.save` wrote, if it is tensors and plain values; refuses damaged and compressed files, and code."""
    check_file(path)
    with damaged(where or path, problem, hint=hint):
        if is_zip(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():  # torch.save compresses nothing; others could unpack to any size
                    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                        raise ValueError("a part of it is compressed")
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
            continue  # the caller says what it should be
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            got = f"{tensor.layout} of {tensor.dtype} on {tensor.device.type}"
            raise InputError(describe(where, f"{path}: {name} must be a plain tensor", got=got))
    return dict(content)


def check_shapes(tensors: Mapping[str, Tensor], model: nn.Module, path: Path, *, hint: str | None = None) -> None:
    """Refuse the tensors of a file that do not have the names and shapes of a model's state."""
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    here = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    odd = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
    if odd:
        problem = f"belongs to another model: {len(odd)} tensors differ, the first is {odd[0]}"
        got, expected = (str(shapes.get(odd[0], "is not there")) for shapes in (there, here))
        raise InputError(describe(path, problem, got=got, expected=expected, hint=hint))


@contextlib.contextmanager
def sized_by(tensors: Mapping[str, Tensor], *, where: str, problem: str) -> Iterator[None]:
    """Refuse to build, within, a module of clearly more parameters than `tensors` has: sizes in a file may ask for any
    memory."""
    most, most_planned = 2 * len(tensors) + SPARE, 1000 * len(tensors) + SPARE
    largest = 4 * sum(tensor.numel() for tensor in tensors.values()) + 2**20
    thread, made, planned, numbers = threading.get_ident(), 0, 0, 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made, planned, numbers
        if parameter is None or threading.get_ident() != thread:
            return
        if parameter.is_meta:  # modules that are only counted, to find sizes
            planned += 1
        else:
            made, numbers = made + 1, numbers + parameter.numel()
        if made > most or planned > most_planned or numbers > largest:
            held = f"weights of {len(tensors):,} tensors"
            raise InputError(describe(where, "the sizes are larger than the weights beside them", expected=held))

    hook = register_module_parameter_registration_hook(count)
    try:
        with damaged(where, problem):
            yield
    finally:
        hook.remove()
