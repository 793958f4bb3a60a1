"""Shared fixtures: one seeded generator per test, and one thread so that small tests do not fight over cores."""

import os

import pytest
import torch
from cores_summary import pytest_terminal_summary as pytest_terminal_summary

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported, here and in processes started from here


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(20180605)
