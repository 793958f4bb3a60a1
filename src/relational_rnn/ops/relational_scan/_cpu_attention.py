"""Attention of all rows to all rows for one step, and its gradient, in the two forms that are fast on a CPU.

Matrices of a few rows are too small for one product each: torch multiplies batches of them quickly from
Q * R * K = 400 on, and below that elementwise products and sums are faster. The rows are slots-major, [R, B, F], so that
sequence and head together are one axis without a copy: B * H matrices of R rows each.
"""

# Shape legend: as in cpu.py; E = B * H, one attention matrix each. Queries arrive divided by sqrt(K).

from __future__ import annotations

import torch
from torch import Tensor

from relational_rnn.ops.relational_scan._cpu_memory import Sizes

_softmax_backward = torch.ops.aten._softmax_backward_data.out


class ProductAttention:
    """By batched matrix products; the weights are kept as [R, E, Q], because softmax is fast over a first axis."""

    def __init__(self, s: Sizes, block: int, like: Tensor):
        self.queries, self.rows, self.key, self.value = s.queries(block), s.rows, s.key, s.value
        self.matrices = s.batch * s.heads
        self.scores = like.new_empty(self.matrices, self.queries, self.rows)
        self.by_row = self.scores.permute(2, 0, 1)  # [R, E, Q]
        self.logits = like.new_empty(self.rows, self.matrices, self.queries)
        self.attended = like.new_empty(self.matrices, self.queries, self.value)
        self.result = self.attended.transpose(0, 1)

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        per_head = qkv.view(self.rows, self.matrices, -1).transpose(0, 1)  # [E, R, 2K + V]
        q, k, v = per_head.split_with_sizes([self.key, self.key, self.value], 2)
        return q[:, : self.queries], k, v

    def forward(self, qkv: Tensor, weights: Tensor) -> Tensor:
        """[Q, E, V]; fills `weights`."""
        q, k, v = self._split(qkv)
        torch.bmm(q, k.transpose(1, 2), out=self.scores)
        self.logits.copy_(self.by_row)
        torch.softmax(self.logits, 0, out=weights)
        torch.bmm(weights.permute(1, 2, 0), v, out=self.attended)
        return self.result

    def prepare_backward(self) -> None:
        """Take the memory that `backward` works in."""
        new = self.scores.new_empty
        self.d_q = new(self.matrices, self.queries, self.key)
        self.d_k = new(self.matrices, self.rows, self.key)
        self.d_v = new(self.matrices, self.rows, self.value)

    def backward(self, d_attended: Tensor, qkv: Tensor, weights: Tensor, d_qkv: Tensor) -> None:
        """From the gradient [Q, E, V] to that of `qkv`, into `d_qkv` [R, E, 2K + V]; queries from Q on stay as is."""
        q, k, v = self._split(qkv)
        d_out = d_attended.transpose(0, 1)  # [E, Q, V]
        torch.bmm(d_out, v.transpose(1, 2), out=self.scores)
        self.logits.copy_(self.by_row)
        _softmax_backward(self.logits, weights, 0, weights.dtype, grad_input=self.logits)
        d_scores = self.logits.permute(1, 2, 0)  # [E, Q, R]
        torch.bmm(weights.permute(1, 0, 2), d_out, out=self.d_v)
        torch.bmm(d_scores, k, out=self.d_q)
        torch.bmm(d_scores.transpose(1, 2), q, out=self.d_k)
        key = self.key
        d_qkv[: self.queries, :, :key].copy_(self.d_q.transpose(0, 1))
        d_qkv[:, :, key : 2 * key].copy_(self.d_k.transpose(0, 1))
        d_qkv[:, :, 2 * key :].copy_(self.d_v.transpose(0, 1))


class ElementwiseAttention:
    """By elementwise products and sums; the weights are kept as [Q, R, E]."""

    def __init__(self, s: Sizes, block: int, like: Tensor):
        self.queries, self.rows, self.key, self.value = s.queries(block), s.rows, s.key, s.value
        self.matrices = s.batch * s.heads
        self.scores = like.new_empty(self.queries, self.rows, self.matrices)
        self.by_key = like.new_empty(self.queries, self.rows, self.matrices, self.key)
        self.by_value = like.new_empty(self.queries, self.rows, self.matrices, self.value)
        self.result = like.new_empty(self.queries, self.matrices, self.value)

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        per_head = qkv.view(self.rows, self.matrices, -1)  # [R, E, 2K + V]
        q, k, v = per_head.split_with_sizes([self.key, self.key, self.value], 2)
        return q[: self.queries].unsqueeze(1), k, v

    def forward(self, qkv: Tensor, weights: Tensor) -> Tensor:
        """[Q, E, V]; fills `weights`."""
        q, k, v = self._split(qkv)
        torch.mul(q, k, out=self.by_key)
        torch.sum(self.by_key, 3, out=self.scores)
        torch.softmax(self.scores, 1, out=weights)
        torch.mul(weights.unsqueeze(3), v, out=self.by_value)
        torch.sum(self.by_value, 1, out=self.result)
        return self.result

    def prepare_backward(self) -> None:
        """Nothing more is needed."""

    def backward(self, d_attended: Tensor, qkv: Tensor, weights: Tensor, d_qkv: Tensor) -> None:
        """From the gradient [Q, E, V] to that of `qkv`, into `d_qkv` [R, E, 2K + V]; queries from Q on stay as is."""
        q, k, v = self._split(qkv)
        d_q, d_k, d_v = d_qkv.split_with_sizes([self.key, self.key, self.value], 2)
        d_out = d_attended.unsqueeze(1)
        torch.mul(d_out, v, out=self.by_value)
        torch.sum(self.by_value, 3, out=self.scores)
        _softmax_backward(self.scores, weights, 1, weights.dtype, grad_input=self.scores)
        d_scores = self.scores.unsqueeze(3)
        if self.queries == 1:
            torch.mul(weights[0].unsqueeze(2), d_attended, out=d_v)
            torch.mul(d_scores[0], q[0], out=d_k)
        else:
            torch.mul(weights.unsqueeze(3), d_out, out=self.by_value)
            torch.sum(self.by_value, 0, out=d_v)
            torch.mul(d_scores, q, out=self.by_key)
            torch.sum(self.by_key, 0, out=d_k)
        torch.mul(d_scores, k, out=self.by_key)
        torch.sum(self.by_key, 1, out=d_q[: self.queries])


Attention = ProductAttention | ElementwiseAttention


def attention_for(s: Sizes, block: int, like: Tensor) -> Attention:
    """The faster form for these sizes, with memory to work in like `like`."""
    return (ProductAttention if s.products(block) else ElementwiseAttention)(s, block, like)
