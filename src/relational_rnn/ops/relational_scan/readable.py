"""What kernels, which read numbers by their addresses, can be given, and what stands in where they cannot follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, is_legacy_batchedtensor

from relational_rnn._check import InputError, check_shape, describe


def tensors_against(given: Iterable[Tensor]) -> str | None:
    """What the CPU scans cannot take about these tensors, or None."""
    tensors = list(given)
    elsewhere = [t.device for t in tensors if t.device.type != "cpu"]
    if elsewhere:
        return f"it runs on the CPU, not on {elsewhere[0]}"
    reason = unlike(tensors)
    if reason is None and tensors[0].dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 or float64, not in {str(tensors[0].dtype)[6:]}"
    return reason


def unlike(tensors: Sequence[Tensor]) -> str | None:
    """What no kernel can take about these tensors, whatever its device and dtype, or None."""
    if any(type(t) not in (Tensor, torch.nn.Parameter) for t in tensors):
        return "it takes plain tensors only"
    if any(map(wrapped, tensors)):
        return "it does not work under vmap"
    if any(t.layout is not torch.strided for t in tensors):
        return "it takes dense tensors only"
    dtypes = {t.dtype for t in tensors}
    if len(dtypes) > 1:
        return "it needs one dtype throughout, not " + ", ".join(sorted(str(d)[6:] for d in dtypes))
    return None


def check_marks(where: str, lengths: Tensor | None, reset: Tensor | None, x: Tensor) -> None:
    """Refuse lengths [B] and resets [B, T] that do not fit a sequence `x` [B, T, ...]."""
    batch, steps = x.shape[:2]
    for name, mark, axes in (("lengths", lengths, {"B": batch}), ("reset", reset, {"B": batch, "T": steps})):
        if mark is not None:
            check_shape(where, name, mark, axes)
            if mark.device != x.device:
                problem = f"{name} is on another device"
                raise InputError(describe(where, problem, got=mark.device, expected=x.device))
    if lengths is not None:
        if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
            raise InputError(describe(where, "lengths must be whole numbers", got=lengths.dtype))
        if not torch.compiler.is_compiling() and bool(((lengths < 0) | (lengths > steps)).any()):
            raise InputError(describe(where, "lengths are out of range", got=lengths.tolist(), expected=f"0..{steps}"))
    if reset is not None and reset.dtype != torch.bool:
        raise InputError(describe(where, "reset must be booleans", got=reset.dtype, expected=torch.bool))


def wrapped(t: Tensor) -> bool:
    """Whether a transform of PyTorch stands between the tensor and its numbers, as in batched gradients."""
    return is_functorch_wrapped_tensor(t) or is_legacy_batchedtensor(t)


def mode_against() -> str | None:
    """What PyTorch does with operations that the CPU scans do not follow, or None."""
    return "it does not follow autocast" if torch.is_autocast_enabled("cpu") else watcher()


def watcher() -> str | None:
    """What of PyTorch wants to see every operation, or None."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return "it cannot be traced, compiled or exported"
    if torch._C._are_functorch_transforms_active():
        return "it does not work under the transforms of torch.func"
    if torch.autograd.forward_ad._current_level >= 0:
        return "it has no forward-mode derivative"
    if torch._C._len_torch_dispatch_stack() > 0:
        return "a dispatch mode of PyTorch is on, which would not see what it computes"
    return None


def backward_against(cotangents: Iterable[Tensor | None]) -> bool:
    """Whether only plain operations can do a backward pass: its own gradient is wanted, or a transform is on."""
    if torch.is_grad_enabled() or watcher() is not None:
        return True
    return any(d is not None and (type(d) is not Tensor or wrapped(d)) for d in cotangents)


def plain_backward(
    scan: Callable[..., Iterable[Tensor | None]],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    cotangents: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients of `scan(*inputs)` by plain operations, differentiable again where gradients are recorded."""
    if not torch.is_grad_enabled():  # then the second pass has a graph of its own
        pairs = zip(inputs, needed, strict=True)
        inputs = [t.detach().requires_grad_() if need and t is not None else t for t, need in pairs]
    with torch.enable_grad():
        results = scan(*inputs)
    pairs = zip(results, cotangents, strict=True)
    reached = [(y, d) for y, d in pairs if y is not None and y.requires_grad and d is not None]
    found = torch.autograd.grad(
        [y for y, _ in reached],
        [t for t, need in zip(inputs, needed, strict=True) if need and t is not None],
        [d for _, d in reached],
        create_graph=torch.is_grad_enabled(),
        allow_unused=True,
    )
    gradients = iter(found)
    return [next(gradients) if need else None for need in needed]


def gradients_wanted(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a backward pass may follow. Inside an autograd function this can no longer be told."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def may_be_written(given: Iterable[Tensor | None]) -> bool:
    """Whether results may be written into memory taken beforehand: no gradient is wanted and nothing is wrapped."""
    tensors = [t for t in given if t is not None]
    if gradients_wanted(tensors) or watcher() is not None:
        return False
    return all(type(t) in (Tensor, torch.nn.Parameter) and not wrapped(t) for t in tensors)


def settled(t: Tensor) -> Tensor:
    """`t` with its numbers in memory: no minus sign is still to be applied, and zeros have memory."""
    t = t.detach()
    return t.clone() if pending(t) else t


def packed(t: Tensor | None) -> Tensor | None:
    """`t` with its numbers in memory, in one piece and in order."""
    return None if t is None else settled(t).contiguous()


def pending(t: Tensor) -> bool:
    """Whether the numbers in memory are not yet those of the tensor."""
    return t.is_neg() or t._is_zerotensor()
