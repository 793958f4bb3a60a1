"""The relational memory as the widely copied PyTorch ports compute it, for weights that were trained with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relational_rnn._check import check_choice, check_positive, check_room
from relational_rnn.nn._inputs import Device
from relational_rnn.nn._recurrent import RecurrentCore
from relational_rnn.nn.sizes import GateStyle, MemorySizes
from relational_rnn.ops.relational_scan.ported import PortedParameters, ported_advance, ported_input_terms
from relational_rnn.ops.relational_scan.reference import CalledBlock

PORT_NAMES = {  # the ports' modules and ours, but for the MLP
    "input_projector": "input",
    "qkv_projector": "qkv",
    "qkv_layernorm": "qkv_norm",
    "attended_memory_layernorm": "attention_norm",
    "attended_memory_layernorm2": "mlp_norm",
    "input_gate_projector": "gate_input",
    "memory_gate_projector": "gate_memory",
}


class SizesOfPorted(MemorySizes):
    """The sizes of a `PortedRelationalMemory`."""

    where = "PortedRelationalMemory"

    def __post_init__(self) -> None:
        check_choice(self.where, "gate_style", self.gate_style, ("unit", "memory", None))
        super().__post_init__()


class PortedRelationalMemory(RecurrentCore[Tensor]):
    """What the `RelationalMemory` of L0SG and of TextGAN-PyTorch computes, with the same arithmetic in both.

    It is not the function of the paper's authors, which `RelationalMemory` computes. The differences, spelled out in
    `relational_rnn/ops/relational_scan/ported.py`:

    - layer norms take mean and variance over rows and features together, and have a gain and a bias for every row, so
      that slots are not alike and their number is fixed;
    - the MLP applies one linear layer several times, with a ReLU after every time;
    - all attention blocks share all weights;
    - the gate biases are trained.

    Use it to run or go on training weights from there (`RelationalMemory.from_l0sg`, `from_textgan`); for new work take
    `RelationalMemory`. Unlike L0SG's module it detaches nothing. New weights are drawn as `torch.nn.Linear` does.

    The arguments are those of `RelationalMemory`, except:

    Args:
        num_blocks: how often the one attention block is applied per step.
        attention_mlp_layers: how often the one layer of the MLP is applied.
        gate_style: "unit", "memory" or None.
        forget_bias: where the trained bias of the forget gate starts.
        input_bias: where the trained bias of the input gate starts.

    Shape:
        x [B, T, I]; state [B, N, W] with N = mem_slots and W = num_heads * head_size, where slot i starts as the i-th
        unit vector; output [B, T, N * W], the memory after every step laid flat.

    Example:
        >>> layer = PortedRelationalMemory(input_size=5, mem_slots=3, head_size=4, num_heads=2)
        >>> y, memory = layer(torch.zeros(7, 11, 5))
        >>> y.shape, memory.shape
        (torch.Size([7, 11, 24]), torch.Size([7, 3, 8]))
    """

    def __init__(
        self,
        input_size: int,
        mem_slots: int,
        head_size: int,
        *,
        num_heads: int = 1,
        num_blocks: int = 1,
        key_size: int | None = None,
        attention_mlp_layers: int = 2,
        gate_style: GateStyle | None = "unit",
        forget_bias: float = 1.0,
        input_bias: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = SizesOfPorted.among(locals())
        where, width = sizes.where, sizes.width
        check_positive(where, input_size=input_size)
        self.input_size = input_size
        self.mem_slots = mem_slots
        self.width = width
        self.output_size = mem_slots * width
        self.num_blocks = num_blocks
        self.attention_mlp_layers = attention_mlp_layers
        self.settings = sizes.settings
        rows, qkv = mem_slots + 1, 2 * num_heads * self.settings.key_size + width
        check_room(where, width * (input_size + qkv + 5 * width), rows * (qkv + 3 * width))
        self.input = nn.Linear(input_size, width)
        self.qkv = nn.Linear(width, qkv)
        self.qkv_norm = nn.LayerNorm([rows, qkv])
        self.attention_norm = nn.LayerNorm([rows, width])
        self.mlp = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm([rows, width])
        self.gate_input = self.gate_memory = self.input_bias = self.forget_bias = None
        if gate_style is not None:
            gates = 2 * (width if gate_style == "unit" else 1)
            self.gate_input = nn.Linear(width, gates)
            self.gate_memory = nn.Linear(width, gates)
            self.input_bias = nn.Parameter(torch.tensor(float(input_bias)))
            self.forget_bias = nn.Parameter(torch.tensor(float(forget_bias)))
        self.first_biases = float(input_bias), float(forget_bias)

    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
        for bias, value in zip((self.input_bias, self.forget_bias), self.first_biases, strict=True):
            if bias is not None:
                nn.init.constant_(bias, value)

    def initial_state(self, batch_size: int, *, device: Device = None, dtype: torch.dtype | None = None) -> Tensor:
        zeros = super().initial_state(batch_size, device=device, dtype=dtype)
        return zeros + torch.eye(self.mem_slots, self.width, device=zeros.device, dtype=zeros.dtype)

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int]]:
        return {"": {"B": batch_size, "N": self.mem_slots, "W": self.width}}

    def project_input(self, x: Tensor) -> Tensor:
        return ported_input_terms(x, self.parameters_of_a_step())

    def advance(self, projected_t: Tensor, state: Tensor) -> Tensor:
        return ported_advance(state, projected_t, self.parameters_of_a_step())

    def output(self, state: Tensor) -> Tensor:
        return state.flatten(1)

    def parameters_of_a_step(self) -> PortedParameters:
        """The parameters as the functions in `relational_rnn.ops.relational_scan.ported` take them."""
        return PortedParameters(
            settings=self.settings,
            input=self.input,
            block=CalledBlock(self.qkv, self.mlp_norm, self.qkv_norm, self.attention_norm),
            num_blocks=self.num_blocks,
            mlp=self.mlp,
            mlp_layers=self.attention_mlp_layers,
            gate_input=self.gate_input,
            gate_memory=self.gate_memory,
            input_bias=self.input_bias,
            forget_bias=self.forget_bias,
        )

    def port_state_dict(self) -> dict[str, Tensor]:
        """The weights under the ports' names, to load into their module of the same arguments; see `from_l0sg`."""
        ours = self.state_dict()
        return {
            theirs: self.input.weight.new_zeros(shape) if name is None else ours[name]
            for theirs, (name, shape) in port_entries(self).items()
        }


def port_entries(layer: PortedRelationalMemory) -> dict[str, tuple[str | None, tuple[int, ...]]]:
    """The port's tensors by name: our name for each, or None where a port without gates does not use it; its shape."""
    ours, width = layer.state_dict(), layer.width
    modules = PORT_NAMES | {f"attention_mlp.{i}": "mlp" for i in range(layer.attention_mlp_layers)}
    entries: dict[str, tuple[str | None, tuple[int, ...]]] = {}
    for theirs, module in modules.items():
        for kind, unused in (("weight", (0, width)), ("bias", (0,))):
            name = f"{module}.{kind}"
            entries[f"{theirs}.{kind}"] = (name, tuple(ours[name].shape)) if name in ours else (None, unused)
    for name in ("forget_bias", "input_bias"):
        entries[name] = (name if name in ours else None, ())
    return entries
