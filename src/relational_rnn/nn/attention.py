"""An LSTM that attends to all of its own past states (Luong et al., 2015, without the encoder-decoder split)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_positive, describe
from relational_rnn.nn._growing import GrowingCore, visible
from relational_rnn.nn._plain import MAKERS, remake_weights
from relational_rnn.nn._recurrent import pick_states
from relational_rnn.nn.core import Tensors
from relational_rnn.nn.lstm import LSTM


class AttentionLSTM(GrowingCore):
    r"""An LSTM whose every state attends to all states so far, itself included.

    With h_t the hidden states of an LSTM, "general" attention and the attentional state of Luong et al. (2015,
    arXiv:1508.04025, equations 5, 7 and 8), scores scaled by the square root of the width:

    $$ a_{ts} = \mathrm{softmax}_{s \le t}(h_t^\top W_a h_s / \sqrt H), \qquad
       y_t = \tanh(W_c [\textstyle\sum_s a_{ts} h_s; h_t] + b_c) $$

    Attention reads from the LSTM and never feeds back into it, so all steps attend at once.

    The state grows as that of `Transformer`, here by one hidden state per step; see there for `compact` and `window`.

    Args:
        window: how many states a step sees at most, its own included; None for all.

    Shape:
        With I = input_size, H = hidden_size and S stored steps (0 at the start): x [B, T, I]; output [B, T, H];
        state {"h": [B, H], "c": [B, H], "states": [B, S, H], "valid": [B, S] booleans}.

    Example:
        >>> core = AttentionLSTM(input_size=5, hidden_size=8)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state["states"].shape
        (torch.Size([7, 11, 8]), torch.Size([7, 11, 8]))
    """

    attended = "states"

    def __init__(self, input_size: int, hidden_size: int, *, window: int | None = None) -> None:
        super().__init__()
        if window is not None:
            check_positive("AttentionLSTM", window=window)
        self.lstm = LSTM(input_size, hidden_size)
        self.score = nn.Linear(hidden_size, hidden_size, bias=False)
        self.combine = nn.Linear(2 * hidden_size, hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = hidden_size
        self.window = window
        self._draw_attention()

    def reset_parameters(self) -> None:
        self.lstm.reset_parameters()
        self._draw_attention()

    def _draw_attention(self) -> None:
        nn.init.xavier_uniform_(self.score.weight)
        nn.init.xavier_uniform_(self.combine.weight)
        nn.init.zeros_(self.combine.bias)

    def state_axes(self, batch_size: int) -> dict[str, dict[str, int | None]]:
        fixed: dict[str, int | None] = {"B": batch_size, "H": self.hidden_size}
        states: dict[str, int | None] = {"B": batch_size, "S": None, "H": self.hidden_size}
        return {"h": fixed, "c": fixed, "states": states, "valid": {"B": batch_size, "S": None}}

    def take(
        self, x: Tensor, state: Tensors, segment: Tensor, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, Tensors]:
        h, carried = self.lstm(x, {"h": state["h"], "c": state["c"]}, lengths=lengths, reset=reset)
        store = torch.cat([state["states"], h], 1)
        mask = self.within_window(visible(state["valid"], segment))
        # One head: ONNX knows attention with an axis for the heads only.
        query, stored, seen = (tensor.unsqueeze(1) for tensor in (self.score(h), store, mask))
        context = nn.functional.scaled_dot_product_attention(query, stored, stored, attn_mask=seen).squeeze(1)
        return torch.tanh(self.combine(torch.cat([context, h], -1))), {**carried, "states": store}

    def take_until(self, x: Tensor, state: Tensors, segment: Tensor, rows: Tensor, at: Tensor) -> Tensors:
        # All states are needed, where a call of the LSTM gives only the last.
        others = [hook for hook in self.lstm._forward_pre_hooks.values() if not isinstance(hook, MAKERS)]
        if others or self.lstm._forward_hooks or type(self.lstm).forward is not LSTM.forward:
            problem = "snapshots need every state of the LSTM, and lstm has hooks or a forward of its own"
            hint = "take them off, or call the core up to each step."
            raise InputError(describe("AttentionLSTM", problem, hint=hint))
        remake_weights(self.lstm)
        carried = self.lstm.states(x, {"h": state["h"], "c": state["c"]}, None)
        store = torch.cat([state["states"], self.lstm.outputs(carried, x)], 1)
        return {**pick_states(carried, rows, at), "states": store[rows]}
