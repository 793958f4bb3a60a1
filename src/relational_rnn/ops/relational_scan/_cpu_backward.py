"""One chunk of the CPU scan, backward: step by step from the end, then one product over all steps for each weight."""

# Shape legend: as in cpu.py

from __future__ import annotations

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._cpu_attention import attention_for
from relational_rnn.ops.relational_scan._cpu_forward import Masks, Prepared, gate_rows, norm_forward, tanh_of_half
from relational_rnn.ops.relational_scan._cpu_memory import Activations, Sizes
from relational_rnn.ops.relational_scan.reference import Linear, Norm, ScanParameters

_norm_backward = torch.ops.aten.native_layer_norm_backward.default
_relu_backward = torch.ops.aten.threshold_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_ALL = [True, True, True]


def add_linear(into: Linear, d_out: Tensor, fed: Tensor) -> None:
    """Add the gradients of a linear from those of its outputs [rows, out] and its inputs [rows, in]."""
    into.weight.addmm_(d_out.t(), fed)
    into.bias.add_(d_out.sum(0))


def add_norm(into: Norm, d_weights: list[Tensor], d_biases: list[Tensor]) -> None:
    into.weight.add_(torch.stack(d_weights).sum(0))
    into.bias.add_(torch.stack(d_biases).sum(0))


class BlockBackward:
    """One attention block, step after step from the end, and the gradients of its parameters after that."""

    def __init__(self, act: Activations, index: int, w: Prepared, s: Sizes, fed: Tensor):
        """`fed` [T * R * B, M]: what the block was given."""
        self.s, self.p, self.w, self.fed = s, w.blocks[index], w, fed
        self.first = index == 0
        own = act.blocks[index]
        steps, width = s.steps, s.width
        self.used, self.all_rows = s.queries(index) * s.batch, s.rows * s.batch
        self.memory_rows = s.slots * s.batch
        self.own = own
        self.attention = attention_for(s, index, own)
        per_step = steps, self.used, width
        self.z = own.z.view(steps, self.all_rows, s.qkv).unbind(0)
        self.mixed = own.mixed.view(per_step).unbind(0)
        self.hidden = [h.view(per_step).unbind(0) for h in own.hidden]
        self.total = own.total.view(per_step).unbind(0)
        if self.p.attention_norm is not None:
            middle, mean, rstd = norm_forward(own.mixed.view(per_step), self.p.attention_norm)
            self.middle, self.mixed_mean, self.mixed_rstd = middle, mean.unbind(0), rstd.unbind(0)
        else:
            assert own.middle is not None
            self.middle = own.middle.view(per_step)
        result, mean, rstd = norm_forward(own.total.view(per_step), self.p.candidate_norm)
        self.result, self.total_mean, self.total_rstd = result, mean.unbind(0), rstd.unbind(0)

        self.d_qkv = fed.new_zeros(self.all_rows, s.qkv)  # queries whose result is not used keep a gradient of 0
        self.attention.prepare_backward(self.d_qkv.view(s.rows, s.batch * s.heads, -1))
        self.d_middle = fed.new_empty(self.used, width)
        self.per_matrix = s.queries(index), s.batch * s.heads, s.value
        self.d_z: list[Tensor] = []
        self.d_total: list[Tensor] = []
        self.d_hidden = [torch.empty_like(h) for h in own.hidden]
        self.d_hidden_at = [d.view(per_step).unbind(0) for d in self.d_hidden]
        self.d_attended = None if self.p.out is None else fed.new_empty(self.used, width)
        self.d_middles: list[Tensor] = []
        self.d_mixed: list[Tensor] = []
        self.d_norms: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    def _through_norm(self, name: str, d_out: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, p: Norm) -> Tensor:
        d_x, d_weight, d_bias = _norm_backward(d_out, x, p.weight.shape, mean, rstd, p.weight, p.bias, _ALL)
        d_weights, d_biases = self.d_norms.setdefault(name, ([], []))
        d_weights.append(d_weight)
        d_biases.append(d_bias)
        return d_x

    def step(self, t: int, d_result: Tensor, d_fed: Tensor) -> None:
        """From the gradient of the block's result [Q * B, M] to that of what was fed to it, into `d_fed`.

        `d_fed` has [N * B, M] in the first block, where the input's rows are left for later, and [R * B, M] after that.
        """
        p, mlp = self.p, self.w.mlp
        d_total = self._through_norm(
            "mlp_norm", d_result, self.total[t], self.total_mean[t], self.total_rstd[t], p.mlp_norm
        )
        self.d_total.append(d_total)
        d_above = d_total
        for layer, hidden, d_hidden in zip(mlp[:0:-1], self.hidden[::-1], self.d_hidden_at[::-1], strict=True):
            torch.mm(d_above, layer.weight.t(), out=d_hidden[t])
            d_above = _relu_backward(d_hidden[t], hidden[t], 0, grad_input=d_hidden[t])
        d_mixed = None
        if p.attention_norm is not None:
            d_middle = torch.addmm(d_total, d_above, mlp[0].weight.t(), out=self.d_middle)
            d_attended = d_mixed = self._through_norm(
                "attention_norm", d_middle, self.mixed[t], self.mixed_mean[t], self.mixed_rstd[t], p.attention_norm
            )
        else:
            assert p.out is not None
            assert self.d_attended is not None
            d_middle = torch.addmm(d_total, d_above, mlp[0].weight.t())
            self.d_middles.append(d_middle)
            d_attended = torch.mm(d_middle, p.out.weight.t(), out=self.d_attended)
        z = self.z[t]
        d_attended = d_attended.view(self.per_matrix)
        if p.qkv_norm is None:
            self.attention.qkv.copy_(z)
            self.attention.backward(t, d_attended)
            d_z = self.d_qkv.clone()
        else:
            qkv, mean, rstd = norm_forward(z, p.qkv_norm)
            self.attention.qkv.copy_(qkv)
            self.attention.backward(t, d_attended)
            d_z = self._through_norm("qkv_norm", self.d_qkv, z, mean, rstd, p.qkv_norm)
        self.d_z.append(d_z)
        if self.first:
            rows = self.memory_rows
            if d_mixed is None:
                torch.mm(d_z[:rows], p.qkv_weight.t(), out=d_fed)
            else:
                torch.addmm(d_mixed[:rows], d_z[:rows], p.qkv_weight.t(), out=d_fed)
                if self.used > rows:
                    self.d_mixed.append(d_mixed[rows:])
        else:
            torch.mm(d_z, p.qkv_weight.t(), out=d_fed)
            if d_mixed is not None:
                d_fed[: self.used].add_(d_mixed)

    def finish(self, into: ScanParameters, index: int) -> Tensor:
        """Add the gradients of the parameters; returns that of q k v before their norm, [T, R, B, F]."""
        s, p, width = self.s, self.p, self.s.width
        grads = into.blocks[index]
        for name, (d_weights, d_biases) in self.d_norms.items():
            add_norm(getattr(grads, name), d_weights, d_biases)
        d_total = torch.cat(self.d_total[::-1])
        fed = [self.middle.view(-1, width), *(h.view(-1, width) for h in self.own.hidden)]
        d_out = [*(d.view(-1, width) for d in self.d_hidden), d_total]
        for layer, d, h in zip(into.mlp, d_out, fed, strict=True):
            add_linear(layer, d, h)
        if p.out is not None:
            assert grads.out is not None
            add_linear(grads.out, torch.cat(self.d_middles[::-1]), self.own.mixed.view(-1, width))
        d_z = torch.cat(self.d_z[::-1])
        add_linear(grads.qkv, d_z, self.fed)
        return d_z.view(s.steps, s.rows, s.batch, s.qkv)


def backward_chunk(
    x: Tensor,
    act: Activations,
    w: Prepared,
    s: Sizes,
    masks: Masks,
    d_outputs: Tensor | None,
    d_memory: Tensor,
    into: ScanParameters,
    d_initial: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """All steps of a chunk, from the last to the first.

    Args:
        x: [T, n, B, I], as in the forward pass.
        act: as the forward pass left it.
        d_outputs: gradient of the outputs, [T, N, B, M].
        d_memory: gradient of the memory after the chunk, [N, B, M]; overwritten.
        into: gradients of the parameters, added to.
        d_initial: gradient of the memory that a reset restores, [N, B, M]; added to.

    Returns:
        (gradient of x [T, n, B, I], gradient of the memory before the chunk [N, B, M]).
    """
    fed = act.table.view(-1, s.width)
    blocks = []
    for i in range(s.blocks):
        blocks.append(BlockBackward(act, i, w, s, fed))
        fed = blocks[i].result.view(-1, s.width)
    before = act.table[:, : s.slots].unbind(0)
    flat = s.slots * s.batch, s.width
    d_result = torch.empty_like(d_memory)
    d_before, d_gate = torch.empty_like(d_memory), torch.empty_like(d_memory)
    d_block = [d_memory.new_empty(s.rows * s.batch, s.width) for _ in range(s.blocks - 1)]
    gated = act.gates is not None
    if gated:
        assert act.squashed is not None
        assert w.gate_weight is not None
        gates = act.gates.unbind(0)
        input_gate, forget_gate = (half.unbind(0) for half in act.gates.chunk(2, dim=-1))
        candidate = blocks[-1].result.view(s.steps, s.slots, s.batch, s.width)
        tanh_of_half(candidate, x.new_tensor(-1.0), candidate)
        squashed, candidates = act.squashed.unbind(0), candidate.unbind(0)
        d_gates = torch.empty_like(act.gates)
        d_gates_at = d_gates.unbind(0)
        d_gates_flat = d_gates.view(s.steps, flat[0], s.gates).unbind(0)
        d_input_gate, d_forget_gate = (half.unbind(0) for half in d_gates.chunk(2, dim=-1))
        whole = s.gates == 2 * s.width  # a gate per number, not one per slot
    d_out = None if d_outputs is None else d_outputs.unbind(0)
    for t in range(s.steps - 1, -1, -1):
        d_kept = None
        if masks.happens is not None:
            happens = masks.happens[t]
            d_kept = d_memory.masked_fill(happens, 0)
            if d_out is not None:
                d_memory.add_(d_out[t])
            d_memory.masked_fill_(~happens, 0)
        elif d_out is not None:
            d_memory.add_(d_out[t])
        d_h = d_memory
        if gated:
            if whole:
                torch.mul(d_memory, candidates[t], out=d_input_gate[t])
                torch.mul(d_memory, before[t], out=d_forget_gate[t])
            else:
                torch.sum(torch.mul(d_memory, candidates[t], out=d_result), 2, keepdim=True, out=d_input_gate[t])
                torch.sum(torch.mul(d_memory, before[t], out=d_result), 2, keepdim=True, out=d_forget_gate[t])
            _sigmoid_backward(d_gates_at[t], gates[t], grad_input=d_gates_at[t])
            torch.mul(d_memory, input_gate[t], out=d_result)
            d_h = _tanh_backward(d_result, candidates[t], grad_input=d_result)
        d_h = d_h.view(flat)
        for i in range(s.blocks - 1, 0, -1):
            blocks[i].step(t, d_h, d_block[i - 1])
            d_h = d_block[i - 1]
        blocks[0].step(t, d_h, d_before.view(flat))
        if gated:
            torch.mm(d_gates_flat[t], w.gate_weight.t(), out=d_gate.view(flat))
            d_before.add_(_tanh_backward(d_gate, squashed[t], grad_input=d_gate))
            d_before.addcmul_(d_memory, forget_gate[t])
        if d_kept is not None:
            d_before.add_(d_kept)
        if masks.reset_at[t]:
            assert masks.reset is not None
            if d_initial is not None:
                d_initial.add_(d_before.masked_fill(~masks.reset[t], 0))
            d_before.masked_fill_(masks.reset[t], 0)
        d_memory, d_before = d_before, d_memory
    return _input_gradients(x, act, w, s, blocks, d_gates if gated else None, into), d_memory


def _input_gradients(
    x: Tensor,
    act: Activations,
    w: Prepared,
    s: Sizes,
    blocks: list[BlockBackward],
    d_gates: Tensor | None,
    into: ScanParameters,
) -> Tensor:
    """What is left after the loop: the weights' gradients, and everything that the input's rows had a part in."""
    d_z = [block.finish(into, i) for i, block in enumerate(blocks)][0]
    d_rows = torch.mm(d_z[:, s.slots :].reshape(-1, s.qkv), w.blocks[0].qkv_weight.t())
    d_rows = d_rows.view(s.steps, s.inputs, s.batch, s.width)
    if blocks[0].d_mixed:
        d_rows += torch.stack(blocks[0].d_mixed[::-1]).view_as(d_rows)
    if d_gates is not None:
        assert act.squashed is not None
        assert into.gate_memory is not None
        assert into.gate_input is not None
        assert w.gate_input_weight is not None
        into.gate_memory.weight.addmm_(d_gates.view(-1, s.gates).t(), act.squashed.view(-1, s.width))
        d_terms = d_gates.sum(1).view(-1, s.gates)  # [T * B, 2G]
        into.gate_memory.bias.add_(d_terms.sum(0))
        add_linear(into.gate_input, d_terms, gate_rows(act.table[:, s.slots :]))
        d_flat = torch.mm(d_terms, w.gate_input_weight.t())  # [T * B, n * M]
        d_rows += d_flat.view(s.steps, s.batch, s.inputs, s.width).transpose(1, 2)
    d_rows = d_rows.view(-1, s.width)
    add_linear(into.input, d_rows, x.flatten(0, 2))
    return torch.mm(d_rows, w.input.weight.t()).view_as(x)
