"""One chunk of the CPU scan, forward: the input's share for all steps at once, then step by step."""

# Shape legend: as in cpu.py

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._cpu_attention import Attention, attention_for
from relational_rnn.ops.relational_scan._cpu_memory import Activations, Sizes
from relational_rnn.ops.relational_scan.reference import LAYER_NORM_EPS, Linear, Norm, ScanParameters


class PreparedBlock(NamedTuple):
    """A block's parameters as the steps use them: weights as [in, out], queries divided by sqrt(K)."""

    qkv_weight: Tensor
    qkv_bias: Tensor
    qkv_norm: Norm | None
    attention_norm: Norm | None
    out: Linear | None
    mlp_norm: Norm
    candidate_norm: Norm  # mlp_norm, doubled in the last block of a gated memory: tanh(c) = 2 sigmoid(2c) - 1


@dataclass(frozen=True, slots=True)
class Prepared:
    """All parameters as the steps use them, made once per call."""

    blocks: tuple[PreparedBlock, ...]
    mlp: tuple[Linear, ...]
    gate_weight: Tensor | None  # [M, 2G], for the memory
    gate_input_weight: Tensor | None  # [nM, 2G]
    gate_bias: Tensor | None  # [2G], the biases of both linears and the two constants
    input: Linear
    query_scale: Tensor  # [F], 1/sqrt(K) for queries, 1 for keys and values


class Masks(NamedTuple):
    """What happens at the steps of a chunk; None where everything does, or nothing is reset."""

    happens: Tensor | None  # [T, 1, B, 1]
    reset: Tensor | None  # [T, 1, B, 1]
    initial: Tensor | None  # [N, 1 or B, M]
    reset_at: tuple[bool, ...]  # per step, whether any sequence is reset


def prepare(p: ScanParameters, s: Sizes) -> Prepared:
    scale = torch.ones_like(p.blocks[0].qkv.bias)
    scale.view(s.heads, -1)[:, : s.key].fill_(s.key**-0.5)
    blocks = []
    for i, block in enumerate(p.blocks):
        doubled = s.gates and i == s.blocks - 1
        norm = block.qkv_norm
        blocks.append(
            PreparedBlock(
                qkv_weight=block.qkv.weight.t() if norm is not None else (block.qkv.weight * scale[:, None]).t(),
                qkv_bias=block.qkv.bias if norm is not None else block.qkv.bias * scale,
                qkv_norm=None if norm is None else Norm(norm.weight * scale, norm.bias * scale),
                attention_norm=block.attention_norm,
                out=None if block.out is None else Linear(block.out.weight.t(), block.out.bias),
                mlp_norm=block.mlp_norm,
                candidate_norm=Norm(*(2 * t for t in block.mlp_norm)) if doubled else block.mlp_norm,
            )
        )
    gate_weight = gate_input_weight = gate_bias = None
    if p.gate_input is not None and p.gate_memory is not None:
        constants = p.gate_input.bias.new_empty(2, s.gates // 2)
        constants[0], constants[1] = p.settings.input_bias, p.settings.forget_bias
        gate_bias = p.gate_input.bias + p.gate_memory.bias + constants.view(-1)
        gate_weight, gate_input_weight = p.gate_memory.weight.t(), p.gate_input.weight.t()
    return Prepared(
        blocks=tuple(blocks),
        mlp=tuple(Linear(layer.weight.t(), layer.bias) for layer in p.mlp),
        gate_weight=gate_weight,
        gate_input_weight=gate_input_weight,
        gate_bias=gate_bias,
        input=Linear(p.input.weight.t(), p.input.bias),
        query_scale=scale,
    )


def norm_forward(x: Tensor, p: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """(normalised x, mean, reciprocal standard deviation)."""
    return torch.native_layer_norm(x, p.weight.shape, p.weight, p.bias, LAYER_NORM_EPS)


def tanh_of_half(doubled: Tensor, minus_one: Tensor, out: Tensor) -> None:
    """tanh(x) from 2x, which is overwritten: several times as fast as `torch.tanh`, as exact in absolute terms."""
    torch.add(minus_one, doubled.sigmoid_(), alpha=2, out=out)


def time_major(x: Tensor) -> Tensor:
    """[B, T, n, ...] to [T, n, B, ...], contiguous."""
    return x.permute(1, 2, 0, 3).contiguous()


def gate_rows(rows: Tensor) -> Tensor:
    """[T, n, B, M] to [T * B, n * M], a step's input rows side by side."""
    return rows.transpose(1, 2).flatten(2).flatten(0, 1)


def hoist(x: Tensor, act: Activations, w: Prepared, s: Sizes) -> None:
    """Fill in what depends on the input `x` [T, n, B, I] alone: its rows, their q k v and the input's gate terms."""
    rows = torch.addmm(w.input.bias, x.flatten(0, 2), w.input.weight)  # [T * n * B, M]
    shaped = rows.view(s.steps, s.inputs, s.batch, s.width)
    act.table[:, s.slots :] = shaped
    first = w.blocks[0]
    qkv = torch.addmm(first.qkv_bias, rows, first.qkv_weight)
    act.blocks[0].z[:, s.slots :] = qkv.view(s.steps, s.inputs, s.batch, s.qkv)
    if act.gates is not None:
        assert w.gate_bias is not None
        assert w.gate_input_weight is not None
        terms = torch.addmm(w.gate_bias, gate_rows(shaped), w.gate_input_weight)
        act.gates.copy_(terms.view(s.steps, 1, s.batch, s.gates))


class BlockForward:
    """One attention block, step after step: the per-step views of its activations, made once."""

    def __init__(self, act: Activations, index: int, w: Prepared, s: Sizes):
        self.p, self.mlp = w.blocks[index], w.mlp
        self.first, self.residual = index == 0, s.sonnet
        own = act.blocks[index]
        steps, batch, queries = s.steps, s.batch, s.queries(index)
        fed = s.slots if self.first else s.rows  # rows whose q, k, v are computed here
        self.used = queries * batch
        self.attention: Attention = attention_for(s, index, own)
        flat = own.z.view(steps, s.rows * batch, s.qkv)
        self.z = flat.unbind(0)
        self.z_fed = flat[:, : fed * batch].unbind(0)
        per_matrix = queries, batch * s.heads, s.value
        self.mixed = own.mixed.view(steps, self.used, s.width).unbind(0)
        self.mixed_by_head = own.mixed.view(steps, *per_matrix).unbind(0)
        self.middle = None if own.middle is None else own.middle.view(steps, self.used, s.width).unbind(0)
        self.hidden = [h.view(steps, self.used, s.width).unbind(0) for h in own.hidden]
        self.total = own.total.view(steps, self.used, s.width).unbind(0)
        self.per_matrix = per_matrix

    def step(self, t: int, fed: Tensor, h: Tensor) -> Tensor:
        """[Q * B, M] from the block's input: `fed`, rows to project, and `h`, all [R * B, M]."""
        p = self.p
        torch.addmm(p.qkv_bias, fed, p.qkv_weight, out=self.z_fed[t])
        z = self.z[t]
        self.attention.qkv.copy_(z if p.qkv_norm is None else norm_forward(z, p.qkv_norm)[0])
        attended = self.attention.forward(t)
        mixed = self.mixed[t]
        if p.attention_norm is not None:
            torch.add(h[: self.used].view(self.per_matrix), attended, out=self.mixed_by_head[t])
            middle = norm_forward(mixed, p.attention_norm)[0]
        else:
            assert p.out is not None
            assert self.middle is not None
            self.mixed_by_head[t].copy_(attended)
            middle = self.middle[t]
            torch.addmm(p.out.bias, mixed, p.out.weight, out=middle)
        below = middle
        for layer, hidden in zip(self.mlp, self.hidden, strict=False):
            below = torch.addmm(layer.bias, below, layer.weight, out=hidden[t]).relu_()
        last = self.mlp[-1]
        total = torch.addmm(middle, below, last.weight, out=self.total[t]).add_(last.bias)
        return norm_forward(total, p.candidate_norm)[0]


def forward_chunk(
    x: Tensor, memory: Tensor, act: Activations, w: Prepared, s: Sizes, masks: Masks, outputs: Tensor | None
) -> Tensor:
    """All steps of a chunk.

    Args:
        x: [T, n, B, I], zero where a step does not happen.
        memory: before the first step, [N, B, M].
        act: filled in.
        outputs: [T, N, B, M], filled in; None where only the activations are wanted.

    Returns:
        the memory after each sequence's last step, [N, B, M].
    """
    hoist(x, act, w, s)
    blocks = [BlockForward(act, i, w, s) for i in range(s.blocks)]
    tables = act.table.view(s.steps, s.rows * s.batch, s.width).unbind(0)
    before = act.table[:, : s.slots].unbind(0)
    flat_before = act.table.view(s.steps, s.rows * s.batch, s.width)[:, : s.slots * s.batch].unbind(0)
    out = None if outputs is None else outputs.unbind(0)
    after = torch.empty_like(before[0])
    scratch = torch.empty_like(before[0])
    minus_one = x.new_tensor(-1.0)
    gated = act.gates is not None
    if gated:
        assert act.squashed is not None
        assert w.gate_weight is not None
        gates = act.gates.view(s.steps, s.slots * s.batch, s.gates).unbind(0)
        input_gate, forget_gate = (half.unbind(0) for half in act.gates.chunk(2, dim=-1))
        squashed = act.squashed.unbind(0)
        flat_squashed = act.squashed.view(s.steps, s.slots * s.batch, s.width).unbind(0)
        candidate = torch.empty_like(after)
    for t in range(s.steps):
        if masks.reset_at[t]:
            assert masks.reset is not None
            assert masks.initial is not None
            torch.where(masks.reset[t], masks.initial, memory, out=before[t])
        elif memory is not before[t]:
            before[t].copy_(memory)
        memory = before[t]
        fed, h = flat_before[t], tables[t]
        for block in blocks:
            h = block.step(t, fed, h)
            fed = h
        in_place = t + 1 < s.steps and not masks.reset_at[t + 1]
        new = before[t + 1] if in_place else after
        if gated:
            torch.mul(memory, 2, out=scratch)
            tanh_of_half(scratch, minus_one, squashed[t])
            gates[t].addmm_(flat_squashed[t], w.gate_weight).sigmoid_()
            tanh_of_half(h.view_as(memory), minus_one, candidate)
            torch.mul(forget_gate[t], memory, out=new).addcmul_(input_gate[t], candidate)
        else:
            new.copy_(h.view_as(memory))
        if masks.happens is not None:
            torch.where(masks.happens[t], new, memory, out=new)
        if out is not None:
            out[t].copy_(new)
            if masks.happens is not None:
                out[t].mul_(masks.happens[t])
        memory = new
    return memory
