"""Shared fixtures: one seeded generator per test, and one thread so that small tests do not fight over cores."""

import pytest
import torch
from cores_summary import pytest_terminal_summary as pytest_terminal_summary

from relational_rnn.ops.relational_scan.cpu import kernels_report

torch.set_num_threads(1)


def pytest_report_header() -> str:
    return f"CPU scan: {kernels_report()}"


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(20180605)
