"""How the weights of linear layers begin, where PyTorch's own way is not meant."""

from __future__ import annotations

from torch import nn


def draw_truncated_normal(module: nn.Module) -> None:
    """Draw every linear layer in `module` as Sonnet 1 did, and with it the original relational memory.

    Weights are normal of std 1 / sqrt(fan in), cut at two std and not rescaled; biases are 0. PyTorch's own have a
    std of 0.58 / sqrt(fan in), so that each layer makes what passes through it smaller.

    Example:
        >>> layer = nn.Linear(16, 3)
        >>> draw_truncated_normal(layer)
        >>> bool(layer.weight.abs().max() <= 0.5), bool(layer.bias.any())
        (True, False)
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            std = layer.in_features**-0.5
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def draw_glorot(module: nn.Module) -> None:
    """Draw every linear layer in `module` Glorot-uniform, with biases of 0, and its norms as usual."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm | nn.RMSNorm):
            layer.reset_parameters()
