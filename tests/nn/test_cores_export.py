"""`torch.export` of one step: the state is an input and an output, and the batch may have any size."""

import torch
from cores_table import BATCH, INPUTS, assert_same_state, draw, some_state
from torch.export import Dim


class Step(torch.nn.Module):
    def __init__(self, core):
        super().__init__()
        self.core = core

    def forward(self, x_t, state):
        return self.core.step(x_t, state)


def test_an_exported_step_is_the_step(case):
    core = case.core()
    state = some_state(core)
    batch = Dim("batch", min=2, max=1024)
    stored = Dim("stored", min=2, max=4096)

    def axes(name, tensor):
        grows = name in ("states", "keys", "values", "outputs", "valid")
        return {0: batch, 1: stored} if grows else {0: batch}

    dynamic = {name: axes(name, t) for name, t in state.items()} if isinstance(state, dict) else {0: batch}
    program = torch.export.export(
        Step(core), (draw(BATCH, INPUTS), state), dynamic_shapes={"x_t": {0: batch}, "state": dynamic}
    )
    exported = program.module()
    for batch_size, steps in ((BATCH, 2), (3, 5)):
        state, x_t = some_state(core, batch_size, steps), draw(batch_size, INPUTS, seed=4)
        y, after = exported(x_t, state)
        expected, expected_after = core.step(x_t, state)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
        assert_same_state(core, after, expected_after, batch_size)
