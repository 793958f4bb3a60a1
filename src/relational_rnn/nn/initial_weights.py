"""How the weights of linear layers begin, where not as PyTorch draws them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def draw_truncated_normal(module: nn.Module) -> None:
    """Draw every linear layer in `module` as Sonnet 1 did, and with it the original relational memory; reset the norms.

    Weights are normal of std 1 / sqrt(fan in), cut at two std and not rescaled; biases are 0. PyTorch's own have a
    std of 0.58 / sqrt(fan in), so each layer shrinks what passes through it.

    Example:
        >>> layer = nn.Linear(16, 3)
        >>> draw_truncated_normal(layer)
        >>> bool(layer.weight.abs().max() <= 0.5), bool(layer.bias.any())
        (True, False)
    """

    def draw(weight: Tensor) -> Tensor:
        std = weight.shape[1] ** -0.5
        return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)

    _draw(module, draw)


def draw_glorot(module: nn.Module) -> None:
    """Draw every linear layer in `module` Glorot-uniform, with biases of 0; reset the norms."""
    _draw(module, nn.init.xavier_uniform_)


def _draw(module: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm | nn.RMSNorm):
            layer.reset_parameters()
