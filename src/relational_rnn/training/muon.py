"""Muon in the precision of the machine: PyTorch's own computes in bfloat16 everywhere, which many CPUs only emulate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from relational_rnn._check import InputError, describe

OBEYED = ("lr", "weight_decay", "momentum", "ns_coefficients", "ns_steps", "eps")
"""What a group may choose."""


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with the same updates up to rounding: in float32 on the CPU, matrices of one shape at once.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; steps have the size of AdamW's (Liu et al. 2025,
    arXiv:2502.16982). Groups and state are those of PyTorch's with Nesterov's momentum and
    `adjust_lr_fn="match_rms_adamw"`: one's checkpoint is the other's. Groups with other choices are refused. On other
    devices products are in bfloat16, as there.

    Args:
        params: matrices.
        lr: learning rate.
        weight_decay: share of a matrix, times the learning rate, that every update takes away.

    Raises:
        InputError: a checkpoint or a group asks for what this Muon does not do.
    """

    def __init__(self, params: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave, here or of PyTorch's Muon."""
        self._check(state_dict["param_groups"])
        super().load_state_dict(state_dict)

    def _check(self, groups: Iterable[dict[str, Any]]) -> None:
        """Refuse groups with choices that an update would not obey."""
        fixed = {name: value for name, value in self.defaults.items() if name not in OBEYED}
        for group in groups:
            for name, value in fixed.items():
                if group.get(name, value) != value:
                    hint = "torch.optim.Muon has this choice."
                    problem = f"{name} cannot be chosen"
                    raise InputError(describe("Muon", problem, got=repr(group[name]), expected=repr(value), hint=hint))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Tensor | None:
        """One update of all matrices that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._check(self.param_groups)  # what Together has loaded, and what was set by hand, as well
        for group in self.param_groups:
            same: dict[tuple[torch.Size, torch.device, torch.dtype], list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    same.setdefault((matrix.shape, matrix.device, matrix.dtype), []).append(matrix)
            for matrices in same.values():
                self._update(matrices, group)
        return loss

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """One update of matrices of one shape."""
        directions = []
        for matrix in matrices:
            gradient, state = matrix.grad, self.state[matrix]
            assert gradient is not None
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            mean = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            directions.append(gradient.lerp(mean, group["momentum"]))  # Nesterov's
        updates = orthogonal(torch.stack(directions), group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"] * 0.2 * max(matrices[0].shape) ** 0.5
        for matrix, update in zip(matrices, updates, strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(update, alpha=-rate)


def orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Nearly orthogonal matrices with the singular vectors of those given, by Newton and Schulz's iteration.

    Args:
        matrices: [K, rows, columns].
        coefficients: a, b, c of the polynomial a s + b s^3 + c s^5 that every step applies to the singular values s.
        steps: how often.
        eps: the least norm that a matrix is divided by at the beginning.

    >>> u = orthogonal(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]), (3.4445, -4.7750, 2.0315), 5, 1e-7)
    >>> bool((u[0].diagonal() > 0.6).all()) and bool((u[0].diagonal() < 1.3).all())
    True
    """
    a, b, c = coefficients
    on_cpu = matrices.device.type == "cpu"
    x = matrices.to(torch.promote_types(matrices.dtype, torch.float32)) if on_cpu else matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
