"""Reading the variables of a Sonnet v1 `RelationalMemory` into a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from relational_rnn._check import InputError, describe
from relational_rnn._reading.arrays import read_arrays
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell

if TYPE_CHECKING:
    from relational_rnn.nn.relational_memory import RelationalMemory

WHERE = "RelationalMemory.from_sonnet"
SCOPE = "relational_memory/"
Layer = TypeVar("Layer", bound="RelationalMemory")


def sonnet_variables(cell: RelationalMemoryCell) -> dict[str, tuple[Tensor, bool]]:
    """Sonnet's variable name of every parameter, with whether the array is the transpose of the parameter."""
    found: dict[str, tuple[Tensor, bool]] = {}

    def numbered(name: str, number: int) -> str:
        return name if number == 0 else f"{name}_{number}"

    def add_linear(name: str, p: Any) -> None:
        found[f"{SCOPE}{name}/w"] = (p.weight, True)
        found[f"{SCOPE}{name}/b"] = (p.bias, False)

    def add_norm(number: int, p: Any) -> None:
        found[f"{SCOPE}{numbered('layer_norm', number)}/gamma"] = (p.weight, False)
        found[f"{SCOPE}{numbered('layer_norm', number)}/beta"] = (p.bias, False)

    p = cell.scan_parameters()
    add_linear("linear", p.input)
    for b, block in enumerate(p.blocks):
        add_linear(f"linear_{b + 1}", block.qkv)
        add_norm(3 * b, block.qkv_norm)
        add_norm(3 * b + 1, block.attention_norm)
        add_norm(3 * b + 2, block.mlp_norm)
    for i, layer in enumerate(p.mlp):
        add_linear(f"mlp/linear_{i}", layer)
    if p.gate_input is not None:
        add_linear(f"linear_{len(p.blocks) + 1}", p.gate_input)
        add_linear(f"linear_{len(p.blocks) + 2}", p.gate_memory)
    return found


def load_sonnet(
    make: Callable[..., Layer], source: str | Path | Mapping[str, np.ndarray], sizes: dict[str, Any]
) -> Layer:
    """See `RelationalMemory.from_sonnet`."""
    for name in ("input_size", "dtype"):
        if name in sizes:
            raise InputError(describe(WHERE, f"{name} comes from the arrays; leave it out", got=repr(sizes[name])))
    if sizes.get("formulation", "sonnet") != "sonnet":
        raise InputError(describe(WHERE, "these weights have another formulation", expected="formulation='sonnet'"))
    if sizes.get("gate_style") == "competitive":
        problem = "the original has no slots that compete, and its gates have the same sizes but another meaning"
        raise InputError(describe(WHERE, problem, expected="gate_style='unit', 'memory' or None"))
    arrays = dict(source) if isinstance(source, Mapping) else read_arrays(Path(source), where=WHERE)
    dtype = _common_dtype(arrays)
    projection = arrays.get(f"{SCOPE}linear/w")
    if projection is None or projection.ndim != 2:
        got = "no such array" if projection is None else f"shape {projection.shape}"
        raise InputError(describe(WHERE, f"{SCOPE}linear/w must be a matrix [input_size, width]", got=got))

    layer = make(input_size=int(projection.shape[0]), dtype=dtype, **sizes)
    wanted = sonnet_variables(layer.cell())
    missing, unknown = sorted(set(wanted) - set(arrays)), sorted(set(arrays) - set(wanted))
    if missing or unknown:
        raise InputError(
            describe(
                WHERE,
                "the variables are not those of a module of these sizes",
                got=f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}",
                hint="check num_blocks, attention_mlp_layers and gate_style.",
            )
        )
    for name, (parameter, transposed) in wanted.items():
        expected = tuple(parameter.shape[::-1] if transposed else parameter.shape)
        if arrays[name].shape != expected:
            raise InputError(describe(WHERE, f"{name} has the wrong shape", got=arrays[name].shape, expected=expected))
    with torch.no_grad():
        for name, (parameter, transposed) in wanted.items():
            array = torch.from_numpy(np.ascontiguousarray(arrays[name]))
            parameter.copy_(array.T if transposed else array)
    return layer


def _common_dtype(arrays: Mapping[str, np.ndarray]) -> torch.dtype:
    names: dict[str, str] = {}
    for name, array in arrays.items():
        names.setdefault(str(array.dtype) if isinstance(array, np.ndarray) else type(array).__name__, name)
    if len(names) != 1 or next(iter(names)) not in ("float32", "float64"):
        got = ", ".join(f"{dtype} ({name})" for dtype, name in sorted(names.items())) or "no arrays"
        raise InputError(
            describe(WHERE, "the arrays must all have one dtype", got=got, expected="all float32 or all float64")
        )
    return torch.float32 if "float32" in names else torch.float64
