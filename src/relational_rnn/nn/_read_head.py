"""What a layer gives out of its memory."""

# Shape legend: N memory slots, W memory width, n input rows

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

ReadHeadKind = Literal["flatten", "mean", "weighted", "attention", "input"]
KINDS = get_args(ReadHeadKind)


class ReadHead(nn.Module):
    r"""From a memory of slots m_1 ... m_N to one vector h:

    - "flatten": h = [m_1; ...; m_N], the whole memory, as in the paper;
    - "mean": $h = \frac 1 N \sum_i m_i$;
    - "weighted": $h = \sum_i w_i m_i$, one learned number per slot, 1 / N at the start;
    - "attention": $h = \sum_i \alpha_i m_i$, $\alpha = \mathrm{softmax}_i(q \cdot m_i / \sqrt W)$ with a learned query
      q, or with the caller's;
    - "input": the input's own row after the attention blocks (the mean of the rows, where there are several): what the
      input found in the memory before this step.

    Shape:
        memory [..., N, W], input_rows [..., n, W] or None, query [..., W] or None; returns [..., N * W] for "flatten"
        and [..., W] otherwise.
    """

    def __init__(self, kind: ReadHeadKind, slots: int, width: int, *, device: torch.device, dtype: torch.dtype):
        super().__init__()
        self.kind = kind
        self.output_size = slots * width if kind == "flatten" else width
        self.weights = self.query = None
        if kind == "weighted":
            self.weights = nn.Parameter(torch.empty(slots, device=device, dtype=dtype))
        elif kind == "attention":
            self.query = nn.Parameter(torch.empty(width, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights 1 / N; the query normal of std 1, cut at two std."""
        if self.weights is not None:
            nn.init.constant_(self.weights, 1 / len(self.weights))
        if self.query is not None:
            nn.init.trunc_normal_(self.query)

    def forward(self, memory: Tensor, input_rows: Tensor | None = None, query: Tensor | None = None) -> Tensor:
        """See the class."""
        if self.kind == "flatten":
            return memory.flatten(-2)
        if self.kind == "mean":
            return memory.mean(-2)
        if self.kind == "input":
            assert input_rows is not None
            return input_rows.mean(-2)
        if self.weights is not None:
            return self.weights @ memory
        query = self.query if query is None else query
        assert query is not None
        scores = (memory @ query.unsqueeze(-1)).squeeze(-1) * memory.shape[-1] ** -0.5  # [..., N]
        return (torch.softmax(scores, dim=-1).unsqueeze(-2) @ memory).squeeze(-2)

    def extra_repr(self) -> str:
        return self.kind
