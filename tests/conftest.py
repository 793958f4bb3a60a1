"""Shared fixtures: one seeded generator per test, and one thread so that small tests do not fight over cores."""

import os

import cores_summary
import pytest
import solver_summary
import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported, here and in processes started from here


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    cores_summary.pytest_terminal_summary(terminalreporter)
    solver_summary.pytest_terminal_summary(terminalreporter)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(20180605)
