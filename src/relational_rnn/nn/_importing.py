"""Reading the weights of other implementations: the original's (Sonnet v1), and two widely copied PyTorch ports.

Both ports name their tensors alike and compute the same function, which is not the original's. Their weights go into a
`PortedRelationalMemory`, which computes it too, and only on demand (`compat=`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn._reading.arrays import read_arrays
from relational_rnn._reading.tensors import read_pickled, read_safetensors, state_dict_of
from relational_rnn.nn._pretrained import check_tensors
from relational_rnn.nn.compat import PortedRelationalMemory, port_entries
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell

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
            sizes: the constructor's arguments that the module was built with. The arrays give `input_size` (of an input
                with several axes, the product of those of one row) and `dtype`.

        Raises:
            InputError: a variable is missing, unknown, or of another shape or dtype than these sizes have.

        Example:
            >>> layer = RelationalMemory.from_sonnet("rmc.npz", mem_slots=4, head_size=32)  # doctest: +SKIP
        """
        _refuse_given(SONNET, "arrays", sizes, ("input_size", "dtype"))
        if sizes.get("formulation", "sonnet") != "sonnet":
            problem = "these weights have another formulation"
            raise InputError(describe(SONNET, problem, expected="formulation='sonnet'"))
        if sizes.get("gate_style") == "competitive":
            problem = "the original has no slots that compete, and its gates have the same sizes but another meaning"
            raise InputError(describe(SONNET, problem, expected="gate_style='unit', 'memory' or None"))
        arrays = dict(source) if isinstance(source, Mapping) else read_arrays(Path(source), where=SONNET)
        dtype = _common_dtype(SONNET, "arrays", arrays, np.dtype("float32"), np.dtype("float64"))
        projection = arrays.get(f"{SCOPE}linear/w")
        if projection is None or projection.ndim != 2:
            got = "no such array" if projection is None else f"shape {projection.shape}"
            raise InputError(describe(SONNET, f"{SCOPE}linear/w must be a matrix [input_size, width]", got=got))

        make: Any = cls
        layer = make(input_size=int(projection.shape[0]), dtype=getattr(torch, str(dtype)), **sizes)
        places = sonnet_variables(layer.cell())
        wanted = {name: tuple(p.shape[::-1] if transposed else p.shape) for name, (p, transposed) in places.items()}
        hint = "check num_blocks, attention_mlp_layers and gate_style."
        problem = "the variables are not those of a module of these sizes"
        check_tensors(SONNET, problem, wanted, {name: array.shape for name, array in arrays.items()}, hint=hint)
        with torch.no_grad():
            for name, (parameter, transposed) in places.items():
                array = torch.from_numpy(np.ascontiguousarray(arrays[name]))
                parameter.copy_(array.T if transposed else array)
        return layer

    @classmethod
    def from_l0sg(
        cls,
        source: str | Path | Mapping[str, Tensor],
        *,
        prefix: str = "",
        compat: Literal["l0sg"] | None = None,
        **sizes: Any,
    ) -> PortedRelationalMemory:
        """A layer with the weights of the `RelationalMemory` of L0SG/relational-rnn-pytorch.

        Args:
            source: a state dict, or a file of one: ".safetensors", or what `torch.save` wrote; only tensors are read.
            prefix: only keys that start with it are read, such as "lstm." for a model that holds the layer.
            compat: "l0sg" to get that module's function, a `PortedRelationalMemory`. `RelationalMemory` cannot compute
                it with any weights, so without `compat` the weights are refused.
            sizes: the arguments of `PortedRelationalMemory` that the module was built with: `mem_slots`, `head_size`,
                `num_heads`, `num_blocks`, `key_size`, `attention_mlp_layers`, `gate_style`. The weights do not show
                whether `num_heads` and `num_blocks` are right.

        Raises:
            InputError: `compat` is not given; or a key is missing or unknown, or a tensor has another shape or dtype.

        Example:
            >>> from relational_rnn import RelationalMemory
            >>> from relational_rnn.nn.compat import PortedRelationalMemory
            >>> weights = PortedRelationalMemory(5, mem_slots=3, head_size=4).port_state_dict()  # or a file's name
            >>> layer = RelationalMemory.from_l0sg(weights, mem_slots=3, head_size=4, compat="l0sg")
            >>> layer.output_size
            12
        """
        return load_port("l0sg", source, prefix, compat, sizes)

    @classmethod
    def from_textgan(
        cls,
        source: str | Path | Mapping[str, Tensor],
        *,
        prefix: str = "",
        compat: Literal["textgan"] | None = None,
        **sizes: Any,
    ) -> PortedRelationalMemory:
        """A layer with the weights of the `RelationalMemory` of williamSYSU/TextGAN-PyTorch.

        The arguments and errors are those of `from_l0sg`, with `compat="textgan"`. For a generator's state dict:
        `from_textgan("generator.pt", mem_slots=1, head_size=256, num_heads=2, prefix="lstm.", compat="textgan")`.
        """
        return load_port("textgan", source, prefix, compat, sizes)


def load_port(
    port: str, source: str | Path | Mapping[str, Tensor], prefix: str, compat: str | None, sizes: dict[str, Any]
) -> PortedRelationalMemory:
    """See `ForeignWeights.from_l0sg`."""
    where = f"RelationalMemory.from_{port}"
    if compat is None:
        hint = f"pass compat={port!r} for a PortedRelationalMemory, which computes that function."
        problem = f"these weights belong to another function than the original's: {DIFFERENCES}"
        raise InputError(describe(where, problem, hint=hint))
    check_choice(where, "compat", compat, (port,))
    _refuse_given(where, "tensors", sizes, ("input_size", "forget_bias", "input_bias"))
    tensors = _read(where, Path(source)) if isinstance(source, str | Path) else dict(source)
    tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    dtype = _common_dtype(where, "tensors", tensors, torch.float32, torch.float64)
    projection = tensors.get("input_projector.weight")
    if projection is None or projection.dim() != 2:
        got = "no such key" if projection is None else f"shape {tuple(projection.shape)}"
        problem = f"{prefix}input_projector.weight must be a matrix [width, input_size]"
        raise InputError(describe(where, problem, got=got))
    with torch.random.fork_rng(devices=[]):
        layer = PortedRelationalMemory(projection.shape[1], **sizes).to(dtype)
    entries = port_entries(layer)
    wanted = {name: shape for name, (_, shape) in entries.items()}
    hint = "check attention_mlp_layers and prefix; words' embeddings and decoders are not part of the layer."
    if not set(wanted) - set(tensors):  # all that the layer needs, and more: a model around it
        names = tuple(prefix + name for name in sorted(set(tensors) - set(wanted)))
        hint = (
            f"the other {len(names)} belong to a model around the layer (or are layers of the MLP beyond "
            f"attention_mlp_layers); leave them out: from_{port}({{name: tensor for name, tensor in "
            f"torch.load(FILE, weights_only=True).items() if name not in {names!r}}}, ...)"
        )
    problem = "the keys are not those of a module of these sizes"
    check_tensors(where, problem, wanted, {name: tuple(t.shape) for name, t in tensors.items()}, hint=hint)
    for kind in ("weight", "bias"):
        for i in range(1, layer.attention_mlp_layers):
            if not torch.equal(tensors[f"attention_mlp.{i}.{kind}"], tensors[f"attention_mlp.0.{kind}"]):
                problem = f"{prefix}attention_mlp.0 and .{i} differ, where the port has one layer under both names"
                raise InputError(describe(where, problem))
    layer.load_state_dict({ours: tensors[theirs] for theirs, (ours, _) in entries.items() if ours is not None})
    return layer


def sonnet_variables(cell: RelationalMemoryCell) -> dict[str, tuple[Tensor, bool]]:
    """Sonnet's variable name of every parameter, with whether the array is the transpose of the parameter."""
    found: dict[str, tuple[Tensor, bool]] = {}

    def add_linear(name: str, p: Any) -> None:
        found[f"{SCOPE}{name}/w"] = (p.weight, True)
        found[f"{SCOPE}{name}/b"] = (p.bias, False)

    def add_norm(number: int, p: Any) -> None:
        name = f"{SCOPE}layer_norm_{number}" if number else f"{SCOPE}layer_norm"
        found[f"{name}/gamma"] = (p.weight, False)
        found[f"{name}/beta"] = (p.bias, False)

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


def _refuse_given(where: str, noun: str, sizes: Mapping[str, Any], names: Collection[str]) -> None:
    for name in names:
        if name in sizes:
            raise InputError(describe(where, f"{name} comes from the {noun}; leave it out", got=repr(sizes[name])))


def _read(where: str, path: Path) -> dict[str, Tensor]:
    problem = f"{path} cannot be read as a file of tensors"
    if path.suffix == ".safetensors":
        return read_safetensors(path, where=where, problem=problem)[0]
    hint = "save the module's state_dict(), not the module."
    return state_dict_of(read_pickled(path, where=where, problem=problem, hint=hint), where=where, path=path)


def _common_dtype(where: str, noun: str, found: Mapping[str, Any], *dtypes: Any) -> Any:
    """The one dtype of all, refused unless it is one of `dtypes`."""
    kinds: dict[object, str] = {}
    for name, one in found.items():
        kinds.setdefault(getattr(one, "dtype", type(one).__name__), name)
    kind = next(iter(kinds), None)
    if len(kinds) != 1 or kind not in dtypes:
        got = ", ".join(f"{kind} ({name})" for kind, name in kinds.items()) or f"no {noun}"
        expected = " or ".join(f"all {dtype}" for dtype in dtypes)
        raise InputError(describe(where, f"the {noun} must all have one dtype", got=got, expected=expected))
    return kind
