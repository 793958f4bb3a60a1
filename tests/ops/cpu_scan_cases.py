"""Cells, inputs and the judge for the tests of the CPU scan."""

from __future__ import annotations

import copy
import math
from functools import cache, partial

import torch

from relational_rnn.nn.relational_memory_cell import RelationalMemoryCell
from relational_rnn.ops.relational_scan import relational_scan, relational_scan_reference
from relational_rnn.testing import SLACK, ULPS, assert_as_good_as

relational_scan_cpu = partial(relational_scan, backend="cpu")
B, T, INPUTS = 5, 7, 4
# Every size differs on every axis.
SIZES = {
    "unit": dict(mem_slots=3, head_size=9, num_heads=4),
    "unit, wide": dict(mem_slots=6, head_size=11, num_heads=3, key_size=13),
    "unit, 3 blocks": dict(mem_slots=3, head_size=8, num_heads=3, num_blocks=3, key_size=5),
    "unit, 2 blocks, wide": dict(mem_slots=6, head_size=11, num_heads=2, num_blocks=2, key_size=12, input_rows=2),
    "unit, one slot": dict(mem_slots=1, head_size=13, num_heads=2, key_size=6, attention_mlp_layers=3),
    "unit, mixed forms": dict(mem_slots=5, head_size=12, num_heads=2, num_blocks=2, key_size=13),
    "memory, matrix": dict(mem_slots=4, head_size=10, num_heads=3, gate_style="memory", input_rows=2),
    "memory, biases": dict(
        mem_slots=2, head_size=23, num_heads=1, gate_style="memory", forget_bias=-0.5, input_bias=2.0
    ),
    "no gates": dict(mem_slots=2, head_size=11, num_heads=3, gate_style=None, attention_mlp_layers=1),
    "no gates, 2 blocks": dict(mem_slots=3, head_size=12, num_heads=2, gate_style=None, num_blocks=2, input_rows=2),
    "chapter": dict(mem_slots=3, head_size=11, num_heads=4, key_size=7, gate_style=None, formulation="chapter"),
    "chapter, wide": dict(mem_slots=6, head_size=11, num_heads=2, gate_style=None, formulation="chapter"),
    "chapter, 2 blocks, matrix": dict(
        mem_slots=3, head_size=9, num_heads=4, gate_style=None, formulation="chapter", num_blocks=2, input_rows=2
    ),
    "competitive": dict(mem_slots=3, head_size=9, num_heads=2, key_size=8, gate_style="competitive", input_bias=3.0),
    "competitive, 2 blocks, matrix": dict(
        mem_slots=6, head_size=11, num_heads=2, num_blocks=2, input_rows=3, gate_style="competitive"
    ),
}


def cell_and_input(sizes, rng, steps=T, batch=B):
    """A cell with biases and norms away from 0 and 1, so that none can be left out; small weights keep it tame.

    All values are float32 numbers, so that the same problem can be given in float32.
    """
    cell = RelationalMemoryCell(INPUTS, **sizes, dtype=torch.float64)
    with torch.no_grad():
        for p in cell.parameters():
            p.copy_(
                torch.randn(p.shape, generator=rng, dtype=p.dtype) * (0.5 * p.shape[-1] ** -0.5 if p.dim() > 1 else 0.3)
            )
        for name, p in cell.named_parameters():
            if "norm.weight" in name:
                p.add_(1)
    x = torch.randn(batch, steps, cell.input_rows or 1, INPUTS, generator=rng)
    memory = torch.randn(batch, cell.mem_slots, cell.width, generator=rng)
    return cell.float().double(), x.double(), memory.double()


def options_for(option, cell, x, rng, per_sequence=False):
    """Keyword arguments of a scan; lengths put NaN past every length, which is never looked at."""
    chosen = {}
    batch, steps = x.shape[:2]
    if option in ("lengths", "both"):
        chosen["lengths"] = torch.tensor([7, 3, 0, 6, 1])[:batch].clamp(max=steps)
        for row, length in enumerate(chosen["lengths"]):
            x[row, length:] = math.nan
    if option in ("reset", "both"):
        chosen["reset"] = torch.rand(batch, steps, generator=rng) < 0.3
        shape = (batch,) * per_sequence + (cell.mem_slots, cell.width)
        chosen["initial"] = torch.randn(shape, generator=rng).to(x.dtype)
    return chosen


def run(scan, cell, x, memory, dtype=torch.float64, input_rows=False, **options):
    """Names and values of everything a scan returns, and of all gradients, for random signed cotangents."""
    cell = copy.deepcopy(cell).to(dtype)
    rng = torch.Generator().manual_seed(1)
    options = {k: v.to(dtype) if k == "initial" else v for k, v in options.items()}
    leaves = {"x": x, "memory": memory} | ({"initial": options["initial"]} if "initial" in options else {})
    leaves = {name: leaf.to(dtype, copy=True).requires_grad_() for name, leaf in leaves.items()}
    if "initial" in options:
        options["initial"] = leaves["initial"]
    scanned = scan(leaves["x"], leaves["memory"], cell.scan_parameters(), **options)._asdict()
    results = {name: y for name, y in scanned.items() if name != "input_rows" or input_rows}
    cotangents = [torch.randn(y.shape, generator=rng).to(dtype) for y in results.values()]
    wanted = leaves | dict(cell.named_parameters())
    found = torch.autograd.grad(list(results.values()), list(wanted.values()), cotangents)
    result = {name: y.detach() for name, y in results.items()}
    return result | {f"gradient of {name}": g for name, g in zip(wanted, found, strict=True)}


def by_definition(*given, **options):
    """`run` of the definition by one thread, however many the kernels get: at these sizes others only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(relational_scan_reference, *given, **options)
    finally:
        torch.set_num_threads(threads)


@cache
def problem(name, option, per_sequence=False, seed=20180605, input_rows=False):
    """A cell with its input, the options, and what the definition makes of them in float64."""
    rng = torch.Generator().manual_seed(seed)
    given = cell, x, _ = cell_and_input(SIZES[name], rng)
    chosen = options_for(option, cell, x, rng, per_sequence)
    return given, chosen, by_definition(*given, input_rows=input_rows, **chosen)


@cache
def single(name, option, seed):
    """What the definition makes of a problem in float32, whatever kernels are judged by it."""
    given, chosen, _ = problem(name, option, seed=seed)
    return by_definition(*given, torch.float32, **chosen)


def check_exact(name, option, per_sequence=False, input_rows=False, **arguments):
    given, chosen, oracle = problem(name, option, per_sequence, input_rows=input_rows)
    scan = partial(relational_scan_cpu, input_rows=input_rows, **arguments)
    got = run(scan, *given, input_rows=input_rows, **chosen)
    for what, value in got.items():
        assert_as_good_as(what, value, oracle[what], oracle[what])


def check_single(name, option, **arguments):
    """The rule of `assert_as_good_as` for the root mean square over eight problems of their worst errors.

    In one problem, or in the worst of several, rounding may by luck be five times as kind to the products of one
    machine's PyTorch as to ours; a mistake is seen in the mean as well.
    """
    scan = partial(relational_scan_cpu, **arguments)
    squares: dict[str, list[float]] = {}
    for seed in range(8):
        given, chosen, oracle = problem(name, option, seed=seed)
        results = run(scan, *given, torch.float32, **chosen), single(name, option, seed)
        for place, found in enumerate(results):
            for what, value in found.items():
                assert value.dtype == torch.float32, what
                assert value.shape == oracle[what].shape, what
                error = (value.double() - oracle[what]).abs().max() / oracle[what].abs().max()
                squares.setdefault(what, [0.0, 0.0])[place] += error.item() ** 2 / 8
    for what, (got, peer) in squares.items():
        limit = SLACK * math.sqrt(peer) + ULPS * torch.finfo(torch.float32).eps
        assert math.sqrt(got) <= limit, f"{what}: off by {math.sqrt(got):.2e} of the largest value, not {limit:.2e}"
