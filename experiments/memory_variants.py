"""What ablate_memories.py trains: slots that compete and fast weights, each with one part changed, and rivals.

What the package has no option for is done to a core after it was built, by replacing a function of its plain
definition. Axes: B batch, N slots, n input rows, W width of a slot, G matrices (batch and heads), K key, V value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relational_rnn.nn import FastWeightMemory, RelationalMemory, fast_weight_memory
from relational_rnn.nn.cores import CORES, FastWeightSizes, MemorySizes
from relational_rnn.nn.fast_weight_memory import write_and_read
from relational_rnn.nn.initial_weights import draw_truncated_normal
from relational_rnn.ops.relational_scan import ScanParameters, Step, loop, reference


def even(share: Tensor, gate: Tensor) -> Tensor:
    """The update's rate where nobody competes: every slot takes 1 / N of every row."""
    return reference.update_rate(torch.full_like(share, 1 / share.shape[-2]), gate)


def gate_alone(share: Tensor, gate: Tensor) -> Tensor:
    """The rate without any share: the gate decides how far a number moves, up to all the way."""
    return gate


def unscaled(share: Tensor, gate: Tensor) -> Tensor:
    """The rate as the product of the share and the gate, without a factor and a bound."""
    return share.mean(-1, keepdim=True) * gate


def compete(
    memory: Tensor,
    rows: Tensor,
    gate_terms: Tensor,
    p: ScanParameters,
    *,
    rate: Callable[[Tensor, Tensor], Tensor] = reference.update_rate,
    sharpness: float = 1.0,
    keys_from: Callable[[Tensor], Tensor] = torch.clone,
    forget: nn.Linear | None = None,
) -> Step:
    """A step of slots that compete, from memory [B, N, W] and rows [B, n, W]: the package's but for what is given.

    Args:
        rate: from shares [B, N, n] and gates [B, N, W] to how far every number moves.
        sharpness: a factor of the scores before the softmax.
        keys_from: what of the memory the keys are made of.
        forget: from [tanh(memory), row] to a forget gate, instead of keeping what the update leaves.
    """
    assert p.gate_memory is not None
    attended = reference.advance(memory, rows, None, p._replace(gate_memory=None))
    candidate, width = torch.tanh(attended.candidate), memory.shape[-1]
    weight, bias = p.gate_memory
    gate = F.linear(torch.tanh(memory), weight[:width], bias[:width]) + gate_terms[..., :width].unsqueeze(-2)
    gate = torch.sigmoid(gate + p.settings.input_bias)
    keys = F.linear(keys_from(memory), weight[width:], bias[width:])
    queries = gate_terms[..., width:].unflatten(-1, (-1, width))
    share = torch.softmax(sharpness * (keys @ queries.mT) * width**-0.5, dim=-2)
    moved, kept = rate(share, gate), None
    if forget is None:
        memory = memory + moved * (candidate - memory)
    else:
        seen = torch.cat([torch.tanh(memory), rows.expand_as(memory)], -1)  # a step of bAbI has one row
        kept = torch.sigmoid(forget(seen) + p.settings.forget_bias)
        memory = moved * candidate + kept * memory
    return attended._replace(memory=memory, input_gate=gate, forget_gate=kept, share=share)


def add_only(memory: Tensor, keys: Tensor, value: Tensor, strength: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """A write [G, K, V] that adds the value and takes nothing away, and the read after it."""
    key, query = keys.chunk(2, 1)
    memory = keep * memory + key.mT @ (strength * value)
    return memory, query @ memory


def keep_all(memory: Tensor, keys: Tensor, value: Tensor, strength: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """A write that forgets nothing."""
    return write_and_read(memory, keys, value, strength, torch.ones_like(keep))


Alter = Callable[[Any], contextlib.AbstractContextManager[Any]]
"""Changes a core that was just built; it computes as it should within what this returns."""


def slots_with(**parts: Any) -> Alter:
    """Slots that compete, with these arguments of `compete`."""

    def alter(core: RelationalMemory) -> contextlib.AbstractContextManager[Any]:
        core.backend = "reference"
        return patch.object(loop, "advance", partial(compete, **parts))

    return alter


def two_gates(core: RelationalMemory) -> contextlib.AbstractContextManager[Any]:
    """Slots that compete and have a forget gate of their own."""
    core.forget = nn.Linear(2 * core.width, core.width)
    draw_truncated_normal(core.forget)
    return slots_with(forget=core.forget)(core)


def writes_with(write_and_read: Callable[..., tuple[Tensor, Tensor]]) -> Alter:
    """Fast weights with another write."""

    def alter(core: FastWeightMemory) -> contextlib.AbstractContextManager[Any]:
        core.backend = "reference"
        return patch.object(fast_weight_memory, "write_and_read", write_and_read)

    return alter


def read_nothing(core: FastWeightMemory) -> contextlib.AbstractContextManager[Any]:
    """Fast weights whose reads before the write find zeros."""
    core.backend = "reference"
    for linear in core.read_value:
        linear.register_forward_pre_hook(lambda module, given: (torch.zeros_like(given[0]),))
    return contextlib.nullcontext()


SIZES, NO_FAST = MemorySizes(mem_slots=8, head_size=16, num_heads=4), FastWeightSizes()


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A row of a table."""

    change: str
    """In words."""
    core: str
    table: str
    """Which one: a block of the page."""
    memory: MemorySizes = SIZES
    fast: FastWeightSizes = NO_FAST
    alter: Alter | None = None
    drawn: bool = False
    """Whether the figure has it, one of several sizes of its core."""


def slots(change: str, *, drawn: bool = False, alter: Alter | None = None, **sizes: Any) -> Variant:
    memory = replace(SIZES, **sizes)
    return Variant(change=change, core="competitive", table="slots", memory=memory, alter=alter, drawn=drawn)


def fast(change: str, *, drawn: bool = False, alter: Alter | None = None, **sizes: Any) -> Variant:
    chosen = FastWeightSizes(**{"reads": 2, "carry": False, **sizes})
    return Variant(change=change, core="fastweights", table="fast", fast=chosen, alter=alter, drawn=drawn)


VARIANTS = {
    "original": Variant(change="the original: gates, and no competition", core="rmc", table="slots", drawn=True),
    "slots": slots("**competing slots, all parts**, 8 slots of 64", drawn=True),
    "slots-no-share": slots("every slot takes 1/N of every row", alter=slots_with(rate=even)),
    "slots-gate-alone": slots("no share: the gate alone says how far a slot moves", alter=slots_with(rate=gate_alone)),
    "slots-two-gates": slots("a forget gate of its own: M' = u tanh(candidate) + f M", alter=two_gates),
    "slots-unscaled": slots("share times gate, without the scale and the bound", alter=slots_with(rate=unscaled)),
    "slots-sharper": slots("scores times 2 before the softmax", alter=slots_with(sharpness=2.0)),
    "slots-tanh-keys": slots("keys from tanh(M)", alter=slots_with(keys_from=torch.tanh)),
    "slots-random": slots("random start", initial_memory="random"),
    "slots-learned": slots("learned start", initial_memory="learned"),
    **{f"slots-{n}": slots(f"{n} slots", mem_slots=n, drawn=True) for n in (2, 4, 16, 64)},
    "fast": fast("**fast weights, all parts**, 4 heads, keys and values of 16, 2 reads", drawn=True),
    "fast-no-reads": fast("written without reading first: reads find zeros", alter=read_nothing),
    "fast-1-read": fast("1 read before the write", reads=1),
    "fast-3-reads": fast("3 reads before the write", reads=3),
    "fast-no-delta": fast("no delta rule: what a key holds is not taken away", alter=writes_with(add_only)),
    "fast-no-forgetting": fast("no forgetting: every step keeps all", alter=writes_with(keep_all)),
    "fast-strength-2": fast("strength up to 2", max_strength=2.0),
    "fast-carry": fast("a step sees the output of the step before", carry=True),
    **{
        f"fast-{k}x{v}": fast(f"keys of {k}, values of {v}", key_size=k, value_size=v, drawn=True)
        for k, v in ((4, 8), (8, 8), (8, 16), (16, 32), (32, 32))
    },
    **{
        core: Variant(change=CORES[core].label, core=core, table="cores", drawn=True)
        for core in ("rnn", "gru", "lstm", "attention", "transformer", "ntm", "dnc", "universal", "deltanet")
    },
}
"""Every variant by its name; all have the size at which the whole model has as many parameters as with `original`."""
