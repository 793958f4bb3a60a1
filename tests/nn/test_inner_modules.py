"""What is done to the modules within a core: every operation gives what it gives on a plain `nn.Linear`.

The oracle is a twin of plain modules whose weights are those that the operation amounts to.
"""

from __future__ import annotations

import copy

import pytest
import torch
from cores_table import BATCH, CASES, INPUTS, assert_close, assert_same_state, draw
from torch import nn
from torch.nn.utils import parametrizations, prune

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn import LSTM, AttentionLSTM, FastWeightMemory, GatedDeltaNet
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell

STEPS = 3
CLOSE = {"rtol": 1e-11, "atol": 1e-11}  # other sums of the same numbers, and some states grow large
NAMED = next(case for case in CASES if case.name == "rmc_cpu")  # a backend that was asked for by name
SAME = ("rmc_cpu", "rmc_reference", "transformer_window", "attention_window")  # the modules of another case
FREE = [case for case in CASES if case.name not in SAME and any(type(m) is nn.Linear for m in case.create().modules())]


class Adapted(nn.Module):
    """A linear layer beside two small ones, as low-rank adapters have it; it has no weight of its own."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False, dtype=base.weight.dtype)
        self.up = nn.Linear(2, base.out_features, bias=False, dtype=base.weight.dtype)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def pruned(core, name, linear):
    prune.l1_unstructured(linear, "weight", 0.5)


def spectral_by_hook(core, name, linear):
    nn.utils.spectral_norm(linear, n_power_iterations=3)


def spectral_by_parametrization(core, name, linear):
    parametrizations.spectral_norm(linear)


@pytest.mark.filterwarnings("ignore")
def weight_by_hook(core, name, linear):
    nn.utils.weight_norm(linear)


def weight_by_parametrization(core, name, linear):
    parametrizations.weight_norm(linear)


def adapted(core, name, linear):
    core.set_submodule(name, Adapted(linear))


def hooked(core, name, linear):
    linear.register_forward_hook(lambda module, given, made: 2 * made)


def hooked_before(core, name, linear):
    linear.register_forward_pre_hook(lambda module, given: (0.5 * given[0],))


def with_its_own_forward(core, name, linear):
    linear.forward = lambda x: 2 * nn.functional.linear(x, linear.weight, linear.bias)


def of_another_class(core, name, linear):
    linear.__class__ = Doubled


OPERATIONS = [
    pruned,
    spectral_by_hook,
    spectral_by_parametrization,
    weight_by_hook,
    weight_by_parametrization,
    adapted,
    hooked,
    hooked_before,
    with_its_own_forward,
    of_another_class,
]


def linears(core):
    return [(name, module) for name, module in core.named_modules() if type(module) is nn.Linear]


def operate(core, operation):
    """Every linear layer of the core, operated on; weight norms begin away from what changes nothing."""
    torch.manual_seed(5)
    for name, linear in linears(core):
        operation(core, name, linear)
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            if name.endswith(("weight_g", "original0")):
                parameter.mul_(1.5)
    return core.eval()


def twin_of(case, core):
    """A plain core whose weights are what calls of the operated modules amount to: their answers to unit vectors."""
    twin = case.core().eval()
    given = core.state_dict()
    twin.load_state_dict({name: given.get(name, tensor) for name, tensor in twin.state_dict().items()})
    with torch.no_grad():
        for name, linear in linears(twin):
            module = core.get_submodule(name)
            bias = module(torch.zeros(1, linear.in_features, dtype=torch.float64))
            linear.weight.copy_((module(torch.eye(linear.in_features, dtype=torch.float64)) - bias).T)
            if linear.bias is not None:
                linear.bias.copy_(bias[0])
    return twin


def sequence():
    reset = torch.zeros(BATCH, STEPS, dtype=torch.bool)
    reset[1, 2] = reset[4, 1] = True
    return draw(BATCH, STEPS, INPUTS), {"lengths": [3, 2, 0, 1, 3], "reset": reset}


def assert_same_results(case, core, twin):
    x, given = sequence()
    x, x_twin = x.clone().requires_grad_(), x.clone().requires_grad_()
    (y, state), (y_twin, state_twin) = core(x, **given), twin(x_twin, **given)
    assert_close(y, y_twin, **CLOSE)
    assert_same_state(core, state, state_twin, **CLOSE)
    cotangent = draw(*y.shape, seed=1)
    (of_core,), (of_twin,) = (
        torch.autograd.grad([out], [into], [cotangent]) for out, into in ((y, x), (y_twin, x_twin))
    )
    assert_close(of_core, of_twin, **CLOSE)
    with torch.no_grad():
        start = twin.initial_state(BATCH)
        assert_close(core.step(x[:, 0], start)[0], twin.step(x[:, 0], start)[0], **CLOSE)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", FREE, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_an_operation_on_inner_modules_is_obeyed(case, operation):
    core = operate(case.core(), operation)
    assert_same_results(case, core, twin_of(case, core))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_backend_that_was_named_refuses_what_it_cannot_obey(operation, compiled):
    core = operate(NAMED.core(), operation)
    with pytest.raises(InputError, match=r"backend 'cpu' cannot run here: it calls no inner modules, and input "):
        core(draw(BATCH, STEPS, INPUTS))
    with pytest.raises(InputError, match=r"backend 'cpu' cannot run here"):
        core.backend_report()
    twin, start = twin_of(NAMED, core), core.initial_state(BATCH)  # a single step is always plain
    assert_close(core.step(draw(BATCH, INPUTS), start)[0], twin.step(draw(BATCH, INPUTS), start)[0])


@pytest.mark.filterwarnings("ignore")  # PyTorch has other plans for this
@pytest.mark.parametrize("case", FREE, ids=lambda case: case.name)
def test_dynamic_quantization_is_obeyed(case):
    core = case.core(torch.float32).eval()
    torch.backends.quantized.engine = "onednn" if "onednn" in torch.backends.quantized.supported_engines else "fbgemm"
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(core), {nn.Linear}, dtype=torch.qint8)
    assert not linears(quantized)
    x = draw(BATCH, STEPS, INPUTS, dtype=torch.float32)
    with torch.no_grad():
        (y, _), (y_full, _) = quantized(x), core(x)
        stepped = quantized.initial_state(BATCH)
        for t in range(STEPS):
            y_t, stepped = quantized.step(x[:, t], stepped)
    error = (y - y_full).norm() / y_full.norm()
    assert 0 < error < 0.1  # eight bits, several layers and three steps
    assert (y_t - y_full[:, -1]).norm() / y_full[:, -1].norm() < 0.1


@pytest.mark.parametrize("case", FREE, ids=lambda case: case.name)
def test_a_pruned_core_trains_and_its_weights_load_into_another(case):
    core, twin = (operate(case.core(), pruned).train() for _ in range(2))
    x, given = sequence()
    optimizer = torch.optim.SGD(core.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        core(x, **given)[0].square().sum().backward()
        optimizer.step()
    for name, parameter in core.named_parameters():
        if name.endswith("weight_orig"):
            mask = core.get_buffer(name.replace("weight_orig", "weight_mask"))
            assert mask.any()
            assert not parameter.grad[mask == 0].any()
    twin.load_state_dict(core.state_dict())
    assert torch.equal(twin(x, **given)[0], core(x, **given)[0])
    assert_same_results(case, core, twin_of(case, core))


@pytest.mark.parametrize(
    "operation", [pruned, weight_by_parametrization, adapted, hooked, of_another_class, with_its_own_forward]
)
def test_steps_that_were_ready_notice_it(operation):
    """Single steps without gradients by compiled kernels are prepared once."""
    case = next(case for case in CASES if case.name == "rmc")
    core, x = case.core().eval(), draw(BATCH, INPUTS)
    start = core.initial_state(BATCH)
    with torch.no_grad():
        before = [core.step(x, start)[0] for _ in range(2)]
        operate(core, operation)
        assert_close(core.step(x, start)[0], twin_of(case, core).step(x, start)[0])
        assert not torch.equal(core.step(x, start)[0], before[0])
        assert core.backend_report().runs == "reference"


def test_the_report_names_the_module(compiled):
    layer = RelationalMemory(INPUTS, 4, 2, num_layers=2)
    layer.cells[1].blocks[0].qkv.register_forward_hook(lambda module, given, made: None)
    assert str(layer.backend_report()) == (
        "backend='auto' runs 'reference': the CPU scan cannot run here: it calls no inner modules, and of cells.1, "
        "blocks.0.qkv has hooks"
    )
    layer = FastWeightMemory(INPUTS, 8)
    prune.random_unstructured(layer.read_key[0], "weight", 0.3)
    assert str(layer.backend_report()) == (
        "backend='auto' runs 'reference': the CPU scan cannot run here: it calls no inner modules, and "
        "read_key.0 has hooks"
    )


def test_slots_that_compete_for_several_rows():
    """The queries of the rows are one linear layer, of which every row has a part."""

    class Rows:
        @staticmethod
        def core():
            torch.manual_seed(3)
            return RelationalMemory(INPUTS, 4, 2, num_heads=3, gate_style="competitive", input_rows=2).double()

    core = operate(Rows.core(), adapted)
    x = draw(BATCH, STEPS, 2, INPUTS)
    assert_close(core(x)[0], twin_of(Rows, core)(x)[0])


def test_a_hook_on_all_modules_runs():
    seen = []
    layer = RelationalMemory(INPUTS, 4, 2)
    hook = nn.modules.module.register_module_forward_hook(lambda module, given, made: seen.append(module))
    try:
        layer(torch.zeros(2, 3, INPUTS))
    finally:
        hook.remove()
    inner = [m for m in layer.cells.modules() if isinstance(m, nn.Linear | nn.LayerNorm)]
    assert inner
    assert all(any(module is one for one in seen) for module in inner)


# Modules that hold others: what is done to a cell, to a layer of a Gated DeltaNet, to the LSTM under attention.


def halved(module, given, made):
    return made / 2


class HalvedCell(RelationalMemoryCell):
    def forward(self, x, memory=None):
        return super().forward(x, memory) / 2


def test_a_hook_on_a_cell_runs_at_every_step():
    layer, plain = (RelationalMemory(INPUTS, 4, 2, num_heads=3).double() for _ in range(2))
    plain.load_state_dict(layer.state_dict())
    layer.cells[0].register_forward_hook(halved)
    x, given = sequence()
    y, memory = layer(x, **given)
    for row, length in enumerate(given["lengths"]):
        state = plain.initial_state(1)
        for t in range(length):
            if given["reset"][row, t]:
                state = plain.initial_state(1)
            state = plain.step(x[row : row + 1, t], state)[1] / 2
            assert_close(y[row, t], state.flatten())
        assert_close(memory[row], state[0])
    assert not y[2].any()
    assert_close(
        layer.step(x[:, 0], layer.initial_state(BATCH))[1], plain.step(x[:, 0], plain.initial_state(BATCH))[1] / 2
    )
    assert str(layer.backend_report()) == "backend='auto' runs 'reference': every step is a call, as cells.0 has hooks"
    layer.backend = "cpu"
    with pytest.raises(
        InputError, match=r"backend 'cpu' cannot run here: it calls no inner modules, and cells\.0 has hooks"
    ):
        layer(x)
    with pytest.raises(InputError, match=r"a trace is of the modules in a cell, and cells\.0 has hooks"):
        layer.trace(x)


def test_a_cell_of_another_class_is_called():
    torch.manual_seed(2)
    cell = HalvedCell(INPUTS, 4, 6)
    layer = RelationalMemory(INPUTS, 4, 6)
    layer.cells[0] = cell
    x = draw(BATCH, STEPS, INPUTS, dtype=torch.float32)
    memory = None
    for t in range(STEPS):
        memory = cell(x[:, t], memory)
    torch.testing.assert_close(layer(x)[1], memory)
    attending = RelationalMemory(INPUTS, 4, 6, read_head="input")
    attending.cells[0] = cell
    with pytest.raises(InputError, match=r"read_head='input' needs more of a step than a call of its cell gives"):
        attending(x)


def test_what_cannot_stand_in_place_of_a_cell_or_a_block_is_refused():
    layer = RelationalMemory(INPUTS, 4, 2)
    layer.cells[0] = nn.GRUCell(INPUTS, 2)
    with pytest.raises(InputError, match=r"RelationalMemory: cells\.0 is not a cell of a relational memory"):
        layer(torch.zeros(2, 3, INPUTS))
    layer = RelationalMemory(INPUTS, 4, 2)
    layer.cells[0].blocks[0] = nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"blocks\.0 is not a block of attention"):
        layer(torch.zeros(2, 3, INPUTS))
    layer = RelationalMemory(INPUTS, 4, 2)
    layer.cells[0].blocks[0].forward = halved
    with pytest.raises(InputError, match=r"blocks\.0 has a forward, which would never run"):
        layer(torch.zeros(2, 3, INPUTS))


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
def test_who_hooks_a_block_of_attention_is_told_that_nothing_calls_it(kind):
    block = RelationalMemory(INPUTS, 4, 2).cells[0].blocks[0]
    with pytest.warns(UserWarning, match=r"never runs, as a step calls the modules within it alone"):
        getattr(block, f"register_{kind}")(halved)


def test_hooks_on_the_layers_of_a_gated_delta_net_run():
    core = GatedDeltaNet(INPUTS, 6, num_heads=2, chunk_size=2)
    x = torch.randn(BATCH, STEPS, INPUTS)
    plain = core(x)[0]
    core.layers[1].register_forward_hook(halved)
    y, state = core(x)
    assert not torch.allclose(y, plain)
    memory = core.initial_state(BATCH)
    for t in range(STEPS):
        y_t, memory = core.step(x[:, t], memory)
        torch.testing.assert_close(y_t, y[:, t])
    torch.testing.assert_close(memory, state)


@pytest.mark.parametrize("create", [lambda: LSTM(INPUTS, 6), lambda: AttentionLSTM(INPUTS, 6)])
def test_weights_of_the_core_itself_can_be_pruned(create):
    """Also where steps and snapshots read them without a call of their module."""
    core = create().double()
    owner = getattr(core, "lstm", core)
    prune.l1_unstructured(owner, "weight_hh_l0", 0.5)
    x = draw(BATCH, STEPS, INPUTS)
    for _ in range(2):
        core(x)[0].square().sum().backward()
        with torch.no_grad():
            owner.weight_hh_l0_orig -= 0.1 * owner.weight_hh_l0_orig.grad
    plain = create().double()
    weights = core.state_dict()
    prefix = "lstm." if owner is not core else ""
    made = weights.pop(f"{prefix}weight_hh_l0_orig") * weights.pop(f"{prefix}weight_hh_l0_mask")
    plain.load_state_dict({**weights, f"{prefix}weight_hh_l0": made})
    state = plain(x)[1]
    assert_close(core.step(x[:, 0], state)[0], plain.step(x[:, 0], state)[0])
    rows, at = [0, 3, 3], [2, 0, 3]
    for found, expected in zip(
        core.snapshots(x, rows, at).values(), plain.snapshots(x, rows, at).values(), strict=True
    ):
        assert_close(found.double(), expected.double())
    assert_close(core(x)[0], plain(x)[0])
    if owner is not core:
        owner.register_forward_hook(lambda module, given, made: None)
        with pytest.raises(InputError, match=r"snapshots need every state of the LSTM"):
            core.snapshots(x, rows, at)


def test_a_learned_start_can_be_pruned():
    layer = RelationalMemory(INPUTS, 4, 6, initial_memory="learned")
    prune.random_unstructured(layer.cells[0], "initial", 0.5)
    x = torch.randn(2, STEPS, INPUTS)
    for _ in range(2):
        layer(x)[0].sum().backward()
        with torch.no_grad():
            layer.cells[0].initial_orig += 1.0
    cell = layer.cells[0]
    assert torch.equal(layer.initial_state(2)[1], cell.initial_orig * cell.initial_mask)
