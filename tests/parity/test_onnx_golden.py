"""The recorded vectors of the original, after export: step and sequence, in PyTorch's export format and in ONNX."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from test_sonnet_golden import BOUNDS, CASES, assert_close, layer_of, recorded

from relational_rnn.nn.export import export_onnx, export_sequence

BOUND = BOUNDS[torch.float32][0]
# That the layer is the original, and that an exported layer is the layer, has quick tests of its own.
pytestmark = pytest.mark.slow


@pytest.fixture(params=CASES)
def golden(request):
    """A case in float32: the layer, its input [B, T, ...], and the recorded runs."""
    arrays = recorded(request.param)
    layer, x = layer_of(CASES[request.param], arrays, torch.float32)
    runs = [{key: arrays[f"{start}/{key}"] for key in ("h0", "out", "mem_final")} for start in ("init", "rand")]
    return layer, x, runs


def session_of(layer, path, **options):
    export_onnx(layer, path, **options)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def test_onnx_sequence_reproduces_the_original(golden, tmp_path):
    layer, x, runs = golden
    session = session_of(layer, tmp_path / "memory.onnx", sequence=True)
    for run in runs:
        y, memory = session.run(None, {"x": x.numpy(), "state": run["h0"].astype(np.float32)})
        assert_close("outputs", torch.from_numpy(y).transpose(0, 1), run["out"], BOUND)
        assert_close("final memory", torch.from_numpy(memory), run["mem_final"], BOUND)


def test_onnx_step_reproduces_the_original(golden, tmp_path):
    layer, x, runs = golden
    session = session_of(layer, tmp_path / "memory.onnx")
    for run in runs:
        memory = run["h0"].astype(np.float32)
        for t in range(x.shape[1]):
            y, memory = session.run(None, {"x": x[:, t].numpy(), "state": memory})
            assert_close(f"output {t}", torch.from_numpy(y), run["out"][t], BOUND)


def test_exported_sequence_reproduces_the_original(golden):
    layer, x, runs = golden
    program = export_sequence(layer).module()
    for run in runs:
        y, memory = program(x, torch.from_numpy(run["h0"]).float())
        assert_close("outputs", y.transpose(0, 1), run["out"], BOUND)
        assert_close("final memory", memory, run["mem_final"], BOUND)
