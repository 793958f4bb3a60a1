"""Gated DeltaNet (Yang, Kautz and Hatamizadeh, 2024): a memory of fast weights that is corrected, not only added to."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from operator import methodcaller

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relational_rnn._check import InputError, check_counts, check_positive, check_room, describe
from relational_rnn.nn._stateful import StatefulCore, blank
from relational_rnn.nn.initial_weights import draw_glorot
from relational_rnn.nn.readers import MatrixReader
from relational_rnn.ops.relational_scan.pieces import valid_steps

# Axes: N chunks, C steps of a chunk, M questions; the others are those of the class.

SLOWEST, FASTEST = 1e-3, 0.1
"""Bounds of the first step sizes of forgetting."""


def _as_precise_as_it_is(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """No autocast within; some devices, such as "meta", have none."""
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
    `Transformer`. It is exact both step by step and in chunks, where all steps of a chunk are one triangular system.

    The paper's short convolutions before q, k and v are left out. As in the authors' code, k and q go through a SiLU
    before they are scaled, and alpha = exp(-A softplus(a_t)); at the start A is from 1 to 16, softplus(a_t) from 0.001
    to 0.1.

    Args:
        num_heads: heads, H; keys, queries and values have K = hidden_size / num_heads numbers.
        feedforward_size: hidden units of the feed-forward part; None means 4 * hidden_size.
        chunk_size: steps that are computed at once; it decides speed, not results.

    Shape:
        With I = input_size, W = hidden_size and L = num_layers: x [B, T, I]; output [B, T, W];
        state [B, L, H, K, K] (key, value), zeros at the start.

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

    def run_step(self, x_t: Tensor, state: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        if reset is not None:
            state = state.masked_fill(reset.view(-1, 1, 1, 1, 1), 0)
        return self._through(x_t, state, delta_step)

    def run(self, x: Tensor, state: Tensor, lengths: Tensor | None, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        row = torch.arange(x.shape[0], device=x.device)
        if lengths is None:
            return self._in_chunks(x, state, reset, row, torch.full_like(row, x.shape[1]))
        valid = valid_steps(lengths, x.shape[1])
        y, after = self._in_chunks(blank(x, valid), state, reset, row, lengths)
        return blank(y, valid), after

    def run_until(self, x: Tensor, state: Tensor, rows: Tensor, at: Tensor) -> Tensor:
        return self._in_chunks(x, state, None, rows, at)[1]

    def reader(self, size: int, looks: int, heads: int) -> MatrixReader:
        """How a question looks at a state: with a query of its own for every matrix. `heads` is for attention."""
        of_heads, key_size = methodcaller("flatten", 1, 2), self.hidden_size // self.num_heads
        return MatrixReader(of_heads, (len(self.layers) * self.num_heads, key_size, key_size), size, looks)

    def _in_chunks(
        self, x: Tensor, state: Tensor, reset: Tensor | None, rows: Tensor, at: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The outputs [B, T, W], and the states of `rows` [M] after `at` [M] steps."""

        def solved(*given: Tensor) -> tuple[Tensor, Tensor]:
            # Autocast has no place here: sums over many steps want the precision of the memory.
            with _as_precise_as_it_is(x):
                return solve_chunks(*given, reset=reset, chunk_size=self.chunk_size, rows=rows, at=at)

        return self._through(x, state, solved)

    def _through(
        self, x: Tensor, memories: Tensor, rule: Callable[..., tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """The outputs, and the memories of all layers; `rule` has the arguments of `delta_step`."""
        u, after = self.embed(x), []
        for layer, memory in zip(self.layers, memories.unbind(1), strict=True):

            def remember(*projected: Tensor, before: Tensor = memory) -> Tensor:
                read, left = rule(*projected, before)
                after.append(left)
                return read

            u = layer(u, remember)
        return self.norm(u), torch.stack(after, 1)


class DeltaLayer(nn.Module):
    """A layer: what goes into the delta rule, and what becomes of its reads."""

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
        with torch.no_grad():
            self.log_rate.copy_(self.log_rate.new_empty(self.num_heads).uniform_(1, 16).log())
        self._draw_others()

    def _draw_others(self) -> None:
        draw_glorot(self)
        with torch.no_grad():
            step = torch.empty_like(self.log_rate).uniform_(math.log(SLOWEST), math.log(FASTEST)).exp()
            self.strength_decay.bias[self.num_heads :] = step.expm1().log()  # softplus of it is `step`

    def forward(self, u: Tensor, remember: Callable[..., Tensor]) -> Tensor:
        """The stream u [..., W] after this layer.

        `remember` has the arguments of `delta_step` but for the memory, and gives what is read [..., H, K].
        """
        seen = self.memory_norm(u)
        q, k, v = self.query_key_value(seen).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        strength, decay = self.strength_decay(seen).chunk(2, -1)
        log_decay = -self.log_rate.exp() * F.softplus(decay)
        shortest = max(1e-12, torch.finfo(u.dtype).tiny)  # float16 takes PyTorch's own 1e-12 for 0, and divides by it
        q, k = (F.normalize(F.silu(z), dim=-1, eps=shortest) for z in (q, k))
        read = remember(q, k, v, torch.sigmoid(strength), log_decay)
        a = u + self.out(self.read_norm(read).flatten(-2) * F.silu(self.gate(seen)))
        return a + self.feedforward_out(F.gelu(self.feedforward_in(self.feedforward_norm(a))))


def delta_step(
    q: Tensor, k: Tensor, v: Tensor, strength: Tensor, log_decay: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of the gated delta rule: what the query reads [B, H, K], and the memory [B, H, K, K] after the step.

    q, k and v are [B, H, K], `strength` (beta) and `log_decay` (of alpha) [B, H].
    """
    memory = memory * log_decay.exp()[..., None, None]
    held = (memory * k.unsqueeze(-1)).sum(-2)
    memory = memory + k.unsqueeze(-1) * (strength.unsqueeze(-1) * (v - held)).unsqueeze(-2)
    return (memory * q.unsqueeze(-1)).sum(-2), memory


def solve_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    strength: Tensor,
    log_decay: Tensor,
    memory: Tensor,
    *,
    reset: Tensor | None,
    chunk_size: int,
    rows: Tensor,
    at: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""The gated delta rule over a whole sequence: all reads [B, T, H, K], and the memories of `rows` after `at` steps.

    The arguments are those of `delta_step` with an axis of time, q [B, T, H, K], and reset [B, T], rows [M], at [M].
    With g_t the product of the decays from the start of a chunk up to t, the memory in the chunk is

    $$ S_t = g_t S_0 + \textstyle\sum_{i \le t} (g_t / g_i)\, k_i u_i^\top, \qquad
       u_t = \beta_t (v_t - g_t S_0^\top k_t - \textstyle\sum_{i < t} (g_t / g_i) (k_i^\top k_t)\, u_i) $$

    which is a unit lower triangular system for the corrections u of a chunk, given the memory S_0 before it. A reset
    sets g_t / g_i to 0 for steps on both sides of it, and g_t to 0 after it.
    """
    dtype, precise = memory.dtype, torch.promote_types(memory.dtype, torch.float32)
    steps = q.shape[1]
    size = min(chunk_size, max(steps, 1))
    count = max(-(-steps // size), 1)

    def split(tensor: Tensor) -> Tensor:
        """[B, T, H, ...] to [B, N, H, C, ...]; steps of 0 at the end neither write nor forget."""
        padded = F.pad(tensor.to(precise), (0, 0) * (tensor.dim() - 2) + (0, count * size - steps))
        return padded.unflatten(1, (count, size)).transpose(2, 3)

    q, k, v, strength, log_decay = (split(tensor) for tensor in (q, k, v, strength, log_decay))
    seen = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    kept = log_decay.cumsum(-1).exp()  # g_t, [B, N, H, C]
    # Summed from i + 1 to t: a difference of two sums from the start would round, and leak past a reset.
    between = log_decay.unsqueeze(-1).where(seen.tril(-1), 0).cumsum(-2)
    if reset is not None:
        segment = F.pad(reset, (0, count * size - steps)).cumsum(1).unflatten(1, (count, 1, size))
        last = F.pad(segment[:, :-1, :, -1:], (0, 0, 0, 0, 1, 0))  # of the chunk before; 0 at the start
        seen = seen & (segment.unsqueeze(-1) == segment.unsqueeze(-2))
        kept = kept.masked_fill(segment != last, 0)
    decay = between.exp().where(seen, 0)  # g_t / g_i for i <= t, else 0, [B, N, H, C, C]
    system = (strength.unsqueeze(-1) * decay * (k @ k.mT)).tril(-1)
    right = strength.unsqueeze(-1) * torch.cat([v, kept.unsqueeze(-1) * k], -1)
    # The diagonal of ones is not stored; `unitriangular` says that it is there.
    own, of_before = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True).chunk(2, -1)
    arriving = (k * decay[..., -1, :].unsqueeze(-1)).mT  # what the chunk's last step still holds of each key
    memory = memory.to(precise)
    starts, solved = [], []
    for n in range(count):
        starts.append(memory)
        solved.append(own[:, n] - of_before[:, n] @ memory)
        memory = kept[:, n, :, -1, None, None] * memory + arriving[:, n] @ solved[-1]
    before, corrections = torch.stack(starts, 1), torch.stack(solved, 1)
    read = (decay * (q @ k.mT)) @ corrections + kept.unsqueeze(-1) * (q @ before)

    last = (at - 1).clamp(min=0)
    chunk, inside, started = last // size, last % size, (at > 0).view(-1, 1, 1)
    left = kept[rows, chunk, :, inside].unsqueeze(-1).where(started, 1)  # [M, H, 1]
    held = decay[rows, chunk, :, inside].where(started, 0)  # [M, H, C]
    added = (k[rows, chunk] * held.unsqueeze(-1)).mT @ corrections[rows, chunk]
    after = left.unsqueeze(-1) * before[rows, chunk] + added
    return read.transpose(2, 3).flatten(1, 2)[:, :steps].to(dtype), after.to(dtype)
