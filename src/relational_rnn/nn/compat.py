"""The relational memory as the widely copied PyTorch ports compute it, for weights that were trained with them."""

# Shape legend: B batch, I input features, N memory slots, R = N + 1 rows, W memory width, F numbers of q, k, v of all
#               heads, G gate width W or 1

from __future__ import annotations

import torch
from torch import Tensor, nn

from relational_rnn._check import check_choice, check_positive, check_room
from relational_rnn.nn._recurrent import RecurrentCore
from relational_rnn.nn.core import State
from relational_rnn.nn.sizes import GateStyle, MemorySizes
from relational_rnn.ops.relational_scan.ported import PortedParameters, ported_advance, ported_input_terms
from relational_rnn.ops.relational_scan.reference import CalledBlock

PORT_NAMES = {  # theirs to ours; the layers of the MLP come on top
    "input_projector": "input",
    "qkv_projector": "qkv",
    "qkv_layernorm": "qkv_norm",
    "attended_memory_layernorm": "attention_norm",
    "attended_memory_layernorm2": "mlp_norm",
    "input_gate_projector": "gate_input",
    "memory_gate_projector": "gate_memory",
}


class SizesOfPorted(MemorySizes):
    """Those of a constructor of the ports' memory."""

    where = "PortedRelationalMemory"

    def __post_init__(self) -> None:
        check_choice(self.where, "gate_style", self.gate_style, ("unit", "memory", None))
        super().__post_init__()


class PortedRelationalMemory(RecurrentCore[Tensor]):
    """What L0SG's `RelationalMemory` computes, and TextGAN-PyTorch's, which share their arithmetic.

    It is not the function of the paper's authors, which `RelationalMemory` computes. The differences, spelled out in
    `relational_rnn/ops/relational_scan/ported.py`:

    - layer norms take mean and variance over rows and features together, and have a gain and a bias for every row, so
      that slots are not alike and their number is fixed;
    - the MLP applies one linear layer several times, with a ReLU after every time, the last included;
    - all attention blocks share all weights;
    - the gate biases are trained.

    Use it to run or to go on training weights that came from there (`RelationalMemory.from_l0sg`, `from_textgan`); for
    new work take `RelationalMemory`. Unlike L0SG's module it detaches nothing: gradients flow into the state. New
    weights are drawn as `torch.nn.Linear` draws them, as there.

    Args:
        input_size: numbers per step, I.
        mem_slots: slots in the memory, N.
        head_size: numbers per head and slot; the memory is W = num_heads * head_size wide.
        num_heads: attention heads.
        num_blocks: how often the one attention block is applied per step.
        key_size: size of queries and keys per head; None means head_size.
        attention_mlp_layers: how often the one layer of the MLP is applied.
        gate_style: "unit" (a gate per number), "memory" (one per slot), or None.
        forget_bias: where the trained bias of the forget gate starts.
        input_bias: where the trained bias of the input gate starts.

    Shape:
        x [B, T, I]; state [B, N, W], slot i starts as the i-th unit vector; output [B, T, N * W], the memory after
        every step laid flat.

    Raises:
        InputError: a size, dtype, length or reset that does not fit.

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
        """Draw all weights anew, as PyTorch's modules do."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
        for bias, value in zip((self.input_bias, self.forget_bias), self.first_biases, strict=True):
            if bias is not None:
                nn.init.constant_(bias, value)

    def initial_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
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

    def rows(self, state: State) -> tuple[Tensor, None]:
        assert isinstance(state, Tensor)
        return state, None

    def parameters_of_a_step(self) -> PortedParameters:
        """The parameters as the functions in `relational_rnn.ops.relational_scan.ported` take them."""

        return PortedParameters(
            settings=self.settings,
            input=self.input,
            block=CalledBlock(
                qkv=self.qkv, qkv_norm=self.qkv_norm, attention_norm=self.attention_norm, mlp_norm=self.mlp_norm
            ),
            num_blocks=self.num_blocks,
            mlp=self.mlp,
            mlp_layers=self.attention_mlp_layers,
            gate_input=self.gate_input,
            gate_memory=self.gate_memory,
            input_bias=self.input_bias,
            forget_bias=self.forget_bias,
        )

    def port_state_dict(self) -> dict[str, Tensor]:
        """The weights under the ports' names, for the module of the ports with the same arguments to load.

        Example:
            >>> from relational_rnn import RelationalMemory
            >>> weights = PortedRelationalMemory(5, mem_slots=3, head_size=4).port_state_dict()
            >>> layer = RelationalMemory.from_l0sg(weights, mem_slots=3, head_size=4, compat="l0sg")
            >>> layer(torch.zeros(7, 11, 5))[0].shape
            torch.Size([7, 11, 12])
        """
        ours = self.state_dict()
        found = {theirs: ours[name] for name, theirs in port_names(self).items()}
        for name, shape in port_shapes(self).items():
            if name.startswith("attention_mlp."):
                found[name] = ours[f"mlp.{name.rpartition('.')[2]}"]
            elif name not in found:  # what the ports have, and do not use, where there are no gates
                found[name] = self.input.weight.new_zeros(shape)
        return found


def port_names(layer: PortedRelationalMemory) -> dict[str, str]:
    """The port's name of every parameter of ours."""
    theirs = {ours: name for name, ours in PORT_NAMES.items()} | {"mlp": "attention_mlp.0"}
    found = {}
    for name in layer.state_dict():
        module, _, kind = name.rpartition(".")
        found[name] = f"{theirs[module]}.{kind}" if module else name
    return found


def port_shapes(layer: PortedRelationalMemory) -> dict[str, tuple[int, ...]]:
    """What the port's state dict holds: ours, every layer of the MLP again, and empty gates where there are none."""
    width, ours = layer.width, layer.state_dict()
    shapes = {theirs: tuple(ours[name].shape) for name, theirs in port_names(layer).items()}
    for i in range(layer.attention_mlp_layers):
        shapes |= {f"attention_mlp.{i}.weight": (width, width), f"attention_mlp.{i}.bias": (width,)}
    if layer.gate_memory is None:
        for name in ("input_gate_projector", "memory_gate_projector"):
            shapes |= {f"{name}.weight": (0, width), f"{name}.bias": (0,)}
        shapes |= dict.fromkeys(("forget_bias", "input_bias"), ())
    return shapes
