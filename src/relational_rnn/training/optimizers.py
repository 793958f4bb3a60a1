"""The optimizers of a run: AdamW, and Muon, which PyTorch computes in bfloat16 even on CPUs that only emulate it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from relational_rnn._check import InputError, describe
from relational_rnn.training.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """The optimizer of a configuration for all trainable parameters, at a learning rate of 1.

    Only matrices decay. Muon gets all matrices but the weights of `nn.Embedding` and what a module lists as its
    `tables`.

    >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3))
    >>> optimizer = build_optimizer(model, OptimizerConfig(method="muon"))
    >>> [[tuple(p.shape) for p in group["params"]] for group in optimizer.param_groups]
    [[(3, 4)], [(9, 4)], [(3,)]]
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tables = set()
    for module in model.modules():
        names = ("weight",) if isinstance(module, nn.Embedding) else getattr(module, "tables", ())
        tables.update(getattr(module, name) for name in names)
    muon = [p for p in parameters if config.method == "muon" and p.dim() == 2 and p not in tables]
    others = [p for p in parameters if not any(p is matrix for matrix in muon)]
    decayed, kept = [p for p in others if p.dim() >= 2], [p for p in others if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    adamw = torch.optim.AdamW(groups, lr=1.0, betas=(config.beta1, config.beta2)) if groups else None
    if not muon:
        assert adamw is not None, "the model has no trainable parameters"
        return adamw
    matrices = Muon(muon, lr=1.0, weight_decay=config.weight_decay)
    return Together([matrices, *([] if adamw is None else [adamw])])


class Together(Optimizer):
    """Several optimizers as one that has the groups and the state of all."""

    def __init__(self, parts: list[Optimizer]) -> None:
        self._parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on our groups and state, so that what is set or loaded here holds there."""
        groups = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self) -> None:  # type: ignore[override]
        """One update of all parameters."""
        for part in self._parts:
            part.step()


OBEYED = ("lr", "weight_decay", "momentum", "ns_coefficients", "ns_steps", "eps")
"""What a group may choose."""


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with the same updates up to rounding: in float32 on the CPU, matrices of one shape at once.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, with steps of AdamW's size (Liu et al. 2025,
    arXiv:2502.16982). Checkpoints are those of PyTorch's Muon with Nesterov's momentum and
    `adjust_lr_fn="match_rms_adamw"`; groups with other choices raise `InputError`.
    """

    def __init__(self, params: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._check(state_dict["param_groups"])
        super().load_state_dict(state_dict)

    def _check(self, groups: Iterable[dict[str, Any]]) -> None:
        """Refuse groups with choices that an update would ignore."""
        fixed = {name: value for name, value in self.defaults.items() if name not in OBEYED}
        for group in groups:
            for name, value in fixed.items():
                if group.get(name, value) != value:
                    problem, hint = f"{name} cannot be chosen", "torch.optim.Muon has this choice."
                    raise InputError(describe("Muon", problem, got=repr(group[name]), expected=repr(value), hint=hint))

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update of all matrices that have a gradient."""
        self._check(self.param_groups)  # what Together has loaded, and what was set by hand
        for group in self.param_groups:
            same: dict[tuple[torch.Size, torch.device, torch.dtype], list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    same.setdefault((matrix.shape, matrix.device, matrix.dtype), []).append(matrix)
            for matrices in same.values():
                self._update(matrices, group)

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
    """Nearly orthogonal matrices [K, rows, columns] with the singular vectors of those given, by Newton and Schulz's
    iteration: every step applies a s + b s^3 + c s^5 to the singular values s, after division by the norm, or `eps` if
    that is larger."""
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
