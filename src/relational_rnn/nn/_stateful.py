"""Cores that say what tensors their state holds: the start, the checks and the calls of the contract follow.

Also a sequence as one loop whose body is a step, for exported graphs that take sequences of any length.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Generic, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from relational_rnn._check import InputError, check_shape, describe
from relational_rnn.nn._inputs import (
    START_HINT,
    STEPS_HINT,
    Device,
    check_booleans,
    check_kind,
    check_questions,
    check_reset,
    check_sequence,
    place_of,
    start_at,
)
from relational_rnn.nn._plain import remake_weights
from relational_rnn.nn.core import Core, Numbers, State, StateT, state_like, tensors_of
from relational_rnn.ops.relational_scan.pieces import valid_steps

Axes = Mapping[str, int | None]


class StatefulCore(Core, Generic[StateT]):
    """A core whose state is described by `state_axes` and starts at zeros.

    Subclasses define `run_step`, `run` and `run_until`, which take arguments that were checked.
    """

    masks: tuple[str, ...] = ()
    """The tensors of a state that are booleans; all others are of the parameters' dtype."""
    grows = False
    """Whether a state stores steps."""
    attended = ""
    """The tensor of a state whose last axis is that of `rows`."""

    @abstractmethod
    def state_axes(self, batch_size: int) -> Mapping[str, Axes]:
        """The axes of every tensor of a state, by name; a state that is one tensor has the name "".

        The size of S, the stored steps, is None: 0 at the start, and the same in all tensors.
        """

    @abstractmethod
    def run_step(self, x_t: Tensor, state: StateT, reset: Tensor | None) -> tuple[Tensor, StateT]:
        """See `step`."""

    @abstractmethod
    def run(self, x: Tensor, state: StateT, lengths: Tensor | None, reset: Tensor | None) -> tuple[Tensor, StateT]:
        """See `forward`."""

    @abstractmethod
    def run_until(self, x: Tensor, state: StateT, rows: Tensor, at: Tensor) -> StateT:
        """See `snapshots`; steps of `x` that no question sees are 0."""

    def initial_state(self, batch_size: int, *, device: Device = None, dtype: torch.dtype | None = None) -> StateT:
        sizes = {name: [size or 0 for size in axes.values()][1:] for name, axes in self.state_axes(1).items()}
        numbers = max(1, sum(map(math.prod, sizes.values())))
        device, dtype = start_at(self, batch_size, device, dtype, numbers)
        kinds = {name: torch.bool if name in self.masks else dtype for name in sizes}
        state = {name: torch.zeros(batch_size, *sizes[name], device=device, dtype=kinds[name]) for name in sizes}
        return cast(StateT, state.get("", state))

    def step(self, x_t: Tensor, state: State, *, reset: Tensor | None = None) -> tuple[Tensor, StateT]:
        where = type(self).__name__
        check_shape(where, "x_t", x_t, {"B": None, "I": self.input_size})
        check_kind(self, "x_t", x_t)
        if reset is not None:
            check_reset(where, reset, {"B": x_t.shape[0]}, x_t.device)
        before = self.started(state, x_t.shape[0])
        remake_weights(self)
        return self.run_step(x_t, before, reset)

    def forward(
        self, x: Tensor, state: State | None = None, *, lengths: Numbers | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, StateT]:
        lengths = check_sequence(self, x, lengths, reset)
        before = self.started(state, x.shape[0])
        if not self.grows and torch.compiler.is_exporting() and isinstance(x.shape[1], torch.SymInt):
            return sequence_of_any_length(self, x, before, lengths, reset)
        return self.run(x, before, lengths, reset)

    def snapshots(self, x: Tensor, rows: Numbers, at: Numbers, state: State | None = None) -> StateT:
        check_sequence(self, x, None, None)
        rows, at = check_questions(self, x, rows, at)
        before = self.started(state, x.shape[0])
        remake_weights(self)
        asked = valid_steps(asked_lengths(x, rows, at), x.shape[1])
        return self.run_until(blank(x, asked), before, rows, at)

    def rows(self, state: State) -> tuple[Tensor, Tensor | None]:
        tensor = state if isinstance(state, Tensor) else state[self.attended]
        mask = None if isinstance(state, Tensor) else state.get("valid")
        return tensor.unsqueeze(1) if tensor.dim() == 2 else tensor.flatten(1, -2), mask

    def started(self, state: State | None, batch_size: int) -> StateT:
        """The initial state in place of None; any other state is checked."""
        return self.initial_state(batch_size) if state is None else self._check_state(state, batch_size)

    def _check_state(self, state: State, batch_size: int) -> StateT:
        where, tensors = type(self).__name__, self.state_axes(batch_size)
        if "" in tensors:
            if not isinstance(state, Tensor):
                got = type(state).__name__
                raise InputError(describe(where, "state must be a tensor", got=got, hint=START_HINT))
        elif not isinstance(state, dict) or set(state) != set(tensors):
            got = sorted(state) if isinstance(state, dict) else type(state).__name__
            pair = isinstance(state, tuple | list) and {"h", "c"} <= set(tensors)
            hint = 'of a pair (h, c): {"h": h, "c": c}, without an axis of layers.' if pair else START_HINT
            problem = "state must be a dict of the tensors of this core"
            raise InputError(describe(where, problem, got=got, expected=sorted(tensors), hint=hint))
        stored = None
        for key, axes in sorted(tensors.items(), key=lambda one: ("S" in one[1], one[0] not in self.masks)):
            tensor, name = (state, "state") if isinstance(state, Tensor) else (state[key], f'state["{key}"]')
            axes = {**axes, "S": stored} if "S" in axes else axes
            check_shape(where, name, tensor, axes, hint=_hint(tensor, axes))
            stored = tensor.shape[1] if "S" in axes else stored
            if key in self.masks:
                check_booleans(where, name, tensor, place_of(self)[0], hint=START_HINT)
            else:
                check_kind(self, name, tensor)
        return cast(StateT, state)


def _hint(tensor: object, axes: Axes) -> str:
    """What to do instead; a tensor with one axis too many may be the states of all steps."""
    sizes = list(axes.values())
    if isinstance(tensor, Tensor) and tensor.dim() == len(sizes) + 1:
        of_steps = all(size in (None, found) for size, found in zip(sizes[1:], tensor.shape[2:], strict=True))
        return STEPS_HINT if of_steps else START_HINT
    return START_HINT


def asked_lengths(x: Tensor, rows: Tensor, at: Tensor) -> Tensor:
    """[B]: how many steps of each row the questions (`rows`, `at`) [M] can see."""
    none = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    return none.scatter_reduce(0, rows.long(), at.long(), "amax")


def blank(x: Tensor, valid: Tensor) -> Tensor:
    """`x` [B, T, ...] with zeros where `valid` [B, T] is false: padding reaches neither values nor gradients."""
    return x.masked_fill(~valid.view(*valid.shape, *[1] * (x.dim() - valid.dim())), 0)


class _Step(nn.Module):
    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core

    def forward(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        return self.core.step(x_t, state)


def sequence_of_any_length(
    core: Core, x: Tensor, state: StateT, lengths: Tensor | None, reset: Tensor | None, *, batch_axis: int = 0
) -> tuple[Tensor, StateT]:
    """`forward` of a core whose state keeps its size, as one loop; no gradients flow through it.

    `batch_axis` is that of the state; `x` is [B, T, ...] and `reset` [B, T].
    """
    # The one loop that exporters keep as a loop; it has no public name yet.
    from torch._higher_order_ops.scan import scan

    # Its derivative cannot be exported where the batch is of any size, and none is wanted.
    called = _Step(core)
    weights = {name: weight.detach() for name, weight in called.named_parameters()}

    def pick(rows: Tensor, yes: tuple[Tensor, ...], no: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """For each row of the batch, `yes` where `rows` [B] is true and `no` elsewhere."""
        pairs = zip(yes, no, strict=True)
        return tuple(torch.where(rows.view(-1, *[1] * (a.dim() - batch_axis - 1)), a, b) for a, b in pairs)

    happens = None if lengths is None else valid_steps(lengths, x.shape[1])
    if happens is not None:
        x = blank(x, happens)  # padding may be anything, even NaN
    given = {"x": x, "happens": happens, "reset": reset}
    steps = {name: tensor.movedim(1, 0).detach() for name, tensor in given.items() if tensor is not None}
    initial = () if reset is None else tuple(t.detach() for t in tensors_of(core.initial_state(x.shape[0])))

    def body(carry: tuple[Tensor, ...], at: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
        before = pick(at["reset"], initial, carry) if "reset" in at else carry
        y, state_after = functional_call(called, weights, (at["x"], state_like(state, before)))
        after = tensors_of(state_after)
        if "happens" in at:
            after = pick(at["happens"], after, carry)
            y = y.where(at["happens"].unsqueeze(1), 0)
        # What a body returns must not share memory with what it was given, nor with its other results.
        return tuple(tensor.clone() for tensor in after), y.clone()

    last, y = scan(body, tuple(tensor.detach().clone() for tensor in tensors_of(state)), steps)
    return y.movedim(0, 1), state_like(state, last)
