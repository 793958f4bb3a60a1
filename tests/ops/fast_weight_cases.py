"""Parameters, inputs and the judge for the tests of the fast-weight scan."""

from __future__ import annotations

import math
from functools import cache

import torch

from relational_rnn.ops.fast_weight_scan import (
    FastWeightParameters,
    FastWeightState,
    Linear,
    Norm,
    Read,
    fast_weight_scan_reference,
)
from relational_rnn.ops.fast_weight_scan.cpu import fast_weight_scan_cpu
from relational_rnn.ops.relational_scan.spec import flatten, refill
from relational_rnn.testing import SLACK, ULPS, assert_as_good_as

B, T = 5, 7
# Every size differs on every axis, and none is a multiple of a vector or of a tile of rows.
SIZES = {
    "two reads": dict(width=13, heads=3, key=5, value=9, reads=2),
    "no carry": dict(width=11, heads=2, key=7, value=5, reads=1, carry=False),
    "no reads": dict(width=7, heads=3, key=4, value=6, reads=0, max_strength=2.0),
    "wide": dict(width=37, heads=2, key=18, value=41, reads=3, max_strength=1.5),
    "wide, no carry": dict(width=70, heads=1, key=35, value=66, reads=2, carry=False),
}
# What a call asks for, and what it is told.
OPTIONS = {
    "all": dict(outputs_wanted=True, states_wanted=True),
    "outputs": dict(outputs_wanted=True, states_wanted=False),
    "states": dict(outputs_wanted=False, states_wanted=True, lengths=True),
    "final": dict(outputs_wanted=False, states_wanted=False, reset="zeros"),
    "reset": dict(outputs_wanted=True, states_wanted=True, reset="given"),
    "both": dict(outputs_wanted=True, states_wanted=True, lengths=True, reset="given"),
}


def draw(rng, width, heads, key, value, reads, carry=True, max_strength=1.0, batch=B, steps=T):
    """(p, state, params, initial) of float32 numbers in float64; norms away from 1 and 0, so that none is left out."""

    def random(*shape, scale=1.0):
        return (scale * torch.randn(shape, generator=rng)).double()

    def linear(out, into):
        return Linear(random(out, into, scale=into**-0.5), random(out, scale=0.3))

    def norm():
        return Norm((1 + 0.3 * torch.randn(width, generator=rng)).double(), random(width, scale=0.3))

    params = FastWeightParameters(
        num_heads=heads,
        max_strength=max_strength,
        recurrent=random(width + heads * key, width, scale=0.5 * width**-0.5) if carry else None,
        mlp_in=linear(width, width),
        mlp_out=linear(width, width),
        write=linear(heads * (key + value + 2), width),
        out=linear(width, heads * value),
        mlp_norm=norm(),
        out_norm=norm(),
        reads=tuple(Read(linear(heads * key, width), linear(width, heads * value), norm()) for _ in range(reads)),
    )

    def state():
        return FastWeightState(random(batch, heads, key, value), random(batch, width) if carry else None)

    return random(batch, steps, width + heads * key), state(), params, state()


def told(option, p, initial, rng):
    """Keyword arguments of a scan; lengths put NaN past every length, which is never looked at."""
    wanted = dict(OPTIONS[option])
    batch, steps = p.shape[:2]
    if wanted.pop("lengths", False):
        wanted["lengths"] = torch.tensor([6, 3, 0, 5, 1] * batch)[:batch].clamp(max=steps)
        for row, length in enumerate(wanted["lengths"]):
            p[row, length:] = math.nan
    reset = wanted.pop("reset", None)
    if reset is not None:
        wanted["reset"] = torch.rand(batch, steps, generator=rng) < 0.3
        wanted["initial"] = initial if reset == "given" else None
    return wanted


def results_of(scan):
    """Names and values of what a scan returns."""
    named = {"outputs": scan.outputs, "states": scan.states, "final": scan.final.fast}
    return {k: v for k, v in (named | {"final carried": scan.final.carried}).items() if v is not None}


def names_of(params: FastWeightParameters):
    """A name for each tensor of `flatten`."""
    names = [] if params.recurrent is None else ["recurrent"]
    modules = ["mlp_in", "mlp_out", "write", "out", "mlp_norm", "out_norm"]
    modules += [f"reads[{j}].{name}" for j in range(len(params.reads)) for name in ("key", "value", "norm")]
    return names + [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]


def run(scan, p, state, params, dtype=torch.float64, seed=1, **options):
    """Names and values of everything a scan returns, and of all gradients, for random signed cotangents."""
    rng = torch.Generator().manual_seed(seed)
    leaves = dict(zip(names_of(params), flatten(params), strict=True)) | {"p": p, "state": state.fast}
    initial = options.get("initial")
    leaves |= {"carried": state.carried} if state.carried is not None else {}
    leaves |= {} if initial is None else {"initial": initial.fast}
    leaves |= {} if initial is None or initial.carried is None else {"initial carried": initial.carried}
    leaves = {name: leaf.to(dtype, copy=True).requires_grad_() for name, leaf in leaves.items()}
    if initial is not None:
        options["initial"] = FastWeightState(leaves["initial"], leaves.get("initial carried"))
    given = refill(params, iter([leaves[name] for name in names_of(params)]))
    scanned = scan(leaves["p"], FastWeightState(leaves["state"], leaves.get("carried")), given, **options)
    results = results_of(scanned)
    cotangents = [torch.randn(y.shape, generator=rng).to(dtype) for y in results.values()]
    found = torch.autograd.grad(list(results.values()), list(leaves.values()), cotangents, allow_unused=True)
    gradients = {f"gradient of {name}": g for name, g in zip(leaves, found, strict=True)}
    return {name: y.detach() for name, y in results.items()} | gradients


def by_definition(*given, **options):
    """`run` of the definition by one thread, however many the kernels get: at these sizes others only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(fast_weight_scan_reference, *given, **options)
    finally:
        torch.set_num_threads(threads)


@cache
def problem(name, option, seed=20211109, batch=B, steps=T):
    """What is given, what is told, and what the definition makes of them in float64."""
    rng = torch.Generator().manual_seed(seed)
    p, state, params, initial = draw(rng, **SIZES[name], batch=batch, steps=steps)
    options = told(option, p, initial, rng)
    return (p, state, params), options, by_definition(p, state, params, **options)


@cache
def single(name, option, seed):
    """What the definition makes of a problem in float32, whatever kernels are judged by it."""
    given, options, _ = problem(name, option, seed=seed)
    return by_definition(*given, torch.float32, **options)


def check_exact(name, option, **sizes):
    given, options, oracle = problem(name, option, **sizes)
    got = run(fast_weight_scan_cpu, *given, **options)
    assert got.keys() == oracle.keys()
    for what, value in got.items():
        assert (value is None) == (oracle[what] is None), what
        if value is not None:
            assert_as_good_as(what, value, oracle[what], oracle[what])


def check_single(name, option):
    """The rule of `assert_as_good_as` for the root mean square over eight problems of their worst errors."""
    squares: dict[str, list[float]] = {}
    for seed in range(8):
        given, options, oracle = problem(name, option, seed=seed)
        results = run(fast_weight_scan_cpu, *given, torch.float32, **options), single(name, option, seed)
        for place, found in enumerate(results):
            for what, value in found.items():
                if value is None:
                    continue
                assert value.dtype == torch.float32, what
                assert value.shape == oracle[what].shape, what
                error = (value.double() - oracle[what]).abs().max() / oracle[what].abs().max()
                squares.setdefault(what, [0.0, 0.0])[place] += error.item() ** 2 / 8
    for what, (got, peer) in squares.items():
        limit = SLACK * math.sqrt(peer) + ULPS * torch.finfo(torch.float32).eps
        assert math.sqrt(got) <= limit, f"{what}: off by {math.sqrt(got):.2e} of the largest value, not {limit:.2e}"
