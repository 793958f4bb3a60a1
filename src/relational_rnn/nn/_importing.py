"""Reading the weights of other implementations: the original's (Sonnet v1), and two widely copied PyTorch ports.

Both ports name their tensors alike and compute the same function, which is not the original's; so their weights go into
a `PortedRelationalMemory`, which computes it too, and only on demand (`compat=`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn._reading.arrays import read_arrays
from relational_rnn._reading.tensors import read_pickled, read_safetensors, state_dict_of
from relational_rnn.nn._pretrained import check_names
from relational_rnn.nn.compat import PortedRelationalMemory, port_names, port_shapes
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.nn.sizes import GateStyle

DIFFERENCES = (
    "layer norms over slots and features together with weights for every slot, one MLP layer applied repeatedly with a "
    "ReLU after the last time too, all weights shared by the attention blocks, trained gate biases"
)
SONNET = "RelationalMemory.from_sonnet"
SCOPE = "relational_memory/"


class ForeignWeights:
    """The constructors of `RelationalMemory` that read the weights of others."""

    @classmethod
    def from_sonnet(cls, source: str | Path | Mapping[str, np.ndarray], **sizes: Any) -> Self:
        """A layer with the weights of a Sonnet v1 `RelationalMemory`.

        Args:
            source: an .npz file, or a mapping, from variable name ("relational_memory/linear/w", ...) to array; all
                arrays float32 or all float64, which becomes the layer's dtype.
            sizes: the arguments of the constructor that the module was built with, all but `input_size` and `dtype`,
                which the arrays tell. An input of several axes per step counts as one row of their product, or, where
                it was treated as a matrix, as rows of the product of all axes but the first.

        Raises:
            InputError: a variable is missing, unknown, or of another shape or dtype than these sizes have.

        Example:
            >>> layer = RelationalMemory.from_sonnet("rmc.npz", mem_slots=4, head_size=32)  # doctest: +SKIP
        """
        return load_sonnet(cls, source, sizes)

    @classmethod
    def from_l0sg(
        cls,
        source: str | Path | Mapping[str, Tensor],
        *,
        mem_slots: int,
        head_size: int,
        num_heads: int = 1,
        num_blocks: int = 1,
        key_size: int | None = None,
        attention_mlp_layers: int = 2,
        gate_style: GateStyle | None = "unit",
        prefix: str = "",
        compat: Literal["l0sg"] | None = None,
    ) -> PortedRelationalMemory:
        """A layer with the weights of the `RelationalMemory` of L0SG/relational-rnn-pytorch.

        Args:
            source: a state dict, or a file of one: ".safetensors", or what `torch.save` wrote; only tensors are read.
            mem_slots: this and the next arguments are those that the module was built with; `num_blocks` and
                `num_heads` leave no trace in the weights and have to be right.
            head_size: numbers per head and slot.
            num_heads: attention heads.
            num_blocks: how often the attention block is applied.
            key_size: size of queries and keys per head; None means head_size.
            attention_mlp_layers: how often the layer of the MLP is applied.
            gate_style: "unit", "memory" or None.
            prefix: only keys that start with it are read, as in "lstm." for a model that holds the layer.
            compat: "l0sg" to get that module's function, a `PortedRelationalMemory`. `RelationalMemory` itself cannot
                compute it with any weights, so without `compat` the weights are refused.

        Raises:
            InputError: `compat` is not given; or a key is missing or unknown, or a tensor has another shape or dtype.

        Example:
            >>> from relational_rnn import RelationalMemory
            >>> from relational_rnn.nn.compat import PortedRelationalMemory, port_names, port_shapes
            >>> weights = PortedRelationalMemory(5, mem_slots=3, head_size=4).port_state_dict()  # or a file's name
            >>> layer = RelationalMemory.from_l0sg(weights, mem_slots=3, head_size=4, compat="l0sg")
            >>> layer.output_size
            12
        """
        return load_port("l0sg", locals())

    @classmethod
    def from_textgan(
        cls,
        source: str | Path | Mapping[str, Tensor],
        *,
        mem_slots: int,
        head_size: int,
        num_heads: int = 1,
        num_blocks: int = 1,
        key_size: int | None = None,
        attention_mlp_layers: int = 2,
        gate_style: GateStyle | None = "unit",
        prefix: str = "",
        compat: Literal["textgan"] | None = None,
    ) -> PortedRelationalMemory:
        """A layer with the weights of the `RelationalMemory` of williamSYSU/TextGAN-PyTorch.

        The arguments and errors are those of `from_l0sg`, with `compat="textgan"`; in a generator's state dict the
        layer has `prefix="lstm."`:
        `from_textgan("generator.pt", mem_slots=1, head_size=256, num_heads=2, prefix="lstm.", compat="textgan")`.
        """
        return load_port("textgan", locals())


def load_port(port: str, given: Mapping[str, Any]) -> PortedRelationalMemory:
    """See `ForeignWeights.from_l0sg`; `given` are its arguments."""
    where, source, prefix = f"RelationalMemory.from_{port}", given["source"], given["prefix"]
    if given["compat"] is None:
        hint = f"pass compat={port!r} for a PortedRelationalMemory, which computes that function."
        problem = f"these weights belong to another function than the original's: {DIFFERENCES}"
        raise InputError(describe(where, problem, hint=hint))
    check_choice(where, "compat", given["compat"], (port,))
    tensors = _read(where, Path(source)) if isinstance(source, str | Path) else dict(source)
    tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    dtype = _common_dtype(where, "tensors", tensors, torch.float32, torch.float64)
    projection = tensors.get("input_projector.weight")
    if projection is None or projection.dim() != 2:
        got = "no such key" if projection is None else f"shape {tuple(projection.shape)}"
        problem = f"{prefix}input_projector.weight must be a matrix [width, input_size]"
        raise InputError(describe(where, problem, got=got))
    sizes = {name: given[name] for name in given if name not in ("cls", "source", "prefix", "compat")}
    with torch.random.fork_rng(devices=[]):
        layer = PortedRelationalMemory(projection.shape[1], **sizes).to(dtype)
    wanted = port_shapes(layer)
    hint = "check attention_mlp_layers and prefix; words' embeddings and decoders are not part of the layer."
    if not set(wanted) - set(tensors):
        hint = _how_to_leave_out(port, [prefix + name for name in sorted(set(tensors) - set(wanted))])
    check_names(where, "the keys are not those of a module of these sizes", wanted, tensors, hint=hint)
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape:
            got = tuple(tensors[name].shape)
            raise InputError(describe(where, f"{prefix}{name} has the wrong shape", got=got, expected=shape))
    for kind in ("weight", "bias"):
        for i in range(1, layer.attention_mlp_layers):
            if not torch.equal(tensors[f"attention_mlp.{i}.{kind}"], tensors[f"attention_mlp.0.{kind}"]):
                problem = f"{prefix}attention_mlp.0 and .{i} differ, where the port has one layer under both names"
                raise InputError(describe(where, problem))
    layer.load_state_dict({ours: tensors[theirs] for ours, theirs in port_names(layer).items()})
    return layer


def _how_to_leave_out(port: str, names: list[str]) -> str:
    """The hint where a file holds all that the layer needs, and more: a model around it, such as one of language."""
    return (
        f"the other {len(names)} belong to a model around the layer (or are layers of the MLP beyond "
        f"attention_mlp_layers); leave them out: from_{port}({{name: tensor for name, tensor in "
        f"torch.load(FILE, weights_only=True).items() if name not in {tuple(names)!r}}}, ...)"
    )


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


def load_sonnet(make: Callable[..., Any], source: str | Path | Mapping[str, np.ndarray], sizes: dict[str, Any]) -> Any:
    """See `ForeignWeights.from_sonnet`."""
    for name in ("input_size", "dtype"):
        if name in sizes:
            raise InputError(describe(SONNET, f"{name} comes from the arrays; leave it out", got=repr(sizes[name])))
    if sizes.get("formulation", "sonnet") != "sonnet":
        raise InputError(describe(SONNET, "these weights have another formulation", expected="formulation='sonnet'"))
    if sizes.get("gate_style") == "competitive":
        problem = "the original has no slots that compete, and its gates have the same sizes but another meaning"
        raise InputError(describe(SONNET, problem, expected="gate_style='unit', 'memory' or None"))
    arrays = dict(source) if isinstance(source, Mapping) else read_arrays(Path(source), where=SONNET)
    dtype = _common_dtype(SONNET, "arrays", arrays, np.dtype("float32"), np.dtype("float64"))
    projection = arrays.get(f"{SCOPE}linear/w")
    if projection is None or projection.ndim != 2:
        got = "no such array" if projection is None else f"shape {projection.shape}"
        raise InputError(describe(SONNET, f"{SCOPE}linear/w must be a matrix [input_size, width]", got=got))

    layer = make(input_size=int(projection.shape[0]), dtype=getattr(torch, str(dtype)), **sizes)
    wanted = sonnet_variables(layer.cell())
    hint = "check num_blocks, attention_mlp_layers and gate_style."
    check_names(SONNET, "the variables are not those of a module of these sizes", wanted, arrays, hint=hint)
    for name, (parameter, transposed) in wanted.items():
        expected = tuple(parameter.shape[::-1] if transposed else parameter.shape)
        if arrays[name].shape != expected:
            raise InputError(describe(SONNET, f"{name} has the wrong shape", got=arrays[name].shape, expected=expected))
    with torch.no_grad():
        for name, (parameter, transposed) in wanted.items():
            array = torch.from_numpy(np.ascontiguousarray(arrays[name]))
            parameter.copy_(array.T if transposed else array)
    return layer


def _read(where: str, path: Path) -> dict[str, Tensor]:
    problem = f"{path} cannot be read as a file of tensors"
    if path.suffix == ".safetensors":
        return read_safetensors(path, where=where, problem=problem)[0]
    hint = "save the module's state_dict(), not the module."
    return state_dict_of(read_pickled(path, where=where, problem=problem, hint=hint), where=where, path=path)


def _common_dtype(where: str, noun: str, found: Mapping[str, Any], *dtypes: Any) -> Any:
    """The one dtype of all, refused unless it is one of two."""
    kinds: dict[object, str] = {}
    for name, one in found.items():
        kinds.setdefault(getattr(one, "dtype", type(one).__name__), name)
    kind = next(iter(kinds), None)
    if len(kinds) != 1 or kind not in dtypes:
        got = ", ".join(f"{kind} ({name})" for kind, name in kinds.items()) or f"no {noun}"
        expected = " or ".join(f"all {dtype}" for dtype in dtypes)
        raise InputError(describe(where, f"the {noun} must all have one dtype", got=got, expected=expected))
    return kind
