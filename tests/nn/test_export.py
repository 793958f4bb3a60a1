"""The files that `export_onnx` and its two siblings write, and what they refuse."""

import subprocess
import sys

import pytest
import torch
from cores_table import draw
from exporting import assert_same, onnx_session, run_onnx

from relational_rnn import InputError, MissingExtraError, RelationalMemory
from relational_rnn.nn.attention import AttentionLSTM
from relational_rnn.nn.export import export_onnx, export_sequence, export_step
from relational_rnn.nn.gru import GRU
from relational_rnn.nn.lstm import LSTM
from relational_rnn.nn.transformer import Transformer


def memory_layer(**options):
    torch.manual_seed(3)
    return RelationalMemory(3, 4, 5, num_heads=2, **options)


def test_onnx_of_a_sequence_is_one_loop_over_the_step(tmp_path):
    import onnx

    layer = memory_layer(gate_style="memory")
    export_onnx(layer, tmp_path / "memory.onnx", sequence=True)
    graph = onnx.load(tmp_path / "memory.onnx").graph
    assert [node.op_type for node in graph.node].count("Scan") == 1
    assert len(graph.node) < 10, "the step must stand in the loop's body, not beside it"
    axes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert axes == {
        "x": ["batch", "time", 3],
        "state": ["batch", 4, 10],
        "y": ["batch", "time", 40],
        "next_state": ["batch", 4, 10],
    }
    session = onnx_session(tmp_path / "memory.onnx")
    for batch, steps in ((1, 1), (5, 7)):
        x, state = draw(batch, steps, 3, dtype=torch.float32), draw(batch, 4, 10, dtype=torch.float32)
        with torch.no_grad():
            expected = layer(x, state)
        assert_same(run_onnx(session, [x, state]), list(expected), bound=2e-5)


def test_onnx_of_a_step(tmp_path):
    layer = LSTM(3, 6)
    export_onnx(layer, tmp_path / "lstm.onnx")
    session = onnx_session(tmp_path / "lstm.onnx")
    assert [value.name for value in session.get_inputs()] == ["x", "state_h", "state_c"]
    assert [value.name for value in session.get_outputs()] == ["y", "next_state_h", "next_state_c"]
    assert [path.name for path in tmp_path.iterdir()] == ["lstm.onnx"]


OPTIONS = {
    "layers": dict(num_layers=2, dropout=0.5, initial_memory="learned"),
    "input-read-head": dict(read_head="input", input_rows=2, gate_style="memory"),
    "attention-read-head": dict(read_head="attention", output_size=9, initial_memory="random"),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option_of_the_memory_is_exported(options, tmp_path):
    layer = memory_layer(**options)
    shape = (5, 7, 3) if layer.input_rows is None else (5, 7, 2, 3)
    x, reset = draw(*shape, dtype=torch.float32), draw(5, 7) > 0.5
    state = draw(*layer.initial_state(5).shape, dtype=torch.float32)
    with torch.no_grad():
        expected = layer.eval()(x, state, reset=reset)
    assert_same(list(export_sequence(layer, reset=True).module()(x, state, reset)), list(expected), bound=2e-6)
    export_onnx(layer, tmp_path / "memory.onnx", sequence=True, reset=True)
    assert_same(run_onnx(onnx_session(tmp_path / "memory.onnx"), [x, state, reset]), list(expected), bound=2e-5)


def test_looking_for_nan_cannot_be_exported():
    with pytest.raises(InputError, match="check_finite looks at values and cannot be compiled"):
        export_step(memory_layer(check_finite=True))


@pytest.mark.slow
def test_time_first_stays_time_first():
    layer = memory_layer(batch_first=False)
    x, state = draw(7, 5, 3, dtype=torch.float32), layer.initial_state(5)
    with torch.no_grad():
        expected = layer(x, state)
    assert_same(list(export_sequence(layer).module()(x, state)), list(expected), bound=2e-6)


def test_the_core_is_left_as_it_was():
    layer = GRU(3, 4).train()
    export_step(layer)
    assert layer.training
    assert all(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.slow
def test_a_written_program_runs_without_this_package(tmp_path):
    layer = memory_layer()
    x, state = draw(5, 3, dtype=torch.float32), layer.initial_state(5)
    export_step(layer, tmp_path / "memory.pt2")
    with torch.no_grad():
        expected = layer.step(x, state)
    torch.save((x, state, *expected), tmp_path / "call.pt")
    code = (
        "import sys, torch\n"
        f"x, state, y, after = torch.load({str(tmp_path / 'call.pt')!r}, weights_only=True)\n"
        f"got = torch.export.load({str(tmp_path / 'memory.pt2')!r}).module()(x, state)\n"
        "torch.testing.assert_close(got, (y, after))\n"
        "assert not any(name.startswith('relational_rnn') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "core", [Transformer(3, 8, num_layers=2, num_heads=2, window=4), AttentionLSTM(3, 6, window=3)]
)
def test_a_window_holds_in_a_sequence_of_any_length(core):
    program, state = export_sequence(core).module(), core.initial_state(2)
    for steps in (1, 3, 7):
        x = draw(2, steps, 3, dtype=torch.float32)
        with torch.no_grad():
            (y, expected), (got, *after) = core(x, state), program(x, *state.values())
            torch.testing.assert_close(got, y)
            after = core.compact(dict(zip(state, after, strict=True)))
            torch.testing.assert_close(after, core.compact(expected))


@pytest.mark.parametrize("option", ["lengths", "reset"])
def test_a_step_has_neither_lengths_nor_resets(option, tmp_path):
    with pytest.raises(InputError, match=f"one step has no {option}"):
        export_onnx(GRU(3, 4), tmp_path / "gru.onnx", **{option: True})


def test_without_the_extra_the_message_names_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError) as error:
        export_onnx(GRU(3, 4), tmp_path / "gru.onnx")
    assert str(error.value) == (
        "export_onnx needs the package 'onnxscript', which is not installed: pip install \"relational-rnn[export]\""
    )
    assert isinstance(export_step(GRU(3, 4)), torch.export.ExportedProgram)
