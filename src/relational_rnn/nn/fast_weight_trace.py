"""Seeing inside a fast-weight memory: what it wrote, what it read, and which writes a read rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from relational_rnn._check import InputError, check_shape, describe
from relational_rnn.nn._inputs import check_device

# Axes: B batch, T time, H heads, K key size, V value size, R reads before the write, W width, G = B * H matrices


class Step(NamedTuple):
    """All that one step computed."""

    read_keys: list[Tensor]  # of each read before the write, [G, 1, K]
    reads: list[Tensor]  # what each found, [G, 1, V]
    keys: Tensor  # [G, 2, K]: k of the write, q of the read after it
    value: Tensor  # [G, 1, V]
    strength: Tensor  # beta [G, 1, 1]
    keep: Tensor  # alpha [G, 1, 1]
    found: Tensor  # what the read after the write found, [G, 1, V]
    memory: Tensor  # after the step, [G, K, V]
    output: Tensor  # y [B, W]


@dataclass(frozen=True, kw_only=True, slots=True)
class FastWeightTrace:
    r"""What happened at every step of a `FastWeightMemory`.

    With these tensors, every step is $S_t = \alpha_t S_{t-1} + k_t (\beta_t (v_t - \alpha_t S_{t-1}^\top k_t))^\top$,
    starting from the memory `start`. A step past a length wrote and forgot nothing: keep 1, all else 0, and the memory
    stays. A step after a reset kept nothing: keep 0.
    """

    keys: Tensor
    """k [B, T, H, K]: the key under which a step wrote."""
    values: Tensor
    """v [B, T, H, V]: what it wrote."""
    strengths: Tensor
    """beta [B, T, H]: how far it replaced what the key held; 1 is all of it."""
    keeps: Tensor
    """alpha [B, T, H]: the share of the memory that it kept."""
    read_keys: Tensor
    """[B, T, R, H, K]: the keys of the reads before the write."""
    read: Tensor
    """[B, T, R, H, V]: what these reads found."""
    output_keys: Tensor
    """[B, T, H, K]: the key of the read after the write."""
    output_read: Tensor
    """[B, T, H, V]: what that read found."""
    memory: Tensor
    """S [B, T, H, K, V]: the memory after the step."""
    start: Tensor
    """[B, H, K, V]: the memory before the first step."""

    @classmethod
    def of(
        cls,
        steps: list[Step],
        memories: list[Tensor],
        start: Tensor,
        happens: Tensor,
        reset: Tensor | None,
        length: int,
    ) -> FastWeightTrace:
        """The trace of the first `length` of at least one step, with the `memories` [B, H, K, V] after each."""
        heads = start.shape[1]

        def over_time(tensors: list[Tensor], otherwise: float = 0.0) -> Tensor:
            """Tensors [G, ...] of every step as [B, T, H, ...], `otherwise` where a step did not happen."""
            together = torch.stack([tensor.unflatten(0, (-1, heads)) for tensor in tensors], 1)
            return together.where(happens.view(*happens.shape, *[1] * (together.dim() - 2)), otherwise)[:, :length]

        def every_read(tensors: list[list[Tensor]]) -> Tensor:
            """Of every step and read [G, 1, ...], as [B, T, R, H, ...]."""
            return over_time([torch.cat(of_step, 1) for of_step in tensors]).transpose(2, 3)

        keeps = over_time([step.keep for step in steps], 1.0).flatten(2)
        return cls(
            keys=over_time([step.keys[:, 0] for step in steps]),
            values=over_time([step.value[:, 0] for step in steps]),
            strengths=over_time([step.strength for step in steps]).flatten(2),
            keeps=keeps if reset is None else keeps.masked_fill((reset & happens).unsqueeze(2), 0),
            read_keys=every_read([step.read_keys for step in steps]),
            read=every_read([step.reads for step in steps]),
            output_keys=over_time([step.keys[:, 1] for step in steps]),
            output_read=over_time([step.found[:, 0] for step in steps]),
            memory=torch.stack(memories, 1)[:, :length],
            start=start,
        )

    def origins(self, query: Tensor, *, after: int | None = None) -> Tensor:
        r"""How much of every write a read contains.

        For given keys, strengths and keeps the memory is linear in the values, so a read is a sum over the writes:

        $$ S_T^\top q = \textstyle\sum_s w_s v_s + S_0^\top q_0, \qquad w_s = \beta_s k_s^\top q_s, \qquad
           q_{s-1} = \alpha_s (q_s - w_s k_s), \qquad q_T = q $$

        A weight may be negative: a later write corrects what an earlier one left under its key.

        Args:
            query: q [B, H, K], the key that is read, such as one of `read_keys` or `output_keys`.
            after: read the memory after so many steps; None for the last one.

        Returns:
            the weights w [B, T, H]; 0 for steps after the read. `left_of_start` gives the rest of the read.

        Raises:
            InputError: a query of another shape, dtype or device, or `after` outside of 0..T.

        Example:
            >>> from relational_rnn.nn import FastWeightMemory
            >>> core = FastWeightMemory(input_size=3, hidden_size=8, num_heads=2, key_size=4, value_size=5).double()
            >>> trace = core.trace(torch.randn(1, 6, 3, dtype=torch.float64))
            >>> query = trace.output_keys[:, -1]  # what the last step looked for, in the memory after it
            >>> weights = trace.origins(query)
            >>> bool(torch.allclose((weights.unsqueeze(-1) * trace.values).sum(1), trace.output_read[:, -1]))
            True
        """
        return self._unwind(query, after)[0]

    def left_of_start(self, query: Tensor, *, after: int | None = None) -> Tensor:
        """What of the same read comes from the memory before the first step, [B, H, V]; see `origins`."""
        return (self._unwind(query, after)[1].unsqueeze(-2) @ self.start).squeeze(-2)

    def _unwind(self, query: Tensor, after: int | None) -> tuple[Tensor, Tensor]:
        """The weights of all writes [B, T, H], and the key to look for in the memory before the first, [B, H, K]."""
        batch, steps, heads, key_size = self.keys.shape
        check_shape("FastWeightTrace", "query", query, {"B": batch, "H": heads, "K": key_size})
        if query.dtype != self.keys.dtype:
            problem, hint = "query has another dtype than the trace", f"convert it: query.to({self.keys.dtype})."
            raise InputError(describe("FastWeightTrace", problem, got=query.dtype, expected=self.keys.dtype, hint=hint))
        check_device("FastWeightTrace", "query", query, self.keys.device)
        last = steps if after is None else after
        if isinstance(last, bool) or not isinstance(last, int) or not 0 <= last <= steps:
            problem = "after must be a number of steps of the trace"
            raise InputError(describe("FastWeightTrace", problem, got=repr(after), expected=f"0 to {steps}"))
        weights = [torch.zeros_like(self.strengths[:, 0])] * steps if steps else []
        for s in reversed(range(last)):
            weights[s] = self.strengths[:, s] * (self.keys[:, s] * query).sum(-1)
            query = self.keeps[:, s].unsqueeze(-1) * (query - weights[s].unsqueeze(-1) * self.keys[:, s])
        return torch.stack(weights, 1) if weights else self.strengths, query
