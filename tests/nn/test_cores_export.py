"""Exported cores compute what the cores compute: one step, and a whole sequence, at sizes that were not traced."""

import pytest
import torch
from cores_table import CASES
from exporting import assert_as_good, assert_same, onnx_session, run_onnx, run_program, sequence_calls, step_calls

from relational_rnn.nn.export import export_onnx, export_sequence, export_step


def assert_exported_step_is_the_step(core):
    program = export_step(core)
    for inputs, *made in step_calls(core):
        assert_as_good(run_program(program, inputs), *made)


@pytest.mark.slow
def test_exported_step_is_the_step(case):
    assert_exported_step_is_the_step(case.core(torch.float32))


@pytest.mark.parametrize("name", ["rmc", "lstm", "transformer", "dnc", "fastweights"])
def test_exported_step_of_every_kind_of_state_is_the_step(name):
    """One tensor, several, those that grow, a matrix with its links, fast weights."""
    (case,) = (case for case in CASES if case.name == name)
    assert_exported_step_is_the_step(case.core(torch.float32))


@pytest.mark.slow
def test_exported_sequence_is_the_sequence(case):
    core = case.core(torch.float32)
    program = export_sequence(core, lengths=True, reset=True)
    for inputs, *made in sequence_calls(core):
        assert_as_good(run_program(program, inputs), *made)


@pytest.mark.slow
def test_onnx_step_is_the_step(case, tmp_path):
    core = case.core(torch.float32)
    export_onnx(core, tmp_path / "core.onnx")
    session = onnx_session(tmp_path / "core.onnx")
    for inputs, *made in step_calls(core):
        assert_same(run_onnx(session, inputs), made[0], bound=2e-5)


@pytest.mark.slow
def test_onnx_sequence_is_the_sequence(case, tmp_path):
    core = case.core(torch.float32)
    export_onnx(core, tmp_path / "core.onnx", sequence=True, lengths=True, reset=True)
    session = onnx_session(tmp_path / "core.onnx")
    for inputs, *made in sequence_calls(core):
        assert_same(run_onnx(session, inputs), made[0], bound=2e-5)
