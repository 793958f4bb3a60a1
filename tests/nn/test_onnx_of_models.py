"""Models of the user's own with the layer in them, by plain `torch.onnx.export`, at sizes that were not traced."""

from __future__ import annotations

import io

import pytest
import torch
from cores_table import draw
from exporting import assert_same, onnx_session, run_onnx
from torch import nn

from relational_rnn import RelationalMemory
from relational_rnn.nn import GRU, GatedDeltaNet
from relational_rnn.ops.relational_scan import compiled, relational_scan, scan_as_loop
from relational_rnn.ops.relational_scan.spec import flatten, spec_of

OPTIONS = {
    "unit": dict(num_heads=2, num_blocks=2, initial_memory="learned", output_size=5),
    "input": dict(num_heads=2, gate_style="memory", read_head="input", num_layers=2),
    "competitive": dict(gate_style="competitive", read_head="attention"),
    "chapter": dict(formulation="chapter", gate_style=None, read_head="mean"),
}


class Model(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.embed = nn.Linear(4, 3)
        self.layer = RelationalMemory(3, 4, 6, **options)
        self.head = nn.Linear(self.layer.output_size, 2)

    def forward(self, x, lengths=None, reset=None):
        y, memory = self.layer(self.embed(x), lengths=lengths, reset=reset)
        return self.head(y), memory


def exported(model, *given):
    """A session of the model, exported as a user would."""
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("steps")
    axes = ({0: batch, 1: steps}, {0: batch}, {0: batch, 1: steps})[: len(given)]
    program = torch.onnx.export(model.eval(), given, dynamo=True, dynamic_shapes=axes, verbose=False)
    content = io.BytesIO()
    program.save(content)
    return program, onnx_session(content.getvalue())


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_a_model_with_the_layer_exports():
    torch.manual_seed(2)
    model = Model(num_heads=2)
    program, session = exported(model, torch.randn(3, 5, 4))
    assert [node.op_type for node in program.model_proto.graph.node].count("Scan") == 1
    for batch, steps in ((7, 9), (1, 1)):
        x = draw(batch, steps, 4, dtype=torch.float32)
        with torch.no_grad():
            assert_same(run_onnx(session, [x]), list(model(x)), bound=2e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_with_any_core_exports(case):
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.core = nn.Linear(4, 3), case.core(torch.float32)

        def forward(self, x, lengths, reset):
            return self.core(self.embed(x), lengths=lengths, reset=reset)[0]

    torch.manual_seed(2)
    model = Around()
    _, session = exported(model, torch.randn(3, 5, 4), torch.tensor([5, 2, 0]), torch.rand(3, 5) > 0.5)
    for batch, steps in ((6, 8), (1, 1)):
        x, lengths = draw(batch, steps, 4, dtype=torch.float32), torch.arange(batch) * 2 % (steps + 1)
        reset = draw(batch, steps, seed=1) > 0.3
        with torch.no_grad():
            assert_same(run_onnx(session, [x, lengths, reset]), [model(x, lengths, reset)], bound=2e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "create",
    [
        lambda: GRU(3, 4),
        pytest.param(lambda: GatedDeltaNet(3, 6, num_heads=2, chunk_size=3), marks=pytest.mark.slow),  # chunks: seconds
    ],
)
def test_a_program_of_a_core_takes_any_length(create):
    torch.manual_seed(2)
    core, batch, steps = create(), torch.export.Dim("batch"), torch.export.Dim("steps")
    program = torch.export.export(core, (torch.randn(3, 5, 3),), dynamic_shapes=({0: batch, 1: steps},)).module()
    x = draw(7, 9, 3, dtype=torch.float32)
    torch.testing.assert_close(program(x)[0], core(x)[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPTIONS)
def test_a_model_with_lengths_and_resets_exports(name):
    torch.manual_seed(2)
    model = Model(**OPTIONS[name])
    _, session = exported(model, torch.randn(3, 5, 4), torch.tensor([5, 2, 0]), torch.rand(3, 5) > 0.5)
    x, lengths, reset = draw(6, 8, 4, dtype=torch.float32), torch.tensor([8, 0, 3, 7, 1, 8]), draw(6, 8, seed=1) > 0.3
    with torch.no_grad():
        assert_same(run_onnx(session, [x, lengths, reset]), list(model(x, lengths, reset)), bound=2e-5)


@pytest.mark.parametrize(  # "unit" is in the model above
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ("unit", "input") else []) for name in OPTIONS]
)
def test_the_loop_that_exporters_take_is_the_scan(name):
    torch.manual_seed(2)
    options = {
        key: value
        for key, value in OPTIONS[name].items()
        if key in ("num_heads", "num_blocks", "gate_style", "formulation")
    }
    cell = RelationalMemory(3, 4, 6, dtype=torch.float64, **options).cell()
    x, memory = draw(5, 7, 1, 3), draw(5, *cell.initial_memory(1).shape[1:], seed=1)
    lengths, reset = torch.tensor([7, 0, 3, 6, 1]), draw(5, 7, seed=2) > 0.5
    params, start = cell.scan_parameters(), cell.initial_memory(5)
    given = {"lengths": lengths, "reset": reset, "initial": start, "input_rows": True}
    with torch.no_grad():
        expected = relational_scan(x, memory, params, **given)
        spec = spec_of(params, input_rows=True)
        found = scan_as_loop(x, memory, flatten(params), lengths, reset, start, False, *spec.flat())
    assert compiled.scan_operator in torch._decomp.decomposition_table
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=1e-12)
