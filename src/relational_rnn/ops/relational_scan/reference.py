"""The relational memory, one step at a time: the definition that judges every faster implementation.

There are two formulations. "sonnet" is the paper's (Santoro et al., 2018, arXiv:1806.01822, equations 1 to 7) with the
exact arithmetic of the authors' code; "chapter" is a transformer block without gates:

    sonnet    h  = [M; W x]                                       chapter   h  = [M; W x]
              h' = LN(h + attend(h))                                        h' = attend(h) W^O
              h" = LN(h' + MLP(h'))                                         h" = LN(h' + MLP(h'))
              M' = i * tanh(h"[:N]) + f * M                                 M' = h"[:N]
              i, f = sigmoid(W_x x + W_m tanh(M) + bias)

Every row attends to every row, including the input's; only the memory's rows are kept.

In "sonnet" slots may also compete for the input (`Settings.competitive`). h" is the same, and the update becomes

    M' = M + u * (tanh(h"[:N]) - M)                            u from 0 to 1: a slot stays or moves to its candidate
    u  = min(1, s * (mean over input rows of a) * g)           s = min(N, 4), see `update_rate`
    a  = softmax over the slots of k q^T / sqrt(M)             a row of the input is shared out among the slots
    k  = W_k M + b_k,  q_r = W_qr (W x)_r + b_q                a key per slot, a query per row of the input
    g  = sigmoid(W_x x + W_m tanh(M) + bias)

In the attention every slot chooses among rows; here every row of the input chooses among slots, as in Slot Attention
(Locatello et al., 2020, arXiv:2006.15055).
"""

# Shape legend (letters are local to this file)
#   B  batch             N  memory slots                H  heads
#   T  time steps        R  rows attended, N + n        K  key size, V value size per head
#   I  input features    M  memory width, H * V         F  H * (2K + V), queries, keys and values of all heads
#   n  input rows        G  gate width, M or 1          S  attention blocks

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Formulation = Literal["sonnet", "chapter"]
LAYER_NORM_EPS = 1e-5
SHARE_SCALE = 4  # a slot with a quarter of a row may move all the way: with less, rows shared evenly move no slot far


class Linear(NamedTuple):
    """y = weight x + bias."""

    weight: Tensor  # [out, in]
    bias: Tensor  # [out]


class Norm(NamedTuple):
    """Layer normalisation of the last axis, with the biased variance."""

    weight: Tensor  # [width]
    bias: Tensor  # [width]


class Block(NamedTuple):
    """What one attention block has for itself; the MLP is shared by all blocks."""

    qkv: Linear  # M -> F, head by head [q (K) | k (K) | v (V)]
    mlp_norm: Norm  # M
    qkv_norm: Norm | None = None  # F, all heads and q, k, v together; sonnet
    attention_norm: Norm | None = None  # M; sonnet
    out: Linear | None = None  # M -> M, the W^O of multi-head attention; chapter


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is chosen rather than learned."""

    formulation: Formulation
    num_heads: int  # H
    key_size: int  # K
    forget_bias: float  # added to the forget gate before the sigmoid
    input_bias: float  # added to the input gate before the sigmoid
    competitive: bool = False  # whether slots compete for the input; then there is no forget gate and no forget_bias


class ScanParameters(NamedTuple):
    """Everything a step needs besides its input and the memory, in the order of the kernels' tables."""

    settings: Settings
    input: Linear  # I -> M, the same for every input row
    mlp: tuple[Linear, ...]  # M -> M each, shared by all blocks
    gate_input: Linear | None  # n * M -> 2G: input gate, then forget gate, or queries of slots that compete
    gate_memory: Linear | None  # M -> 2G: input gate, then forget gate, or keys of slots that compete
    blocks: tuple[Block, ...]  # S of them


Map = Callable[[Tensor], Tensor]
"""A module that is called, because it is more than its weight and bias: hooked, wrapped, or of another class."""


class CalledBlock(NamedTuple):
    """A `Block` of modules that are called."""

    qkv: Map
    mlp_norm: Map
    qkv_norm: Map | None = None
    attention_norm: Map | None = None
    out: Map | None = None


class CalledParameters(NamedTuple):
    """`ScanParameters` of modules that are called; only the definition takes them, step by step."""

    settings: Settings
    why: str  # which module is not plain, and how
    input: Map
    blocks: tuple[CalledBlock, ...]
    mlp: tuple[Map, ...]
    gate_input: Map | None = None  # n * M -> 2G, or M where slots compete
    gate_memory: Map | None = None  # M -> 2G, or M where slots compete
    share_query: Map | None = None  # n * M -> M, a query of every row where all others are 0
    share_key: Map | None = None  # M -> M


class Step(NamedTuple):
    """One step, with everything that was computed on the way."""

    memory: Tensor  # [B, N, M]
    candidate: Tensor  # [B, N, M], the attended memory before the gates (and before their tanh)
    input_gate: Tensor | None  # [B, N, G]
    forget_gate: Tensor | None  # [B, N, G]
    attention: tuple[Tensor, ...]  # S of [B, H, R, R]; a row's weights over all rows, memory first
    input_rows: Tensor  # [B, n, M], the attended rows of the input
    share: Tensor | None = None  # [B, N, n], how much of a row of the input a slot took, where slots compete


class Scan(NamedTuple):
    """A sequence of steps."""

    memories: Tensor  # [B, T, N, M], the memory after every step; 0 where a step did not happen
    final: Tensor  # [B, N, M], the memory after each row's last step
    input_rows: Tensor | None  # [B, T, n, M], the attended rows of the input at every step; 0 where none happened


def linear(x: Tensor, p: Linear | Map) -> Tensor:
    return F.linear(x, p.weight, p.bias) if isinstance(p, Linear) else p(x)


def layer_norm(x: Tensor, p: Norm | Map) -> Tensor:
    return F.layer_norm(x, p.weight.shape, p.weight, p.bias, LAYER_NORM_EPS) if isinstance(p, Norm) else p(x)


def attend(h: Tensor, block: Block | CalledBlock, settings: Settings) -> tuple[Tensor, Tensor]:
    """Attention of all rows to all rows: softmax(q k^T / sqrt(K)) v, heads side by side (equations 1 and 2)."""
    qkv = linear(h, block.qkv)  # [B, R, F]
    if block.qkv_norm is not None:
        qkv = layer_norm(qkv, block.qkv_norm)
    per_head = qkv.unflatten(-1, (settings.num_heads, -1)).transpose(-3, -2)  # [B, H, R, 2K + V]
    key = settings.key_size
    q, k, v = per_head.split([key, key, per_head.shape[-1] - 2 * key], dim=-1)
    weights = torch.softmax((q * key**-0.5) @ k.transpose(-2, -1), dim=-1)  # [B, H, R, R]
    return (weights @ v).transpose(-3, -2).flatten(-2), weights


def mlp(h: Tensor, layers: tuple[Linear | Map, ...]) -> Tensor:
    """Linear layers with ReLU between them."""
    for i, layer in enumerate(layers):
        h = linear(torch.relu(h) if i else h, layer)
    return h


def input_terms(x: Tensor, p: ScanParameters | CalledParameters) -> tuple[Tensor, Tensor | None]:
    """What a step takes from its input `x` [..., n, I] alone: rows [..., n, M] and gate terms [..., 2G].

    If slots compete, the gate terms are [..., M + n * M]: the input gate's and then every row's query.
    """
    rows = linear(x, p.input)
    if p.gate_input is None:
        return rows, None
    if not p.settings.competitive:
        return rows, linear(rows.flatten(-2), p.gate_input)
    if isinstance(p, CalledParameters):
        assert p.share_query is not None
        # every row in its own place, with zeros in the places of the others, [..., n, n * M]
        alone = torch.diag_embed(rows.transpose(-1, -2)).movedim(-3, -1).flatten(-2)
        gate, queries = p.gate_input(rows.flatten(-2)), p.share_query(alone)
    else:
        width, (weight, bias) = rows.shape[-1], p.gate_input
        gate = F.linear(rows.flatten(-2), weight[:width], bias[:width])
        own = weight[width:].unflatten(-1, rows.shape[-2:])  # [M, n, M]: number of the query, row, number of the row
        queries = torch.einsum("...nj,inj->...ni", rows, own) + bias[width:]
    return rows, torch.cat([gate, queries.flatten(-2)], dim=-1)


def update_rate(share: Tensor, gate: Tensor) -> Tensor:
    """How far every number of a slot moves towards its candidate, 0 to 1, from `share` [B, N, n], `gate` [B, N, M]."""
    # the mean over rows: in a sum, many rows shared evenly would be cut at 1, where shares have no gradient
    scale = min(share.shape[-2], SHARE_SCALE)
    return (scale * share.mean(dim=-1, keepdim=True) * gate).clamp(max=1)


def advance(memory: Tensor, rows: Tensor, gate_terms: Tensor | None, p: ScanParameters | CalledParameters) -> Step:
    """The memory after a step, from the memory before it [B, N, M] and what `input_terms` made of the input."""
    slots = memory.shape[-2]
    h = torch.cat([memory, rows], dim=-2)  # [B, R, M]
    attention = []
    for block in p.blocks:
        attended, weights = attend(h, block, p.settings)
        attention.append(weights)
        if p.settings.formulation == "sonnet":
            assert block.attention_norm is not None
            h = layer_norm(h + attended, block.attention_norm)
        else:
            assert block.out is not None
            h = linear(attended, block.out)
        h = layer_norm(mlp(h, p.mlp) + h, block.mlp_norm)
    candidate, input_rows = h[..., :slots, :], h[..., slots:, :].to(memory.dtype)

    if p.gate_memory is None:
        return Step(candidate.to(memory.dtype), candidate, None, None, tuple(attention), input_rows)
    assert gate_terms is not None
    if p.settings.competitive:
        width = memory.shape[-1]
        if isinstance(p, CalledParameters):
            assert p.share_key is not None
            gate, keys = p.gate_memory(torch.tanh(memory)), p.share_key(memory)
        else:
            weight, bias = p.gate_memory
            gate = F.linear(torch.tanh(memory), weight[:width], bias[:width])  # [B, N, M]
            keys = F.linear(memory, weight[width:], bias[width:])
        queries = gate_terms[..., width:].unflatten(-1, (-1, width))  # [B, n, M]
        share = torch.softmax(keys @ queries.transpose(-2, -1) * width**-0.5, dim=-2)  # over slots; [B, N, n]
        gate = torch.sigmoid(gate + gate_terms[..., :width].unsqueeze(-2) + p.settings.input_bias)
        new = memory + update_rate(share, gate) * (torch.tanh(candidate) - memory)
        return Step(new.to(memory.dtype), candidate, gate, None, tuple(attention), input_rows, share)
    gates = linear(torch.tanh(memory), p.gate_memory) + gate_terms.unsqueeze(-2)  # [B, N, 2G]
    input_gate, forget_gate = gates.chunk(2, dim=-1)
    input_gate = torch.sigmoid(input_gate + p.settings.input_bias)
    forget_gate = torch.sigmoid(forget_gate + p.settings.forget_bias)
    new = input_gate * torch.tanh(candidate) + forget_gate * memory  # equation 7; the old memory enters as it is
    return Step(new.to(memory.dtype), candidate, input_gate, forget_gate, tuple(attention), input_rows)


def relational_step(x: Tensor, memory: Tensor, p: ScanParameters | CalledParameters) -> Step:
    """One step: input `x` [B, n, I] and the memory before it [B, N, M]."""
    return advance(memory, *input_terms(x, p), p)


def relational_scan_reference(
    x: Tensor,
    memory: Tensor,
    params: ScanParameters | CalledParameters,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: Tensor | None = None,
) -> Scan:
    """The steps of `x` [B, T, n, I], one after the other, from `memory` [B, N, M]; see `relational_scan`."""
    assert reset is None or initial is not None
    memories, input_rows = [], []
    for t in range(x.shape[1]):
        x_t, before = x[:, t], memory
        if reset is not None and initial is not None:
            before = torch.where(reset[:, t, None, None], initial, memory)
        if lengths is None:
            step = relational_step(x_t, before, params)
            memory = step.memory
            memories.append(memory)
            input_rows.append(step.input_rows)
        else:
            happens = (t < lengths)[:, None, None]
            step = relational_step(x_t.where(happens, 0), before, params)  # padding may hold anything, even NaN
            memory = torch.where(happens, step.memory, memory)
            memories.append(step.memory.where(happens, 0))
            input_rows.append(step.input_rows.where(happens, 0))
    if not memories:
        none = memory.new_zeros(x.shape[0], 0, x.shape[2], memory.shape[-1])
        return Scan(memory.new_zeros(x.shape[0], 0, *memory.shape[1:]), memory, none)
    return Scan(torch.stack(memories, dim=1), memory, torch.stack(input_rows, dim=1))
