"""An LSTM that attends to all of its own past states (Luong et al., 2015, without the encoder-decoder split)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relational_rnn._check import InputError, check_positive, describe
from relational_rnn.nn._growing import GrowingCore, visible
from relational_rnn.nn._plain import MAKERS, remake_weights
from relational_rnn.nn._recurrent import pick_states
from relational_rnn.nn.core import State
from relational_rnn.nn.lstm import LSTM


class AttentionLSTM(GrowingCore):
    r"""An LSTM whose every state attends to all states so far, itself included.

    With h_t the hidden states of an LSTM, "general" attention and the attentional state of Luong et al. (2015,
    arXiv:1508.04025, equations 5, 7 and 8), scores scaled by the square root of the width:

    $$ a_{ts} = \mathrm{softmax}_{s \le t}(h_t^\top W_a h_s / \sqrt H), \qquad
       y_t = \tanh(W_c [\textstyle\sum_s a_{ts} h_s; h_t] + b_c) $$

    Attention reads from the LSTM and never feeds back into it, so all steps attend at once.

    The state grows: a step appends one hidden state to the store, so that S steps keep S * H numbers and one more step
    costs time and a copy in proportion to S. Padding and steps from before a reset stay in the store, masked;
    `compact(state)` drops them. With a `window`, a step sees only so many states, its own included, and the store
    keeps one less and no more.

    Args:
        input_size: features per step, I.
        hidden_size: width of the hidden states and of the output, H.
        window: how many states a step sees at most; None for all.

    Shape:
        x [B, T, I]; output [B, T, H]; state {"h": [B, H], "c": [B, H], "states": [B, S, H], "valid": [B, S] booleans},
        S stored steps, 0 at the start.

    Raises:
        InputError: a size, dtype, length or reset that does not fit.

    Example:
        >>> core = AttentionLSTM(input_size=5, hidden_size=8)
        >>> y, state = core(torch.zeros(7, 11, 5))
        >>> y.shape, state["states"].shape
        (torch.Size([7, 11, 8]), torch.Size([7, 11, 8]))
    """

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
        """Draw all weights anew."""
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
        self, x: Tensor, state: dict[str, Tensor], segment: Tensor, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        h, carried = self.lstm(x, {"h": state["h"], "c": state["c"]}, lengths=lengths, reset=reset)
        store = torch.cat([state["states"], h], 1)
        mask = self.within_window(visible(state["valid"], segment))
        return self._attend(h, store, mask), {**carried, "states": store}

    def take_until(
        self, x: Tensor, state: dict[str, Tensor], segment: Tensor, rows: Tensor, at: Tensor
    ) -> dict[str, Tensor]:
        carried = self._states_of_lstm(x, state)
        store = torch.cat([state["states"], self.lstm.outputs(carried, x)], 1)
        return {**pick_states(carried, rows, at), "states": store[rows]}

    def rows(self, state: State) -> tuple[Tensor, Tensor | None]:
        assert isinstance(state, dict)
        return state["states"], state["valid"]

    def _states_of_lstm(self, x: Tensor, state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """All T + 1 states of the LSTM, which a call of it does not give."""
        others = [hook for hook in self.lstm._forward_pre_hooks.values() if not isinstance(hook, MAKERS)]
        if others or self.lstm._forward_hooks or type(self.lstm).forward is not LSTM.forward:
            problem = "snapshots need every state of the LSTM, and lstm has hooks or a forward of its own"
            raise InputError(
                describe("AttentionLSTM", problem, hint="take them off, or call the core up to each step.")
            )
        remake_weights(self.lstm)
        return self.lstm.states(x, {"h": state["h"], "c": state["c"]}, None)

    def _attend(self, h: Tensor, store: Tensor, mask: Tensor) -> Tensor:
        # One head: ONNX knows attention with an axis for the heads only.
        query, stored, seen = (tensor.unsqueeze(1) for tensor in (self.score(h), store, mask))
        context = nn.functional.scaled_dot_product_attention(query, stored, stored, attn_mask=seen).squeeze(1)
        return torch.tanh(self.combine(torch.cat([context, h], -1)))
