"""The kinds of dropout that regularise recurrent language models (Merity et al. 2018, arXiv 1708.02182, section 4).

Axes: B sequences, T steps, F features, V vocabulary, E embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from relational_rnn._check import InputError, describe
from relational_rnn.nn.attention import AttentionLSTM
from relational_rnn.nn.core import Core
from relational_rnn.nn.gru import GRU
from relational_rnn.nn.lstm import LSTM
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.nn.rnn import RNN


def drop_features(x: Tensor, p: float, training: bool) -> Tensor:
    """`x` [B, T, F] with features dropped for all steps of a sequence alike (Gal and Ghahramani 2016)."""
    if not training or p == 0:
        return x
    return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), p)


def drop_words(embedding: Tensor, p: float, training: bool) -> Tensor:
    """The embedding [V, E] with whole rows dropped: a word is gone from every place of the batch."""
    if not training or p == 0:
        return embedding
    return embedding * F.dropout(embedding.new_ones(len(embedding), 1), p)


def recurrent_weights(core: Core) -> list[str]:
    """The names of the matrices that a step of `core` applies to what it carries.

    Raises:
        InputError: the core has none that are applied to the state alone or to the state and the input alike, step by
            step; dropping others would be another regulariser under the same name.

    >>> recurrent_weights(LSTM(5, 8))
    ['weight_hh_l0']
    """
    if isinstance(core, RNN | GRU | LSTM):
        return ["weight_hh_l0"]
    if isinstance(core, AttentionLSTM):
        return ["lstm.weight_hh_l0"]
    if isinstance(core, RelationalMemory):
        kinds = ("qkv", "mlp", "gate_memory")
        names = [name for name, p in core.named_parameters() if p.dim() == 2]
        return [name for name in names if name.startswith("cells.") and any(kind in name.split(".") for kind in kinds)]
    problem = (
        f"weight_dropout is not defined for the core {type(core).__name__}: it has no recurrent matrices of its own"
    )
    hint = "give weight_dropout=0, or one of the cores rmc, rnn, gru, lstm, attention."
    raise InputError(describe("LanguageModelConfig", problem, hint=hint))


def call_with_dropped_weights(core: Core, p: float, training: bool, *args: Any, **kwargs: Any) -> Any:
    """The core called with entries of its recurrent matrices dropped, the same ones at every step of the call."""
    if not training or p == 0:
        return core(*args, **kwargs)
    parameters = dict(core.named_parameters())
    dropped: dict[str, torch.Tensor] = {name: F.dropout(parameters[name], p) for name in recurrent_weights(core)}
    return functional_call(core, dropped, args, kwargs)
