"""The Triton scan against the definition: on a GPU where there is one, under Triton's interpreter on the CPU elsewhere.

The interpreter runs the kernels' own code, tile by tile, and takes half a second per step for it, hence few steps. What
it cannot tell is whether the compiler takes them; the last tests compile them for a Hopper GPU, which needs none.
"""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import pytest
import torch
from scripts import load

from relational_rnn import InputError, RelationalMemory
from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import _triton_launch, choose, relational_scan, relational_scan_reference
from relational_rnn.ops.relational_scan import triton_scan as module
from relational_rnn.ops.relational_scan._triton_launch import Tiling
from relational_rnn.ops.relational_scan.triton_scan import unsupported
from relational_rnn.testing import assert_as_good_as

pytest.importorskip("triton", reason="the package triton is not installed")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
relational_scan_triton = partial(relational_scan, backend="triton")
B, T, INPUTS = 6, 3, 5
# Every size differs on every axis. Tiles have 16 rows: one to five sequences, and rows of padding.
SIZES = {
    "unit": dict(mem_slots=2, head_size=10, num_heads=2, key_size=7),
    "unit, one slot": dict(mem_slots=1, head_size=19, num_heads=1, attention_mlp_layers=3),
    "unit, many slots": dict(mem_slots=17, head_size=9, num_heads=2, attention_mlp_layers=1),
    "memory, matrix": dict(mem_slots=4, head_size=9, num_heads=2, gate_style="memory", input_rows=2, forget_bias=-0.5),
    "no gates": dict(mem_slots=5, head_size=17, num_heads=1, gate_style=None, attention_mlp_layers=1),
    "chapter": dict(mem_slots=3, head_size=11, num_heads=2, key_size=18, gate_style=None, formulation="chapter"),
}
SMALL = Tiling(columns=16, inner=16, elementwise=16, stages=1)
LARGE = Tiling()
CASES = [  # sizes, tiles, activations, option
    ("unit", SMALL, "store", "both"),
    ("memory, matrix", LARGE, "recompute", "both"),
    ("chapter", LARGE, "store", "lengths"),
    ("no gates", LARGE, "store", "plain"),
]
MORE = [
    (name, tiles, activations, option)
    for name in SIZES
    for tiles in (SMALL, LARGE)
    for activations in ("store", "recompute")
    for option in ("plain", "lengths", "reset", "both")
]


def titled(cases):
    return [pytest.param(*c, id=f"{c[0]}-{c[1].columns} columns-{'-'.join(map(str, c[2:]))}") for c in cases]


@pytest.fixture
def device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    if not module.interpreted():
        pytest.skip("no GPU, and triton was imported before TRITON_INTERPRET=1 was set")
    return "cpu"


@pytest.fixture
def tiles(monkeypatch):
    """Launches with these tiles."""
    return partial(monkeypatch.setattr, _triton_launch, "TILING")


def cell_and_input(name, seed=20180605, steps=T, batch=B):
    """A cell with biases and norms away from 0 and 1, so that none can be left out, its input and its memory."""
    rng = torch.Generator().manual_seed(seed)
    cell = RelationalMemoryCell(INPUTS, **SIZES[name], dtype=torch.float64)
    with torch.no_grad():
        for what, p in cell.named_parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * (0.5 * p.shape[-1] ** -0.5 if p.dim() > 1 else 0.3))
            p.add_(1 if "norm.weight" in what else 0)
    x = torch.randn(batch, steps, cell.input_rows or 1, INPUTS, generator=rng)
    memory = torch.randn(batch, cell.mem_slots, cell.width, generator=rng)
    return cell.bfloat16().double(), x.bfloat16().double(), memory.bfloat16().double()


def options_for(option, cell, x, per_sequence=False):
    """Keyword arguments of a scan; lengths put NaN past every length, which is never looked at."""
    chosen = {}
    batch, steps = x.shape[:2]
    rng = torch.Generator().manual_seed(2)
    if option in ("lengths", "both"):
        chosen["lengths"] = torch.tensor([3, 1, 0, 2, 3, 1])[:batch].clamp(max=steps)
        for row, length in enumerate(chosen["lengths"]):
            x[row, length:] = math.nan
    if option in ("reset", "both"):
        # Twice in one sequence, at its first and at its last step, past its length, never; one goes on unreset.
        pattern = [[1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 0]]
        chosen["reset"] = torch.tensor(pattern)[:batch, :steps].bool()
        shape = (batch,) * per_sequence + (cell.mem_slots, cell.width)
        chosen["initial"] = torch.randn(shape, generator=rng).bfloat16().to(x.dtype)
    return chosen


def run(scan, cell, x, memory, dtype=torch.float64, device="cpu", **options):
    """Names and values, on the CPU, of both results and of all gradients, for random signed cotangents."""
    cell = copy.deepcopy(cell).to(device, dtype)
    rng = torch.Generator().manual_seed(1)
    options = {k: v.to(device, dtype if k == "initial" else None) for k, v in options.items()}
    leaves = {"x": x, "memory": memory} | ({"initial": options["initial"]} if "initial" in options else {})
    leaves = {name: leaf.to(device, dtype, copy=True).requires_grad_() for name, leaf in leaves.items()}
    if "initial" in options:
        options["initial"] = leaves["initial"]
    memories, final, _ = scan(leaves["x"], leaves["memory"], cell.scan_parameters(), **options)
    results = {"memories": memories, "final": final}
    cotangents = [torch.randn(y.shape, generator=rng).to(device, dtype) for y in results.values()]
    if "lengths" in options:  # a cotangent past a length is never looked at
        past = torch.arange(x.shape[1], device=device) >= options["lengths"][:, None]
        if scan is not relational_scan_reference:
            cotangents[0][past] = math.nan
    wanted = leaves | dict(cell.named_parameters())
    found = torch.autograd.grad([*results.values()], [*wanted.values()], cotangents)
    values = results | {f"gradient of {name}": g for name, g in zip(wanted, found, strict=True)}
    return {name: value.detach().cpu() for name, value in values.items()}


@cache
def problem(name, option, per_sequence=False, seed=20180605):
    """A cell with its input, the options, and what the definition makes of them in float64."""
    given = cell, x, _ = cell_and_input(name, seed)
    chosen = options_for(option, cell, x, per_sequence)
    return given, chosen, run(relational_scan_reference, *given, **chosen)


def check_exact(name, option, device, activations="store", per_sequence=False):
    given, chosen, oracle = problem(name, option, per_sequence)
    scan = partial(relational_scan_triton, activations=activations)
    for what, value in run(scan, *given, device=device, **chosen).items():
        assert_as_good_as(what, value, oracle[what], oracle[what])


@pytest.mark.parametrize(("name", "tiling", "activations", "option"), titled(CASES))
def test_it_is_the_definition(name, tiling, activations, option, tiles, device):
    tiles(tiling)
    check_exact(name, option, device, activations)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tiling", "activations", "option"), titled(MORE))
def test_it_is_the_definition_everywhere(name, tiling, activations, option, tiles, device):
    tiles(tiling)
    check_exact(name, option, device, activations)


@pytest.mark.slow
@pytest.mark.parametrize("activations", ["store", "recompute"])
def test_every_sequence_may_have_its_own_initial_memory(activations, device):
    check_exact("unit", "both", device, activations, per_sequence=True)


def of_the_device(dtype, device):
    if device == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter cannot multiply bfloat16 matrices")
    return dtype


def check_precision(name, option, dtype, device, seeds):
    """Several problems are judged as one, so that a peer's good luck in one of them does not decide."""
    results = {"got": [], "reference": [], "oracle": []}
    for seed in range(seeds):
        given, chosen, oracle = problem(name, option, seed=seed)
        results["got"].append(run(relational_scan_triton, *given, dtype, device, **chosen))
        results["reference"].append(run(relational_scan_reference, *given, dtype, device, **chosen))
        results["oracle"].append(oracle)
    for what in results["oracle"][0]:
        assert_as_good_as(what, *(torch.stack([r[what] for r in results[kind]]) for kind in results))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_is_as_good_as_plain_pytorch(dtype, device):
    check_precision("unit, one slot", "reset", of_the_device(dtype, device), device, seeds=1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SIZES)
def test_it_is_as_good_as_plain_pytorch_everywhere(name, dtype, device):
    check_precision(name, "both", of_the_device(dtype, device), device, seeds=4)


@pytest.mark.parametrize("activations", ["store", pytest.param("recompute", marks=pytest.mark.slow)])
def test_memory_that_was_never_written_is_never_read(activations, device, monkeypatch):
    """Fresh memory is full of NaN: whatever the scan reads it must have written."""
    problem("memory, matrix", "both")  # the definition is not what is poisoned

    def poisoned(function):
        def filled(*args, **kwargs):
            made = function(*args, **kwargs)
            return made.detach().fill_(math.nan) if made.is_floating_point() else made

        return filled

    for owner, name in [(torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")]:
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
    assert torch.empty_like(torch.ones(2)).isnan().all()
    check_exact("memory, matrix", "both", device, activations)


@pytest.mark.slow
def test_repeats_are_equal(device):
    given, chosen, _ = problem("unit", "both")
    first, second = (run(relational_scan_triton, *given, torch.float32, device, **chosen) for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_nothing_to_do(shape, device):
    cell, x, memory = cell_and_input("unit", steps=shape[1], batch=shape[0])
    cell, memory = cell.to(device), memory.to(device).requires_grad_()
    outputs, final, _ = relational_scan_triton(x.to(device), memory, cell.scan_parameters())
    assert outputs.shape == (*shape, 2, 20)
    (final.sum() + outputs.sum()).backward()
    assert torch.equal(memory.grad, torch.ones_like(memory))


def test_a_single_step_of_a_single_sequence_without_gradients(device):
    cell, x, memory = (t.to(device) for t in cell_and_input("unit", steps=1, batch=1))
    with torch.no_grad():
        results = [f(x, memory, cell.scan_parameters()) for f in (relational_scan_triton, relational_scan_reference)]
    for got, expected in zip(results[0][:2], results[1][:2], strict=True):
        assert_as_good_as("result", got.cpu(), expected.cpu(), expected.cpu())


@pytest.mark.parametrize("which", ["outputs", "final"])
def test_one_result_alone_gives_gradients_to_one_leaf_alone(which, device):
    cell, x, memory = (t.to(device) for t in cell_and_input("unit", steps=2, batch=1))
    for p in cell.parameters():
        p.requires_grad_(False)
    leaf = cell.mlp[1].weight.requires_grad_()
    gradients = []
    for scan in (relational_scan_triton, relational_scan_reference):
        outputs, final, _ = scan(x, memory, cell.scan_parameters())
        loss = outputs.square().sum() if which == "outputs" else final.square().sum()
        gradients.append(torch.autograd.grad(loss, leaf)[0].cpu())
    assert_as_good_as("gradient", *gradients, gradients[1])


def test_a_parameter_of_another_size_is_named(device):
    cell, x, memory = (t.to(device) for t in cell_and_input("unit, one slot", steps=2, batch=1))
    cell.mlp[1].weight = torch.nn.Parameter(cell.mlp[1].weight[:-1].detach().clone())
    with pytest.raises(InputError, match=r"mlp\[1\] has weight"):
        relational_scan_triton(x, memory, cell.scan_parameters())


def test_a_gradient_of_a_gradient_is_refused(device):
    cell, x, memory = (t.to(device) for t in cell_and_input("unit, one slot", steps=1, batch=1))
    x.requires_grad_()
    outputs, *_ = relational_scan_triton(x, memory, cell.scan_parameters())
    with pytest.raises(InputError) as error:
        torch.autograd.grad(outputs.square().sum(), x, create_graph=True)
    assert str(error.value) == (
        "relational_scan: backend 'triton' has no gradients of gradients\n"
        "  hint      backend='reference' has gradients of gradients."
    )


def test_batched_gradients_are_refused(device):
    cell, x, memory = (t.to(device) for t in cell_and_input("unit, one slot", steps=1, batch=1))
    x.requires_grad_()
    outputs, *_ = relational_scan_triton(x, memory, cell.scan_parameters())

    def pull(cotangent):
        return torch.autograd.grad(outputs, x, cotangent, retain_graph=True)

    cotangents = torch.randn(3, *outputs.shape, dtype=outputs.dtype, device=device)
    for batched in (
        lambda: torch.func.vmap(pull)(cotangents),
        lambda: torch.autograd.grad(outputs, x, cotangents, is_grads_batched=True),
    ):
        with pytest.raises(InputError, match="backend 'triton' has no batched gradients"):
            batched()


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        (dict(num_blocks=2), "it takes one attention block per step, not 2"),
        (dict(mem_slots=65), "it takes at most 64 slots, not 65"),
        (dict(input_rows=65), "it takes at most 64 input rows, not 65"),
        (dict(key_size=129), "it takes keys and values of at most 128 numbers, not 129"),
        (dict(head_size=129), "it takes keys and values of at most 128 numbers, not 129"),
        (dict(head_size=103, num_heads=5), "it takes memories at most 512 wide, not 515"),
    ],
)
def test_sizes_that_it_does_not_take(sizes, reason, device):
    layer = RelationalMemory(INPUTS, **(dict(mem_slots=3, head_size=4) | sizes), backend="triton", device=device)
    with pytest.raises(InputError) as error:
        layer(torch.zeros(2, 3, *([65] if "input_rows" in sizes else []), INPUTS, device=device))
    assert str(error.value) == (
        f"relational_scan: backend 'triton' cannot run here: {reason}\n"
        "  hint      backend='reference' can run here, and so can 'auto'."
    )
    assert layer.to("cpu").backend == "triton"


def test_what_it_does_not_take(device):
    cell, x, memory = (t.to(device) for t in cell_and_input("unit"))
    p = cell.scan_parameters()
    assert unsupported(x, memory, p) is None
    assert unsupported(x, memory, p, input_rows=True) == "it does not compute the attended rows of the input"
    assert unsupported(x.float(), memory, p) == "it needs one dtype throughout, not float32, float64"
    assert unsupported(x.to("meta"), memory, p) == "it runs on an NVIDIA GPU, not on meta"
    half = copy.deepcopy(cell).bfloat16().scan_parameters()
    reason = "its interpreter on the CPU cannot multiply bfloat16 matrices" if device == "cpu" else None
    assert unsupported(x.bfloat16(), memory.bfloat16(), half) == reason
    with torch.autocast(device):
        assert unsupported(x, memory, p) == "it does not follow autocast"
    reasons = []
    torch.func.vmap(lambda row: reasons.append(unsupported(x, memory, p)) or row)(x)
    with torch.autograd.forward_ad.dual_level():
        reasons.append(unsupported(x, memory, p))
    assert reasons == ["it does not work under the transforms of torch.func", "it has no forward-mode derivative"]
    with pytest.raises(InputError) as error:
        relational_scan(x.float(), memory, p, backend="triton")
    assert str(error.value) == (
        "relational_scan: backend 'triton' cannot run here: it needs one dtype throughout, not float32, float64\n"
        "  hint      backend='reference' can run here, and so can 'auto'."
    )
    with pytest.raises(InputError, match="activations is not a known choice"):
        relational_scan(x, memory, p, backend="triton", activations="keep")
    with pytest.raises(InputError, match="it does not compute the attended rows of the input"):
        relational_scan(x, memory, p, input_rows=True, backend="triton")


def test_on_the_cpu_it_needs_the_interpreter(monkeypatch):
    cell, x, memory = cell_and_input("unit")
    monkeypatch.setattr(module, "interpreted", lambda: False)
    assert unsupported(x, memory, cell.scan_parameters()) == "it runs on an NVIDIA GPU, not on cpu"
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert unsupported(x, memory, cell.scan_parameters()) == "the package triton is not installed"


@pytest.fixture
def setting():
    """Sets how PyTorch multiplies float32 matrices on a GPU."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    yield partial(setattr, matmul, "fp32_precision")
    matmul.fp32_precision = before


def test_how_exact_products_are_is_said_and_is_pytorchs_own_setting(device, setting):
    cell, x, memory = (t.to(device) for t in cell_and_input("unit"))
    reports = [choose("triton", "store", x, memory, cell.scan_parameters())]
    cell, x, memory = cell.float(), x.float(), memory.float()
    for precision in ("ieee", "tf32"):
        setting(precision)
        reports.append(choose("triton", "recompute", x, memory, cell.scan_parameters()))
    assert [str(report) for report in reports] == [
        f"backend='triton' runs 'triton': it was asked for{products}"
        for products in ("", "; products in ieee", "; products in tf32")
    ]
    assert (choose("auto", "store", x, memory, cell.scan_parameters()).runs == "triton") == (device == "cuda")


def test_a_layer_obeys(device, monkeypatch):
    """Packed lengths, a reset and two layers, through the layer that asks for it."""
    results = []
    for backend in ("reference", "triton"):
        torch.manual_seed(0)
        options = dict(mem_slots=2, head_size=5, num_layers=2, backend=backend, device=device, dtype=torch.float64)
        layer = RelationalMemory(INPUTS, **options)
        x = torch.randn(3, 2, INPUTS, dtype=torch.float64).to(device)
        reset = torch.tensor([[False, True], [False, False], [True, False]], device=device)
        with torch.no_grad():
            results.append(layer(x, lengths=torch.tensor([2, 1, 2], device=device), reset=reset))
        assert layer.backend_report(x).runs == backend
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


def compiled_for_hopper(*arguments):
    """What the compiler says of the kernels, in a process of its own: here they belong to the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(BENCHMARKS / "triton_kernels.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])["rows"]


SMALLEST = "no gates", "bfloat16"


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        pytest.param(*case, marks=[] if case == SMALLEST else [pytest.mark.slow])
        for case in product(
            ["c", "e", "memory gates", "no gates", "chapter"], ["float32", "bfloat16", "float16", "float64"]
        )
    ],
)
def test_it_compiles_for_a_hopper_gpu(shape, dtype):
    rows = compiled_for_hopper("--shapes", shape, "--dtypes", dtype, "--masks")
    assert [row["kernel"] for row in rows] == ["forward_kernel", "backward_kernel"]
    for row in rows:
        assert row["shared_bytes"] <= 227 * 1024
        if dtype != "float64":  # whose tensor cores round no more than other units, and which not every Triton uses
            assert (row["tensor_cores"] != "no") == (dtype in ("bfloat16", "float16"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the script's toy sizes are for the interpreter")
def test_the_script_for_a_gpu_goes_through_its_motions(monkeypatch, capsys, tmp_path):
    script = load(BENCHMARKS / "gpu.py")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--toy", "--out", str(tmp_path)])
    script.main()
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [json.loads(file.read_text(encoding="utf-8")) for file in tmp_path.iterdir()] == [record]
    assert not record["refused_or_wrong"]
    assert not record["left_out_for_time"]
    assert {(row["pass"], row["contender"]) for row in record["rows"]} == set(
        product(script.PASSES, ["relational_rnn:reference", "relational_rnn:triton", script.LSTM, script.GRAPHS])
    )


def test_a_backend_that_is_wrong_is_not_timed(monkeypatch):
    script = load(BENCHMARKS / "gpu.py")
    right = script.build

    def wrong(case, benchmark, name):
        contender = right(case, benchmark, name)
        if name.endswith("reference"):
            return contender
        return replace(contender, run=lambda: [1.001 * tensor for tensor in contender.run()])

    monkeypatch.setattr(script, "build", wrong)
    case = script.Case(name="toy", shape=script.TOY, run="infer")
    found, against = script.judged(case, script.Benchmark(shapes=("c",), sweeps=()))
    assert found == ["relational_rnn:reference"]
    assert against["relational_rnn:triton"].startswith("WRONG: toy, infer: relational_rnn:triton, output")
