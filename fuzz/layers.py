"""Constructors and calls of the layer and of every core, with odd sizes, shapes, dtypes, lengths, resets and states."""

from __future__ import annotations

import inspect
import random
from pathlib import Path
from typing import Any

import torch

from fuzz.engine import Family
from fuzz.mutations import odd_value
from relational_rnn import RelationalMemory
from relational_rnn.nn import (
    DNC,
    GRU,
    LSTM,
    NTM,
    RNN,
    AttentionLSTM,
    FastWeightMemory,
    GatedDeltaNet,
    Transformer,
    UniversalTransformer,
)
from relational_rnn.nn.compat import PortedRelationalMemory
from relational_rnn.nn.core import map_state

INPUTS = 3
# class -> arguments of a small one, and choices for arguments that are words
CORES: dict[type, dict[str, Any]] = {
    RelationalMemory: {"input_size": INPUTS, "mem_slots": 4, "head_size": 2, "num_heads": 3},
    PortedRelationalMemory: {"input_size": INPUTS, "mem_slots": 4, "head_size": 2, "num_heads": 3},
    RNN: {"input_size": INPUTS, "hidden_size": 6},
    GRU: {"input_size": INPUTS, "hidden_size": 6},
    LSTM: {"input_size": INPUTS, "hidden_size": 6},
    AttentionLSTM: {"input_size": INPUTS, "hidden_size": 6},
    Transformer: {"input_size": INPUTS, "model_size": 8, "num_layers": 2, "num_heads": 2, "feedforward_size": 10},
    UniversalTransformer: {"input_size": INPUTS, "model_size": 8, "num_heads": 2, "feedforward_size": 10},
    NTM: {"input_size": INPUTS, "hidden_size": 6, "memory_slots": 5, "word_size": 4},
    DNC: {"input_size": INPUTS, "hidden_size": 6, "memory_slots": 5, "word_size": 4},
    GatedDeltaNet: {"input_size": INPUTS, "model_size": 6, "num_heads": 2, "feedforward_size": 10, "chunk_size": 3},
    FastWeightMemory: {"input_size": INPUTS, "model_size": 12, "num_heads": 4, "key_size": 10, "value_size": 6},
}
KINDS = {kind.__name__: kind for kind in CORES}
WORDS = tuple(
    [
        "unit",
        "memory",
        "competitive",
        "sonnet",
        "chapter",
        "identity",
        "random",
        "learned",
        "zeros",
        "flatten",
        "attention",
        "weighted",
        "input",
        "reference",
        "cpu",
        "torch",
        "auto",
        "triton",
        "store",
        "recompute",
    ]
)
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "bool", "complex64", "uint8")


def sizes_of(kind: type) -> dict[str, Any]:
    """Arguments of a small core, spelled as its constructor spells them."""
    names = list(inspect.signature(kind).parameters)
    known = CORES[kind]
    return dict(zip(names, known.values(), strict=False)) if not set(known) <= set(names) else known


def make_constructor(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(list(CORES))
    arguments, names = dict(sizes_of(kind)), list(inspect.signature(kind).parameters)
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(names)
        arguments[name] = rng.choice((odd_value(rng), odd_value(rng), rng.choice(WORDS), rng.randrange(-1, 9)))
    return {"class": kind.__name__, "arguments": arguments}


def run_constructor(case: dict[str, Any], folder: Path) -> bool:
    kind = KINDS[case["class"]]
    required = [n for n, p in inspect.signature(kind).parameters.items() if p.default is p.empty]
    if any(name not in case["arguments"] for name in required):
        return False  # while an input is made smaller: a call that Python itself refuses
    core = kind(**case["arguments"])
    shape = [2, 3, core.input_size]
    if case["arguments"].get("input_rows") is not None:
        shape.insert(2, case["arguments"]["input_rows"])
    core.eval()(torch.zeros(shape, dtype=next(core.parameters()).dtype))
    return True


def odd_tensor(rng: random.Random, shape: list[int], dtype: str = "float32") -> dict[str, Any]:
    """What a tensor is made from: now and then of another shape, dtype, layout or content."""
    shape = list(shape)
    if rng.random() < 0.25 and shape:
        at = rng.randrange(len(shape))
        shape[at : at + 1] = rng.choice(([], [0], [1], [shape[at] + 1], [shape[at], 2]))
    kind = rng.choice(("plain",) * 6 + ("strided", "expanded", "nan", "huge", "sparse", "meta", "conjugate", "none"))
    return {"shape": shape, "dtype": dtype if rng.random() < 0.85 else rng.choice(DTYPES), "kind": kind}


def tensor(spec: Any, low: int = 0, high: int = 0) -> Any:
    """The tensor of a specification; whole numbers from `low` to `high` where these are given."""
    if not isinstance(spec, dict) or {"shape", "dtype", "kind"} - spec.keys() or spec["kind"] == "none":
        return None
    shape, kind = [n for n in spec["shape"] if isinstance(n, int)], spec["kind"]
    dtype = getattr(torch, spec["dtype"], torch.float32)
    made = torch.randint(low, high + 1, shape) if high else torch.randn(shape)
    made = made.to(dtype)
    if kind == "strided":
        return made.repeat_interleave(2, -1)[..., ::2] if made.dim() else made
    if kind == "expanded" and made.dim():
        return made[:1].expand(made.shape) if made.shape[0] else made
    if kind in ("nan", "huge") and made.is_floating_point():
        return torch.full_like(made, float("nan") if kind == "nan" else torch.finfo(dtype).max)
    if kind == "sparse":
        return made.to_sparse()
    if kind == "meta":
        return made.to("meta")
    if kind == "conjugate" and dtype in (torch.float32, torch.float64):
        return torch.complex(made, made).conj().imag
    return made


def make_call(rng: random.Random) -> dict[str, Any]:
    batch, steps = rng.choice((1, 2, 5)), rng.choice((0, 1, 3, 7))
    case: dict[str, Any] = {
        "class": rng.choice(list(KINDS)),
        "method": rng.choice(("forward", "forward", "step", "initial_state", "snapshots")),
        "x": odd_tensor(rng, [batch, steps, INPUTS]),
        "batch": rng.choice((batch, batch, batch, 0, -1, 2**40, "2", None, True, 1.5)),
        "state of": rng.choice((None, batch, batch, batch + 1)),
    }
    if rng.random() < 0.3:
        case["lengths"] = odd_tensor(rng, [batch], "int64") | {"high": rng.choice((steps, steps + 1, -1))}
    if rng.random() < 0.3:
        case["reset"] = odd_tensor(rng, [batch, steps], "bool")
    if rng.random() < 0.1:
        case["state"] = odd_tensor(rng, [batch, 4, 6])
    if rng.random() < 0.1:
        case[rng.choice(("lengths", "reset", "state", "x"))] = rng.choice(([5, 3], "x", 3, [[True]], (), {}))
    case["grad"], case["options"] = rng.random() < 0.3, {}
    if case["class"] == "RelationalMemory" and rng.random() < 0.7:
        options = {
            "backend": ("reference", "cpu", "auto"), "gate_style": ("unit", "memory", "competitive", None),
            "num_layers": (1, 2), "read_head": ("flatten", "attention", "weighted", "input"),
            "initial_memory": ("identity", "learned", "random"), "check_finite": (True, False),
            "batch_first": (True, False), "activations": ("store", "recompute"),
        }  # fmt: skip
        case["options"] = {name: rng.choice(values) for name, values in options.items() if rng.random() < 0.3}
    return case


def given(case: dict[str, Any], name: str, high: int = 0) -> Any:
    """An argument: a tensor from its specification, or the odd thing itself."""
    spec = case.get(name)
    return tensor(spec, 0, high) if isinstance(spec, dict) and spec else spec


def run_call(case: dict[str, Any], folder: Path) -> bool:
    kind = KINDS[case["class"]]
    core = kind(**sizes_of(kind), **case.get("options", {}))
    x, state = given(case, "x"), given(case, "state")
    if isinstance(case.get("state of"), int) and state is None:
        state = core.initial_state(case["state of"])
    with torch.set_grad_enabled(bool(case.get("grad"))):
        if case.get("method") == "initial_state":
            core.initial_state(case.get("batch"))
        elif case.get("method") == "step":
            core.step(x[:, 0] if isinstance(x, torch.Tensor) and x.dim() > 1 and x.shape[1] else x, state)
        elif case.get("method") == "snapshots":
            core.snapshots(x, given(case, "lengths", 1), given(case, "lengths", 3))
        else:
            lengths = given(
                case,
                "lengths",
                max(0, (case.get("lengths") or {}).get("high", 0)) if isinstance(case.get("lengths"), dict) else 0,
            )
            y, final = core(x, state, lengths=lengths, reset=given(case, "reset", 1))
            if y.requires_grad and not y.is_meta:
                y.sum().backward()
            map_state(lambda t: t.shape, final) if not isinstance(final, torch.Tensor) else final.shape
    return True


FAMILIES = [
    Family("layers: constructors", 8, make_constructor, run_constructor),
    Family("layers: calls", 12, make_call, run_call),
]
