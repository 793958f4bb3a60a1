"""One chunk of the CPU scan, forward: the input's share for all steps at once, then step by step."""

# Shape legend: as in cpu.py

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._cpu_attention import attention_for
from relational_rnn.ops.relational_scan._cpu_memory import Activations, GateActivations, Sizes
from relational_rnn.ops.relational_scan.reference import LAYER_NORM_EPS, Linear, Norm, ScanParameters


class PreparedBlock(NamedTuple):
    """A block's parameters as the steps use them: weights as [in, out], queries divided by sqrt(K)."""

    qkv: Linear
    qkv_norm: Norm | None
    attention_norm: Norm | None
    out: Linear | None
    mlp_norm: Norm
    result_norm: Norm  # mlp_norm, doubled in the last block of a gated memory: tanh(c) = 2 sigmoid(2c) - 1


class PreparedGates(NamedTuple):
    """The gates' parameters as the steps use them."""

    weight: Tensor  # [M, 2G], for the memory
    input_weight: Tensor  # [nM, 2G]
    bias: Tensor  # [2G], those of both linears and the two constants


@dataclass(frozen=True, slots=True)
class Prepared:
    """All parameters as the steps use them, made once per call."""

    input: Linear
    blocks: tuple[PreparedBlock, ...]
    mlp: tuple[Linear, ...]
    gating: PreparedGates | None
    query_scale: Tensor  # [F], 1/sqrt(K) for queries, 1 for keys and values


class Masks(NamedTuple):
    """What happens at the steps of a chunk; None where everything does, or nothing is reset."""

    happens: Tensor | None  # [T, 1, B, 1] booleans
    missed_at: tuple[bool, ...]  # per step, whether any sequence misses it
    reset: Tensor | None  # [T, 1, B, 1] booleans
    reset_at: tuple[bool, ...]  # per step, whether any sequence is reset
    initial: Tensor | None  # [N, 1 or B, M]


class Outputs(NamedTuple):
    """Where a chunk leaves its results."""

    memories: Tensor  # [T, N, B, M]
    input_rows: Tensor | None  # [T, n, B, M]


def transposed(p: Linear) -> Linear:
    return Linear(p.weight.t(), p.bias)


def prepare(p: ScanParameters, s: Sizes) -> Prepared:
    scale = torch.ones_like(p.blocks[0].qkv.bias)
    scale.view(s.heads, -1)[:, : s.key].fill_(s.key**-0.5)
    blocks = []
    for i, block in enumerate(p.blocks):
        qkv, norm, mlp_norm = block.qkv, block.qkv_norm, block.mlp_norm
        if norm is None:
            qkv = Linear(qkv.weight * scale[:, None], qkv.bias * scale)
        else:
            norm = Norm(norm.weight * scale, norm.bias * scale)
        doubled = s.gates > 0 and i == s.blocks - 1
        blocks.append(
            PreparedBlock(
                qkv=transposed(qkv),
                qkv_norm=norm,
                attention_norm=block.attention_norm,
                out=None if block.out is None else transposed(block.out),
                mlp_norm=mlp_norm,
                result_norm=Norm(2 * mlp_norm.weight, 2 * mlp_norm.bias) if doubled else mlp_norm,
            )
        )
    gating = None
    if p.gate_input is not None and p.gate_memory is not None:
        constants = p.gate_input.bias.new_empty(2, s.gates // 2)
        constants[0], constants[1] = p.settings.input_bias, p.settings.forget_bias
        bias = p.gate_input.bias + p.gate_memory.bias + constants.view(-1)
        gating = PreparedGates(p.gate_memory.weight.t(), p.gate_input.weight.t(), bias)
    mlp = tuple(transposed(layer) for layer in p.mlp)
    return Prepared(transposed(p.input), tuple(blocks), mlp, gating, scale)


def norm_forward(x: Tensor, p: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """(normalised x, mean, reciprocal standard deviation)."""
    return torch.native_layer_norm(x, p.weight.shape, p.weight, p.bias, LAYER_NORM_EPS)


def tanh_of_half(doubled: Tensor, minus_one: Tensor, out: Tensor) -> Tensor:
    """tanh(x) from 2x, which is overwritten: several times as fast as `torch.tanh`, as exact in absolute terms."""
    return torch.add(minus_one, doubled.sigmoid_(), alpha=2, out=out)


def gate_rows(rows: Tensor) -> Tensor:
    """[T, n, B, M] to [T * B, n * M], a step's input rows side by side."""
    return rows.transpose(1, 2).flatten(2).flatten(0, 1)


def hoist(x: Tensor, act: Activations, w: Prepared, s: Sizes) -> None:
    """Fill in what depends on the input `x` [T, n, B, I] alone: its rows, their q k v and the input's gate terms."""
    rows = torch.addmm(w.input.bias, x.flatten(0, 2), w.input.weight)  # [T * n * B, M]
    shaped = rows.view(s.steps, s.inputs, s.batch, s.width)
    act.table[:, s.slots :] = shaped
    first = w.blocks[0].qkv
    z = torch.addmm(first.bias, rows, first.weight)
    act.blocks[0].z[:, s.slots :] = z.view(s.steps, s.inputs, s.batch, s.qkv)
    if act.gating is not None and w.gating is not None:
        terms = torch.addmm(w.gating.bias, gate_rows(shaped), w.gating.input_weight)
        act.gating.gates.copy_(terms.view(s.steps, 1, s.batch, s.gates))


class BlockForward:
    """One attention block, step after step: the per-step views of its activations, made once."""

    def __init__(self, act: Activations, index: int, w: Prepared, s: Sizes):
        self.p, self.mlp = w.blocks[index], w.mlp
        own = act.blocks[index]
        steps, batch, queries = s.steps, s.batch, s.queries(index)
        fed = s.slots if index == 0 else s.rows  # rows whose q, k, v are computed here
        self.table = act.table[:, :queries].view(steps, queries, batch * s.heads, s.value).unbind(0)
        self.used = queries * batch
        self.first = index == 0
        self.attention = attention_for(s, index, own)
        z = own.z.view(steps, s.rows * batch, s.qkv)
        self.z, self.z_fed = z.unbind(0), z[:, : fed * batch].unbind(0)
        self.per_matrix = queries, batch * s.heads, s.value
        per_step = steps, self.used, s.width
        self.mixed = own.mixed.view(per_step).unbind(0)
        self.mixed_by_head = own.mixed.view(steps, *self.per_matrix).unbind(0)
        self.middle = None if own.middle is None else own.middle.view(per_step).unbind(0)
        self.hidden = [h.view(per_step).unbind(0) for h in own.hidden]
        self.total = own.total.view(per_step).unbind(0)

    def step(self, t: int, fed: Tensor, h: Tensor) -> Tensor:
        """[Q * B, M] from the block's input `h` [R * B, M], and `fed`, those of its rows that are projected here."""
        p, z = self.p, self.z[t]
        torch.addmm(p.qkv.bias, fed, p.qkv.weight, out=self.z_fed[t])
        self.attention.qkv.copy_(z if p.qkv_norm is None else norm_forward(z, p.qkv_norm)[0])
        attended = self.attention.forward(t)
        mixed = self.mixed[t]
        if p.attention_norm is not None:
            residual = self.table[t] if self.first else h[: self.used].view(self.per_matrix)
            torch.add(residual, attended, out=self.mixed_by_head[t])
            middle = norm_forward(mixed, p.attention_norm)[0]
        else:
            assert p.out is not None
            assert self.middle is not None
            self.mixed_by_head[t].copy_(attended)
            middle = torch.addmm(p.out.bias, mixed, p.out.weight, out=self.middle[t])
        below = middle
        for layer, hidden in zip(self.mlp, self.hidden, strict=False):
            below = torch.addmm(layer.bias, below, layer.weight, out=hidden[t]).relu_()
        last = self.mlp[-1]
        total = torch.addmm(middle, below, last.weight, out=self.total[t]).add_(last.bias)
        return norm_forward(total, p.result_norm)[0]


class GatesForward:
    """The gates, step after step."""

    def __init__(self, act: GateActivations, w: PreparedGates, s: Sizes):
        self.weight = w.weight
        rows = s.slots * s.batch
        self.flat_gates = act.gates.view(s.steps, rows, s.gates).unbind(0)
        self.input_gate, self.forget_gate = (half.unbind(0) for half in act.gates.chunk(2, dim=-1))
        self.squashed = act.squashed.unbind(0)
        self.flat_squashed = act.squashed.view(s.steps, rows, s.width).unbind(0)
        self.scratch, self.candidate = (torch.empty_like(self.squashed[0]) for _ in range(2))
        self.minus_one = w.bias.new_tensor(-1.0)

    def step(self, t: int, memory: Tensor, doubled: Tensor, new: Tensor) -> None:
        """The memory after the step, into `new`, from that before it and twice the candidate, which is overwritten."""
        torch.add(memory, memory, out=self.scratch)
        tanh_of_half(self.scratch, self.minus_one, self.squashed[t])
        self.flat_gates[t].addmm_(self.flat_squashed[t], self.weight).sigmoid_()
        tanh_of_half(doubled, self.minus_one, self.candidate)
        torch.mul(self.forget_gate[t], memory, out=new).addcmul_(self.input_gate[t], self.candidate)


def forward_chunk(
    x: Tensor, memory: Tensor, act: Activations, w: Prepared, s: Sizes, masks: Masks, outputs: Outputs | None
) -> Tensor:
    """All steps of a chunk.

    Args:
        x: [T, n, B, I], zero where a step does not happen.
        memory: before the first step, [N, B, M].
        act: filled in.
        outputs: filled in; None where only the activations are wanted.

    Returns:
        the memory after each sequence's last step, [N, B, M].
    """
    hoist(x, act, w, s)
    blocks = [BlockForward(act, i, w, s) for i in range(s.blocks)]
    gates = None if act.gating is None or w.gating is None else GatesForward(act.gating, w.gating, s)
    rows, only_slots = s.slots * s.batch, s.queries(s.blocks - 1) == s.slots
    out_at = None if outputs is None else outputs.memories.unbind(0)
    table = act.table.view(s.steps, s.rows * s.batch, s.width)
    tables, fed_rows = table.unbind(0), table[:, :rows].unbind(0)
    before = act.table[:, : s.slots].unbind(0)
    after = torch.empty_like(before[0])
    for t in range(s.steps):
        if masks.reset_at[t]:
            assert masks.reset is not None
            assert masks.initial is not None
            torch.where(masks.reset[t], masks.initial, memory, out=before[t])
        elif memory is not before[t]:
            before[t].copy_(memory)
        memory = before[t]
        fed, h = fed_rows[t], tables[t]
        for block in blocks:
            fed = h = block.step(t, fed, h)
        if outputs is not None and outputs.input_rows is not None:
            attended = h[rows:].view(s.inputs, s.batch, s.width)
            torch.mul(attended, 1.0 if gates is None else 0.5, out=outputs.input_rows[t])
        new = before[t + 1] if t + 1 < s.steps and not masks.reset_at[t + 1] else after
        result = (h if only_slots else h[:rows]).view(memory.shape)
        if gates is None:
            new.copy_(result)
        else:
            gates.step(t, memory, result, new)
        if masks.missed_at[t]:
            assert masks.happens is not None
            torch.where(masks.happens[t], new, memory, out=new)
        if out_at is not None:
            out_at[t].copy_(new)
        memory = new
    if outputs is not None and masks.happens is not None:
        for output in outputs:
            if output is not None:
                output.masked_fill_(~masks.happens, 0)
    return memory
