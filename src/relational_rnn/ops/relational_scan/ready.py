"""Steps that are kept ready: what was checked once is not checked again while nothing about a module has changed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn

from relational_rnn.ops.relational_scan._native import find
from relational_rnn.ops.relational_scan.readable import mode_against, pending

_MOST_SIZES = 8  # that a cache holds; more would be a program whose batch changes all the time
_FACTS = operator.attrgetter("dtype", "shape")  # beside the address, which no two devices share
_SHAPE = operator.attrgetter("shape")
_HOOKS = operator.attrgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class StepCache:
    """Ready steps of one module, for as long as nothing about its parameters changes.

    Parameters are read where they lie, so an optimizer or `load_state_dict` may write into them. Any other change is
    noticed at the next step: other modules, parameters or kernels, hooks, parametrizations, data elsewhere or laid out
    otherwise. A copy of a cache is empty.
    """

    def __init__(self) -> None:
        self._ready: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._dtype: torch.dtype | None = None
        self._modules: list[nn.Module] = []
        self._tensors: list[Tensor] = []
        self._then: tuple[Any, ...] | None = None

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    def step(self, *given: Tensor, kind: bool = False) -> Any:
        """What a ready step makes of these tensors, the input first; None unless `prepare` made one of this kind."""
        if torch.is_grad_enabled() or mode_against() is not None:
            return None
        ready = self._ready.get((kind, *map(_SHAPE, given)))
        if ready is None:
            return None
        for t in given:
            if type(t) is not Tensor or t.dtype is not self._dtype or not t.is_cpu or pending(t):
                return None
        x, *state = given
        if not all(map(Tensor.is_contiguous, state)) or self._now() != self._then:
            return None
        return ready(x.contiguous(), *state)

    def prepare(
        self,
        given: Sequence[Tensor],
        parameters: Sequence[Tensor],
        module: nn.Module,
        plain: Sequence[nn.Module],
        make: Callable[[], Callable[..., Any]],
        *,
        choices: Sequence[str],
        kind: bool = False,
    ) -> bool:
        """Make steps of these sizes ready, if the parameters can be read where they lie; returns whether they can.

        `plain` are the modules within `module` whose parameters a step reads, `choices` its attributes that a step
        depends on. `make` returns what takes such steps.
        """
        own = set(map(id, module.parameters()))
        # something else may make one of them, a parametrization for one
        as_they_lie = all(id(t) in own for t in parameters)
        if not as_they_lie or any(pending(t) or not t.is_contiguous() for t in (*given[1:], *parameters)):
            return False
        if len(self._ready) >= _MOST_SIZES or self._now() != self._then:
            self._ready.clear()
        self._own, self._choices = vars(module), choices
        self._modules, self._tensors, self._dtype = list(module.modules()), list(parameters), given[0].dtype
        tables = (table for module in self._modules for table in (module._modules, module._parameters))
        self._tables = list(filter(None, tables))  # nothing that comes into an empty one is a weight of a step
        self._hooks = [hooks for module in (module, *plain) for hooks in _HOOKS(module)]
        self._attributes = list(map(vars, self._modules))
        self._then = self._now()
        if self._then is None:  # hooks
            return False
        self._held = list(chain.from_iterable(map(dict.values, self._tables)))  # so that ids stay
        self._ready[kind, *map(_SHAPE, given)] = make()
        return True

    def _now(self) -> tuple[Any, ...] | None:
        """Everything that changes when the parameters become others."""
        if not self._modules or any(self._hooks):
            return None
        return (
            [self._own[name] for name in self._choices],
            list(chain.from_iterable(self._tables)),
            list(map(id, chain.from_iterable(map(dict.values, self._tables)))),
            list(map(len, self._attributes)),  # longer once a module has a forward of its own
            list(map(type, self._modules)),
            list(map(Tensor.data_ptr, self._tensors)),
            list(map(_FACTS, self._tensors)),
            list(map(Tensor.is_contiguous, self._tensors)),
            find(),
        )
