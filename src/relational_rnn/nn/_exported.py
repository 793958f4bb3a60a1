"""A sequence as one loop whose body is a step, for graphs that take sequences of any length."""

# Shape legend: B batch, T time steps

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from relational_rnn.nn.core import Core, State, StateT, map_state, select_state
from relational_rnn.ops.relational_scan.pieces import valid_steps

Tensors = tuple[Tensor, ...]


def any_length(x: Tensor) -> bool:
    """Whether a graph is being exported that takes sequences `x` [B, T, ...] of any length."""
    return torch.compiler.is_exporting() and isinstance(x.shape[1], torch.SymInt)


def sequence_of_any_length(
    core: Core, x: Tensor, state: StateT, lengths: Tensor | None, reset: Tensor | None
) -> tuple[Tensor, StateT]:
    """`forward` of a core whose state is [B, ...] and keeps its size, as one loop; no gradients flow through it."""
    start = core.initial_state(x.shape[0])
    names = None if isinstance(start, Tensor) else tuple(start)

    def flat(state: State) -> Tensors:
        return (state,) if isinstance(state, Tensor) else tuple(state.values())

    def whole(tensors: Tensors) -> State:
        return tensors[0] if names is None else dict(zip(names, tensors, strict=True))

    # Its derivative cannot be exported where the batch is of any size, and none is wanted.
    called = _Step(core)
    weights = {name: weight.detach() for name, weight in called.named_parameters()}

    def step(x_t: Tensor, tensors: Tensors) -> tuple[Tensor, Tensors]:
        y, after = functional_call(called, weights, (x_t, whole(tensors)))
        return y, flat(after)

    def pick(rows: Tensor, yes: Tensors, no: Tensors) -> Tensors:
        return flat(select_state(rows, whole(yes), whole(no)))

    happens = None if lengths is None else valid_steps(lengths, x.shape[1])
    if happens is not None:
        x = x.masked_fill(~happens.unsqueeze(2), 0)  # padding may hold anything, even NaN
    given = {"x": x, "happens": happens, "reset": reset}
    steps = {name: tensor.movedim(1, 0).detach() for name, tensor in given.items() if tensor is not None}
    before, start = map_state(torch.detach, state), map_state(torch.detach, start)
    y, last = loop(step, pick, flat(before), flat(start), steps)
    return y.movedim(0, 1), cast(StateT, whole(last))


class _Step(nn.Module):
    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core

    def forward(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        return self.core.step(x_t, state)


def loop(
    step: Callable[[Tensor, Tensors], tuple[Tensor, Tensors]],
    pick: Callable[[Tensor, Tensors, Tensors], Tensors],
    start: Tensors,
    initial: Tensors,
    steps: dict[str, Tensor],
) -> tuple[Tensor, Tensors]:
    """The outputs [T, B, ...] and the last state.

    Args:
        step: from the input of a step and the state before it to its output and the state after it.
        pick: row by row of the batch, the second where the first, [B] booleans, is true, and the third elsewhere.
        start: the state before the first step.
        initial: the state after a reset.
        steps: "x" [T, B, ...], and where wanted "happens" and "reset", [T, B] booleans.
    """
    # The one loop that exporters keep as a loop; it has no public name yet.
    from torch._higher_order_ops.scan import scan

    def body(carry: Tensors, at: dict[str, Tensor]) -> tuple[Tensors, Tensor]:
        before = pick(at["reset"], initial, carry) if "reset" in at else carry
        y, after = step(at["x"], before)
        if "happens" in at:
            after = pick(at["happens"], after, carry)
            y = y.where(at["happens"].unsqueeze(1), 0)
        # What a body returns must not share memory with what it was given, nor with its other results.
        return tuple(tensor.clone() for tensor in after), y.clone()

    last, y = scan(body, tuple(tensor.clone() for tensor in start), steps)
    return y, last
