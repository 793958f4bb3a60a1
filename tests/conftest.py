"""Shared fixtures: one seeded generator per test, and one thread so that small tests do not fight over cores."""

import os
import signal
from multiprocessing.context import ForkServerContext, SpawnContext

import cores_summary
import kills_summary
import pytest
import solver_summary
import torch

from relational_rnn.ops.relational_scan.cpu import kernels_report

# `torch.manual_seed` writes down the stack for every kind of device that is not there, a millisecond in each test.
SEED = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that are started from here
# A script that runs the suite in the background has Ctrl-C ignored, also in every process that is started from here.
signal.signal(signal.SIGINT, signal.default_int_handler)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported, here and in processes started from here


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    cores_summary.pytest_terminal_summary(terminalreporter)
    kills_summary.pytest_terminal_summary(terminalreporter)
    solver_summary.pytest_terminal_summary(terminalreporter)


def pytest_report_header() -> str:
    return f"CPU scan: {kernels_report()}"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Weights that a test leaves to PyTorch's own generator are the same in every run of the tests."""
    SEED(20180605)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled kernels run, or the test is skipped and says why."""
    monkeypatch.setenv("RELATIONAL_RNN_KERNELS", "auto")
    if not kernels_report().startswith("compiled"):
        pytest.skip(kernels_report())


@pytest.fixture
def forked() -> SpawnContext | ForkServerContext:
    """Where processes are forks of one that has imported what training needs: begun in a hundredth of the time."""
    from relational_rnn.training.processes import process_context  # heavy, for one that only hands out the tests

    return process_context("relational_rnn.runs")


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(20180605)
