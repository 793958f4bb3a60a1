"""The relational memory as the widely copied PyTorch ports compute it, for weights that were trained with them."""

# Shape legend: B batch, I input features, N memory slots, R = N + 1 rows, W memory width, F numbers of q, k, v of all
#               heads, G gate width W or 1

from __future__ import annotations

import torch
from torch import Tensor, nn

from relational_rnn._check import check_choice, check_counts, check_numbers, check_positive, check_room
from relational_rnn.nn._inputs import check_state_tensor, start_at
from relational_rnn.nn._ports import port_state_dict
from relational_rnn.nn._recurrent import RecurrentCore
from relational_rnn.nn.core import State
from relational_rnn.nn.relational_memory_cell import GateStyle
from relational_rnn.ops.relational_scan.compat import PortedParameters, ported_advance, ported_input_terms
from relational_rnn.ops.relational_scan.reference import CalledBlock, Settings


class PortedRelationalMemory(RecurrentCore):
    """What L0SG's `RelationalMemory` computes, and TextGAN-PyTorch's, which share their arithmetic.

    It is not the function of the paper's authors, which `RelationalMemory` computes. The differences, spelled out in
    `relational_rnn/ops/relational_scan/compat.py`:

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
        where = "PortedRelationalMemory"
        sizes = {"input_size": input_size, "mem_slots": mem_slots, "head_size": head_size, "num_heads": num_heads}
        check_positive(where, **sizes)
        check_counts(where, num_blocks=num_blocks, attention_mlp_layers=attention_mlp_layers)
        if key_size is not None:
            check_positive(where, key_size=key_size)
        check_choice(where, "gate_style", gate_style, ("unit", "memory", None))
        check_numbers(where, forget_bias=forget_bias, input_bias=input_bias)
        self.input_size = input_size
        self.mem_slots = mem_slots
        self.width = width = num_heads * head_size
        self.output_size = mem_slots * width
        self.num_blocks = num_blocks
        self.attention_mlp_layers = attention_mlp_layers
        keys = head_size if key_size is None else key_size
        self.settings = Settings(
            formulation="sonnet", num_heads=num_heads, key_size=keys, forget_bias=0.0, input_bias=0.0
        )
        rows, qkv = mem_slots + 1, num_heads * (2 * keys + head_size)
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
        device, dtype = start_at(self, batch_size, device, dtype, self.mem_slots * self.width)
        eye = torch.eye(self.mem_slots, self.width, device=device, dtype=dtype)
        return eye.repeat(batch_size, 1, 1)

    def project_input(self, x: Tensor) -> Tensor:
        return ported_input_terms(x, self.parameters_of_a_step())

    def advance(self, projected_t: Tensor, state: State) -> Tensor:
        assert isinstance(state, Tensor)
        return ported_advance(state, projected_t, self.parameters_of_a_step())

    def output(self, state: State) -> Tensor:
        assert isinstance(state, Tensor)
        return state.flatten(1)

    def check_state(self, state: State, batch_size: int) -> None:
        check_state_tensor(self, state, {"B": batch_size, "N": self.mem_slots, "W": self.width})

    def rows(self, state: State) -> tuple[Tensor, None]:
        assert isinstance(state, Tensor)
        return state, None

    def parameters_of_a_step(self) -> PortedParameters:
        """The parameters as the functions in `relational_rnn.ops.relational_scan.compat` take them."""

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
        return port_state_dict(self)
