"""One step as the widely copied PyTorch ports compute it, which differs from the original:

    h  = [M; W x]
    h' = LN2(h + attend(h))                 LN2: mean and variance over rows and features together, with a gain and a
    h" = LN2(h' + MLP(h'))                       bias for every row and feature; the one on q, k, v as well
    M' = i * tanh(h"[:N]) + f * M           MLP: one linear layer, applied several times, a ReLU after every time
    i, f = sigmoid(W_x x + W_m tanh(M) + b) b: two trained numbers; gates as in the original otherwise

All attention blocks share all weights.
"""

# Shape legend: B batch, N memory slots, R = N + 1 rows, M memory width, F numbers of q, k, v of all heads,
#               G gate width M or 1, I input features

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan.reference import CalledBlock, Map, Settings, attend, layer_norm, linear


class PortedParameters(NamedTuple):
    """Everything a step needs besides its input and the memory; the norms have an axis of rows."""

    settings: Settings  # its two biases are not read
    input: Map  # I -> M
    block: CalledBlock  # its norms are [R, F], [R, M] and [R, M]
    num_blocks: int
    mlp: Map  # M -> M
    mlp_layers: int
    gate_input: Map | None  # M -> 2G, input gate first
    gate_memory: Map | None  # M -> 2G
    input_bias: Tensor | None  # one number
    forget_bias: Tensor | None  # one number


def ported_input_terms(x: Tensor, p: PortedParameters) -> Tensor:
    """What a step takes from its input `x` [..., I] alone: the input's row and its gate terms, [..., M + 2G]."""
    row = linear(x, p.input)
    return row if p.gate_input is None else torch.cat([row, linear(row, p.gate_input)], dim=-1)


def ported_advance(memory: Tensor, terms: Tensor, p: PortedParameters) -> Tensor:
    """The memory after a step, from the memory before it [B, N, M] and what `ported_input_terms` made of the input."""
    slots, width = memory.shape[-2:]
    assert p.block.attention_norm is not None
    h = torch.cat([memory, terms[..., None, :width]], dim=-2)  # [B, R, M]
    for _ in range(p.num_blocks):
        h = layer_norm(h + attend(h, p.block, p.settings)[0], p.block.attention_norm)
        processed = h
        for _ in range(p.mlp_layers):
            processed = torch.relu(linear(processed, p.mlp))
        h = layer_norm(h + processed, p.block.mlp_norm)
    candidate = h[..., :slots, :]
    if p.gate_memory is None:
        return candidate.to(memory.dtype)
    assert p.input_bias is not None
    assert p.forget_bias is not None
    gates = linear(torch.tanh(memory), p.gate_memory) + terms[..., None, width:]
    input_gate, forget_gate = gates.chunk(2, dim=-1)
    kept = torch.sigmoid(forget_gate + p.forget_bias) * memory
    return (torch.sigmoid(input_gate + p.input_bias) * torch.tanh(candidate) + kept).to(memory.dtype)
