"""The optimizers of a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from relational_rnn.training.config import OptimizerConfig
from relational_rnn.training.muon import Muon


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """The optimizer of a configuration for all trainable parameters of a model, at a learning rate of 1.

    Weight decay is for matrices only. With the method "muon" all matrices are Muon's, but for
    tables: the weights of `nn.Embedding`, and what a module of ours lists as its `tables`.

    Example:
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
    betas = config.beta1, config.beta2
    adamw = torch.optim.AdamW(groups, lr=1.0, betas=betas) if groups else None
    if not muon:
        assert adamw is not None, "the model has no trainable parameters"
        return adamw
    matrices = Muon(muon, lr=1.0, weight_decay=config.weight_decay)
    return Together([matrices, *([] if adamw is None else [adamw])])


class Together(Optimizer):
    """Several optimizers as one: a step of it is a step of each, and it has the groups and the state of all.

    Args:
        parts: each with parameters of its own.
    """

    def __init__(self, parts: list[Optimizer]) -> None:
        self._parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on our groups and our state, so that what is set or loaded here holds there."""
        groups = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Any = None) -> Tensor | None:  # type: ignore[override]
        """One update of all parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss
