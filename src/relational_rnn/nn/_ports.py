"""Weights of two widely copied PyTorch ports of the relational memory.

Both ports name their tensors alike and compute the same function, which is not the original's; so their weights go into
a `PortedRelationalMemory`, which computes it too, and only on demand (`compat=`).
"""

# Shape legend: I input features, N memory slots, W memory width, F numbers of q, k, v of all heads

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn._reading.tensors import read_pickled, read_safetensors, state_dict_of

if TYPE_CHECKING:
    from relational_rnn.nn.compat import PortedRelationalMemory
    from relational_rnn.nn.relational_memory_cell import GateStyle

DIFFERENCES = (
    "layer norms over slots and features together with weights for every slot, one MLP layer applied repeatedly with a "
    "ReLU after the last time too, all weights shared by the attention blocks, trained gate biases"
)
NAMES = {  # theirs to ours; the layers of the MLP come on top
    "input_projector": "input",
    "qkv_projector": "qkv",
    "qkv_layernorm": "qkv_norm",
    "attended_memory_layernorm": "attention_norm",
    "attended_memory_layernorm2": "mlp_norm",
    "input_gate_projector": "gate_input",
    "memory_gate_projector": "gate_memory",
}
BIASES = ("forget_bias", "input_bias")


class PortImports:
    """The constructors that read the ports' weights; a base class of `RelationalMemory`."""

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
            >>> from relational_rnn.nn.compat import PortedRelationalMemory
            >>> weights = PortedRelationalMemory(5, mem_slots=3, head_size=4).port_state_dict()  # or a file's name
            >>> layer = RelationalMemory.from_l0sg(weights, mem_slots=3, head_size=4, compat="l0sg")
            >>> layer.output_size
            12
        """
        sizes = (mem_slots, head_size, num_heads, num_blocks, key_size, attention_mlp_layers, gate_style)
        return load_port("from_l0sg", "l0sg", source, sizes, prefix=prefix, compat=compat)

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
        sizes = (mem_slots, head_size, num_heads, num_blocks, key_size, attention_mlp_layers, gate_style)
        return load_port("from_textgan", "textgan", source, sizes, prefix=prefix, compat=compat)


def load_port(
    method: str,
    port: str,
    source: str | Path | Mapping[str, Tensor],
    sizes: tuple[int, int, int, int, int | None, int, GateStyle | None],
    *,
    prefix: str,
    compat: str | None,
) -> PortedRelationalMemory:
    """See `PortImports.from_l0sg`."""
    from relational_rnn.nn.compat import PortedRelationalMemory

    where = f"RelationalMemory.{method}"
    if compat is None:
        hint = f"pass compat={port!r} for a PortedRelationalMemory, which computes that function."
        problem = f"these weights belong to another function than the original's: {DIFFERENCES}"
        raise InputError(describe(where, problem, hint=hint))
    check_choice(where, "compat", compat, (port,))
    tensors = _read(where, Path(source)) if isinstance(source, str | Path) else dict(source)
    tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    dtype = _common_dtype(where, tensors)
    projection = tensors.get("input_projector.weight")
    if projection is None or projection.dim() != 2:
        got = "no such key" if projection is None else f"shape {tuple(projection.shape)}"
        problem = f"{prefix}input_projector.weight must be a matrix [width, input_size]"
        raise InputError(describe(where, problem, got=got))

    mem_slots, head_size, num_heads, num_blocks, key_size, mlp_layers, gate_style = sizes
    with torch.random.fork_rng(devices=[]):
        layer = PortedRelationalMemory(
            projection.shape[1],
            mem_slots,
            head_size,
            num_heads=num_heads,
            num_blocks=num_blocks,
            key_size=key_size,
            attention_mlp_layers=mlp_layers,
            gate_style=gate_style,
        ).to(dtype)
    wanted = _shapes(layer)
    missing, unknown = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or unknown:
        got = f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        hint = "check attention_mlp_layers and prefix; words' embeddings and decoders are not part of the layer."
        if not missing:
            hint = how_to_leave_out(method, [prefix + name for name in unknown])
        raise InputError(describe(where, "the keys are not those of a module of these sizes", got=got, hint=hint))
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape:
            got = tuple(tensors[name].shape)
            raise InputError(describe(where, f"{prefix}{name} has the wrong shape", got=got, expected=shape))
    for kind in ("weight", "bias"):
        for i in range(1, mlp_layers):
            if not torch.equal(tensors[f"attention_mlp.{i}.{kind}"], tensors[f"attention_mlp.0.{kind}"]):
                problem = f"{prefix}attention_mlp.0 and .{i} differ, where the port has one layer under both names"
                raise InputError(describe(where, problem))
    layer.load_state_dict({ours: tensors[theirs] for ours, theirs in _sources(layer).items()})
    return layer


def how_to_leave_out(method: str, names: list[str]) -> str:
    """The hint where a file holds all that the layer needs, and more: a model around it, such as one of language."""
    return (
        f"the other {len(names)} belong to a model around the layer (or are layers of the MLP beyond "
        f"attention_mlp_layers); leave them out: {method}({{name: tensor for name, tensor in "
        f"torch.load(FILE, weights_only=True).items() if name not in {tuple(names)!r}}}, ...)"
    )


def port_state_dict(layer: PortedRelationalMemory) -> dict[str, Tensor]:
    """See `PortedRelationalMemory.port_state_dict`."""
    ours, like = layer.state_dict(), layer.input.weight
    found = {theirs: ours[name] for name, theirs in _sources(layer).items()}
    for name, shape in _shapes(layer).items():
        if name.startswith("attention_mlp."):
            found[name] = ours[f"mlp.{name.rpartition('.')[2]}"]
        elif name not in found:  # what the ports have, and do not use, where there are no gates
            found[name] = like.new_zeros(shape)
    return found


def _sources(layer: PortedRelationalMemory) -> dict[str, str]:
    """The port's name of every parameter of ours."""
    theirs = {ours: name for name, ours in NAMES.items()} | {"mlp": "attention_mlp.0"}
    found = {}
    for name in layer.state_dict():
        module, _, kind = name.rpartition(".")
        found[name] = f"{theirs[module]}.{kind}" if module else name
    return found


def _shapes(layer: PortedRelationalMemory) -> dict[str, tuple[int, ...]]:
    """What the port's state dict holds: ours, every layer of the MLP again, and empty gates where there are none."""
    width, ours = layer.width, layer.state_dict()
    shapes = {theirs: tuple(ours[name].shape) for name, theirs in _sources(layer).items()}
    for i in range(layer.attention_mlp_layers):
        shapes |= {f"attention_mlp.{i}.weight": (width, width), f"attention_mlp.{i}.bias": (width,)}
    if layer.gate_memory is None:
        for name in ("input_gate_projector", "memory_gate_projector"):
            shapes |= {f"{name}.weight": (0, width), f"{name}.bias": (0,)}
        shapes |= dict.fromkeys(BIASES, ())
    return shapes


def _read(where: str, path: Path) -> dict[str, Tensor]:
    problem = f"{path} cannot be read as a file of tensors"
    if path.suffix == ".safetensors":
        return read_safetensors(path, where=where, problem=problem)[0]
    hint = "save the module's state_dict(), not the module."
    return state_dict_of(read_pickled(path, where=where, problem=problem, hint=hint), where=where, path=path)


def _common_dtype(where: str, tensors: Mapping[str, object]) -> torch.dtype:
    dtypes: dict[object, str] = {}
    for name, tensor in tensors.items():
        dtypes.setdefault(tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__, name)
    if len(dtypes) != 1 or next(iter(dtypes)) not in (torch.float32, torch.float64):
        got = ", ".join(f"{dtype} ({name})" for dtype, name in dtypes.items()) or "no tensors"
        problem = "the tensors must all have one dtype"
        raise InputError(describe(where, problem, got=got, expected="all torch.float32 or all torch.float64"))
    return torch.float32 if torch.float32 in dtypes else torch.float64
