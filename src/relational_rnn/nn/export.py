"""A core as a graph that runs without this package: `torch.export` and ONNX, one step or a whole sequence.

The state is an input and an output of the graph. A sequence is one loop whose body is the step (`Scan` in ONNX), so the
graph is as small for a thousand steps as for one.

    graph      inputs                                            outputs
    step       x [B, I], state                                   y [B, O], next_state
    sequence   x [B, T, I], state, lengths [B], reset [B, T]     y [B, T, O], next_state

`lengths` and `reset` are inputs only when asked for. A state of several tensors takes one input and one output each,
`state_<name>` and `next_state_<name>`. Batch and time may have any size of at least 1 when the graph runs.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from relational_rnn._check import InputError, describe, need_extra
from relational_rnn._files import write_whole
from relational_rnn.nn._stateful import sequence_of_any_length
from relational_rnn.nn.core import Core, state_like, tensors_of
from relational_rnn.nn.relational_memory import RelationalMemory

BATCH, TIME, STORED = "batch", "time", "stored"
EXAMPLE = {BATCH: 3, TIME: 4, STORED: 2}  # sizes while tracing; not 0 or 1, which would be taken for fixed


def export_step(core: Core, path: str | Path | None = None) -> ExportedProgram:
    """Export one step of `core` as a `torch.export` program.

    The graph holds a copy of the weights, with dropout off; `program.module()(x, *state)` gives `(y, *next_state)`.
    With a `path` it is written to this file as well (".pt2", for `torch.export.load`).

    Example:
        >>> from relational_rnn import RelationalMemory
        >>> layer = RelationalMemory(input_size=5, mem_slots=3, head_size=4)
        >>> program = export_step(layer)
        >>> y, memory = program.module()(torch.zeros(7, 5), layer.initial_state(7))
        >>> y.shape, memory.shape
        (torch.Size([7, 12]), torch.Size([7, 3, 4]))
    """
    return _saved(_program(_Graph(core, sequence=False)), path)


def export_sequence(
    core: Core, path: str | Path | None = None, *, lengths: bool = False, reset: bool = False
) -> ExportedProgram:
    """Export a sequence of any length as a `torch.export` program; see `export_step`.

    `lengths` and `reset` say whether the graph takes these inputs: `program.module()(x, *state)`, with them at the end
    when asked for, gives `(y, *next_state)`.
    """
    return _saved(_program(_Graph(core, sequence=True, lengths=lengths, reset=reset)), path)


def export_onnx(
    core: Core, path: str | Path, *, sequence: bool = False, lengths: bool = False, reset: bool = False
) -> None:
    """Write one step, or a whole sequence, as an ONNX file; needs the extra `export`.

    Args:
        sequence: a whole sequence, not one step.
        lengths: whether the graph of a sequence takes `lengths`.
        reset: whether the graph of a sequence takes `reset`.

    Raises:
        InputError: `lengths` or `reset` without `sequence`.
        MissingExtraError: the extra is not installed.

    Example:
        >>> import pathlib, tempfile
        >>> from relational_rnn.nn.gru import GRU
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_onnx(GRU(3, 4), pathlib.Path(folder) / "gru.onnx")
        ...     [path.name for path in pathlib.Path(folder).iterdir()]
        ['gru.onnx']
    """
    for package in ("onnxscript", "onnx"):
        need_extra(package, "export", "export_onnx")
    if not sequence and (lengths or reset):
        name = "lengths" if lengths else "reset"
        raise InputError(describe("export_onnx", f"one step has no {name}", hint="pass sequence=True."))
    graph = _Graph(core, sequence=sequence, lengths=lengths, reset=reset)
    program = _program(graph)
    names = ["state"] if isinstance(graph.start, Tensor) else [f"state_{name}" for name in graph.start]
    inputs, outputs = ["x", *names, *graph.extra], ["y", *(f"next_{name}" for name in names)]
    with _quiet():
        onnx = torch.onnx.export(program, input_names=inputs, output_names=outputs, verbose=False)
    assert onnx is not None
    model = onnx.model_proto
    _name_axes(model.graph, graph)
    write_whole(Path(path), model.SerializeToString())


class _Graph(nn.Module):
    """A core as a function of tensors alone, with example inputs and the names of their axes."""

    def __init__(self, core: Core, *, sequence: bool, lengths: bool = False, reset: bool = False) -> None:
        super().__init__()
        self.core = copy.deepcopy(core).eval().requires_grad_(False)
        self.sequence = sequence
        self.extra = [name for name, wanted in (("lengths", lengths), ("reset", reset)) if wanted]
        self.time_axis = 1 if getattr(core, "batch_first", True) else 0
        # The axes are read off states of different batch sizes and ages, so that a core need not declare them.
        with torch.no_grad():
            self.start = self.core.initial_state(2)
            start, larger = tensors_of(self.start), tensors_of(self.core.initial_state(3))
            older = tensors_of(self.core.step(self._example_step(2), self.start)[1])
        self.batch_axis = [_changed(a, b)[0] for a, b in zip(start, larger, strict=True)]
        self.stored_axis = [_changed(a, b)[:1] for a, b in zip(start, older, strict=True)]  # none, or one

    def forward(self, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        count = len(self.batch_axis)
        state, extra = state_like(self.start, rest[:count]), dict(zip(self.extra, rest[count:], strict=True))
        if not self.sequence:
            y, after = self.core.step(x, state)
        elif isinstance(self.core, RelationalMemory):  # whose own graph of a sequence asks for an operator from here
            lengths, reset = extra.get("lengths"), extra.get("reset")
            reset = None if reset is None else reset.movedim(self.time_axis, 1)
            x = x.movedim(self.time_axis, 1)
            y, after = sequence_of_any_length(self.core, x, state, lengths, reset, batch_axis=self.batch_axis[0])
            y = y.movedim(1, self.time_axis)
        else:
            y, after = self.core(x, state, **extra)
        return y, *tensors_of(after)

    def examples(self) -> list[tuple[Tensor, dict[int, str]]]:
        """Every input with the names of its axes of free size."""
        x, axes = self._example_step(EXAMPLE[BATCH]), {0: BATCH}
        state = self.core.initial_state(EXAMPLE[BATCH])
        for _ in range(EXAMPLE[STORED] if any(self.stored_axis) else 0):
            state = self.core.step(x, state)[1]
        states = [
            (tensor.contiguous(), {batch: BATCH, **dict.fromkeys(stored, STORED)})
            for tensor, batch, stored in zip(tensors_of(state), self.batch_axis, self.stored_axis, strict=True)
        ]
        if self.sequence:
            x, axes = (
                torch.stack([x] * EXAMPLE[TIME], self.time_axis),
                {1 - self.time_axis: BATCH, self.time_axis: TIME},
            )
        lengths = torch.full((EXAMPLE[BATCH],), EXAMPLE[TIME], device=x.device)
        extra = {"lengths": (lengths, {0: BATCH}), "reset": (x.new_zeros(x.shape[:2], dtype=torch.bool), axes)}
        return [(x, axes), *states, *(extra[name] for name in self.extra)]

    def _example_step(self, batch: int) -> Tensor:
        rows = getattr(self.core, "input_rows", None)
        shape = (batch, self.core.input_size) if rows is None else (batch, rows, self.core.input_size)
        return next(self.core.parameters()).new_zeros(shape)


def _changed(a: Tensor, b: Tensor) -> list[int]:
    """The axes on which the sizes differ."""
    return [axis for axis, (n, m) in enumerate(zip(a.shape, b.shape, strict=True)) if n != m]


def _program(graph: _Graph) -> ExportedProgram:
    with torch.no_grad(), _quiet():
        examples = graph.examples()
        free = {name: Dim(name, min=1) for name in (BATCH, TIME)} | {STORED: Dim(STORED)}
        axes = [{axis: free[name] for axis, name in axes.items()} for _, axes in examples]
        inputs = tuple(tensor for tensor, _ in examples)
        return torch.export.export(graph, inputs, dynamic_shapes=(axes[0], tuple(axes[1:])), strict=False)


def _saved(program: ExportedProgram, path: str | Path | None) -> ExportedProgram:
    if path is not None:
        content = io.BytesIO()
        torch.export.save(program, content)
        write_whole(Path(path), content.getvalue())
    return program


def _name_axes(onnx_graph: Any, graph: _Graph) -> None:
    """Call the free axes batch, time and stored, where the exporter has numbered symbols."""
    names = {}
    for value, (_, axes) in zip(onnx_graph.input, graph.examples(), strict=True):
        for axis, name in axes.items():
            names[value.type.tensor_type.shape.dim[axis].dim_param] = name
    symbol = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    graphs = [onnx_graph]
    for g in graphs:
        graphs.extend(attribute.g for node in g.node for attribute in node.attribute if attribute.HasField("g"))
        for value in (*g.input, *g.output, *g.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.HasField("dim_param"):
                    dim.dim_param = symbol.sub(lambda match: names[match[0]], dim.dim_param)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters: a deprecation inside PyTorch, and packages they look for."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
