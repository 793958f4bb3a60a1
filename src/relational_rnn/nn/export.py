"""A core as a graph that runs without this package: `torch.export` and ONNX, one step or a whole sequence.

The state is an input and an output of the graph. A sequence is one loop whose body is the step (`Scan` in ONNX), so the
graph is as small for a thousand steps as for one.

    graph      inputs                                            outputs
    step       x [B, I], state                                   y [B, O], next_state
    sequence   x [B, T, I], state, lengths [B], reset [B, T]     y [B, T, O], next_state

`lengths` and `reset` are there when they were asked for. A state of several tensors takes one input and one output
each, `state_<name>` and `next_state_<name>`. Batch and time may have any size of at least 1 when the graph runs.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from relational_rnn._check import InputError, describe, need_extra
from relational_rnn._files import write_whole
from relational_rnn.nn._exported import Tensors, loop
from relational_rnn.nn.core import Core, State
from relational_rnn.nn.relational_memory import RelationalMemory
from relational_rnn.ops.relational_scan.pieces import valid_steps

BATCH, TIME, STORED = "batch", "time", "stored"
EXAMPLE = {BATCH: 3, TIME: 4, STORED: 2}  # sizes while tracing; not 0 or 1, which would be taken for fixed


def export_step(core: Core, path: str | Path | None = None) -> ExportedProgram:
    """One step of `core` as a `torch.export` program.

    Args:
        core: any core; the graph holds a copy of its weights, with dropout off.
        path: where to write the program as well (".pt2", for `torch.export.load`), or None.

    Returns:
        the program; `program.module()(x, *state)` gives `(y, *next_state)`.

    Example:
        >>> from relational_rnn import RelationalMemory
        >>> layer = RelationalMemory(input_size=5, mem_slots=3, head_size=4)
        >>> program = export_step(layer)
        >>> y, memory = program.module()(torch.zeros(7, 5), layer.initial_state(7))
        >>> y.shape, memory.shape
        (torch.Size([7, 12]), torch.Size([7, 3, 4]))
    """
    return _saved(_program(_Step(_frozen(core)), "export_step"), path)


def export_sequence(
    core: Core, path: str | Path | None = None, *, lengths: bool = False, reset: bool = False
) -> ExportedProgram:
    """A whole sequence of any length as a `torch.export` program: one loop over the step.

    Args:
        core: any core.
        path: where to write the program as well, or None.
        lengths: whether the graph takes the input `lengths`.
        reset: whether the graph takes the input `reset`.

    Returns:
        the program; `program.module()(x, *state)`, with `lengths` and `reset` behind when asked for, gives
        `(y, *next_state)`.
    """
    return _saved(_program(_sequence(core, lengths, reset), "export_sequence"), path)


def export_onnx(
    core: Core, path: str | Path, *, sequence: bool = False, lengths: bool = False, reset: bool = False
) -> None:
    """One step, or a whole sequence, as an ONNX file; needs the extra `export`.

    Args:
        core: any core.
        path: the file to write.
        sequence: a whole sequence, not one step.
        lengths: whether the graph of a sequence takes the input `lengths`.
        reset: whether the graph of a sequence takes the input `reset`.

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
    graph = _sequence(core, lengths, reset) if sequence else _Step(_frozen(core))
    program = _program(graph, "export_onnx")
    with _quiet():
        onnx = torch.onnx.export(program, input_names=graph.inputs, output_names=graph.outputs, verbose=False)
    assert onnx is not None
    model = onnx.model_proto
    _name_axes(model.graph, graph)
    write_whole(Path(path), model.SerializeToString())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """The tensors of a core's state: their names and what their axes are."""

    names: tuple[str, ...] | None
    """Names of a dict's tensors; None for a state that is one tensor."""
    batch_axis: tuple[int, ...]
    """Of each tensor, the axis of the batch."""
    stored_axis: tuple[int | None, ...]
    """Of each tensor, the axis that grows by one with every step, or None."""

    def flat(self, state: State) -> tuple[Tensor, ...]:
        if self.names is None:
            assert isinstance(state, Tensor)
            return (state,)
        assert isinstance(state, dict)
        return tuple(state[name] for name in self.names)

    def state(self, tensors: tuple[Tensor, ...]) -> State:
        return tensors[0] if self.names is None else dict(zip(self.names, tensors, strict=True))

    @property
    def grows(self) -> bool:
        return any(axis is not None for axis in self.stored_axis)


def _layout(core: Core) -> _Layout:
    """Read off states of different batch sizes and ages, so that a core need not declare it."""
    two, three = core.initial_state(2), core.initial_state(3)
    names = None if isinstance(two, Tensor) else tuple(two)
    plain = _Layout(names=names, batch_axis=(), stored_axis=())
    aged = plain.flat(core.step(_example_step(core, 2), two)[1])

    def changed(a: Tensor, b: Tensor) -> list[int]:
        return [axis for axis, (n, m) in enumerate(zip(a.shape, b.shape, strict=True)) if n != m]

    pairs = zip(plain.flat(two), plain.flat(three), strict=True)
    return _Layout(
        names=names,
        batch_axis=tuple(changed(a, b)[0] for a, b in pairs),
        stored_axis=tuple(next(iter(changed(a, b)), None) for a, b in zip(plain.flat(two), aged, strict=True)),
    )


def _example_step(core: Core, batch: int) -> Tensor:
    like = next(core.parameters())
    rows = getattr(core, "input_rows", None)
    shape = (batch, core.input_size) if rows is None else (batch, rows, core.input_size)
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


def _frozen(core: Core) -> Core:
    return copy.deepcopy(core).eval().requires_grad_(False)


class _Graph(nn.Module):
    """A core as a function of tensors alone, with example inputs and the names of their axes."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core
        with torch.no_grad():
            self.layout = _layout(core)

    @property
    def inputs(self) -> list[str]:
        return ["x", *self.state_names]

    @property
    def outputs(self) -> list[str]:
        return ["y", *(f"next_{name}" for name in self.state_names)]

    @property
    def state_names(self) -> list[str]:
        return ["state"] if self.layout.names is None else [f"state_{name}" for name in self.layout.names]

    def examples(self) -> list[tuple[Tensor, dict[int, str]]]:
        """Every input with what its axes of free size are."""
        state = self.core.initial_state(EXAMPLE[BATCH])
        for _ in range(EXAMPLE[STORED] if self.layout.grows else 0):
            state = self.core.step(_example_step(self.core, EXAMPLE[BATCH]), state)[1]
        tensors = zip(self.layout.flat(state), self.layout.batch_axis, self.layout.stored_axis, strict=True)
        return [
            (tensor.contiguous(), {batch: BATCH, **({} if stored is None else {stored: STORED})})
            for tensor, batch, stored in tensors
        ]


class _Step(_Graph):
    def forward(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        y, state = self.core.step(x, self.layout.state(tensors))
        return y, *self.layout.flat(state)

    def examples(self) -> list[tuple[Tensor, dict[int, str]]]:
        return [(_example_step(self.core, EXAMPLE[BATCH]), {0: BATCH}), *super().examples()]


class _Sequence(_Graph):
    def __init__(self, core: Core, lengths: bool, reset: bool) -> None:
        super().__init__(core)
        self.extra = [name for name, wanted in (("lengths", lengths), ("reset", reset)) if wanted]
        self.time_axis = 1 if getattr(core, "batch_first", True) else 0

    @property
    def inputs(self) -> list[str]:
        return [*super().inputs, *self.extra]

    def examples(self) -> list[tuple[Tensor, dict[int, str]]]:
        x = torch.stack([_example_step(self.core, EXAMPLE[BATCH])] * EXAMPLE[TIME], self.time_axis)
        axes = {1 - self.time_axis: BATCH, self.time_axis: TIME}
        lengths = torch.full((EXAMPLE[BATCH],), EXAMPLE[TIME], device=x.device)
        extra = {"lengths": (lengths, {0: BATCH}), "reset": (x.new_zeros(x.shape[:2], dtype=torch.bool), axes)}
        return [(x, axes), *super().examples(), *(extra[name] for name in self.extra)]

    def split(self, rest: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor | None, Tensor | None]:
        """The inputs after x, as (tensors of the state, lengths, reset)."""
        count = len(self.state_names)
        extra = dict(zip(self.extra, rest[count:], strict=True))
        return rest[:count], extra.get("lengths"), extra.get("reset")


class _Loop(_Sequence):
    """The step as the body of a loop."""

    def forward(self, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        start, lengths, reset = self.split(rest)
        x = x.movedim(self.time_axis, 0)
        steps, initial = {"x": x}, ()
        if lengths is not None:
            steps["happens"] = valid_steps(lengths, x.shape[0]).T
        if reset is not None:
            steps["reset"] = reset.movedim(self.time_axis, 0)
            initial = self.layout.flat(self.core.initial_state(x.shape[1]))
        y, last = loop(self.step, self.pick, start, initial, steps)
        return y.movedim(0, self.time_axis), *last

    def step(self, x_t: Tensor, before: Tensors) -> tuple[Tensor, Tensors]:
        y, state = self.core.step(x_t, self.layout.state(before))
        return y, self.layout.flat(state)

    def pick(self, rows: Tensor, yes: Tensors, no: Tensors) -> Tensors:
        """Row by row of the batch, `yes` where `rows` [B] is true and `no` elsewhere."""
        return tuple(
            torch.where(rows.view(-1, *[1] * (a.dim() - axis - 1)), a, b)
            for a, b, axis in zip(yes, no, self.layout.batch_axis, strict=True)
        )


class _AllSteps(_Sequence):
    """A core that needs no loop: its forward call computes all steps at once."""

    def forward(self, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        start, lengths, reset = self.split(rest)
        y, state = self.core(x, self.layout.state(start), lengths=lengths, reset=reset)
        return y, *self.layout.flat(state)


def _sequence(core: Core, lengths: bool, reset: bool) -> _Sequence:
    # a relational memory's own graph of a sequence asks for the operator of this package
    kind = _Loop if isinstance(core, RelationalMemory) else _AllSteps
    return kind(_frozen(core), lengths, reset)


def _program(graph: _Graph, where: str) -> ExportedProgram:
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
    """Without what the exporters say about themselves: a deprecation inside PyTorch, and packages they look for."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
