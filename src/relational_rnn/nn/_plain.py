"""An inner module's weight and bias, which kernels take without calling it; and whether it is more than those."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules import module as every_module
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from relational_rnn.ops.relational_scan.reference import LAYER_NORM_EPS, Linear, Norm

MAKERS = (BasePruningMethod, SpectralNorm, WeightNorm)
"""Hooks that make a weight before each call, whatever the input is."""


def _own(module: nn.Module | None, kind: type[nn.Module]) -> tuple[Tensor, Tensor]:
    """A module's weight and bias, by the fastest way: `module.weight` would take a good part of a small step."""
    assert isinstance(module, kind)
    weight, bias = module._parameters["weight"], module._parameters["bias"]
    assert weight is not None
    assert bias is not None
    return weight, bias


def linear_of(module: nn.Module | None) -> Linear:
    return Linear(*_own(module, nn.Linear))


def norm_of(module: nn.Module | None) -> Norm:
    return Norm(*_own(module, nn.LayerNorm))


def _beyond_weights(module: nn.Module, *, bias: bool) -> str | None:
    """Why a call of `module` may give something else than its weight (and bias) say; None if it is plain."""
    if hooked(module):
        return "has hooks"
    if type(module) not in (nn.Linear, nn.LayerNorm):
        return f"is a {type(module).__name__}"
    if "forward" in module.__dict__:
        return "has a forward of its own"
    own = module._parameters
    if own.get("weight") is None or (own.get("bias") is not None) != bias:
        return "has not the parameters that it was made with"
    if isinstance(module, nn.LayerNorm) and module.eps != LAYER_NORM_EPS:
        return "has another eps"
    return None


def hooked(module: nn.Module) -> bool:
    """Whether hooks of its own run when `module` is called."""
    own = module._forward_hooks or module._forward_pre_hooks
    return bool(own or module._backward_hooks or module._backward_pre_hooks)


def first_beyond(
    owner: nn.Module, modules: Iterable[nn.Module], *, without_bias: nn.Module | None = None
) -> str | None:
    """The first of `modules` that is more than its weight and bias, by its name in `owner`, and why; or None."""
    if every_module._has_any_global_hook():
        return "all modules have hooks"
    for module in modules:
        why = _beyond_weights(module, bias=module is not without_bias)
        if why is not None:
            name = next(name for name, one in owner.named_modules() if one is module)
            return f"{name} {why}"
    return None


def remake_weights(module: nn.Module) -> None:
    """Have hooks remake the weights of `module`, as calling it would."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, MAKERS):
            hook(module, ())
