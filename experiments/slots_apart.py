"""What is lost when slots cannot see one another?

`python experiments/slots_apart.py --steps 8000 --out runs/slots-apart`

Trains the relational memory of N-th farthest (recipe `nth-farthest-small`, the learning rate not falling) with every
slot alone: it attends to itself and the input, with the same parameters and as many slots. Beside it:

    relational-rnn train nth-farthest --optimizer.decay none --loop.steps 8000
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from relational_rnn.console.boundary import guarded
from relational_rnn.nn import RelationalMemory
from relational_rnn.runs import build
from relational_rnn.tasks.nth_farthest import nth_farthest_small
from relational_rnn.training import fit


class SlotsApart(nn.Module):
    """A relational memory whose slots are sequences of their own: B sequences of N slots are B N of one slot.

    Args:
        memory: gives the parameters and what the slots begin with.
    """

    def __init__(self, memory: RelationalMemory) -> None:
        super().__init__()
        self.slots = memory.mem_slots
        self.input_size, self.output_size = memory.input_size, memory.output_size
        self.alone = memory.alike(mem_slots=1)
        self.alone.load_state_dict(memory.state_dict())
        self.register_buffer("start", memory.initial_state(1)[0].detach().unsqueeze(1))

    def forward(self, x: Tensor, *, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`x` [B, T, I] to the outputs [B, T, N W] and the last memory [B, N, W]."""
        count = len(x)
        alone = x.repeat_interleave(self.slots, 0)
        start = self.start.repeat(count, 1, 1)
        lengths = None if lengths is None else lengths.repeat_interleave(self.slots, 0)
        y, memory = self.alone(alone, start, lengths=lengths)
        y = y.unflatten(0, (count, self.slots)).transpose(1, 2).flatten(2)
        return y, memory.reshape(count, self.slots, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/slots-apart"))
    arguments = parser.parse_args()
    recipe = nth_farthest_small()
    config = replace(
        recipe,
        seed=arguments.seed,
        optimizer=replace(recipe.optimizer, decay="none"),
        loop=replace(recipe.loop, steps=arguments.steps),
    )
    problem = build(config)
    memory = problem.model.core
    assert isinstance(memory, RelationalMemory)
    problem.model.core = SlotsApart(memory)  # type: ignore[assignment]  # all that the model needs of a core
    outcome = fit(
        problem,
        arguments.out,
        optimizer=config.optimizer,
        loop=config.loop,
        seed=config.seed,
        configuration={"experiment": "slots apart", **config.to_json()},
    )
    print(f"{arguments.out}: best validation accuracy {outcome.valid_accuracy:.1%} after step {outcome.best_step:,}")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
