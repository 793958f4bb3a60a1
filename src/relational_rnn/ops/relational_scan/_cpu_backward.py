"""One chunk of the CPU scan, backward: step by step from the end, then one product over all steps for each weight."""

# Shape legend: as in cpu.py

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._cpu_attention import attention_for
from relational_rnn.ops.relational_scan._cpu_forward import (
    Masks,
    Prepared,
    PreparedGates,
    gate_rows,
    norm_forward,
    tanh_of_half,
)
from relational_rnn.ops.relational_scan._cpu_memory import Activations, GateActivations, Sizes
from relational_rnn.ops.relational_scan.reference import Linear, Norm, ScanParameters

_norm_backward = torch.ops.aten.native_layer_norm_backward.default
_relu_backward = torch.ops.aten.threshold_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_ALL = [True, True, True]


class Cotangents(NamedTuple):
    """Gradients of a chunk's results, 0 where a step does not happen; None where a result was not used."""

    memories: Tensor | None  # [T, N, B, M]
    input_rows: Tensor | None  # [T, n, B, M]


def add_linear(into: Linear, d_out: Tensor, fed: Tensor) -> None:
    """Add the gradients of a linear from those of its outputs [rows, out] and its inputs [rows, in]."""
    into.weight.addmm_(d_out.t(), fed)
    into.bias.add_(d_out.sum(0))


class NormBackward:
    """A layer normalisation, step after step, and the gradients of its parameters after that."""

    def __init__(self, p: Norm):
        self.p = p
        self.d_weights: list[Tensor] = []
        self.d_biases: list[Tensor] = []

    def step(self, d_out: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        weight, bias = self.p
        d_x, d_weight, d_bias = _norm_backward(d_out, x, weight.shape, mean, rstd, weight, bias, _ALL)
        self.d_weights.append(d_weight)
        self.d_biases.append(d_bias)
        return d_x

    def finish(self, into: Norm) -> None:
        into.weight.add_(torch.stack(self.d_weights).sum(0))
        into.bias.add_(torch.stack(self.d_biases).sum(0))


class BlockBackward:
    """One attention block, step after step from the end, and the gradients of its parameters after that."""

    def __init__(self, act: Activations, index: int, w: Prepared, s: Sizes, fed: Tensor):
        """`fed` [T * R * B, M]: what the block was given."""
        self.s, self.p, self.fed = s, w.blocks[index], fed
        self.mlp_back = [layer.weight.t() for layer in w.mlp]
        self.qkv_back = self.p.qkv.weight.t()
        self.first = index == 0
        self.own = own = act.blocks[index]
        steps, width = s.steps, s.width
        self.used, self.memory_rows = s.queries(index) * s.batch, s.slots * s.batch
        self.per_matrix = s.queries(index), s.batch * s.heads, s.value
        per_step = steps, self.used, width
        self.z = own.z.view(steps, s.rows * s.batch, s.qkv).unbind(0)
        self.mixed = own.mixed.view(per_step).unbind(0)
        self.hidden = [h.view(per_step).unbind(0) for h in own.hidden]
        self.total = own.total.view(per_step).unbind(0)
        self.result, mean, rstd = norm_forward(own.total.view(per_step), self.p.result_norm)
        self.total_mean, self.total_rstd = mean.unbind(0), rstd.unbind(0)
        self.mlp_norm = NormBackward(self.p.mlp_norm)
        self.qkv_norm = None if self.p.qkv_norm is None else NormBackward(self.p.qkv_norm)
        self.attention_norm = None
        if self.p.attention_norm is not None:
            self.middle, mean, rstd = norm_forward(own.mixed.view(per_step), self.p.attention_norm)
            self.mixed_mean, self.mixed_rstd = mean.unbind(0), rstd.unbind(0)
            self.attention_norm = NormBackward(self.p.attention_norm)
        else:
            assert own.middle is not None
            self.middle = own.middle.view(per_step)

        self.d_qkv = fed.new_zeros(s.rows * s.batch, s.qkv)  # queries whose result is not used keep a gradient of 0
        self.attention = attention_for(s, index, own)
        self.attention.prepare_backward(self.d_qkv.view(s.rows, s.batch * s.heads, -1))
        self.d_middle = torch.empty_like(self.middle) if self.p.out is not None else fed.new_empty(self.used, width)
        self.d_attended = fed.new_empty(self.used, width)
        self.d_hidden = [torch.empty_like(h) for h in own.hidden]
        self.d_hidden_at = [d.view(per_step).unbind(0) for d in self.d_hidden]
        self.d_z: list[Tensor] = []
        self.d_total: list[Tensor] = []
        self.d_input_rows: list[Tensor] = []  # through the residual of the first block

    def step(self, t: int, d_result: Tensor, d_fed: Tensor) -> None:
        """From the gradient of the block's result [Q * B, M] to that of what was fed to it, into `d_fed`.

        `d_fed` has [N * B, M] in the first block, where the input's rows are left for later, and [R * B, M] after that.
        """
        p, back = self.p, self.mlp_back
        d_above = d_total = self.mlp_norm.step(d_result, self.total[t], self.total_mean[t], self.total_rstd[t])
        self.d_total.append(d_total)
        for weight, hidden, d_hidden in zip(back[:0:-1], self.hidden[::-1], self.d_hidden_at[::-1], strict=True):
            torch.mm(d_above, weight, out=d_hidden[t])
            d_above = _relu_backward(d_hidden[t], hidden[t], 0, grad_input=d_hidden[t])
        d_mixed = None
        d_middle = self.d_middle if p.out is None else self.d_middle[t]
        torch.addmm(d_total, d_above, back[0], out=d_middle)
        if self.attention_norm is not None:
            d_mixed = self.attention_norm.step(d_middle, self.mixed[t], self.mixed_mean[t], self.mixed_rstd[t])
            d_attended = d_mixed
        else:
            assert p.out is not None
            d_attended = torch.mm(d_middle, p.out.weight.t(), out=self.d_attended)
        d_z = self._through_attention(t, d_attended.view(self.per_matrix))
        self.d_z.append(d_z)
        if not self.first:
            torch.mm(d_z, self.qkv_back, out=d_fed)
            if d_mixed is not None:
                d_fed[: self.used].add_(d_mixed)
            return
        rows = self.memory_rows
        if d_mixed is None:
            torch.mm(d_z[:rows], self.qkv_back, out=d_fed)
            return
        if self.used > rows:
            self.d_input_rows.append(d_mixed[rows:])
            d_mixed = d_mixed[:rows]
        torch.addmm(d_mixed, d_z[:rows], self.qkv_back, out=d_fed)

    def _through_attention(self, t: int, d_attended: Tensor) -> Tensor:
        """The gradient of q k v before their norm, [R * B, F]."""
        z = self.z[t]
        if self.qkv_norm is None:
            self.attention.qkv.copy_(z)
            self.attention.backward(t, d_attended)
            return self.d_qkv.clone()
        qkv, mean, rstd = norm_forward(z, self.qkv_norm.p)
        self.attention.qkv.copy_(qkv)
        self.attention.backward(t, d_attended)
        return self.qkv_norm.step(self.d_qkv, z, mean, rstd)

    def finish(self, into: ScanParameters, index: int) -> Tensor:
        """Add the gradients of the parameters; returns that of q k v before their norm, [T, R, B, F]."""
        s, width, grads = self.s, self.s.width, into.blocks[index]
        pairs = (
            (self.mlp_norm, grads.mlp_norm),
            (self.qkv_norm, grads.qkv_norm),
            (self.attention_norm, grads.attention_norm),
        )
        for norm, grad in pairs:
            if norm is not None:
                assert grad is not None
                norm.finish(grad)
        fed = [self.middle.view(-1, width), *(h.view(-1, width) for h in self.own.hidden)]
        d_out = [*(d.view(-1, width) for d in self.d_hidden), torch.cat(self.d_total[::-1])]
        for layer, d, h in zip(into.mlp, d_out, fed, strict=True):
            add_linear(layer, d, h)
        if grads.out is not None:
            add_linear(grads.out, self.d_middle.view(-1, width), self.own.mixed.view(-1, width))
        d_z = torch.cat(self.d_z[::-1])
        add_linear(grads.qkv, d_z, self.fed)
        return d_z.view(s.steps, s.rows, s.batch, s.qkv)


class GatesBackward:
    """The gates, step after step from the end, and the gradients of their parameters after that."""

    def __init__(self, act: GateActivations, w: PreparedGates, s: Sizes, doubled: Tensor):
        """`doubled` [T, N, B, M]: twice the candidates, overwritten."""
        self.s, self.w, self.act = s, w, act
        self.back = w.weight.t()
        self.rows = s.slots * s.batch, s.width
        self.whole = s.gates == 2 * s.width  # a gate per number, not one per slot
        tanh_of_half(doubled, w.bias.new_tensor(-1.0), doubled)
        self.candidates, self.squashed, self.gates = doubled.unbind(0), act.squashed.unbind(0), act.gates.unbind(0)
        self.input_gate, self.forget_gate = (half.unbind(0) for half in act.gates.chunk(2, dim=-1))
        self.d_gates = torch.empty_like(act.gates)
        self.d_gates_at = self.d_gates.unbind(0)
        self.d_gates_flat = self.d_gates.view(s.steps, self.rows[0], s.gates).unbind(0)
        self.d_input_gate, self.d_forget_gate = (half.unbind(0) for half in self.d_gates.chunk(2, dim=-1))
        self.scratch = torch.empty_like(self.squashed[0])
        self.flat_scratch = self.scratch.view(self.rows)

    def to_candidate(self, t: int, d_memory: Tensor, before: Tensor, d_candidate: Tensor) -> None:
        """From the gradient of the memory after the step to that of the candidate, and of the gates."""
        candidate, scratch = self.candidates[t], self.scratch
        if self.whole:
            torch.mul(d_memory, candidate, out=self.d_input_gate[t])
            torch.mul(d_memory, before, out=self.d_forget_gate[t])
        else:
            torch.sum(torch.mul(d_memory, candidate, out=scratch), 2, keepdim=True, out=self.d_input_gate[t])
            torch.sum(torch.mul(d_memory, before, out=scratch), 2, keepdim=True, out=self.d_forget_gate[t])
        _sigmoid_backward(self.d_gates_at[t], self.gates[t], grad_input=self.d_gates_at[t])
        torch.mul(d_memory, self.input_gate[t], out=d_candidate)
        _tanh_backward(d_candidate, candidate, grad_input=d_candidate)

    def to_memory(self, t: int, d_memory: Tensor, d_before: Tensor) -> None:
        """Add what reaches the memory before the step through the gates, and past the attention."""
        scratch = self.scratch
        torch.mm(self.d_gates_flat[t], self.back, out=self.flat_scratch)
        d_before.add_(_tanh_backward(scratch, self.squashed[t], grad_input=scratch))
        d_before.addcmul_(d_memory, self.forget_gate[t])

    def finish(self, into: ScanParameters, rows: Tensor) -> Tensor:
        """Add the gradients of the parameters; returns that of the input's rows [T, n, B, M], given the rows."""
        s = self.s
        assert into.gate_memory is not None
        assert into.gate_input is not None
        into.gate_memory.weight.addmm_(self.d_gates.view(-1, s.gates).t(), self.act.squashed.view(-1, s.width))
        d_terms = self.d_gates.sum(1).view(-1, s.gates)  # [T * B, 2G]
        into.gate_memory.bias.add_(d_terms.sum(0))
        add_linear(into.gate_input, d_terms, gate_rows(rows))
        d_rows = torch.mm(d_terms, self.w.input_weight.t())  # [T * B, n * M]
        return d_rows.view(s.steps, s.batch, s.inputs, s.width).transpose(1, 2)


def backward_chunk(
    x: Tensor,
    act: Activations,
    w: Prepared,
    s: Sizes,
    masks: Masks,
    cotangents: Cotangents,
    d_memory: Tensor,
    into: ScanParameters,
    d_initial: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """All steps of a chunk, from the last to the first.

    Args:
        x: [T, n, B, I], as in the forward pass.
        act: as the forward pass left it.
        d_memory: gradient of the memory after the chunk, [N, B, M]; overwritten.
        into: gradients of the parameters, added to.
        d_initial: gradient of the memory that a reset restores, [N, B, M]; added to.

    Returns:
        (gradient of x [T, n, B, I], gradient of the memory before the chunk [N, B, M]).
    """
    fed = act.table.view(-1, s.width)
    blocks: list[BlockBackward] = []
    for i in range(s.blocks):
        blocks.append(BlockBackward(act, i, w, s, fed))
        fed = blocks[i].result.view(-1, s.width)
    rows, last = s.slots * s.batch, s.queries(s.blocks - 1)
    gates = None
    if act.gating is not None and w.gating is not None:
        results = blocks[-1].result.view(s.steps, last, s.batch, s.width)
        gates = GatesBackward(act.gating, w.gating, s, results[:, : s.slots])
    before = act.table[:, : s.slots].unbind(0)
    d_result = d_memory.new_zeros(last * s.batch, s.width)
    d_candidate = d_result[:rows].view(d_memory.shape)
    d_attended = None if cotangents.input_rows is None else d_result[rows:].view(s.inputs, s.batch, s.width)
    d_before = torch.empty_like(d_memory)
    d_memories = None if cotangents.memories is None else cotangents.memories.unbind(0)
    d_block = [d_memory.new_empty(s.rows * s.batch, s.width) for _ in range(s.blocks - 1)]
    for t in range(s.steps - 1, -1, -1):
        d_kept = None
        if masks.missed_at[t]:
            assert masks.happens is not None
            d_kept = d_memory.masked_fill(masks.happens[t], 0)
            d_memory.masked_fill_(~masks.happens[t], 0)
        if d_memories is not None:
            d_memory.add_(d_memories[t])
        if gates is None:
            d_candidate.copy_(d_memory)
        else:
            gates.to_candidate(t, d_memory, before[t], d_candidate)
        if d_attended is not None and cotangents.input_rows is not None:
            d_attended.copy_(cotangents.input_rows[t])
        d_h = d_result
        for i in range(s.blocks - 1, 0, -1):
            blocks[i].step(t, d_h, d_block[i - 1])
            d_h = d_block[i - 1]
        blocks[0].step(t, d_h, d_before.view(rows, s.width))
        if gates is not None:
            gates.to_memory(t, d_memory, d_before)
        if d_kept is not None:
            d_before.add_(d_kept)
        if masks.reset_at[t]:
            assert masks.reset is not None
            if d_initial is not None:
                d_initial.add_(d_before.masked_fill(~masks.reset[t], 0))
            d_before.masked_fill_(masks.reset[t], 0)
        d_memory, d_before = d_before, d_memory

    d_z = [block.finish(into, i) for i, block in enumerate(blocks)]
    d_rows = torch.mm(d_z[0][:, s.slots :].reshape(-1, s.qkv), w.blocks[0].qkv.weight.t())
    d_rows = d_rows.view(s.steps, s.inputs, s.batch, s.width)
    if blocks[0].d_input_rows:
        d_rows += torch.stack(blocks[0].d_input_rows[::-1]).view_as(d_rows)
    if gates is not None:
        d_rows += gates.finish(into, act.table[:, s.slots :])
    flat = d_rows.view(-1, s.width)
    add_linear(into.input, flat, x.flatten(0, 2))
    return torch.mm(flat, w.input.weight.t()).view_as(x), d_memory
