"""The fast-weight memory, one step at a time: the definition that judges every faster implementation.

Every head keeps a matrix S that maps keys to values; key(z) = z / sqrt(|z|^2 + 1e-6), per head. A step reads R times,
writes once and reads what it has written:

    h | c = p + U y                                              p: the input, projected; y: the output before
    k = key(c)                                                   of every head, before any read
    h = LN_j(h + R_j [S^T key(Q_j h)])                           for j = 1 ... R
    h = LN(h + A relu(B h))
    q | v | b | f = write(h)                                     each head by head
    S = alpha S + k (beta (v - alpha S^T k))^T                   alpha = sigmoid(f), beta = max_strength sigmoid(b)
    y = LN(h + P [S^T key(q)])
"""

# Shape legend (for the Python files of this folder)
#   B  batch             W  width                       H  heads
#   T  time steps        R  reads                       K  key size, V value size per head

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relational_rnn.ops.relational_scan.loop import happening
from relational_rnn.ops.relational_scan.reference import Linear, Norm, layer_norm, linear

KEY_EPSILON = 1e-6  # added to the squared length of a key, so that zeros have a slope


class Read(NamedTuple):
    """What one read before the write has for itself."""

    key: Linear  # W -> H * K, Q_j
    value: Linear  # H * V -> W, R_j
    norm: Norm  # W


class FastWeightParameters(NamedTuple):
    """The weights and choices of a fast-weight memory, without the projection of the input."""

    num_heads: int
    max_strength: float
    recurrent: Tensor | None  # U [W + H * K, W], or None: then a step does not see the output before it
    mlp_in: Linear  # W -> W, B
    mlp_out: Linear  # W -> W, A
    write: Linear  # W -> H K + H V + 2 H: queries, values, strengths, keeps of all heads
    out: Linear  # H * V -> W, P
    mlp_norm: Norm  # W
    out_norm: Norm  # W
    reads: tuple[Read, ...]  # R of them, 0 or more


class FastWeightState(NamedTuple):
    """What a step hands on."""

    fast: Tensor  # [B, H, K, V]
    carried: Tensor | None = None  # [B, W], the output; None without `recurrent`


class FastWeightScan(NamedTuple):
    """What a scan returns."""

    outputs: Tensor | None  # [B, T, W], y of every step, 0 where it does not happen; None if not wanted
    states: Tensor | None  # [B, T, H, K, V], S after every step, 0 where it does not happen; None if not wanted
    final: FastWeightState  # after the last step of every sequence


def unit(z: Tensor) -> Tensor:
    """Keys `z` [..., K] scaled to almost exactly length 1; zeros stay zeros."""
    precise = torch.promote_types(z.dtype, torch.float32)  # half precision has no room for the slope at zero
    return z * torch.rsqrt(z.to(precise).square().sum(-1, keepdim=True) + KEY_EPSILON).to(z.dtype)


def read(memory: Tensor, key: Tensor) -> Tensor:
    """What `memory` [B, H, K, V] holds for `key` [B, H, K], as [B, H, V]."""
    return torch.matmul(key.unsqueeze(-2), memory).squeeze(-2)


def fast_weight_step(p_t: Tensor, state: FastWeightState, params: FastWeightParameters) -> FastWeightState:
    """One step from the projected input `p_t` [B, W + H * K]; `carried` of the result is its output in any case."""
    memory, heads = state.fast, params.num_heads
    key_size, value_size = memory.shape[2:]
    if params.recurrent is not None:
        assert state.carried is not None
        p_t = p_t + F.linear(state.carried, params.recurrent)
    h, key = p_t.tensor_split([p_t.shape[1] - heads * key_size], -1)
    key = unit(key.unflatten(-1, (heads, -1)))
    for one in params.reads:
        query = unit(linear(h, one.key).unflatten(-1, (heads, -1)))
        h = layer_norm(h + linear(read(memory, query).flatten(-2), one.value), one.norm)
    h = layer_norm(h + linear(torch.relu(linear(h, params.mlp_in)), params.mlp_out), params.mlp_norm)
    parts = [heads * key_size, heads * value_size, heads, heads]
    query, value, strength, keep = linear(h, params.write).split(parts, -1)
    query = unit(query.unflatten(-1, (heads, -1)))
    value = value.unflatten(-1, (heads, -1))
    strength = params.max_strength * torch.sigmoid(strength).unsqueeze(-1)
    memory = torch.sigmoid(keep)[:, :, None, None] * memory
    memory = memory + key.unsqueeze(-1) * (strength * (value - read(memory, key))).unsqueeze(-2)
    y = layer_norm(h + linear(read(memory, query).flatten(-2), params.out), params.out_norm)
    return FastWeightState(memory, y)


def fast_weight_scan_reference(
    p: Tensor,
    state: FastWeightState,
    params: FastWeightParameters,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    initial: FastWeightState | None = None,
    outputs_wanted: bool = True,
    states_wanted: bool = False,
) -> FastWeightScan:
    """The steps of a sequence one after the other, in plain PyTorch operations; see `fast_weight_scan`."""
    happens = happening(lengths, p.shape[1], p.device)
    if happens is not None:
        p = p.where(happens.unsqueeze(2), 0)  # padding may hold anything, even NaN
    if params.recurrent is None:
        state = FastWeightState(state.fast)
    first = initial
    if first is None:
        carried = None if state.carried is None else torch.zeros_like(state.carried)
        first = FastWeightState(torch.zeros_like(state.fast), carried)
    outputs, memories = [], []
    for t, p_t in enumerate(p.unbind(1)):
        before = state if reset is None else _select(reset[:, t], first, state)
        after = fast_weight_step(p_t, before, params)
        outputs.append(after.carried)
        memories.append(after.fast)
        if params.recurrent is None:
            after = FastWeightState(after.fast)
        state = after if happens is None else _select(happens[:, t], after, state)

    def stacked(tensors: list[Tensor], *shape: int) -> Tensor:
        if not tensors:
            return p.new_zeros(p.shape[0], 0, *shape)
        together = torch.stack(tensors, 1)
        return together if happens is None else together.where(happens.view(*happens.shape, *[1] * len(shape)), 0)

    return FastWeightScan(
        stacked(outputs, len(params.out_norm.weight)) if outputs_wanted else None,
        stacked(memories, *state.fast.shape[1:]) if states_wanted else None,
        state,
    )


def _select(rows: Tensor, chosen: FastWeightState, other: FastWeightState) -> FastWeightState:
    """Per sequence, `chosen` where `rows` [B] is true, else `other`."""
    fast = torch.where(rows[:, None, None, None], chosen.fast, other.fast)
    if chosen.carried is None or other.carried is None:
        return FastWeightState(fast)
    return FastWeightState(fast, torch.where(rows[:, None], chosen.carried, other.carried))
