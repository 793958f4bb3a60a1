"""One side of a comparison of two commits: run as a script, with the package of either on its path.

Reads a line of JSON for every thing to time ({"core", "sizes", "batch", "steps", "run"}), builds it, and answers with
the sum of the squares of its results, or with why it cannot be built. Every line "turn" is answered with the seconds of
one pass. It uses nothing but the public layers, so that it runs with the package of long ago.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import relational_rnn.nn as layers

STEPS_PER_TURN = 100


def build(core: str, sizes: dict[str, Any], batch: int, steps: int, run: str) -> Callable[[], list[Tensor]]:
    """One pass over a whole sequence, or `STEPS_PER_TURN` single steps."""
    torch.manual_seed(1)
    layer: Any = getattr(layers, core)(**sizes)
    x = torch.randn(batch, steps, sizes["input_size"], generator=torch.Generator().manual_seed(0))
    if run == "train":
        leaves = [x.requires_grad_(), *layer.parameters()]

        def train() -> list[Tensor]:
            y = layer(x)[0]
            return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves, allow_unused=True)]

        return train

    def infer() -> list[Tensor]:
        with torch.no_grad():
            if run == "infer":
                return [layer(x)[0]]
            y, state = layer.step(x[:, 0], layer.initial_state(batch))
            for _ in range(STEPS_PER_TURN - 1):
                y, state = layer.step(x[:, 0], state)
            return [y]

    return infer


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    turn: Callable[[], list[Tensor]] = list
    for line in sys.stdin:
        if line.strip() == "turn":
            start = time.perf_counter()
            turn()
            answer: dict[str, Any] = {"seconds": time.perf_counter() - start}
        else:
            try:
                turn = build(**json.loads(line))
                turn()  # warm
                answer = {"squares": [float(t.double().square().sum()) for t in turn() if t is not None]}
            except (AttributeError, TypeError, ValueError) as error:  # what that commit does not have yet
                answer = {"cannot": str(error).splitlines()[0]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
