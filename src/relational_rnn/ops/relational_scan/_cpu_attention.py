"""Attention of all rows to all rows, step by step, and its gradient, in the two forms that are fast on a CPU.

Matrices of a few rows are too small for one product each: torch multiplies batches of them quickly from
Q * R * K = 400 on, and below that elementwise products and sums are faster. The rows are slots-major, [R, B, F], so
that sequence and head together are one axis without a copy: E = B * H matrices of R rows each. Every step's q, k, v are
put into the same memory, of which all views are made once: at small sizes a view takes as long as the arithmetic.
"""

# Shape legend: as in cpu.py; E = B * H, one attention matrix each. Queries arrive divided by sqrt(K).

from __future__ import annotations

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._cpu_memory import BlockActivations, Sizes

_softmax_backward = torch.ops.aten._softmax_backward_data.out


class ProductAttention:
    """By batched matrix products; the weights are kept as [R, E, Q], because softmax is fast over a first axis."""

    def __init__(self, s: Sizes, block: int, act: BlockActivations):
        self.rows, self.key, self.value = s.rows, s.key, s.value
        self.queries = queries = s.queries(block)
        self.matrices = matrices = s.batch * s.heads
        self.qkv = act.z.new_empty(s.rows * s.batch, s.qkv)
        per_head = self.qkv.view(s.rows, matrices, -1).transpose(0, 1)  # [E, R, 2K + V]
        q, self.k, self.v = per_head.split_with_sizes([s.key, s.key, s.value], 2)
        self.q, self.k_t, self.v_t = q[:, :queries], self.k.transpose(1, 2), self.v.transpose(1, 2)
        self.weights = act.weights.unbind(0)
        self.weights_by_query = act.weights.permute(0, 2, 3, 1).unbind(0)  # [E, Q, R]
        self.weights_by_row = act.weights.transpose(1, 2).unbind(0)  # [E, R, Q]
        self.scores = act.z.new_empty(matrices, queries, s.rows)
        self.scores_by_row = self.scores.permute(2, 0, 1)
        self.logits = act.z.new_empty(s.rows, matrices, queries)
        self.attended = act.z.new_empty(matrices, queries, s.value)
        self.result = self.attended.transpose(0, 1)

    def forward(self, t: int) -> Tensor:
        """What is attended to, [Q, E, V], from the step's `qkv`; fills the weights of the step."""
        torch.bmm(self.q, self.k_t, out=self.scores)
        self.logits.copy_(self.scores_by_row)
        torch.softmax(self.logits, 0, out=self.weights[t])
        torch.bmm(self.weights_by_query[t], self.v, out=self.attended)
        return self.result

    def prepare_backward(self, d_qkv: Tensor) -> None:
        """`d_qkv` [R, E, 2K + V] is where `backward` leaves the gradient of q, k, v; queries from Q on stay as is."""
        new = self.scores.new_empty
        d_q, d_k, d_v = d_qkv.split_with_sizes([self.key, self.key, self.value], 2)
        self.d_q = new(self.matrices, self.queries, self.key)
        self.d_k = new(self.matrices, self.rows, self.key)
        self.d_v = new(self.matrices, self.rows, self.value)
        self.moves = (
            (d_q[: self.queries], self.d_q.transpose(0, 1)),
            (d_k, self.d_k.transpose(0, 1)),
            (d_v, self.d_v.transpose(0, 1)),
        )
        self.d_scores = self.logits.permute(1, 2, 0)  # [E, Q, R]
        self.d_scores_by_row = self.logits.transpose(0, 1)  # [E, R, Q]

    def backward(self, t: int, d_attended: Tensor) -> None:
        """From the gradient [Q, E, V] of the result, with the step's `qkv` in place."""
        d_out = d_attended.transpose(0, 1)  # [E, Q, V]
        torch.bmm(d_out, self.v_t, out=self.scores)
        torch.bmm(self.weights_by_row[t], d_out, out=self.d_v)
        self.logits.copy_(self.scores_by_row)
        weights = self.weights[t]
        _softmax_backward(self.logits, weights, 0, weights.dtype, grad_input=self.logits)
        torch.bmm(self.d_scores, self.k, out=self.d_q)
        torch.bmm(self.d_scores_by_row, self.q, out=self.d_k)
        for to, result in self.moves:
            to.copy_(result)


class ElementwiseAttention:
    """By elementwise products and sums; the weights are kept as [Q, R, E]."""

    def __init__(self, s: Sizes, block: int, act: BlockActivations):
        self.rows, self.key, self.value = s.rows, s.key, s.value
        self.queries = queries = s.queries(block)
        self.matrices = matrices = s.batch * s.heads
        self.qkv = act.z.new_empty(s.rows * s.batch, s.qkv)
        per_head = self.qkv.view(s.rows, matrices, -1)  # [R, E, 2K + V]
        q, self.k, self.v = per_head.split_with_sizes([s.key, s.key, s.value], 2)
        self.q_0, self.q = q[0], q[:queries].unsqueeze(1)  # [Q, 1, E, K]
        self.weights = act.weights.unbind(0)
        self.weights_wide = act.weights.unsqueeze(4).unbind(0)
        new = act.z.new_empty
        self.scores = new(queries, s.rows, matrices)
        self.by_key, self.by_value = new(queries, s.rows, matrices, s.key), new(queries, s.rows, matrices, s.value)
        self.result = new(queries, matrices, s.value)
        # A sum over the last axis is a product with ones, which takes half the time.
        self.flat_scores = self.scores.view(-1)
        self.flat_by_key, self.flat_by_value = self.by_key.view(-1, s.key), self.by_value.view(-1, s.value)
        self.key_ones, self.value_ones = act.z.new_ones(s.key), act.z.new_ones(s.value)

    def forward(self, t: int) -> Tensor:
        """What is attended to, [Q, E, V], from the step's `qkv`; fills the weights of the step."""
        torch.mul(self.q, self.k, out=self.by_key)
        torch.mv(self.flat_by_key, self.key_ones, out=self.flat_scores)
        torch.softmax(self.scores, 1, out=self.weights[t])
        torch.mul(self.weights_wide[t], self.v, out=self.by_value)
        torch.sum(self.by_value, 1, out=self.result)
        return self.result

    def prepare_backward(self, d_qkv: Tensor) -> None:
        """`d_qkv` [R, E, 2K + V] is where `backward` leaves the gradient of q, k, v; queries from Q on stay as is."""
        d_q, self.to_k, self.to_v = d_qkv.split_with_sizes([self.key, self.key, self.value], 2)
        self.to_q = d_q[: self.queries]
        new = self.scores.new_empty  # a sum into memory with gaps takes longer than one without and a copy
        self.d_q = new(self.queries, self.matrices, self.key)
        self.d_k, self.d_v = (new(self.rows, self.matrices, size) for size in (self.key, self.value))
        self.d_scores = self.scores.unsqueeze(3)

    def backward(self, t: int, d_attended: Tensor) -> None:
        """From the gradient [Q, E, V] of the result, with the step's `qkv` in place."""
        d_out = d_attended.unsqueeze(1)
        torch.mul(d_out, self.v, out=self.by_value)
        torch.mv(self.flat_by_value, self.value_ones, out=self.flat_scores)
        weights = self.weights[t]
        _softmax_backward(self.scores, weights, 1, weights.dtype, grad_input=self.scores)
        if self.queries == 1:
            torch.mul(self.weights_wide[t][0], d_attended, out=self.to_v)
            torch.mul(self.d_scores[0], self.q_0, out=self.to_k)
        else:
            torch.mul(self.weights_wide[t], d_out, out=self.by_value)
            self.to_v.copy_(torch.sum(self.by_value, 0, out=self.d_v))
            torch.mul(self.d_scores, self.q, out=self.by_key)
            self.to_k.copy_(torch.sum(self.by_key, 0, out=self.d_k))
        torch.mul(self.d_scores, self.k, out=self.by_key)
        self.to_q.copy_(torch.sum(self.by_key, 1, out=self.d_q))


Attention = ProductAttention | ElementwiseAttention


def attention_for(s: Sizes, block: int, act: BlockActivations) -> Attention:
    """The faster form for these sizes."""
    return (ProductAttention if s.products(block) else ElementwiseAttention)(s, block, act)
