"""Gated DeltaNet (Yang, Kautz and Hatamizadeh, 2024): a memory of fast weights that is corrected, not only added to."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relational_rnn._check import InputError, check_counts, check_positive, check_room, describe
from relational_rnn.nn._exported import any_length, sequence_of_any_length
from relational_rnn.nn._inputs import check_questions, check_sequence, check_step
from relational_rnn.nn._recurrent import asked_steps, blank
from relational_rnn.nn._stateful import StatefulCore
from relational_rnn.nn.core import Numbers, State
from relational_rnn.nn.initial_weights import draw_glorot
from relational_rnn.nn.readers import MatrixReader
from relational_rnn.ops.relational_scan.pieces import valid_steps

# Shape legend: B batch, T time, I input features, M questions, W width, L layers, H heads, K head size (W = H * K),
#               N chunks, C steps of a chunk

Projected = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Queries, keys, values, strengths and log decays of a layer."""
SLOWEST, FASTEST = 1e-3, 0.1
"""Bounds of the first step sizes of forgetting."""


def _as_precise_as_it_is(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """No autocast within; some devices have none, such as "meta", on which operations are counted."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)


class GatedDeltaNet(StatefulCore[Tensor]):
    r"""Layers of the gated delta rule (Yang et al., 2024, arXiv:2412.06464, equation 10) and feed-forward parts.

    A head keeps a matrix S that maps keys to values. A step forgets a share of it, compares what it holds for the key
    with the value, and writes the difference (k and q have length 1):

    $$ S_t = \alpha_t S_{t-1} + k_t\, \beta_t (v_t - \alpha_t S_{t-1}^\top k_t)^\top, \qquad o_t = S_t^\top q_t $$

    Around it, on the residual stream u: a = u + W_o (RMSNorm(o) * SiLU(W_g LN(u))), then the feed-forward part of
    `Transformer`. Of today's recurrences in linear time this one is taken because replacing what a key maps to is what
    recall needs, and because it is exact both ways: step by step, and in chunks, where all steps of a chunk are one
    triangular system. Its state keeps its size.

    Left out of the paper's block: the short convolutions before q, k and v. As in the authors' code, k and q go through
    a SiLU before they are scaled to length 1, alpha = exp(-A softplus(a_t)) with A from 1 to 16 at the start, and
    softplus(a_t) from 0.001 to 0.1.

    Args:
        input_size: features per step, I.
        hidden_size: width W of the residual stream and of the output.
        num_layers: layers, L.
        num_heads: heads, H; hidden_size / num_heads is the size of keys, queries and values, K.
        feedforward_size: hidden units of the feed-forward part; None means 4 * hidden_size.
        chunk_size: steps that are computed at once, C; it decides speed, not results.

    Shape:
        x [B, T, I]; output [B, T, W]; state [B, L, H, K, K] (key, value), zeros at the start.

    Raises:
        InputError: a size, dtype, length or reset that does not fit.

    Example:
        >>> core = GatedDeltaNet(input_size=5, hidden_size=8, num_layers=3, num_heads=2)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state.shape
        (torch.Size([7, 11, 8]), torch.Size([7, 3, 2, 4, 4]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int = 2,
        num_heads: int = 4,
        feedforward_size: int | None = None,
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_heads": num_heads, "chunk_size": chunk_size}
        check_positive("GatedDeltaNet", **sizes)
        check_counts("GatedDeltaNet", num_layers=num_layers)
        feedforward_size = 4 * hidden_size if feedforward_size is None else feedforward_size
        check_positive("GatedDeltaNet", feedforward_size=feedforward_size)
        if hidden_size % num_heads:
            problem = "hidden_size must be a multiple of num_heads"
            raise InputError(describe("GatedDeltaNet", problem, got=hidden_size, expected=f"a multiple of {num_heads}"))
        of_a_layer = hidden_size * (5 * hidden_size + 2 * num_heads + 2 * feedforward_size)
        check_room("GatedDeltaNet", hidden_size * input_size, num_layers * of_a_layer)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = hidden_size
        self.num_heads = num_heads
        self.chunk_size = chunk_size
        self.embed = nn.Linear(input_size, hidden_size)
        self.layers = nn.ModuleList(DeltaLayer(hidden_size, num_heads, feedforward_size) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)
        self._draw_first()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for layer in self.layers:
            assert isinstance(layer, DeltaLayer)
            layer.reset_parameters()
        self.norm.reset_parameters()
        self._draw_first()

    def _draw_first(self) -> None:
        nn.init.xavier_uniform_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int]]:
        head_size = self.hidden_size // self.num_heads
        return {"": {"B": batch_size, "L": len(self.layers), "H": self.num_heads, "K": head_size, "V": head_size}}

    def step(self, x_t: Tensor, state: State, *, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_step(self, x_t, reset)
        memories = self.started(state, x_t.shape[0])
        if reset is not None:
            memories = memories.masked_fill(reset.view(-1, 1, 1, 1, 1), 0)
        return self._through(x_t, memories, delta_step)

    def forward(
        self, x: Tensor, state: State | None = None, *, lengths: Numbers | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, State]:
        lengths = check_sequence(self, x, lengths, reset)
        batch_size, steps = x.shape[:2]
        if any_length(x):
            return sequence_of_any_length(self, x, self.started(state, batch_size), lengths, reset)
        row = torch.arange(batch_size, device=x.device)
        if lengths is None:
            return self._run(x, state, reset, row, torch.full_like(row, steps))
        valid = valid_steps(lengths, steps)
        y, state = self._run(blank(x, valid), state, reset, row, lengths)
        return blank(y, valid), state

    def snapshots(self, x: Tensor, rows: Numbers, at: Numbers, state: State | None = None) -> State:
        check_sequence(self, x, None, None)
        rows, at = check_questions(self, x, rows, at)
        return self._run(blank(x, asked_steps(x, rows, at)), state, None, rows, at)[1]

    def rows(self, state: State) -> tuple[Tensor, Tensor | None]:
        assert isinstance(state, Tensor)
        return state.flatten(1, 3), None

    def matrices(self, state: State) -> Tensor:
        """The matrices of all layers and heads [B, L * H, K, K] (key, value)."""
        assert isinstance(state, Tensor)
        return state.flatten(1, 2)

    def reader(self, size: int, looks: int, heads: int) -> MatrixReader:
        """How a question looks at a state: a query of its own into every matrix. `heads` is for attention."""
        key_size = self.hidden_size // self.num_heads
        return MatrixReader(self.matrices, (len(self.layers) * self.num_heads, key_size, key_size), size, looks)

    def _run(
        self, x: Tensor, state: State | None, reset: Tensor | None, rows: Tensor, at: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The outputs [B, T, W], and the states of `rows` [M] after `at` [M] steps."""

        def in_chunks(*given: Any) -> tuple[Tensor, Tensor]:
            chunks, dtype = Chunks.solve(*given, reset=reset, chunk_size=self.chunk_size), given[-1].dtype
            return chunks.reads(x.shape[1]).to(dtype), chunks.memory(rows, at).to(dtype)

        return self._through(x, self.started(state, x.shape[0]), in_chunks)

    def _through(
        self, x: Tensor, memories: Tensor, rule: Callable[..., tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """The outputs of all layers, and what `rule` makes of each one's memory; it takes that of `delta_step`."""
        u, after = self.embed(x), []
        for layer, memory in zip(self.layers, memories.unbind(1), strict=True):

            def remember(projected: Projected, before: Tensor = memory) -> Tensor:
                read, left = rule(*projected, before)
                after.append(left)
                return read

            u = layer(u, remember)
        return self.norm(u), torch.stack(after, 1)


class DeltaLayer(nn.Module):
    """Everything of a layer but the memory: what goes into the delta rule, and what is made of its reads."""

    def __init__(self, hidden_size: int, num_heads: int, feedforward_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.memory_norm = nn.LayerNorm(hidden_size)
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.strength_decay = nn.Linear(hidden_size, 2 * num_heads)
        self.log_rate = nn.Parameter(torch.empty(num_heads).uniform_(1, 16).log())
        self.read_norm = nn.RMSNorm(hidden_size // num_heads, eps=1e-5)
        self.gate = nn.Linear(hidden_size, hidden_size, bias=False)
        self.out = nn.Linear(hidden_size, hidden_size, bias=False)
        self.feedforward_norm = nn.LayerNorm(hidden_size)
        self.feedforward_in = nn.Linear(hidden_size, feedforward_size)
        self.feedforward_out = nn.Linear(feedforward_size, hidden_size)
        self._draw_others()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        with torch.no_grad():
            self.log_rate.copy_(self.log_rate.new_empty(self.num_heads).uniform_(1, 16).log())
        self._draw_others()

    def _draw_others(self) -> None:
        draw_glorot(self)
        with torch.no_grad():
            step = torch.empty_like(self.log_rate).uniform_(math.log(SLOWEST), math.log(FASTEST)).exp()
            self.strength_decay.bias[self.num_heads :] = step.expm1().log()  # softplus of it is `step`

    def forward(self, u: Tensor, remember: Callable[[Projected], Tensor]) -> Tensor:
        """The stream u [..., W] after this layer; `remember` makes of what `project` gives what the memory gives."""
        return self.finish(u, remember(self.project(u)))

    def project(self, u: Tensor) -> Projected:
        """From the stream u [..., W] to queries, keys, values [..., H, K], strengths and log decays [..., H]."""
        u = self.memory_norm(u)
        q, k, v = self.query_key_value(u).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        strength, decay = self.strength_decay(u).chunk(2, -1)
        log_decay = -self.log_rate.exp() * F.softplus(decay)
        shortest = max(1e-12, torch.finfo(u.dtype).tiny)  # float16 takes PyTorch's own 1e-12 for 0, and divides by it
        q, k = (F.normalize(F.silu(z), dim=-1, eps=shortest) for z in (q, k))
        return q, k, v, torch.sigmoid(strength), log_decay

    def finish(self, u: Tensor, read: Tensor) -> Tensor:
        """The stream u [..., W] after this layer, with what the memory gave, [..., H, K]."""
        gate = F.silu(self.gate(self.memory_norm(u)))
        a = u + self.out(self.read_norm(read).flatten(-2) * gate)
        return a + self.feedforward_out(F.gelu(self.feedforward_in(self.feedforward_norm(a))))


def delta_step(
    q: Tensor, k: Tensor, v: Tensor, strength: Tensor, log_decay: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of the gated delta rule.

    Args:
        q: [B, H, K], as k and v.
        strength: beta [B, H].
        log_decay: logarithm of alpha [B, H].
        memory: [B, H, K, K] (key, value).

    Returns:
        (what the query reads [B, H, K], the memory after the step).
    """
    memory = memory * log_decay.exp()[..., None, None]
    held = (memory * k.unsqueeze(-1)).sum(-2)
    memory = memory + k.unsqueeze(-1) * (strength.unsqueeze(-1) * (v - held)).unsqueeze(-2)
    return (memory * q.unsqueeze(-1)).sum(-2), memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunks:
    r"""The gated delta rule over a whole sequence, solved chunk by chunk.

    With g_t the product of the decays from the start of a chunk up to t, the memory within the chunk is

    $$ S_t = g_t S_0 + \textstyle\sum_{i \le t} (g_t / g_i)\, k_i u_i^\top, \qquad
       u_t = \beta_t (v_t - g_t S_0^\top k_t - \textstyle\sum_{i < t} (g_t / g_i) (k_i^\top k_t)\, u_i) $$

    which is a unit lower triangular system for the corrections u of a chunk, given the memory S_0 before it. A reset
    puts g_t / g_i to 0 for steps on both sides of it, and g_t to 0 after it.
    """

    q: Tensor
    """[B, N, H, C, K], as keys and corrections."""
    keys: Tensor
    corrections: Tensor
    decay: Tensor
    """g_t / g_i for i <= t, else 0, [B, N, H, C, C]."""
    kept: Tensor
    """g_t, [B, N, H, C]."""
    before: Tensor
    """The memory before every chunk, [B, N, H, K, K]."""

    @classmethod
    def solve(
        cls,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        strength: Tensor,
        log_decay: Tensor,
        memory: Tensor,
        reset: Tensor | None,
        chunk_size: int,
    ) -> Chunks:
        """From q, k, v [B, T, H, K], strength and log_decay [B, T, H], the memory before [B, H, K, K], reset [B, T]."""
        # Autocast has no place here: sums over many steps want the precision of the memory.
        with _as_precise_as_it_is(q):
            precise = torch.promote_types(memory.dtype, torch.float32)
            steps = q.shape[1]
            size = min(chunk_size, max(steps, 1))
            count = max(-(-steps // size), 1)

            def split(tensor: Tensor) -> Tensor:
                """[B, T, H, ...] to [B, N, H, C, ...]; steps of 0 at the end neither write nor forget."""
                padded = F.pad(tensor.to(precise), (0, 0) * (tensor.dim() - 2) + (0, count * size - steps))
                return padded.unflatten(1, (count, size)).transpose(2, 3)

            q, k, v, strength, log_decay = (split(tensor) for tensor in (q, k, v, strength, log_decay))
            seen = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
            kept = log_decay.cumsum(-1).exp()
            # Summed from i + 1 to t: a difference of two sums from the start would round, and leak past a reset.
            between = log_decay.unsqueeze(-1).where(seen.tril(-1), 0).cumsum(-2)
            if reset is not None:
                segment = F.pad(reset, (0, count * size - steps)).cumsum(1).unflatten(1, (count, 1, size))
                last = F.pad(segment[:, :-1, :, -1:], (0, 0, 0, 0, 1, 0))  # of the chunk before; 0 at the start
                seen = seen & (segment.unsqueeze(-1) == segment.unsqueeze(-2))
                kept = kept.masked_fill(segment != last, 0)
            decay = between.exp().where(seen, 0)
            system = (strength.unsqueeze(-1) * decay * (k @ k.mT)).tril(-1)
            right = strength.unsqueeze(-1) * torch.cat([v, kept.unsqueeze(-1) * k], -1)
            # The diagonal of ones is not stored; `unitriangular` says that it is there.
            own, of_before = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True).chunk(2, -1)
            arriving = (k * decay[..., -1, :].unsqueeze(-1)).mT  # what the chunk's last step still holds of each key
            memory = memory.to(precise)
            before, corrections = [], []
            for n in range(count):
                before.append(memory)
                corrections.append(own[:, n] - of_before[:, n] @ memory)
                memory = kept[:, n, :, -1, None, None] * memory + arriving[:, n] @ corrections[-1]
            return cls(
                q=q,
                keys=k,
                corrections=torch.stack(corrections, 1),
                decay=decay,
                kept=kept,
                before=torch.stack(before, 1),
            )

    def reads(self, steps: int) -> Tensor:
        """What every step's query reads, [B, T, H, K]."""
        with _as_precise_as_it_is(self.q):
            inside = (self.decay * (self.q @ self.keys.mT)) @ self.corrections
            read = inside + self.kept.unsqueeze(-1) * (self.q @ self.before)
        return read.transpose(2, 3).flatten(1, 2)[:, :steps]

    def memory(self, rows: Tensor, at: Tensor) -> Tensor:
        """The memory [M, H, K, K] of `rows` [M] after `at` [M] steps."""
        with _as_precise_as_it_is(self.q):
            last = (at - 1).clamp(min=0)
            chunk, inside = last // self.q.shape[-2], last % self.q.shape[-2]
            started = (at > 0).view(-1, 1, 1)
            decay = self.decay[rows, chunk, :, inside].where(started, 0)  # [M, H, C]
            kept = self.kept[rows, chunk, :, inside].unsqueeze(-1).where(started, 1)  # [M, H, 1]
            added = (self.keys[rows, chunk] * decay.unsqueeze(-1)).mT @ self.corrections[rows, chunk]
            return kept.unsqueeze(-1) * self.before[rows, chunk] + added
