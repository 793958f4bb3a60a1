"""Data-parallel training: every parameter of a core takes part, so nothing has to be searched for unused ones."""

import pytest
import torch
from cores_table import BATCH, INPUTS, STEPS, draw
from torch import distributed
from torch.nn.parallel import DistributedDataParallel


@pytest.fixture
def group(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_data_parallel_training_has_no_unused_parameters(case, group):
    alone, wrapped = case.core(), DistributedDataParallel(case.core())
    for step in range(2):  # an unused parameter of the first step is an error in the second
        x = draw(BATCH, STEPS, INPUTS, seed=step)
        for core in (alone, wrapped):
            y, _ = core(x)
            (y * draw(*y.shape, seed=9 + step)).sum().backward()
    for (name, expected), parameter in zip(alone.named_parameters(), wrapped.module.parameters(), strict=True):
        assert expected.grad is not None, name
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=0, atol=1e-12, msg=name)
